"""The embedded dataset: objects and textures drawn on demand, nothing stored or downloaded."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, UInt8

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.assets import unknown_name
from fewshot_ad.data.synthetic import electrics, hardware, materials, packaging, woven
from fewshot_ad.data.synthetic.recipe import Recipe, photograph

__all__ = ["Synthetic"]

EDITION = 7
"""Raised whenever any image changes, so that digests, and what is cached under them, change too."""

_ROOMS = (electrics, hardware, materials, packaging, woven)
_RECIPES = {
    recipe.name: recipe
    for room in _ROOMS
    for recipe in vars(room).values()
    if isinstance(recipe, Recipe)
}
_TRAIN, _TEST, _EACH_DEFECT = 32, 24, 8


@lru_cache(maxsize=32)
def _drawn(
    class_name: str, kind: str, index: int
) -> tuple[UInt8[np.ndarray, "256 256 3"], Bool[np.ndarray, "256 256"]]:
    return photograph(_RECIPES[class_name], kind, index)


class Synthetic:
    """Drawn classes; an image depends on its class, its split or defect, and its index alone."""

    name = "synthetic"

    def __init__(self, root: Path | None = None) -> None:
        """Needs no folder.

        Raises:
            FewShotError: a root was given.
        """
        if root is not None:
            raise FewShotError(
                f"synthetic is drawn and reads no folder, but was given {str(root)!r}: leave it out"
            )
        self.classes = tuple(sorted(_RECIPES))

    def train(self, class_name: str) -> tuple[Sample, ...]:
        """32 normal samples.

        Raises:
            FewShotError: there is no such class.
        """
        self._recipe(class_name)
        return tuple(_normal(class_name, "train", index) for index in range(_TRAIN))

    def test(self, class_name: str) -> tuple[Sample, ...]:
        """24 normal samples, then 8 of each defect.

        Raises:
            FewShotError: there is no such class.
        """
        defects = self._recipe(class_name).defects
        normal = tuple(_normal(class_name, "test", index) for index in range(_TEST))
        return normal + tuple(
            _anomalous(class_name, defect, index)
            for defect in defects
            for index in range(_EACH_DEFECT)
        )

    def read_image(self, sample: Sample) -> UInt8[np.ndarray, "256 256 3"]:
        """The image as RGB bytes."""
        return _drawn(*_key(sample))[0].copy()

    def read_mask(self, sample: Sample) -> Bool[np.ndarray, "256 256"]:
        """Where the defect shows; all false for a normal image."""
        return _drawn(*_key(sample))[1].copy()

    def digest(self, sample: Sample) -> str:
        """Digest of all that the image depends on: the edition of the recipes, and its path."""
        return sha256(f"synthetic/{EDITION}/{sample.path}".encode()).hexdigest()

    def _recipe(self, class_name: str) -> Recipe:
        if class_name not in _RECIPES:
            raise unknown_name("class", class_name, self.classes)
        return _RECIPES[class_name]


def _normal(class_name: str, split: str, index: int) -> Sample:
    return Sample(f"{class_name}/{split}/good/{index:03d}.png", class_name, is_anomalous=False)


def _anomalous(class_name: str, defect: str, index: int) -> Sample:
    return Sample(
        f"{class_name}/test/{defect}/{index:03d}.png",
        class_name,
        is_anomalous=True,
        mask_path=f"{class_name}/ground_truth/{defect}/{index:03d}_mask.png",
        defect=defect,
    )


def _key(sample: Sample) -> tuple[str, str, int]:
    path = PurePosixPath(sample.path)
    return sample.class_name, sample.defect or path.parts[1], int(path.stem)
