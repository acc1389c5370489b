"""What is not there: cells that failed, cells that were never run, metrics that are empty."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewshot_ad.evaluation.summary import shots_of
from fewshot_ad.report.entrants import Entrant, League, target

_NAMED = 4


@dataclass(frozen=True, slots=True)
class Hole:
    """Where something is missing, and why."""

    where: str
    reason: str


def failed(failures: Iterable[tuple[str, str]]) -> list[Hole]:
    """Failed cells, those of one reason together."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for where, reason in failures:
        by_reason[reason].append(where)
    return [Hole(_some(cells), reason) for reason, cells in by_reason.items()]


def not_run(league: League) -> list[Hole]:
    """Cells that others of the league have on the same datasets."""
    found: list[Hole] = []
    for entrant in league.entrants:
        wanted = _wanted(league, entrant)
        lacking = wanted - _cells(entrant)
        if lacking:
            where = _some([f"{name}, {shots} shots, seed {seed}" for name, shots, seed in
                           sorted(lacking, key=str)])  # fmt: skip
            reason = f"{len(lacking)} of {len(wanted)} cells that others of its track have"
            found.append(Hole(f"{entrant.label}: {where}", reason))
    return found


def empty(leagues: Iterable[League]) -> list[Hole]:
    """Metrics that could not be computed, by class."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for league in leagues:
        for entrant in league.entrants:
            for row in entrant.rows:
                for metric, reason in row.reasons.items():
                    found[reason][f"{target(row)} ({metric})"] = None
    return [Hole(_some(list(cells)), reason) for reason, cells in found.items()]


def _cells(entrant: Entrant) -> set[tuple[str, str, int]]:
    return {(target(row), str(shots_of(row)), row.seed) for row in entrant.rows}


def _wanted(league: League, entrant: Entrant) -> set[tuple[str, str, int]]:
    datasets = {row.dataset for row in entrant.rows}
    return {
        cell
        for other in league.entrants
        for cell in _cells(other)
        if cell[0].rpartition("/")[0] in datasets
    }


def _some(cells: Sequence[str]) -> str:
    more = f"; and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return "; ".join(cells[:_NAMED]) + more
