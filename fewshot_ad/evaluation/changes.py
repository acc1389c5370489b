"""What changed between two runs: cells that come and go, metrics that move, and whether it matters.

Cells of the same identity come first. Those that are left are matched by trial (method, class,
shots, seed), and what makes them another cell is named: a parameter, the weights, the images.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fewshot_ad.evaluation.results import Cell, ResultRow, row_key, without_place
from fewshot_ad.evaluation.statistics import SAME, Paired, paired, with_holm
from fewshot_ad.evaluation.summary import METRICS, shots_of

_TRIAL = ("method", "dataset", "target_class", "shots", "anomalous_shots", "seed", "manifest")
_ORIGIN = ("package_version", "git_commit", "device", "preset")


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell of the first run and the one of the second that is compared with it.

    Attributes:
        changed: names of what makes them different cells; empty where they are one.
        moved: metrics that differ, second less first.
    """

    first: ResultRow
    second: ResultRow
    changed: tuple[str, ...]
    moved: dict[str, float]


@dataclass(frozen=True, slots=True)
class Changes:
    """Two runs beside each other.

    Attributes:
        pairs: cells that both have.
        only_first, only_second: cells without a counterpart.
        origins: names of what differs in how pairs were computed (code, device), with both values.
        by_method: for every method and metric the difference over all pairs; p is corrected for
            all of them.
    """

    pairs: tuple[Pair, ...]
    only_first: tuple[ResultRow, ...]
    only_second: tuple[ResultRow, ...]
    origins: dict[str, tuple[tuple[str, str], ...]]
    by_method: dict[str, dict[str, Paired]]

    @property
    def moved(self) -> list[Pair]:
        """Pairs of which some metric differs, the largest movement first."""
        some = [pair for pair in self.pairs if pair.moved]
        return sorted(some, key=lambda pair: -max(abs(value) for value in pair.moved.values()))


def changes(first: Iterable[ResultRow], second: Iterable[ResultRow]) -> Changes:
    """Compare two runs; of two rows of one cell the later counts."""
    left = {row_key(row): row for row in first}
    right = {row_key(row): row for row in second}
    same = [(left[key], right[key]) for key in left if key in right]
    alone = [row for key, row in left.items() if key not in right]
    new = [row for key, row in right.items() if key not in left]
    matched = _matched(alone, new)
    taken = {row_key(row) for pair in matched for row in pair}
    pairs = tuple(_pair(*both) for both in (*same, *matched))
    return Changes(
        pairs=pairs,
        only_first=tuple(row for row in alone if row_key(row) not in taken),
        only_second=tuple(row for row in new if row_key(row) not in taken),
        origins=_origins(pairs),
        by_method=_by_method(pairs),
    )


def _matched(
    alone: Sequence[ResultRow], new: Sequence[ResultRow]
) -> list[tuple[ResultRow, ResultRow]]:
    """Rows of one trial that is there once on either side; more would be guessing."""
    often = Counter(_trial(row) for row in alone), Counter(_trial(row) for row in new)
    by_trial = {_trial(row): row for row in new}
    return [
        (row, by_trial[trial])
        for row in alone
        if often[0][trial := _trial(row)] == 1 and often[1][trial] == 1
    ]


def _trial(row: ResultRow) -> Hashable:
    return tuple(getattr(row, name) for name in _TRIAL), str(row.eval_size)


def _pair(first: ResultRow, second: ResultRow) -> Pair:
    before, after = first.metrics(), second.metrics()
    moved = {
        name: b - a
        for name in METRICS
        if (a := before[name]) is not None and (b := after[name]) is not None and abs(b - a) > SAME
    }
    return Pair(first, second, tuple(_changed(first, second)), moved)


def _changed(first: ResultRow, second: ResultRow) -> list[str]:
    found: list[str] = []
    for each in fields(Cell):
        before, after = getattr(first, each.name), getattr(second, each.name)
        if each.name == "params":
            before = without_place(before, first.weights_digest)
            after = without_place(after, second.weights_digest)
            found += [
                f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}"
                for name in sorted(before.keys() | after.keys())
                if before.get(name) != after.get(name)
            ]
        elif before != after:
            found.append(_change(each.name, before, after))
    return found


def _change(name: str, before: Any, after: Any) -> str:
    if name in ("known_digest", "support_digest", "query_digest"):
        return f"{name} differs"
    if name == "known":
        gone = [f"-{one}" for one in before if one not in after]
        new = [f"+{one}" for one in after if one not in before]
        return f"{name}: {_text(', '.join([*new, *gone]) or 'another order', 200)}"
    return f"{name}: {_text(before)} -> {_text(after)}"


def _text(value: Any, most: int = 40) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"


def _origins(pairs: Sequence[Pair]) -> dict[str, tuple[tuple[str, str], ...]]:
    found: defaultdict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for pair in pairs:
        for name in _ORIGIN:
            values = str(getattr(pair.first, name)), str(getattr(pair.second, name))
            if values[0] != values[1]:
                found[name][values] = None
    return {name: tuple(values) for name, values in found.items()}


def _by_method(pairs: Sequence[Pair]) -> dict[str, dict[str, Paired]]:
    groups: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.first.method].append(pair)
    tests = [(method, name) for method in groups for name in METRICS]
    tested = with_holm([_difference(groups[method], name) for method, name in tests])
    found: defaultdict[str, dict[str, Paired]] = defaultdict(dict)
    for (method, name), difference in zip(tests, tested, strict=True):
        found[method][name] = difference
    return dict(found)


def _difference(pairs: Sequence[Pair], metric: str) -> Paired:
    sides: tuple[dict[tuple[str, Hashable], float], ...] = ({}, {})
    for pair in pairs:
        for side, row in zip(sides, (pair.first, pair.second), strict=True):
            value = row.metrics()[metric]
            if value is not None:
                trial = row.dataset, row.target_class, str(shots_of(row)), row.seed
                key = f"{row.dataset}/{row.target_class}", (*trial, row_key(pair.first))
                side[key] = value
    return paired(*sides)
