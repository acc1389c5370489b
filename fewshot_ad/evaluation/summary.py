"""From result rows to a table: classes first, then seeds, and never two tracks in one ranking."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, TypeVar

from fewshot_ad.api import Track
from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from fewshot_ad.evaluation.results import ResultRow, row_key, without_place
from fewshot_ad.images import EvalSize

METRICS = IMAGE_METRICS + PIXEL_METRICS
SECONDS = ("fit_seconds", "predict_seconds_per_image", "metric_seconds")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over ``n_seeds`` and their sample standard deviation (ddof 1; empty at one seed)."""

    mean: float
    std: float | None
    n_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One line of a table: a configuration on one class, or on the mean of its classes.

    Attributes:
        preset: as in a row.
        known_datasets: where the classes of meta-training came from.
        target_class: empty in the line of the mean over ``classes``.
        metrics: by name; empty where no seed has the metric for every one of the classes.
        seconds: mean over the cells, by name.
        rank: place by I-AUROC among the lines of the same track, shots, classes and rules.
    """

    dataset: str
    method: str
    params: dict[str, Any]
    preset: str
    track: Track
    backbone: str | None
    known_datasets: tuple[str, ...]
    shots: Shots
    anomalous_shots: int
    manifest: str
    eval_size: EvalSize
    extra: dict[str, Any]
    target_class: str | None
    classes: tuple[str, ...]
    metrics: dict[str, Spread | None]
    seconds: dict[str, float]
    rank: int | None = None


def summarise(rows: Iterable[ResultRow]) -> list[TableRow]:
    """A line per configuration and class, after that of the mean over its classes.

    The mean over classes is taken within each seed, then mean and deviation over seeds. A seed that
    lacks a class is left out of the mean line, so that every seed averages the same classes. Of two
    rows of one cell the later counts.
    """
    distinct = {row_key(row): row for row in rows}.values()
    lines = [line for group in _grouped(distinct, _configuration) for line in _lines(group)]
    return sorted(_ranked(lines), key=_order)


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def known_datasets(row: ResultRow) -> tuple[str, ...]:
    """Where the classes of meta-training came from."""
    return tuple(sorted({name.rpartition("/")[0] for name in row.known}))


def _configuration(row: ResultRow) -> Hashable:
    """What the rows of one line share: all but class, seed and what follows from them."""
    return (
        row.dataset,
        row.method,
        row.track,
        row.recipe,
        json.dumps([without_place(row.params, row.weights_digest), row.extra], sort_keys=True),
        row.backbone,
        row.weights_digest,
        known_datasets(row),
        shots_of(row),
        row.anomalous_shots,
        row.manifest,
        row.eval_size,
    )


def shots_of(row: ResultRow) -> Shots:
    """``full`` differs in number from class to class and is one column all the same."""
    return "full" if row.full_shot else row.shots


def _lines(rows: Sequence[ResultRow]) -> list[TableRow]:
    by_class = _grouped(rows, lambda row: row.target_class)
    return [_line(rows, None), *(_line(group, group[0].target_class) for group in by_class)]


def _line(rows: Sequence[ResultRow], target_class: str | None) -> TableRow:
    first = rows[0]
    return TableRow(
        dataset=first.dataset,
        method=first.method,
        params=first.params,
        preset=first.preset,
        track=first.track,
        backbone=first.backbone,
        known_datasets=known_datasets(first),
        shots=shots_of(first),
        anomalous_shots=first.anomalous_shots,
        manifest=first.manifest,
        eval_size=first.eval_size,
        extra=first.extra,
        target_class=target_class,
        classes=tuple(sorted({row.target_class for row in rows})),
        metrics={name: spread_over_seeds(rows, name) for name in METRICS},
        seconds={name: fmean(getattr(row, name) for row in rows) for name in SECONDS},
    )


def spread_over_seeds(rows: Sequence[ResultRow], name: str) -> Spread | None:
    """Mean over classes within each seed, then over seeds; one that lacks a class is left out."""
    n_classes = len({row.target_class for row in rows})
    of_seeds: list[float] = []
    for group in _grouped(rows, lambda row: row.seed):
        values = [value for row in group if (value := row.metrics()[name]) is not None]
        if len(values) == n_classes:
            of_seeds.append(fmean(values))
    return spread_of(of_seeds)


def spread_of(values: Sequence[float]) -> Spread | None:
    """Mean and deviation of the values of some seeds; None of none."""
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _ranked(lines: Sequence[TableRow]) -> list[TableRow]:
    ranked: list[TableRow] = []
    for rivals in _grouped(lines, _league):
        means = [_mean(line) for line in rivals]
        for line, mean in zip(rivals, means, strict=True):
            place = None if mean is None else 1 + sum(m is not None and m > mean for m in means)
            ranked.append(replace(line, rank=place))
    return ranked


def _league(line: TableRow) -> Hashable:
    rules = line.shots, line.anomalous_shots, line.manifest, line.eval_size
    return line.dataset, line.track, line.target_class, line.classes, rules


def _mean(line: TableRow) -> float | None:
    spread = line.metrics["i_auroc"]
    return None if spread is None else spread.mean


def _order(line: TableRow) -> tuple[Any, ...]:
    best_first = -(_mean(line) or 0.0)
    shots = math.inf if line.shots == "full" else line.shots
    rules = (line.dataset, shots, line.anomalous_shots, line.manifest, str(line.eval_size))
    return (*rules, line.track, line.target_class or "", best_first, line.method)
