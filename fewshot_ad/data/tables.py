"""Datasets whose samples are listed in a table: one image per line."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
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
        row = _row(where, fields, columns)
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
        (_, header), *lines = _numbered(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FewShotError(f"cannot read the table {path}: {error}; write it as UTF-8") from error
    names = [name.lower() for name in header]
    _check_columns(path, names, columns, default_class)
    absent = {columns.class_name: default_class or "", columns.mask: ""}
    for number, fields in lines:
        if any(fields):
            yield number, absent | dict(zip_longest(names, fields[: len(names)], fillvalue=""))


def _numbered(text: str) -> list[tuple[int, list[str]]]:
    """Fields of every line less blanks, with its number; at least one line, though it be empty."""
    lines = text.splitlines() or [""]
    reader = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count))
    return [(reader.line_num, [field.strip() for field in fields]) for fields in reader]


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


def _row(where: str, fields: Mapping[str, str], columns: Columns) -> Row:
    for name in (columns.image, columns.class_name, columns.label):
        if not fields[name]:
            raise FewShotError(f"{where}: no {name} is given; fill it in")
    split = fields[columns.split].lower()
    if split not in SPLITS:
        raise FewShotError(f"{where}: {columns.split} is {split!r}; expected train or test")
    image, mask = (fields[name].replace("\\", "/") for name in (columns.image, columns.mask))
    class_name, label = fields[columns.class_name], fields[columns.label]
    return Row(SPLITS[split], _sample(image, class_name, label, mask or None))


def _sample(image: str, class_name: str, label: str, mask: str | None) -> Sample:
    if label.lower() in NORMAL_LABELS:
        return Sample(image, class_name, is_anomalous=False)
    defect = "anomaly" if label.lower() in ANOMALOUS_LABELS else label
    return Sample(image, class_name, True, mask, defect)
