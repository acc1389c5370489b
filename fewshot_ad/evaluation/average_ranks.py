"""Who is better on most classes: average ranks, and how far apart they must lie to matter.

Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats  # pyright: ignore[reportMissingTypeStubs]

from fewshot_ad.evaluation.statistics import FEWEST_UNITS, LEVEL, Cell, Scores

stats = cast(Any, scipy_stats)
_ADVISED_UNITS = 10  # below it, Friedman's statistic is far from chi-square (section 3.2.2)


@dataclass(frozen=True, slots=True)
class AverageRanks:
    """Methods ordered by their average rank over classes; rank 1 is best, ties share a rank.

    Attributes:
        ranks: average rank by method, best first.
        n_classes: classes that all of these methods have in common.
        friedman_p: that all methods are the same; empty where ``notes`` say why.
        critical_difference: average ranks closer than this do not differ at 5 % (Nemenyi).
        cliques: names of methods that do not differ, best first; overlapping.
        notes: what to know before reading on.
    """

    ranks: dict[str, float]
    n_classes: int
    friedman_p: float | None
    critical_difference: float | None
    cliques: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def average_ranks(scores: Mapping[str, Scores]) -> AverageRanks:
    """Rank methods within each class, by the mean over the cells that all of them have.

    Methods that lack cells are left out, those with the fewest first, until the others share
    enough classes; the notes name them.

    Args:
        scores: of every method by cell; never of methods of different tracks.
    """
    kept, notes = _with_common_classes(scores)
    means = _class_means(kept)
    n_classes = len(means)
    if len(kept) < 2 or not n_classes:
        why = "one method: nothing to rank" if len(kept) == 1 else "no class in common"
        return AverageRanks(dict.fromkeys(kept, 1.0), n_classes, None, None, (), (*notes, why))
    ranks = cast(Float[np.ndarray, "c m"], stats.rankdata(-means.round(9), axis=1))
    ordered = sorted(zip(kept, ranks.mean(axis=0).tolist(), strict=True), key=lambda one: one[1])
    by_name = dict(ordered)
    notes += _cautions(n_classes)
    if n_classes < FEWEST_UNITS:
        return AverageRanks(by_name, n_classes, None, None, (), notes)
    distance = critical_difference(len(kept), n_classes)
    p = _friedman(ranks)
    return AverageRanks(by_name, n_classes, p, distance, _cliques(by_name, distance), notes)


def critical_difference(n_methods: int, n_classes: int) -> float:
    """How far average ranks must lie apart to differ at 5 % (Nemenyi's test)."""
    spread = stats.studentized_range.ppf(LEVEL, n_methods, math.inf) / math.sqrt(2)
    return float(spread) * math.sqrt(n_methods * (n_methods + 1) / (6 * n_classes))


def _with_common_classes(
    scores: Mapping[str, Scores],
) -> tuple[dict[str, Scores], tuple[str, ...]]:
    kept, left_out = dict(scores), list[str]()
    every_class = {cell[0] for one in scores.values() for cell in one}
    wanted = min(FEWEST_UNITS, len(every_class))
    while len(kept) > 2 and len({cell[0] for cell in _common_cells(kept)}) < wanted:
        fewest = min(kept, key=lambda name: (len(kept[name]), name))
        left_out.append(fewest)
        del kept[fewest]
    shared = _common_cells(kept)
    common: dict[str, Scores] = {
        name: {cell: one[cell] for cell in shared} for name, one in kept.items()
    }
    note = f"left out for missing cells: {', '.join(left_out)}"
    return common, (note,) if left_out else ()


def _common_cells(scores: Mapping[str, Scores]) -> list[Cell]:
    first, *others = [set(one) for one in scores.values()] or [set[Cell]()]
    return sorted(first.intersection(*others), key=repr)


def _class_means(scores: Mapping[str, Scores]) -> Float[np.ndarray, "c m"]:
    classes = sorted({cell[0] for one in scores.values() for cell in one})
    return np.array(
        [
            [
                np.mean([value for cell, value in one.items() if cell[0] == name])
                for one in scores.values()
            ]
            for name in classes
        ]
    ).reshape(len(classes), len(scores))


def _cautions(n_classes: int) -> tuple[str, ...]:
    if n_classes < FEWEST_UNITS:
        return (f"{n_classes} classes are too few for a critical difference: ranks alone",)
    if n_classes < _ADVISED_UNITS:
        return (f"{n_classes} classes are few: the critical difference is approximate",)
    return ()


def _friedman(ranks: Float[np.ndarray, "c m"]) -> float | None:
    """Empty for two methods, for which the signed-rank test is the one to read."""
    if ranks.shape[1] < 3:
        return None
    if (ranks == ranks[:, :1]).all():
        return 1.0  # all tied everywhere: the statistic is 0 / 0
    return float(stats.friedmanchisquare(*ranks.T).pvalue)


def _cliques(ranks: Mapping[str, float], distance: float) -> tuple[tuple[str, ...], ...]:
    """Longest runs of neighbours that lie closer together than the critical difference."""
    names: Sequence[str] = list(ranks)
    runs: list[tuple[str, ...]] = []
    end = 0
    for start, first in enumerate(names):
        last = max(i for i, name in enumerate(names) if ranks[name] - ranks[first] < distance)
        if last > start and last + 1 > end:
            runs.append(tuple(names[start : last + 1]))
            end = last + 1
    return tuple(runs)
