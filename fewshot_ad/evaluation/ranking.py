"""How positives stand among negatives when both are ordered by score: all that a metric sees."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The distinct scores of the positives, highest first, and what is met on the way down.

    Between two of them only negatives pass, so no metric needs another threshold. Counts are whole
    numbers in float64.

    Attributes:
        positives: positives at this very score.
        region_shares: the sum of their region shares (see ``PreparedTruth``).
        negatives: negatives at this very score.
        above: negatives with a higher score.
        n_negatives: negatives altogether, at least one.
    """

    positives: Float[np.ndarray, " k"]
    region_shares: Float[np.ndarray, " k"]
    negatives: Float[np.ndarray, " k"]
    above: Float[np.ndarray, " k"]
    n_negatives: int

    def auroc(self) -> float:
        """Share of (positive, negative) pairs in the right order, ties counted half.

        Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006).
        """
        return self.area(self.positives / self.positives.sum())

    def average_precision(self) -> float:
        """Precision at each step weighted by the recall it adds; no interpolation, no trapezoid."""
        found = np.cumsum(self.positives)
        precision = found / (found + self.above + self.negatives)
        return float(self.positives @ precision / found[-1])

    def f1_max(self) -> float:
        """The best F1 that any threshold reaches."""
        found = np.cumsum(self.positives)
        return float(np.max(2.0 * found / (found + self.above + self.negatives + found[-1])))

    def area(self, rise: Float[np.ndarray, " k"], fpr_limit: float = 1.0) -> float:
        """Area under the curve that climbs by ``rise`` up to a false-positive rate, over that rate.

        The climb is a ramp as long as the negatives that share the score, or a jump where there are
        none: the trapezoid rule over all distinct thresholds with linear interpolation at the
        limit, as one sum.
        """
        limit = fpr_limit * self.n_negatives
        behind = np.maximum(limit - self.above, 0.0)
        ramp = np.minimum(behind, self.negatives)
        under_ramp = ramp**2 / (2.0 * np.maximum(self.negatives, 1.0))
        return float(rise @ (behind - ramp + under_ramp)) / limit

    def climb(
        self, rise: Float[np.ndarray, " k"], fprs: Float[np.ndarray, " g"]
    ) -> Float[np.ndarray, " g"]:
        """The height of the curve whose ``area`` this is, at some false-positive rates."""
        passed = fprs * self.n_negatives
        begun = np.searchsorted(self.above, passed, side="right")  # steps that have begun by then
        height = np.append(0.0, np.cumsum(rise))
        last = np.maximum(begun - 1, 0)
        ramp = self.negatives[last]
        done = np.minimum((passed - self.above[last]) / np.maximum(ramp, 1.0), 1.0)
        done[ramp == 0.0] = 1.0
        return np.where(begun > 0, height[last] + done * rise[last], 0.0)

    def precision(self, recalls: Float[np.ndarray, " g"]) -> Float[np.ndarray, " g"]:
        """The precision of the highest threshold that finds so large a share of the positives."""
        found = np.cumsum(self.positives)
        precision = found / (found + self.above + self.negatives)
        return np.append(precision, precision[-1])[np.searchsorted(found, recalls * found[-1])]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The distinct scores of the positives, lowest first.

    Attributes:
        scores: each of them.
        positives: how many positives have it.
        region_shares: the sum of their region shares.
    """

    scores: Float[np.ndarray, " k"]
    positives: Int[np.ndarray, " k"]
    region_shares: Float[np.ndarray, " k"]

    @classmethod
    def of(
        cls, positives: Float[np.ndarray, " p"], region_share: Float[np.ndarray, " p"]
    ) -> "Steps":
        """From the score of every positive and its share in its region."""
        order = np.argsort(positives)
        ordered = positives[order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return cls(
            ordered[first],
            np.diff(first, append=len(ordered)),
            np.add.reduceat(region_share[order], first),
        )

    def among(
        self,
        ordered: Float[np.ndarray, " n"],
        uncounted: Int[np.ndarray, " k"] | int = 0,
        n_uncounted: int = 0,
    ) -> Ranking:
        """How they stand among scores.

        Args:
            ordered: scores, the positives included, ascending.
            uncounted: negatives below each step that are not among these.
            n_uncounted: such negatives altogether; none has the score of a step.
        """
        below = np.searchsorted(ordered, self.scores, side="left")  # ascending: kind to the cache
        up_to = np.searchsorted(ordered, self.scores, side="right")
        positives_above = self.positives.sum() - np.cumsum(self.positives)
        above = len(ordered) - up_to - positives_above + n_uncounted - uncounted
        return Ranking(
            positives=self.positives[::-1].astype(np.float64),
            region_shares=self.region_shares[::-1],
            negatives=(up_to - below - self.positives)[::-1].astype(np.float64),
            above=above[::-1].astype(np.float64),
            n_negatives=len(ordered) - int(self.positives.sum()) + n_uncounted,
        )


def rank(
    scores: Float[np.ndarray, " n"],
    where: Int[np.ndarray, " p"],
    region_share: Float[np.ndarray, " p"],
) -> Ranking:
    """Rank the positives among all scores.

    Sorting bare values is several times faster than an argsort, so the many are sorted as values
    and only the few positives, which carry shares, are ordered by index.

    Args:
        scores: all of them, finite, in any order.
        where: the places of the positives among them, at least one.
        region_share: the share of each positive in its region.
    """
    return Steps.of(scores[where], region_share).among(np.sort(scores))
