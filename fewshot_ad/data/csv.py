"""Any images that a table lists."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.files import ImageFiles
from fewshot_ad.data.tables import Columns, read_table
from fewshot_ad.data.trees import natural

__all__ = ["CSV"]


class CSV(ImageFiles):
    """Images that a table lists, with the columns image, class, split, label and mask.

    Paths are relative to the folder of the table and may not leave it. ``split`` is ``train`` or
    ``test`` (``val`` is left alone); ``label`` is ``normal`` (or ``good``, ``ok``, ``0``),
    ``anomaly`` (or ``bad``, ``ng``, ``1``) or the name of a kind of defect. ``class`` and ``mask``
    may be missing: then the table is one class of its own name, or has no masks. Anomalous images
    in train are left out, for a support is normal.

    Raises:
        FewShotError: the table is absent or not as described, or names an image that is not there
            or lies outside its folder.
    """

    name: str = "csv"
    layout: ClassVar[str] = "TABLE.csv with the columns image, class, split, label and mask"

    def _checked_root(self, root: Path | str | None) -> Path:
        """The folder of the table."""
        table = Path(root).expanduser() if root is not None else None
        if table is None or not table.is_file():
            what = "needs a table" if table is None else f"needs a table, and {table} is no file"
            raise FewShotError(
                f"dataset {self.name!r} {what}; give it as {self.name}:{self.layout}"
            )
        self._rows = read_table(table, Columns(), default_class=table.stem)
        self.name = f"csv-{table.stem}"  # so that results of two tables can be told apart
        return table.parent

    def _find_classes(self) -> dict[str, Path]:
        names = {row.sample.class_name for row in self._rows}
        return dict.fromkeys(sorted(names, key=natural), self.root)

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        samples = self._split(class_name, "train")
        return (sample for sample in samples if not sample.is_anomalous)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        return self._split(class_name, "test")

    def unused(self, class_name: str) -> tuple[str, ...]:
        """Paths of anomalous images of a class in train: a table says nothing of other files."""
        samples = self._split(class_name, "train")
        return tuple(sample.path for sample in samples if sample.is_anomalous)

    def _split(self, class_name: str, split: str) -> Iterator[Sample]:
        for row in self._rows:
            if (row.split, row.sample.class_name) == (split, class_name):
                for path in filter(None, (row.sample.path, row.sample.mask_path)):
                    if not self.locate(path).is_file():
                        raise FewShotError(
                            f"the table lists {path}, and there is no such file in {self.root}; "
                            "paths are relative to the folder of the table"
                        )
                yield row.sample
