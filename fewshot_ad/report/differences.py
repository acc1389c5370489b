"""Who is ahead in a league, by how much, and which differences are real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.average_ranks import AverageRanks, average_ranks
from fewshot_ad.evaluation.statistics import Estimate, Paired, Scores, estimate, paired, with_holm
from fewshot_ad.report.entrants import League
from fewshot_ad.report.labels import EMPTY, METRIC_NAMES
from fewshot_ad.report.standings import Cell, by_mean, interval_text

MOST_COMPARED = 12  # all pairs of more would fill pages: those beyond are left out, and named


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


def leader(league: League, metric: str, pairs: Sequence[Comparison]) -> Leader | None:
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
    sentences = [_measured(found, metric, shots), *_next(ordered, estimates, pairs)]
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
    ordered: Sequence[str], estimates: Mapping[str, Estimate], pairs: Sequence[Comparison]
) -> list[str]:
    """How far the second is behind, and what the pairs, corrected for their number, say of it."""
    if len(ordered) < 2:
        return []
    best, second = ordered[:2]
    points = 100 * (estimates[best].mean - estimates[second].mean)
    said = [f" ({_said(pair)})" for pair in pairs if {pair.first, pair.second} == {best, second}]
    return [f"Next: {second}, {points:.1f} points lower{''.join(said)}."]


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


def _measured(found: Estimate, metric: str, shots: Shots) -> str:
    classes = "1 class" if found.n_classes == 1 else f"{found.n_classes} classes"
    note = f" ({found.note})" if found.note else ""
    trials = f", {found.n_values} trials" if found.n_values > found.n_classes else ""
    word = "shot" if shots == 1 else "shots"
    return f"{METRIC_NAMES[metric]} in percent, mean of {classes}{trials}, {shots} {word}{note}."


def _said(pair: Comparison) -> str:
    if pair.p.value is None:
        return pair.verdict
    sign = "" if pair.p.text.startswith("<") else "= "
    found = "a significant difference" if pair.verdict.startswith("sig") else "not significant"
    note = f"; {pair.note}" if pair.note else ""
    return f"{found} over all cells, p {sign}{pair.p.text} after Holm{note}"


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
        verdict=pair.starred,
        note=pair.note if pair.p is not None else "",
    )
