"""Rows as files that other programs read: lines of JSON, a table of CSV, or Parquet."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.writing import write_whole


def export_rows(rows: Sequence[ResultRow], path: Path, kind: str | None = None) -> None:
    """Write rows whole or not at all.

    A line of JSON is what ``evaluation.results.load`` reads. A table has a column for every field
    and the key of the row before them; lists and mappings are JSON there.

    Args:
        rows: in the order of the file.
        path: of the file.
        kind: ``jsonl``, ``csv`` or ``parquet``; what the path ends with where nothing is said.

    Raises:
        FewShotError: an unknown kind, Parquet without pyarrow, or a place that cannot be written.
    """
    kind = path.suffix.removeprefix(".") if kind is None else kind
    if kind not in FORMATS:
        raise FewShotError(
            f"{path}: '{kind}' is no format of rows; end it with .{', .'.join(FORMATS)}, or say "
            "--format"
        )
    write_whole(path, FORMATS[kind](rows))


def _jsonl(rows: Sequence[ResultRow]) -> bytes:
    return "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows).encode()


def _csv(rows: Sequence[ResultRow]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, _columns(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(row) for row in rows)
    return file.getvalue().encode()


def _parquet(rows: Sequence[ResultRow]) -> bytes:
    if find_spec("pyarrow") is None:
        raise FewShotError("Parquet needs pyarrow: pip install 'fewshot-ad[parquet]', or give .csv")
    import pyarrow
    from pyarrow import parquet

    flat = [_flat(row) | {"eval_size": str(row.eval_size)} for row in rows]
    columns = {name: [each[name] for each in flat] for name in _columns()}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def _columns() -> list[str]:
    return ["key", *(each.name for each in fields(ResultRow))]


def _flat(row: ResultRow) -> dict[str, Any]:
    values = {"key": row_key(row), **asdict(row)}
    nested = (dict, list, tuple)
    return {
        name: json.dumps(value, sort_keys=True) if isinstance(value, nested) else value
        for name, value in values.items()
    }


FORMATS: Mapping[str, Callable[[Sequence[ResultRow]], bytes]] = MappingProxyType(
    {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
)
