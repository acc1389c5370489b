"""VisA: 12 products, as published or as rearranged by its authors' script."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import Published
from fewshot_ad.data.tables import Columns, Row, read_table
from fewshot_ad.data.trees import below

__all__ = ["VisA"]

_SPLIT = "split_csv/1cls.csv"


class VisA(Published, Folder):
    """VisA (Zou et al., ECCV 2022): 12 products, 8659 normal images in train, 2162 in test.

    As published, images lie in ``CLASS/Data/Images/Normal`` and ``Anomaly``, and the table
    ``split_csv/1cls.csv`` says which are train and which test. Rearranged for one class, they are
    in the layout of MVTec AD, with the one kind of defect ``bad``; both are read, and the names of
    images differ. The EXIF orientation of the ``.JPG`` files is ignored; masks hold the codes of
    kinds of defects, small numbers of which all but zero count.

    Raises:
        FewShotError: the root is absent, holds none of the 12 classes, or lacks the table.
    """

    name: str = "visa"
    title: ClassVar[str] = "VisA"
    source: ClassVar[str] = "https://github.com/amazon-science/spot-diff"
    licence: ClassVar[str] = "CC BY 4.0"
    layout: ClassVar[str] = (
        "CLASS/Data/Images/Normal/*.JPG, CLASS/Data/Images/Anomaly/*.JPG, "
        f"CLASS/Data/Masks/Anomaly/*.png and {_SPLIT}; or CLASS/train/good/*, CLASS/test/good/*, "
        "CLASS/test/bad/*, CLASS/ground_truth/bad/*"
    )
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {
        "candle": (900, 200),
        "capsules": (542, 160),
        "cashew": (450, 150),
        "chewinggum": (453, 150),
        "fryum": (450, 150),
        "macaroni1": (900, 200),
        "macaroni2": (900, 200),
        "pcb1": (904, 200),
        "pcb2": (901, 200),
        "pcb3": (905, 201),
        "pcb4": (904, 201),
        "pipe_fryum": (450, 150),
    }
    _rows: tuple[Row, ...] | None = None

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        if _is_raw(folder):
            return self._listed(class_name, "train")
        return super()._train(folder, class_name)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        if _is_raw(folder):
            return self._listed(class_name, "test")
        return super()._test(folder, class_name)

    def _listed(self, class_name: str, split: str) -> Iterator[Sample]:
        if self._rows is None:
            self._rows = self._table()
        for row in self._rows:
            if (row.split, row.sample.class_name) == (split, class_name):
                yield row.sample

    def _table(self) -> tuple[Row, ...]:
        path = self.root / _SPLIT
        if not path.is_file():
            raise FewShotError(
                f"{self.root} holds VisA as published, but not its split {_SPLIT}; "
                f"it is part of the download, so {self.download()}"
            )
        return read_table(path, Columns(class_name="object"))


def _is_raw(folder: Path) -> bool:
    return bool(below(folder, "data/images"))
