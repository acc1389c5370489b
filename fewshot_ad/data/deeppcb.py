"""DeepPCB: circuit boards as line scans in black and white, with boxes around the defects."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.published import SingleClass

__all__ = ["DeepPCB"]


class DeepPCB(SingleClass):
    """DeepPCB (Tang et al., 2019): one class, ``pcb``, of 1500 pairs of images, 640 pixels a side.

    A pair is a board with defects and the flawless template that it was aligned to. Normal images
    are the templates: those of ``trainval.txt`` are train, those of ``test.txt`` are in test beside
    their boards with defects. Ground truth is boxes, filled to make a mask: pixel metrics come out
    lower than the maps deserve. Most defects were added by hand.

    Raises:
        FewShotError: the root is absent or holds no ``trainval.txt`` and ``test.txt``.
    """

    name: str = "deeppcb"
    title: ClassVar[str] = "DeepPCB"
    source: ClassVar[str] = "https://github.com/tangsanli5201/DeepPCB"
    licence: ClassVar[str] = "for research only"
    layout: ClassVar[str] = (
        "trainval.txt, test.txt, groupG/N/*_temp.jpg, groupG/N/*_test.jpg, groupG/N_not/*.txt"
    )
    aside: ClassVar[tuple[str, ...]] = ("*_test.jpg",)
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {"pcb": (1000, 1000)}
    marks: ClassVar[tuple[str, ...]] = ("trainval.txt", "test.txt")

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        for image, _ in self._pairs("trainval.txt"):
            yield Sample(f"{image}_temp.jpg", class_name, is_anomalous=False)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        for image, boxes in self._pairs("test.txt"):
            yield Sample(f"{image}_temp.jpg", class_name, is_anomalous=False)
            yield Sample(f"{image}_test.jpg", class_name, True, boxes, "defect")

    def _pairs(self, name: str) -> Iterator[tuple[str, str]]:
        """Paths of images, less what tells the two of a pair apart, and of their boxes."""
        path = self.root / name
        for number, line in enumerate(_lines(path), start=1):
            match line.split():
                case [image, boxes]:
                    yield image.removesuffix(".jpg"), boxes
                case []:
                    continue
                case _:
                    raise FewShotError(
                        f"{path}, line {number}: {line!r} names no image and its boxes; "
                        f"{self.download()}"
                    )

    def _marked(self, path: Path, size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Lines of a file of boxes are ``left top right bottom kind``, in pixels."""
        mask = np.zeros(size_hw, dtype=bool)
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            try:
                left, top, right, bottom, _ = (int(field) for field in line.split())
            except ValueError:
                raise FewShotError(
                    f"{path}, line {number}: {line!r} is no box; expected five whole numbers: "
                    "left, top, right, bottom and kind"
                ) from None
            mask[max(top, 0) : bottom, max(left, 0) : right] = True
        return mask


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FewShotError(f"cannot read {path}: {error}; unpack the dataset once more") from error
