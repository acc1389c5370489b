"""Every row of a store, grouped so that each number of the page can point at what it is made of."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.summary import METRICS, shots_of
from fewshot_ad.report.entrants import League, target
from fewshot_ad.report.labels import EMPTY


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its key, its seed and its numbers as text, in the order of ``METRICS``."""

    key: str
    seed: int
    metrics: tuple[str, ...]
    n_images: int
    seconds: str
    reasons: str


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of an entrant on a class at some shots; ``anchor`` is where they are on the page."""

    anchor: str
    label: str
    target: str
    shots: Shots
    lines: tuple[Line, ...]


class RowList:
    """All groups of all leagues, and where each stands."""

    def __init__(self, leagues: Sequence[League]) -> None:
        self.groups: list[Group] = []
        self._anchors: dict[tuple[int, str, str, Shots], str] = {}
        self._first: dict[tuple[int, str, str, Shots], str] = {}
        for number, league in enumerate(leagues):
            for entrant in league.entrants:
                self._add(number, entrant.label, entrant.rows)

    def anchor(self, league: int, label: str, where: str, shots: Shots) -> str:
        """Where the rows of an entrant on a class stand, or empty."""
        return self._anchors.get((league, label, where, shots), "")

    def first_anchor(self, league: int, label: str, dataset: str, shots: Shots) -> str:
        """Where the rows of an entrant on the classes of a dataset begin, or empty."""
        return self._first.get((league, label, dataset, shots), "")

    def _add(self, league: int, label: str, rows: Sequence[ResultRow]) -> None:
        groups: defaultdict[tuple[str, Shots], list[ResultRow]] = defaultdict(list)
        for row in rows:
            groups[target(row), shots_of(row)].append(row)
        for (where, shots), some in sorted(groups.items(), key=lambda one: _order(*one[0])):
            anchor = f"g{len(self.groups) + 1}"
            self._anchors[league, label, where, shots] = anchor
            self._first.setdefault((league, label, some[0].dataset, shots), anchor)
            lines = tuple(_line(row) for row in sorted(some, key=lambda row: row.seed))
            self.groups.append(Group(anchor, label, where, shots, lines))


def _order(where: str, shots: Shots) -> tuple[float, str]:
    return (float("inf") if shots == "full" else shots), where


def _line(row: ResultRow) -> Line:
    values = row.metrics()
    return Line(
        key=row_key(row),
        seed=row.seed,
        metrics=tuple(_percent(values[name]) for name in METRICS),
        n_images=row.n_normal + row.n_anomalous,
        seconds=f"{row.fit_seconds:.2g} + {row.predict_seconds_per_image:.2g}",
        reasons="; ".join(dict.fromkeys(row.reasons.values())),
    )


def _percent(value: float | None) -> str:
    return EMPTY if value is None else f"{100 * value:.1f}"
