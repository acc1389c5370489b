"""Pixel metrics of more maps than memory holds, from a histogram of bounded size."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.aupro import PreparedTruth, prepare_truth
from fewshot_ad.evaluation.metrics import (
    PIXEL_METRICS,
    Maps,
    Metrics,
    check_finite,
    check_fpr_limit,
    check_sizes,
    pixel_values,
    why_no_pixels,
)
from fewshot_ad.evaluation.ranking import Ranking

_PIXELS, _ANOMALOUS, _SHARES = range(3)
_BITS = 50  # no bin is finer than 2**-50 of the largest score, so that its number fits a float64
_FINEST = -1074 - _BITS  # the exponent of the smallest float64, less these


class StreamingPixelMetrics:
    """``pixel_metrics`` in one pass over the maps, in memory that does not grow with them.

    The range need not be known. Bins are aligned to zero and as wide as some power of two; when a
    score falls outside, neighbours are merged. So the answer depends (beyond rounding) neither on
    the order of the images nor on how they are grouped, and the scores span about half of the bins
    or more. The memory is 24 bytes per bin, beside the maps of one update.

    **Error.** Scores that share a bin count as ties; nothing else is approximate. So AUROC is off
    by at most half the share of (anomalous, normal) pixel pairs that meet in one bin, F1-max is
    never too high, and ``error_bounds`` says how far off each value can be at most. One far outlier
    widens all bins: the bounds then tell.
    """

    def __init__(self, *, bins: int = 2**16, fpr_limit: float = 0.3) -> None:
        check_fpr_limit(fpr_limit)
        if bins < 2:
            raise FewShotError(f"A histogram of {bins} bins was asked for; expected at least 2.")
        self.fpr_limit = fpr_limit
        self._histogram = np.zeros((3, bins))
        self._low, self._high = math.inf, -math.inf
        self._origin, self._exponent = 0, _FINEST  # bin i starts at (origin + i) * 2**exponent
        self._n_images = self._n_missing = self._n_regions = 0

    def update(self, maps: Maps, masks: Sequence[Bool[np.ndarray, "_ _"] | None]) -> None:
        """Add images with their masks, None for a missing one.

        Raises:
            FewShotError: as for ``pixel_metrics``; none of these images is added then.
        """
        truths = [prepare_truth([mask]) for mask in masks]
        check_sizes(maps, [truth.shapes[0] for truth in truths])
        check_finite(maps, "anomaly maps", first_image=self._n_images)
        for one, truth in zip(maps, truths, strict=True):
            if truth.n_pixels:
                self._add(one.ravel(), truth)
            self._n_missing += truth.n_missing
            self._n_regions += truth.n_regions
        self._n_images += len(maps)

    def result(self) -> Metrics:
        """The metrics of all images so far, empty for the same reasons as ``pixel_metrics``."""
        reason = self._why_empty()
        if reason:
            return Metrics(reasons=dict.fromkeys(PIXEL_METRICS, reason))
        return pixel_values(self._ranking(), self._n_regions, self.fpr_limit)

    def error_bounds(self) -> dict[str, float]:
        """How far each value of ``result`` can be from the exact one; nothing where it is empty.

        Within each bin, all positives are put before all negatives, then behind them: the exact
        values lie between.
        """
        if self._why_empty():
            return {}
        ranking = self._ranking()
        no_ties = np.zeros_like(ranking.negatives)
        best = replace(ranking, negatives=no_ties)
        worst = replace(ranking, above=ranking.above + ranking.negatives, negatives=no_ties)
        value, highest, lowest = (self._values(one) for one in (ranking, best, worst))
        lowest[PIXEL_METRICS.index("p_ap")] = _lowest_average_precision(worst)
        bounds = np.maximum(highest - value, value - lowest)
        return dict(zip(PIXEL_METRICS, bounds.tolist(), strict=True))

    def _values(self, ranking: Ranking) -> Float[np.ndarray, " 4"]:
        values = pixel_values(ranking, self._n_regions, self.fpr_limit).values()
        return np.array([values[name] for name in PIXEL_METRICS], dtype=np.float64)

    def _why_empty(self) -> str | None:
        n_pixels, n_anomalous = (int(row.sum()) for row in self._histogram[:_SHARES])
        return why_no_pixels(self._n_missing, n_pixels, n_anomalous)

    def _add(self, scores: Float[np.ndarray, " n"], truth: PreparedTruth) -> None:
        self._cover(float(scores.min()), float(scores.max()))
        scaled = np.ldexp(scores.astype(np.float64), -self._exponent)  # exact: order is kept
        bins = np.floor(scaled).astype(np.int64) - self._origin
        anomalous, length = bins[truth.positives], self._histogram.shape[1]
        self._histogram[_PIXELS] += np.bincount(bins, minlength=length)
        self._histogram[_ANOMALOUS] += np.bincount(anomalous, minlength=length)
        self._histogram[_SHARES] += np.bincount(anomalous, truth.region_share, minlength=length)

    def _cover(self, low: float, high: float) -> None:
        """Move and merge the bins so that they hold everything so far and these two scores."""
        if self._low <= low and high <= self._high:
            return
        self._low, self._high = min(low, self._low), max(high, self._high)
        length = self._histogram.shape[1]
        exponent = _finest_exponent(self._low, self._high, length)
        origin = _bin(self._low, exponent)
        old = np.flatnonzero(self._histogram[_PIXELS])
        # Halving a number of 51 bits more than 62 times changes nothing, but the shift would fail.
        new = ((old + self._origin) >> min(exponent - self._exponent, 62)) - origin
        for row in self._histogram:
            row[:] = np.bincount(new, row[old], minlength=length)
        self._origin, self._exponent = origin, exponent

    def _ranking(self) -> Ranking:
        highest_first = self._histogram[:, ::-1]
        pixels, anomalous, shares = highest_first
        normal = pixels - anomalous
        up_to = np.cumsum(normal)
        at = np.flatnonzero(anomalous)
        return Ranking(
            positives=anomalous[at],
            region_shares=shares[at],
            negatives=normal[at],
            above=(up_to - normal)[at],
            n_negatives=int(up_to[-1]),
        )


def _finest_exponent(low: float, high: float, length: int) -> int:
    """The smallest exponent whose power of two, as the width of ``length`` bins, holds both scores.

    It only grows when the range does, which makes merging possible and the outcome unique.
    """
    largest = max(abs(low), abs(high))
    exponent = math.frexp(largest)[1] - _BITS if largest else _FINEST
    while _bin(high, exponent) - _bin(low, exponent) >= length:
        exponent += 1
    return exponent


def _bin(score: float, exponent: int) -> int:
    return math.floor(math.ldexp(score, -exponent))


def _lowest_average_precision(worst: Ranking) -> float:
    """What average precision is at least when the positives of a bin come behind its negatives.

    With a positives before the bin, p in it and n negatives above, the j-th has the precision
    1 - n / (a + n + j). As 1 / x is convex, the sum of 1 / (a + n + j) over j = 1 .. p is at most
    its integral from 1/2 to p + 1/2.
    """
    before = np.cumsum(worst.positives) - worst.positives
    lost = worst.above * np.log1p(worst.positives / (before + worst.above + 0.5))
    return 1.0 - float(lost.sum() / worst.positives.sum())
