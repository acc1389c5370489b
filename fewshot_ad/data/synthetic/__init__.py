"""Embedded dataset: 17 classes of objects and textures, drawn on demand; nothing is stored or downloaded."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.synthetic.objects_metal import bottle_cap, gear, screw, washer, zipper
from fewshot_ad.data.synthetic.objects_plastic import cable, capsule, circuit_board, connector, pill
from fewshot_ad.data.synthetic.recipe import Image, Mask, photograph
from fewshot_ad.data.synthetic.textures import (
    brushed_metal,
    carpet,
    denim,
    grid,
    leather,
    metal_mesh,
    tile,
    wood,
)

__all__ = ["Synthetic"]

EDITION = 1
"""Raised whenever any image changes, so that digests, and what is cached under them, change too."""

_RECIPES = {recipe.name: recipe for recipe in (
    bottle_cap, brushed_metal, cable, capsule, carpet, circuit_board, connector, denim, gear, grid, leather,
    metal_mesh, pill, screw, tile, washer, wood, zipper,
)}  # fmt: skip
_TRAIN, _TEST, _PER_DEFECT = 32, 24, 8


@lru_cache(maxsize=64)
def _drawn(class_name: str, kind: str, index: int) -> tuple[Image, Mask]:
    return photograph(_RECIPES[class_name], kind, index)


class Synthetic:
    """Procedurally drawn classes at 256 x 256; every image is a pure function of (class, split or defect, index)."""

    name = "synthetic"

    def __init__(self, root: Path | None = None) -> None:
        """Needs no folder.

        Raises:
            FewShotError: a root was given.
        """
        if root is not None:
            raise FewShotError(f"dataset synthetic is drawn, not read, but got the root {root}: leave the root out")
        self.classes = tuple(sorted(_RECIPES))

    def train(self, class_name: str) -> tuple[Sample, ...]:
        """32 normal samples."""
        self._check(class_name)
        return tuple(_normal(class_name, "train", index) for index in range(_TRAIN))

    def test(self, class_name: str) -> tuple[Sample, ...]:
        """24 normal samples, then 8 of each defect."""
        self._check(class_name)
        normal = tuple(_normal(class_name, "test", index) for index in range(_TEST))
        defects = sorted(_RECIPES[class_name].defects)
        return normal + tuple(_anomalous(class_name, d, i) for d in defects for i in range(_PER_DEFECT))

    def read_image(self, sample: Sample) -> UInt8[np.ndarray, "256 256 3"]:
        """The image as RGB bytes."""
        return _drawn(*_key(sample))[0].copy()

    def read_mask(self, sample: Sample) -> Bool[np.ndarray, "256 256"]:
        """Where the defect shows; all false for a normal image."""
        return _drawn(*_key(sample))[1].copy()

    def digest(self, sample: Sample) -> str:
        """Digest of what determines the image: the edition of the recipes and the sample's path."""
        return sha256(f"synthetic/{EDITION}/{sample.path}".encode()).hexdigest()

    def _check(self, class_name: str) -> None:
        if class_name not in _RECIPES:
            known = ", ".join(self.classes)
            raise FewShotError(f"dataset synthetic has no class {class_name!r}: choose one of {known}")


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
    """Class, split or defect, and index of a sample."""
    path = Path(sample.path)
    return sample.class_name, sample.defect or path.parts[1], int(path.stem)
