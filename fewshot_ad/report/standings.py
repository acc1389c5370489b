"""The table of a league, and its classes by methods."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.statistics import Estimate, estimate
from fewshot_ad.evaluation.summary import METRICS, SECONDS, Spread, spread_over_seeds
from fewshot_ad.report.entrants import Entrant, League, target
from fewshot_ad.report.labels import EMPTY
from fewshot_ad.report.row_list import RowList


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a table: how it reads, what it sorts by (empty last), where its rows are."""

    text: str
    value: float | None = None
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A line of the table of a league: an entrant on a dataset at some shots."""

    label: str
    dataset: str
    shots: Cell
    rank: Cell
    interval: str
    note: str
    metrics: tuple[Cell, ...]
    seconds: tuple[Cell, ...]
    n_classes: int
    n_seeds: int
    anchor: str


@dataclass(frozen=True, slots=True)
class Heat:
    """Classes by entrants at the main number of shots; cells hold percent and its share of 1."""

    labels: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


def standings(league: League, number: int, rows: RowList, metric: str) -> list[Standing]:
    """A line per entrant, dataset and number of shots, ranked by the metric among its rivals."""
    groups: defaultdict[tuple[str, Shots], list[tuple[Entrant, list[ResultRow]]]] = defaultdict(
        list
    )
    for entrant in league.entrants:
        for shots in league.shots:
            some = entrant.at(shots)
            for dataset in sorted({row.dataset for row in some}):
                own = [row for row in some if row.dataset == dataset]
                groups[dataset, shots].append((entrant, own))
    found: list[Standing] = []
    for (dataset, shots), rivals in groups.items():
        places = _ranks([own for _, own in rivals], metric)
        lines = [
            _standing(entrant, own, place, metric, shots,
                      rows.first_anchor(number, entrant.label, dataset, shots))
            for (entrant, own), place in zip(rivals, places, strict=True)
        ]  # fmt: skip
        found += sorted(lines, key=lambda line: (line.rank.value is None, line.rank.value or 0.0))
    return found


def heat(league: League, number: int, rows: RowList, metric: str) -> Heat:
    """The metric of every entrant on every class, at the main number of shots."""
    ordered, shots = by_mean(league, metric), league.main_shots
    lines: list[tuple[str, tuple[Cell, ...]]] = []
    for where in league.targets:
        cells: list[Cell] = []
        for entrant in ordered:
            own = [row for row in entrant.at(shots) if target(row) == where]
            anchor = rows.anchor(number, entrant.label, where, shots)
            cells.append(_percent(spread_over_seeds(own, metric) if own else None, anchor))
        lines.append((where, tuple(cells)))
    return Heat(tuple(one.label for one in ordered), tuple(lines))


def by_mean(league: League, metric: str) -> list[Entrant]:
    """Entrants, the highest mean over classes at the main number of shots first."""
    means = {
        one.label: estimate(one.scores(metric, league.main_shots), n_resamples=1)
        for one in league.entrants
    }
    return sorted(league.entrants, key=lambda one: -(m.mean if (m := means[one.label]) else -1.0))


def interval_text(found: Estimate) -> str:
    """``71.0–79.8``, or a dash."""
    if found.low is None or found.high is None:
        return EMPTY
    return f"{100 * found.low:.1f}–{100 * found.high:.1f}"


def _standing(
    entrant: Entrant,
    own: Sequence[ResultRow],
    rank: int | None,
    metric: str,
    shots: Shots,
    anchor: str,
) -> Standing:
    scores: dict[tuple[str, Hashable], float] = {
        (target(row), row.seed): value
        for row in own
        if (value := row.metrics()[metric]) is not None
    }
    reasons = sorted({why for row in own for why in row.reasons.values()})
    found = estimate(scores)
    seconds = [sum(getattr(row, name) for row in own) / len(own) for name in SECONDS[:2]]
    return Standing(
        label=entrant.label,
        dataset=own[0].dataset,
        shots=Cell(str(shots), 1e9 if shots == "full" else shots),
        rank=Cell(EMPTY if rank is None else str(rank), rank),
        interval=interval_text(found) if found else EMPTY,
        note=found.note if found else "; ".join(reasons),
        metrics=tuple(_where_it_is(own, name) for name in METRICS),
        seconds=tuple(Cell(seconds_text(value), value) for value in seconds),
        n_classes=len({row.target_class for row in own}),
        n_seeds=len({row.seed for row in own}),
        anchor=anchor,
    )


def _where_it_is(own: Sequence[ResultRow], name: str) -> Cell:
    """The metric over all classes, or with a dagger over those that have it for every seed."""
    whole = spread_over_seeds(own, name)
    if whole is not None:
        return _percent(whole)
    lacking = {row.target_class for row in own if row.metrics()[name] is None}
    cell = _percent(spread_over_seeds([r for r in own if r.target_class not in lacking], name))
    return cell if cell.value is None else replace(cell, text=f"{cell.text}†")


def _ranks(rivals: Sequence[Sequence[ResultRow]], metric: str) -> list[int | None]:
    """Places among those with the classes that most have; means over others are no rivals."""
    classes = [frozenset(row.target_class for row in own) for own in rivals]
    often = Counter(classes)
    usual = max(often, key=lambda one: (often[one], len(one), sorted(one)))
    means = [
        spread_over_seeds(own, metric) if one == usual else None
        for own, one in zip(rivals, classes, strict=True)
    ]
    ranked = [mean.mean for mean in means if mean is not None]
    return [mean and 1 + sum(other > mean.mean for other in ranked) for mean in means]


def seconds_text(value: float) -> str:
    """Two digits, and no powers of ten."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def _percent(spread: Spread | None, anchor: str = "") -> Cell:
    if spread is None:
        return Cell(EMPTY, None, anchor)
    deviation = "" if spread.std is None else f" ± {100 * spread.std:.1f}"
    return Cell(f"{100 * spread.mean:.1f}{deviation}", spread.mean, anchor)
