"""DAGM 2007: ten drawn textures, each with one kind of drawn defect."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import Sample
from fewshot_ad.data.published import Published
from fewshot_ad.data.trees import below, by_stem, images, mask_of

__all__ = ["DAGM"]


class DAGM(Published):
    """DAGM 2007 (Wieler and Hahn): grey textures ``Class1`` to ``Class10``, 512 pixels a side.

    An image is anomalous when ``Label`` holds a mask of it, ``0576_label.PNG`` of ``0576.PNG``. The
    masks are coarse ellipses: pixel metrics come out lower than the maps deserve. The train split
    has anomalous images too, which are left out, for a support is normal.

    Raises:
        FewShotError: the root is absent or holds none of the 10 classes.
    """

    name: str = "dagm"
    title: ClassVar[str] = "DAGM 2007"
    source: ClassVar[str] = (
        "https://www.kaggle.com/datasets/mhskjelvareid/"
        "dagm-2007-competition-dataset-optical-inspection"
    )
    licence: ClassVar[str] = "see the source"
    layout: ClassVar[str] = (
        "CLASS/Train/NNNN.PNG, CLASS/Train/Label/NNNN_label.PNG, CLASS/Test/NNNN.PNG, "
        "CLASS/Test/Label/NNNN_label.PNG"
    )
    aside: ClassVar[tuple[str, ...]] = ("train/*",)
    known: ClassVar[tuple[str, ...]] = tuple(f"Class{number}" for number in range(1, 11))

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        samples = self._split(folder, "train", class_name)
        return (sample for sample in samples if not sample.is_anomalous)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        return self._split(folder, "test", class_name)

    def _split(self, folder: Path, split: str, class_name: str) -> Iterator[Sample]:
        labels = below(folder, f"{split}/label")
        masks = by_stem(file for place in labels for file in images(place))
        for file in (file for place in below(folder, split) for file in images(place)):
            mask = mask_of(file.stem, masks)
            if mask:
                yield self._anomaly(file, class_name, "defect", mask)
            else:
                yield self._normal(file, class_name)
