"""KolektorSDD2: one surface, tall images, few and often tiny defects."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.published import NON_COMMERCIAL, SingleClass
from fewshot_ad.data.trees import below, by_stem, images
from fewshot_ad.image_files import read_mask

__all__ = ["KSDD2"]

_MASK = "_gt"


class KSDD2(SingleClass):
    """KolektorSDD2 (Bozic et al., Computers in Industry 2021): one class, ``surface``.

    Every image has a mask beside it, ``00000_GT.png`` of ``00000.png``, all zero for normal ones:
    so the masks say what is anomalous, and all are read when the images are listed. The train split
    has 246 defective images, which are left out, for a support is normal.

    Raises:
        FewShotError: the root is absent or holds no ``train`` and ``test``.
    """

    name: str = "ksdd2"
    title: ClassVar[str] = "KolektorSDD2"
    source: ClassVar[str] = "https://www.vicos.si/resources/kolektorsdd2/"
    licence: ClassVar[str] = NON_COMMERCIAL
    layout: ClassVar[str] = "train/NNNNN.png, train/NNNNN_GT.png, test/NNNNN.png, test/NNNNN_GT.png"
    aside: ClassVar[tuple[str, ...]] = ("train/*", "test/*_gt.*")
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {"surface": (2085, 1004)}
    marks: ClassVar[tuple[str, ...]] = ("train", "test")

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        return (sample for sample in self._split(folder, "train") if not sample.is_anomalous)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        return self._split(folder, "test")

    def _split(self, folder: Path, split: str) -> Iterator[Sample]:
        for place in below(folder, split):
            masks = by_stem(images(place))
            for file in images(place):
                if not file.stem.lower().endswith(_MASK):
                    yield self._sample(file, masks.get(file.stem.lower() + _MASK))

    def _sample(self, file: Path, mask: Path | None) -> Sample:
        (class_name,) = self.known_classes()
        if mask is None:
            raise FewShotError(
                f"{file} has no mask {file.stem}_GT beside it, and only that says whether it is "
                f"anomalous; {self.download()}"
            )
        if read_mask(mask).any():
            return self._anomaly(file, class_name, "defect", mask)
        return self._normal(file, class_name)
