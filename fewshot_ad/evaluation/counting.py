"""The ranking of millions of pixels, most of which need only be counted, not sorted.

A metric asks of a negative between which two positives it stands, and nothing else. Buckets of
equal width that hold no positive answer that for all their negatives at once; only what shares a
bucket with a positive is sorted. The ranking is exact, whatever the buckets: they decide how much
is sorted, from a few percent of the pixels to all of them where one outlier widens every bucket.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from fewshot_ad.evaluation.ranking import Ranking, Steps

AT_ONCE = 2**20  # scores whose bucket numbers are held at a time: 8 MB of them
FEWEST, MOST = 2**16, 2**22  # buckets; more would not be told apart by float32
PER_POSITIVE = 8  # buckets, so that most hold no positive


def rank_by_counting(
    scores: Float[np.ndarray, " n"],
    where: Int[np.ndarray, " p"],
    region_share: Float[np.ndarray, " p"],
) -> Ranking:
    """What ``rank`` finds, without sorting all scores.

    Args:
        scores: of all pixels, finite, in any order.
        where: the places of the positives among them, at least one.
        region_share: the share of each positive in its region.
    """
    steps = Steps.of(scores[where], region_share)
    buckets = _Buckets.over(scores, PER_POSITIVE * len(where))
    is_shared = np.zeros(buckets.count, dtype=np.bool_)
    is_shared[buckets.of(steps.scores)] = True
    counts = np.zeros(buckets.count, dtype=np.int64)
    to_sort: list[Shaped[np.ndarray, " _"]] = []
    for some in _in_parts(scores):
        bucket = buckets.of(some)
        counts += np.bincount(bucket, minlength=buckets.count)
        to_sort.append(some.compress(is_shared.take(bucket)))
    counts[is_shared] = 0
    passed = np.cumsum(counts)
    behind = passed[buckets.of(steps.scores)]
    return steps.among(np.sort(np.concatenate(to_sort)), behind, int(passed[-1]))


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Intervals of equal width from the lowest score to the highest.

    A bucket's number never falls as scores rise, rounding included: it is a difference, a product
    and a floor.
    """

    lowest: np.floating
    per_unit: np.floating
    count: int

    @classmethod
    def over(cls, scores: Float[np.ndarray, " n"], wanted: int) -> "_Buckets":
        """About as many as are wanted; one, where the range is nothing or no number."""
        real = np.promote_types(scores.dtype, np.float32).type  # float16 cannot number buckets
        lowest, highest = real(scores.min()), real(scores.max())
        count = min(max(1 << wanted.bit_length(), FEWEST), MOST)
        with np.errstate(over="ignore", divide="ignore"):
            width = highest - lowest
            per_unit = real(count - 2) / width
        if not (np.isfinite(width) and np.isfinite(per_unit)):
            return cls(lowest, per_unit, 1)
        return cls(lowest, per_unit, count)

    def of(self, scores: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The number of each score's bucket."""
        if self.count == 1:
            return np.zeros(len(scores), dtype=np.intp)
        above = np.subtract(scores, self.lowest, dtype=self.lowest.dtype)
        return (above * self.per_unit).astype(np.intp)


def _in_parts(scores: Float[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, " _"]]:
    for first in range(0, len(scores), AT_ONCE):
        yield scores[first : first + AT_ONCE]
