"""Magnetic tiles: grey surfaces of odd sizes, with five kinds of defects."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import Sample
from fewshot_ad.data.published import SingleClass
from fewshot_ad.data.trees import below, by_stem, images, natural, subfolders

__all__ = ["MTD"]

_NORMAL, _DEFECT = "mt_free", "mt_"


class MTD(SingleClass):
    """Magnetic tile defects (Huang et al., The Visual Computer 2020): one class, ``magnetic_tile``.

    Defects are the folders ``MT_Blowhole``, ``MT_Break``, ``MT_Crack``, ``MT_Fray`` and
    ``MT_Uneven``; a mask is the PNG beside the JPEG of an image. There is no published split. Here
    the normal images, by the number in their names, give the first four fifths to train: one tile
    was exposed up to six times in a row, so its images have close numbers and stay together. All
    anomalous images are in test.

    Raises:
        FewShotError: the root is absent or holds no folder ``MT_Free``.
    """

    name: str = "mtd"
    title: ClassVar[str] = "the magnetic tile defects"
    source: ClassVar[str] = "https://github.com/abin24/Magnetic-tile-defect-datasets."
    licence: ClassVar[str] = "none stated by its authors; cite their paper"
    layout: ClassVar[str] = "MT_Free/Imgs/*.jpg, MT_DEFECT/Imgs/*.jpg, MT_DEFECT/Imgs/*.png"
    aside: ClassVar[tuple[str, ...]] = ("mt_free/imgs/*.png",)
    known: ClassVar[tuple[str, ...]] = ("magnetic_tile",)
    marks: ClassVar[tuple[str, ...]] = ("MT_Free",)

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        tiles = _tiles(folder)
        return (self._normal(file, class_name) for file in tiles[: _in_train(tiles)])

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        tiles = _tiles(folder)
        for file in tiles[_in_train(tiles) :]:
            yield self._normal(file, class_name)
        for kind in subfolders(folder):
            if kind.name.lower().startswith(_DEFECT) and kind.name.lower() != _NORMAL:
                defect = kind.name[len(_DEFECT) :].lower()
                masks = by_stem(file for file in _beside(kind) if not _is_photograph(file))
                for file in filter(_is_photograph, _beside(kind)):
                    yield self._anomaly(file, class_name, defect, masks.get(file.stem))


def _tiles(folder: Path) -> list[Path]:
    """Normal images in the order they were taken."""
    kinds = below(folder, _NORMAL)
    return sorted((f for kind in kinds for f in _beside(kind) if _is_photograph(f)), key=_taken)


def _in_train(tiles: list[Path]) -> int:
    return len(tiles) * 4 // 5


def _beside(kind: Path) -> list[Path]:
    """Images and masks of one kind."""
    return [file for place in below(kind, "imgs") for file in images(place)]


def _is_photograph(file: Path) -> bool:
    return file.suffix.lower() == ".jpg"


def _taken(file: Path) -> tuple[object, ...]:
    """Sort key: the last number of a name like ``exp1_num_108719``, then the name."""
    numbers = re.findall("[0-9]+", file.stem)
    return int(numbers[-1]) if numbers else 0, natural(file.name)
