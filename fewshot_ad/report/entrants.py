"""Who competes with whom: configurations of methods, in leagues that may be ranked."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fewshot_ad.api import Track
from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.results import ResultRow, row_key, without_place
from fewshot_ad.evaluation.statistics import Scores
from fewshot_ad.evaluation.summary import known_datasets, shots_of
from fewshot_ad.images import EvalSize
from fewshot_ad.report.labels import settings_of, telling_labels, with_budget

T = TypeVar("T")
_MANY = 0.8  # of the most: a study that is half done has its pages about what is done


@dataclass(frozen=True, slots=True)
class Entrant:
    """A method as it was configured, with all its rows, whatever class, shots and seed.

    Attributes:
        label: unlike those of all others of its league.
        known: datasets of meta-training; empty where they are that of the target itself.
    """

    label: str
    method: str
    known: tuple[str, ...]
    rows: tuple[ResultRow, ...]

    def scores(self, metric: str, shots: Shots | None = None) -> Scores:
        """The metric by class and trial, at some shots or all; where it was empty, nothing."""
        return {
            (target(row), (str(shots_of(row)), row.seed)): value
            for row in self.rows
            if (shots is None or shots_of(row) == shots)
            and (value := row.metrics()[metric]) is not None
        }

    def at(self, shots: Shots) -> list[ResultRow]:
        """The rows at some shots."""
        return [row for row in self.rows if shots_of(row) == shots]


@dataclass(frozen=True, slots=True)
class League:
    """Entrants that were given the same and judged alike; nothing is ranked beyond it."""

    track: Track
    anomalous_shots: int
    manifest: str
    eval_size: EvalSize
    entrants: tuple[Entrant, ...]

    @property
    def shots(self) -> list[Shots]:
        """All numbers of shots, ascending, ``full`` last."""
        found: set[Shots] = {shots_of(row) for each in self.entrants for row in each.rows}
        return sorted(found, key=_number)

    @property
    def main_shots(self) -> Shots:
        """The number of shots that most is said of: 4, as usual, or the largest with many rows."""
        counts: Counter[Shots] = Counter(
            shots_of(row) for each in self.entrants for row in each.rows
        )
        least = _MANY * max(counts.values())
        many: list[Shots] = [shots for shots, count in counts.items() if count >= least]
        return 4 if 4 in many else max(many, key=_number)

    @property
    def targets(self) -> list[str]:
        """Every class that somebody was judged on, as ``dataset/class``."""
        return sorted({target(row) for entrant in self.entrants for row in entrant.rows})


def leagues(rows: Iterable[ResultRow]) -> list[League]:
    """The leagues of a store; of two rows of one cell the later counts."""
    distinct = [*{row_key(row): row for row in rows}.values()]
    found = [_league(group) for group in _grouped(distinct, _rules)]
    return sorted(found, key=_largest_first)


def target(row: ResultRow) -> str:
    """The class that was judged, with its dataset."""
    return f"{row.dataset}/{row.target_class}"


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: defaultdict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _configuration(row: ResultRow) -> Hashable:
    params = json.dumps([without_place(row.params, row.weights_digest), row.extra], sort_keys=True)
    features = row.backbone, row.weights_digest
    return row.track, row.method, row.recipe, params, features, _foreign(row)


def _rules(row: ResultRow) -> tuple[Track, int, str, EvalSize]:
    return row.track, row.anomalous_shots, row.manifest, row.eval_size


def _foreign(row: ResultRow) -> tuple[str, ...]:
    """Other classes of the target's own dataset are the usual case, and need no name."""
    known = known_datasets(row)
    return () if known == (row.dataset,) else known


def _settings(row: ResultRow) -> dict[str, str]:
    known = "+".join(_foreign(row)) or "own dataset"
    more = {"known": known, "recipe": row.recipe}
    return settings_of({**without_place(row.params, row.weights_digest), **row.extra, **more})


def _distinct(labels: Sequence[str], weights: Sequence[str]) -> list[str]:
    """With the digest of the weights where two would read alike, and numbered if that fails too."""
    count = Counter(labels)
    named = [
        f"{label}, weights {digest[:6]}" if digest and count[label] > 1 else label
        for label, digest in zip(labels, weights, strict=True)
    ]
    count, met = Counter(named), Counter[str]()
    found: list[str] = []
    for label in named:
        met[label] += 1
        found.append(f"{label} #{met[label]}" if count[label] > 1 else label)
    return found


def _league(rows: Sequence[ResultRow]) -> League:
    configurations = _grouped(rows, _configuration)
    labels = telling_labels(
        [with_budget(c[0].method, c[0].preset, c[0].params) for c in configurations],
        [_settings(c[0]) for c in configurations],
    )
    labels = _distinct(labels, [c[0].weights_digest or "" for c in configurations])
    entrants = [
        Entrant(label, group[0].method, _foreign(group[0]), tuple(group))
        for label, group in zip(labels, configurations, strict=True)
    ]
    return League(*_rules(rows[0]), tuple(entrants))


def _largest_first(league: League) -> tuple[int, str]:
    return -len(league.entrants), str(_rules(league.entrants[0].rows[0]))


def _number(shots: Shots) -> float:
    return float("inf") if shots == "full" else shots
