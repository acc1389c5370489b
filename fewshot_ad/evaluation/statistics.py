"""Means with intervals over classes and seeds, and whether two methods differ.

Values come by cell, a cell being a class and whatever else tells trials apart (shots and seed).
Classes are what a result is meant to carry over to, and the cells of a class share its images, so
classes are the units wherever there are enough of them. What cannot be said is told in words.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats  # pyright: ignore[reportMissingTypeStubs]

from fewshot_ad.evaluation.bootstrap import RESAMPLES, interval

stats = cast(Any, scipy_stats)
LEVEL = 0.95
FEWEST_UNITS = 6
"""Below this no two-sided signed-rank test can reach p < 0.05: the least p of 5 pairs is 0.0625."""

_EXACT = 100
SAME = 1e-9  # smaller differences are rounding

Cell = tuple[str, Hashable]
Scores = Mapping[Cell, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of the class means, and where it may lie for other classes and seeds.

    Attributes:
        std: sample deviation of the class means; of the values where there is one class; empty
            where there is one value.
        low, high: 95 % percentile interval of the bootstrap; empty where ``note`` says why.
        note: what to know before reading the interval; may be empty.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n_classes: int
    n_values: int
    note: str = ""


def estimate(scores: Scores, *, seed: int = 0, n_resamples: int = RESAMPLES) -> Estimate | None:
    """Mean with its interval; None of nothing.

    The bootstrap is hierarchical: classes are drawn with replacement, then values within each
    drawn class (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    """
    if not scores:
        return None
    by_class = _by_class(scores)
    means = np.array([np.mean(values) for values in by_class])
    spread = means if len(means) > 1 else np.array(by_class[0])
    found = Estimate(
        mean=float(means.mean()),
        std=float(spread.std(ddof=1)) if len(spread) > 1 else None,
        low=None,
        high=None,
        n_classes=len(by_class),
        n_values=len(scores),
    )
    if len(scores) == 1:
        return replace(found, note="one class and one seed: no interval")
    low, high = interval(_resampled_means(by_class, seed, n_resamples), LEVEL)
    return replace(found, low=low, high=high, note=_caution(by_class))


@dataclass(frozen=True, slots=True)
class Paired:
    """What is known of a difference, second less first, over the cells that both have.

    Attributes:
        difference: its mean over classes with the interval; empty where they share no cell.
        unit: what was counted in the test: ``class`` means, or single ``cell`` values.
        n: units compared.
        wins, losses: units in which the second is better, and worse.
        p: two-sided signed-rank test (Wilcoxon); empty where ``note`` says why.
        p_adjusted: after Holm's correction, see ``with_holm``.
    """

    difference: Estimate | None
    unit: Literal["class", "cell"]
    n: int
    wins: int
    losses: int
    p: float | None
    note: str = ""
    p_adjusted: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the two differ at 5 %, after the correction where there was one."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        return p is not None and p < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """One phrase for people."""
        if self.p is None:
            return self.note
        return f"{self._word} ({self.note})" if self.note else self._word

    @property
    def starred(self) -> str:
        """The same with a star in place of the note, for tables that say it once below."""
        if self.p is None:
            return self.note
        return self._word + ("*" if self.note else "")

    @property
    def _word(self) -> str:
        direction = "higher" if self.difference and self.difference.mean > 0 else "lower"
        return f"significantly {direction}" if self.is_significant else "no significant difference"


def paired(first: Scores, second: Scores, *, seed: int = 0) -> Paired:
    """Compare two methods on the cells that both have.

    The units of the test are classes, or single cells where there are fewer classes than
    ``FEWEST_UNITS``: those share images, so that p is too small then, and the note warns.
    """
    shared = sorted(first.keys() & second.keys(), key=repr)
    differences = {cell: _rounded(second[cell] - first[cell]) for cell in shared}
    by_class = [float(np.mean(values)) for values in _by_class(differences)]
    unit = "class" if len(by_class) >= FEWEST_UNITS or len(by_class) == len(shared) else "cell"
    values = np.array(by_class if unit == "class" else [*differences.values()])
    p, note = _signed_rank(values, unit)
    return Paired(
        difference=estimate(differences, seed=seed),
        unit=unit,
        n=len(values),
        wins=int((values > 0).sum()),
        losses=int((values < 0).sum()),
        p=p,
        note=note,
    )


def with_holm(pairs: Sequence[Paired]) -> list[Paired]:
    """The same comparisons with p adjusted for how many were made; untested ones do not count."""
    tested = [place for place, pair in enumerate(pairs) if pair.p is not None]
    adjusted = holm([cast(float, pairs[place].p) for place in tested])
    found = list(pairs)
    for place, p in zip(tested, adjusted, strict=True):
        found[place] = replace(pairs[place], p_adjusted=p)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p: the step-down of Holm, Scandinavian Journal of Statistics 6 (1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _signed_rank(values: Float[np.ndarray, " n"], unit: str) -> tuple[float | None, str]:
    """p, or None and why not; a note where p is to be read with care."""
    different = int(np.count_nonzero(values))
    many = {"class": "classes", "cell": "cells"}[unit]
    if not len(values):
        return None, "no cell in common"
    if not different:
        return None, f"equal in all {len(values)} {many}"
    if different < FEWEST_UNITS:
        verb = f"{unit} differs" if different == 1 else f"{many} differ"
        count = f"{different} of {len(values)}" if different < len(values) else str(different)
        return None, f"too few pairs to tell: {count} {verb}, {FEWEST_UNITS} are needed"
    few_classes = "read p with care: its units are cells of few classes, which share images"
    return _p_of_signs(values[values != 0.0]), few_classes if unit == "cell" else ""


def _p_of_signs(values: Float[np.ndarray, " n"]) -> float:
    """Exact, ties or not, up to ``_EXACT`` values: every sign is as likely as its opposite.

    Sums of twice the ranks are whole, so those of all sign patterns are counted one rank at a time;
    scipy draws every pattern where there are ties, which takes a second.
    """
    if len(values) > _EXACT:
        return float(stats.wilcoxon(values, method="asymptotic").pvalue)
    doubled = np.rint(2 * stats.rankdata(np.abs(values).round(9))).astype(np.int64)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[:-rank]
    observed = int(doubled[values > 0].sum())
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return float(min(1.0, 2.0 * tail / ways.sum()))


def _by_class(scores: Scores) -> list[list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (target_class, _), value in sorted(scores.items(), key=lambda item: repr(item[0])):
        found[target_class].append(value)
    return list(found.values())


def _caution(by_class: Sequence[Sequence[float]]) -> str:
    n_classes = len(by_class)
    if n_classes == 1:
        return f"one class: the interval is over its {len(by_class[0])} trials only"
    if max(len(values) for values in by_class) == 1:
        return "one trial per class: the interval is over classes only"
    return f"{n_classes} classes only: the interval is too narrow" if n_classes < 5 else ""


def _resampled_means(
    by_class: Sequence[Sequence[float]], seed: int, n_resamples: int
) -> Float[np.ndarray, " b"]:
    """Means of resampled classes; a class that is drawn twice draws its values anew each time."""
    generator = np.random.Generator(np.random.PCG64(seed))
    counts: Int[np.ndarray, " c"] = np.array([len(values) for values in by_class])
    table = np.zeros((len(by_class), counts.max()))
    for values, row in zip(by_class, table, strict=True):
        row[: len(values)] = values
    drawn: Int[np.ndarray, "b c"] = generator.integers(
        len(by_class), size=(n_resamples, len(by_class))
    )
    share = generator.random((*drawn.shape, table.shape[1]))
    chosen = np.floor(share * counts[drawn][..., np.newaxis]).astype(np.int64)
    values = table[drawn[..., np.newaxis], chosen]
    is_used = np.arange(table.shape[1]) < counts[drawn][..., np.newaxis]
    return ((values * is_used).sum(axis=2) / counts[drawn]).mean(axis=1)


def _rounded(difference: float) -> float:
    return 0.0 if math.isclose(difference, 0.0, abs_tol=SAME) else difference
