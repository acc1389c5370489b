"""What the page says of a league: who is ahead, by how much, and on which classes."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.average_ranks import AverageRanks, average_ranks
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.statistics import Estimate, Paired, Scores, estimate, paired, with_holm
from fewshot_ad.evaluation.summary import METRICS, SECONDS, Spread, spread_over_seeds
from fewshot_ad.report.entrants import Entrant, League, target
from fewshot_ad.report.labels import EMPTY, METRIC_NAMES
from fewshot_ad.report.row_list import RowList

MOST_COMPARED = 12  # all pairs of more would fill pages: those beyond are left out, and named


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
class Leader:
    """The headline of a league; ``sentences`` say how sure it is."""

    label: str
    value: str
    interval: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two entrants: how much higher the second is, in points."""

    first: str
    second: str
    difference: Cell
    interval: str
    p: Cell
    units: str
    verdict: str
    note: str


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
        means = [spread_over_seeds(own, metric) for _, own in rivals]
        lines = [
            _standing(entrant, own, _rank(mean, means), metric, shots,
                      rows.first_anchor(number, entrant.label, dataset, shots))
            for (entrant, own), mean in zip(rivals, means, strict=True)
        ]  # fmt: skip
        found += sorted(lines, key=lambda line: (line.rank.value is None, line.rank.value or 0.0))
    return found


def leader(league: League, metric: str) -> Leader | None:
    """Who has the highest mean over the cells that all share; None where no value is there.

    Those with less than half of the most cells are left out, and counted in a sentence.
    """
    shots = league.main_shots
    scores = {one.label: one.scores(metric, shots) for one in league.entrants}
    most = max(len(one) for one in scores.values())
    full = {label: one for label, one in scores.items() if most and 2 * len(one) >= most}
    full = _shared(full)
    estimates = {label: found for label, one in full.items() if (found := estimate(one))}
    if not estimates:
        return None
    ordered = sorted(estimates, key=lambda label: -estimates[label].mean)
    best = ordered[0]
    found = estimates[best]
    sentences = [_measured(found, metric, shots), *_next(ordered, full, estimates)]
    if len(league.entrants) == 1:
        sentences.append("The only method of its track here.")
    if len(full) < len(scores):
        lacking = len(scores) - len(full)
        sentences.append(f"{lacking} of {len(scores)} methods lack cells and are not compared.")
    return Leader(best, f"{100 * found.mean:.1f}", interval_text(found), tuple(sentences))


def _shared(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The cells that all have; where there is none, those of the one with the most alone."""
    cells = [set(one) for one in scores.values()]
    common = cells[0].intersection(*cells[1:]) if cells else set[Any]()
    if not common and scores:
        label = max(scores, key=lambda name: len(scores[name]))
        return {label: scores[label]}
    return {label: {cell: one[cell] for cell in common} for label, one in scores.items()}


def _next(
    ordered: Sequence[str], scores: Mapping[str, Scores], estimates: Mapping[str, Estimate]
) -> list[str]:
    if len(ordered) < 2:
        return []
    best, second = ordered[:2]
    points = 100 * (estimates[best].mean - estimates[second].mean)
    said = _said(paired(scores[second], scores[best]))
    return [f"Next: {second}, {points:.1f} points lower ({said})."]


def comparisons(league: League, metric: str) -> tuple[list[Comparison], str]:
    """Every pair of entrants, over all cells that they share, and who had to be left out."""
    ranked = by_mean(league, metric)
    compared, others = ranked[:MOST_COMPARED], ranked[MOST_COMPARED:]
    scores = {one.label: one.scores(metric) for one in compared}
    pairs = list(combinations([one.label for one in compared], 2))
    tested = with_holm([paired(scores[second], scores[first]) for first, second in pairs])
    found = [_comparison(*names, pair) for names, pair in zip(pairs, tested, strict=True)]
    left_out = ", ".join(one.label for one in others)
    note = f"Not compared, for there are more than {MOST_COMPARED}: {left_out}."
    return found, note if others else ""


def ranks(league: League, metric: str) -> AverageRanks:
    """Average ranks over the classes that all entrants share."""
    return average_ranks({one.label: one.scores(metric) for one in league.entrants})


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
        seconds=tuple(Cell(f"{value:.2g}", value) for value in seconds),
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


def _rank(mean: Spread | None, all_means: Sequence[Spread | None]) -> int | None:
    if mean is None:
        return None
    return 1 + sum(other is not None and other.mean > mean.mean for other in all_means)


def _percent(spread: Spread | None, anchor: str = "") -> Cell:
    if spread is None:
        return Cell(EMPTY, None, anchor)
    deviation = "" if spread.std is None else f" ± {100 * spread.std:.1f}"
    return Cell(f"{100 * spread.mean:.1f}{deviation}", spread.mean, anchor)


def _measured(found: Estimate, metric: str, shots: Shots) -> str:
    classes = "1 class" if found.n_classes == 1 else f"{found.n_classes} classes"
    note = f" ({found.note})" if found.note else ""
    trials = f", {found.n_values} trials" if found.n_values > found.n_classes else ""
    word = "shot" if shots == 1 else "shots"
    return f"{METRIC_NAMES[metric]} in percent, mean of {classes}{trials}, {shots} {word}{note}."


def _said(pair: Paired) -> str:
    if pair.p is None:
        return pair.note
    p = f"p = {pair.p:.2g}" if pair.p >= 1e-4 else "p < 0.0001"
    verdict = "a significant difference" if pair.is_significant else "not significant"
    return f"{verdict}, {p}" + (f"; {pair.note}" if pair.note else "")


def _short_verdict(pair: Paired) -> str:
    if pair.p is None:
        return pair.note
    return replace(pair, note="").verdict + ("*" if pair.note else "")


def _comparison(first: str, second: str, pair: Paired) -> Comparison:
    """The better one stands first; so the difference is of the first less the second."""
    found, p = pair.difference, pair.p_adjusted
    many = {"class": "classes", "cell": "cells"}[pair.unit]
    interval = EMPTY
    if found and found.low is not None and found.high is not None:
        interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return Comparison(
        first=first,
        second=second,
        difference=Cell(f"{100 * found.mean:+.1f}", found.mean) if found else Cell(EMPTY),
        interval=interval,
        p=Cell(EMPTY if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}", p),
        units=f"{pair.wins} won, {pair.losses} lost of {pair.n} {many}",
        verdict=_short_verdict(pair),
        note=pair.note if pair.p is not None else "",
    )
