"""From known classes to unseen ones: what meta-training on one dataset is worth on another."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.statistics import estimate
from fewshot_ad.evaluation.summary import known_datasets, shots_of
from fewshot_ad.report.entrants import target
from fewshot_ad.report.labels import EMPTY
from fewshot_ad.report.standings import Cell


@dataclass(frozen=True, slots=True)
class Transfer:
    """Known datasets by unseen ones, for one method at one number of shots."""

    title: str
    targets: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


def transfers(rows: Iterable[ResultRow], metric: str) -> list[Transfer]:
    """A matrix for every method that learned from known classes, and number of shots."""
    groups: defaultdict[tuple[str, str, str], dict[str, ResultRow]] = defaultdict(dict)
    for row in rows:
        if row.known:
            settings = json.dumps([row.params, row.extra], sort_keys=True)
            groups[row.method, str(shots_of(row)), settings][row_key(row)] = row
    return [_transfer(list(group.values()), metric) for group in groups.values()]


def _transfer(rows: Sequence[ResultRow], metric: str) -> Transfer:
    targets = sorted({row.dataset for row in rows})
    known = sorted({known_datasets(row) for row in rows})
    lines = tuple(
        ("+".join(names), tuple(_cell(rows, names, dataset, metric) for dataset in targets))
        for names in known
    )
    backbone = rows[0].backbone or "no backbone"
    title = f"{rows[0].method}, {backbone}, {shots_of(rows[0])} shots"
    return Transfer(title, tuple(targets), lines)


def _cell(rows: Sequence[ResultRow], known: tuple[str, ...], dataset: str, metric: str) -> Cell:
    found = estimate(
        {
            (target(row), row.seed): value
            for row in rows
            if row.dataset == dataset and known_datasets(row) == known
            if (value := row.metrics()[metric]) is not None
        },
        n_resamples=1,
    )
    if found is None:
        return Cell(EMPTY)
    return Cell(f"{100 * found.mean:.1f}", found.mean)
