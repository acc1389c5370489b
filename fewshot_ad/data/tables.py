"""Datasets whose samples are listed in a table: one image per line."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fewshot_ad.api import FewShotError, Sample

__all__ = ["Columns", "Row", "read_table"]

NORMAL_LABELS = frozenset({"normal", "good", "ok", "0", "false"})
ANOMALOUS_LABELS = frozenset({"anomaly", "anomalous", "abnormal", "bad", "ng", "1", "true"})
SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation"), "")


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns; one that may be absent has a default."""

    image: str = "image"
    class_name: str = "class"
    split: str = "split"
    label: str = "label"
    mask: str = "mask"


@dataclass(frozen=True, slots=True)
class Row:
    """A sample and the split it belongs to: ``train``, ``test``, or nothing for validation."""

    split: str
    sample: Sample


def read_table(path: Path, columns: Columns, default_class: str | None = None) -> tuple[Row, ...]:
    """Every line of a table as a sample; the columns may be parted by commas, semicolons or tabs.

    A label is one of the words for normal, one of those for anomalous, or else the name of a kind
    of defect. An empty field of the mask means that there is none.

    Args:
        path: of the table, in UTF-8.
        columns: what they are called.
        default_class: of every image, if the table has no column of classes.

    Raises:
        FewShotError: the table cannot be read, lacks a column, lists an image twice, or has a line
            that says nothing or something else than expected.
    """
    rows: dict[str, Row] = {}
    for number, fields in _lines(path, columns, default_class):
        where = f"{path}, line {number}"
        row = _row(where, fields, columns, default_class)
        if row.sample.path in rows:
            raise FewShotError(f"{where}: {row.sample.path} is listed twice; leave one out")
        rows[row.sample.path] = row
    if not rows:
        raise FewShotError(f"{path} lists no images; expected one per line, below the header")
    return tuple(rows.values())


def _lines(
    path: Path, columns: Columns, default_class: str | None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Fields by the lower-case names of their columns, less blanks, with the number of the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FewShotError(f"cannot read the table {path}: {error}; write it as UTF-8") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=max(",;\t", key=header.count))
    names = [name.strip().lower() for name in next(reader, [])]
    _check_columns(path, names, columns, default_class)
    for fields in reader:
        if any(fields):
            padded = [*fields, *[""] * len(names)]
            yield reader.line_num, {n: f.strip() for n, f in zip(names, padded, strict=False)}


def _check_columns(
    path: Path, names: Iterable[str], columns: Columns, default_class: str | None
) -> None:
    wanted = [columns.image, columns.split, columns.label]
    wanted += [] if default_class else [columns.class_name]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise FewShotError(
            f"{path} has no column {' or '.join(absent)}: its first line reads "
            f"'{', '.join(names)}'; expected {', '.join(wanted)} and, for masks, {columns.mask}"
        )


def _row(where: str, fields: Mapping[str, str], columns: Columns, default_class: str | None) -> Row:
    class_name = fields.get(columns.class_name) or default_class or ""
    image, label = fields[columns.image].replace("\\", "/"), fields[columns.label]
    split = fields[columns.split].lower()
    for name, field in ((columns.image, image), (columns.class_name, class_name)):
        if not field:
            raise FewShotError(f"{where}: no {name} is given; fill it in")
    if split not in SPLITS:
        raise FewShotError(f"{where}: {columns.split} is {split!r}; expected train or test")
    if not label:
        raise FewShotError(f"{where}: no label is given; expected normal, anomaly or a defect")
    mask = fields.get(columns.mask, "").replace("\\", "/") or None
    return Row(SPLITS[split], _sample(image, class_name, label, mask))


def _sample(image: str, class_name: str, label: str, mask: str | None) -> Sample:
    if label.lower() in NORMAL_LABELS:
        return Sample(image, class_name, is_anomalous=False)
    defect = "anomaly" if label.lower() in ANOMALOUS_LABELS else label
    return Sample(image, class_name, True, mask, defect)
