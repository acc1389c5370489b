"""Result rows: what one evaluated cell is, and the file that keeps them, one JSON object a line."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from fewshot_ad.api import FewShotError, Track
from fewshot_ad.evaluation.lines import append_line, numbered_lines
from fewshot_ad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from fewshot_ad.images import EvalSize

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Everything that decides an outcome; two runs of equal cells give equal metrics.

    Attributes:
        method: what ``--method`` takes: the file name of ours, ``package.module:Class`` of others.
        params: the hyper-parameters, all of them.
        recipe: version of the method's computation, raised when the same parameters give other
            numbers.
        full_shot: the support is the whole train split.
        known: the classes of meta-training, as ``dataset/class``; empty for other tracks.
        manifest: name of the file the episode came from, or ``drawn``.
        eval_size: side in pixels at which maps meet masks, or ``native``.
        extra: labels of the caller (the variant of a study, say), never measurements.
    """

    dataset: str
    target_class: str
    method: str
    params: dict[str, Any]
    recipe: int
    track: Track
    backbone: str | None
    weights_digest: str | None
    known: tuple[str, ...]
    known_digest: str | None
    shots: int
    full_shot: bool
    anomalous_shots: int
    seed: int
    manifest: str
    support_digest: str
    query_digest: str
    eval_size: EvalSize
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow(Cell):
    """A cell with its outcome. Metrics lie in [0, 1]; ``reasons`` says why one is empty.

    Attributes:
        preset: ``quick`` at our settings, ``paper`` at those of ``--paper``, ``own`` at others;
            empty where the paper's are the defaults.
        kinds: metrics by kind of defect, see ``defect_kinds.kind_metrics``.
        box_ap: average precision of boxes, where these were asked for; see ``boxes``.
        n_missing_masks: anomalous query images without ground truth.
        predict_seconds_per_image: without reading; the first episode of a class pays the backbone,
            later ones find its features in the cache.
        peak_memory_mb: of the whole process since it began; empty where the system does not tell.
        git_commit: of the checkout the package runs from, with ``-dirty`` after uncommitted edits.
        time: when the row was made, ISO 8601 in UTC.
    """

    i_auroc: float | None = None
    i_ap: float | None = None
    i_f1_max: float | None = None
    p_auroc: float | None = None
    p_ap: float | None = None
    p_f1_max: float | None = None
    aupro: float | None = None
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    preset: str = ""
    box_ap: float | None = None
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    n_normal: int
    n_anomalous: int
    n_missing_masks: int
    fit_seconds: float
    predict_seconds_per_image: float
    metric_seconds: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    device: str
    package_version: str
    git_commit: str | None
    time: str

    def metrics(self) -> dict[str, float | None]:
        """The seven metrics by name."""
        return {name: getattr(self, name) for name in IMAGE_METRICS + PIXEL_METRICS}


def row_key(cell: Cell) -> str:
    """Short digest of the cell, whatever device and moment it was computed at."""
    identity = {each.name: getattr(cell, each.name) for each in fields(Cell)}
    identity["params"] = without_place(cell.params, cell.weights_digest)
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_place(params: Mapping[str, Any], weights_digest: str | None) -> dict[str, Any]:
    """The hyper-parameters that change outcomes: where it is computed does not.

    Nor does the folder of weights that are told by their digest: it counts as none.
    """
    kept = {name: value for name, value in params.items() if name != "device"}
    return kept | {"weights_dir": None} if weights_digest and "weights_dir" in kept else kept


def append(path: Path, row: ResultRow) -> None:
    """Add one row, see ``lines.append_line``.

    Raises:
        FewShotError: the file cannot be written.
    """
    append_line(path, asdict(row))


def load(path: Path) -> list[ResultRow]:
    """Every row of a file, in order; a torn last line is left out with a warning.

    Raises:
        FewShotError: there is no such file, or a line is not a result row of a format we know.
    """
    return [parse_row(f"{path}, line {n}", line) for n, line in numbered_lines(path)]


def finished(path: Path) -> set[str]:
    """Keys of the cells that a file already holds, to be skipped on resume; none without a file."""
    return {row_key(row) for row in load(path)} if path.exists() else set()


def parse_row(where: str, line: bytes) -> ResultRow:
    """The row that a line holds.

    Raises:
        FewShotError: it holds none of a format we know; the words start with ``where``.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise FewShotError(f"{where}: not JSON ({error}); was the file edited?") from error
    if not isinstance(values, dict) or "format" not in values:
        raise FewShotError(f"{where}: not a result row: expected an object with a 'format'.")
    row = cast("dict[str, Any]", values)
    if row["format"] != FORMAT:
        raise FewShotError(
            f"{where}: has result format {row['format']}, this version reads {FORMAT}; "
            "read it with the package version that wrote it."
        )
    if wrong := sorted(_wrong_fields(row)):
        raise FewShotError(f"{where}: not a result row: {', '.join(wrong)}.")
    row["known"] = tuple(row["known"])
    return ResultRow(**row)


def _wrong_fields(row: dict[str, Any]) -> Iterator[str]:
    known_fields = {each.name: each for each in fields(ResultRow)}
    yield from (f"unknown field {name!r}" for name in row.keys() - known_fields.keys())
    for name, each in known_fields.items():
        optional = each.default is not MISSING or each.default_factory is not MISSING
        if name not in row and not optional:
            yield f"missing field {name!r}"
