"""From the scores of normals to p-values, a threshold, and what can be promised of false alarms.

Let n normals have the calibration scores s_1 ... s_n. A new image of score s has the conformal
p-value (1 + #{i: s_i >= s}) / (n + 1), and it is NOT OK when that is no more than the wanted rate
of false alarms. What this promises of a new *normal* image, on average over the draws of the
normals and if all of them are exchangeable (same part, camera, light, no selection), depends on
where the calibration scores come from:

``held_out``      Normals that nothing was fitted on. P(p <= rate) <= rate, exactly, for any method
                  (split conformal prediction; Vovk, Gammerman, Shafer, 2005).
``leave_one_out`` Every normal judged after a refit on the others, as the jackknife does. In general
                  no bound holds. Where scores can only fall when a normal is added, as distances to
                  the nearest normal patch do, P(p <= rate) <= 2 rate - 1 / (n + 1), so 1 / (n + 1)
                  at the least rate: such a p-value is no smaller than the jackknife+ one, for which
                  Barber, Candes, Ramdas, Tibshirani (Annals of Statistics, 2021, theorem 1) prove
                  it. https://arxiv.org/abs/1905.02928
``folds``         The same with groups of normals left out, where there are many (CV+, theorem 4
                  there: the bound grows by sqrt(2 / n) at most).
``copies``        Altered copies of the normals, because there are too few to leave one out. They
                  are not exchangeable with other photos: nothing is promised.

No p-value is below 1 / (n + 1), so n normals can promise no lower rate. The tail below may be
asked for more; that is an extrapolation, and it promises nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import genpareto

from fewshot_ad.api import FewShotError

FAR = 0.01
FEWEST_FOR_TAIL = 8
TAIL_SHARE = 0.25
HEAVIEST_TAIL = 0.5
OUTLYING = 6.0
LEAST_RELATIVE_SPREAD = 0.05
_ROUNDING = 1e-9  # 0.29 * 100 is a little less than 29

Source = Literal["held_out", "leave_one_out", "folds", "copies"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What normal images get from a method that was not fitted on them.

    Attributes:
        source: where the scores come from; see the module.
        scores: of the images.
        peaks: the highest value of each image's map.
        floor: median of all pixels of these maps.
        altered_scores, altered_peaks: of altered copies, for the tail alone; may be empty.
    """

    source: Source
    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    floor: float
    altered_scores: tuple[float, ...] = ()
    altered_peaks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """How scores become decisions.

    Attributes:
        far: the wanted rate of false alarms among normal images.
        tail: extrapolate beyond the calibration scores by a fitted tail.
    """

    far: float = FAR
    tail: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.far < 1:
            raise FewShotError(
                f"the false-alarm rate is {self.far}: expected more than 0 and less than 1, as 0.01"
            )

    def p_value(self, score: float, scores: Sequence[float], altered: Sequence[float]) -> float:
        """How rarely a normal image scores as high."""
        if self.tail:
            return fit_tail([*scores, *altered]).chance_above(score)
        return conformal_p_value(score, scores)

    def threshold(self, scores: Sequence[float], altered: Sequence[float]) -> float:
        """What is above it is NOT OK."""
        if self.tail:
            return fit_tail([*scores, *altered]).level(self.far)
        return conformal_threshold(scores, max(self.far, least_rate(len(scores))))


class Tail(NamedTuple):
    """A generalised Pareto tail above ``start``, where a ``share`` of the scores lies."""

    start: float
    share: float
    shape: float
    scale: float

    def chance_above(self, score: float) -> float:
        """The chance of a score of a normal image above this one; never more than ``share``."""
        excess = max(score - self.start, 0.0)
        return float(self.share * genpareto.sf(excess, self.shape, scale=self.scale))

    def level(self, rate: float) -> float:
        """The score that is passed at this rate; ``start`` for rates above ``share``."""
        within = min(rate / self.share, 1.0)
        return self.start + float(genpareto.isf(within, self.shape, scale=self.scale))


def conformal_p_value(score: float, scores: Sequence[float]) -> float:
    """(1 + the number of calibration scores that are as high) / (n + 1)."""
    return (1 + sum(each >= score for each in scores)) / (len(scores) + 1)


def conformal_threshold(scores: Sequence[float], rate: float) -> float:
    """The score above which p-values are no more than ``rate``; ``rate`` >= ``least_rate(n)``."""
    rank = floor(rate * (len(scores) + 1) + _ROUNDING)
    return sorted(scores, reverse=True)[min(rank, len(scores)) - 1]


def least_rate(n: int) -> float:
    """The lowest rate of false alarms that n calibration scores can promise."""
    return 1 / (n + 1)


def fewest_for(rate: float) -> int:
    """How many calibration scores it takes to promise a rate."""
    return ceil(1 / rate - _ROUNDING) - 1


def fit_tail(scores: Sequence[float]) -> Tail:
    """The tail above the upper quarter of the scores, by L-moments.

    These beat maximum likelihood where there are few values (Hosking, Wallis, Technometrics 1987).
    A tail that ends somewhere is not believed from so few: its shape is 0 at least.

    Raises:
        FewShotError: there are too few scores.
    """
    if len(scores) < FEWEST_FOR_TAIL:
        raise FewShotError(
            f"a tail cannot be fitted to {len(scores)} scores: expected {FEWEST_FOR_TAIL} or more; "
            "give more normals, or leave the tail out"
        )
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = max(4, ceil(TAIL_SHARE * len(ordered)))
    start = ordered[-count - 1]
    excess = ordered[-count:] - start
    first = excess.mean()
    second = 2 * (np.arange(count) / (count - 1) * excess).mean() - first
    shape = float(np.clip(2 - first / second, 0, HEAVIEST_TAIL)) if second > 0 else 0.0
    scale = max(float(first) * (1 - shape), float(np.finfo(np.float32).tiny))
    return Tail(float(start), count / len(ordered), shape, scale)


def promise(calibration: Calibration, rule: Rule) -> str:
    """What may be expected of false alarms, in one line, with what would be needed for more."""
    n, far = len(calibration.scores), percent(rule.far)
    if calibration.source == "copies":
        return (
            "too few normals to leave one out: the threshold comes from altered copies of the "
            "same photos, which promises nothing; give 2 normals or more"
        )
    if rule.tail:
        return (
            f"the threshold for {far} false alarms is extrapolated from {n} normals and their "
            "altered copies by a fitted tail: an estimate, not a promise"
        )
    least = least_rate(n)
    if rule.far < least - _ROUNDING:
        return (
            f"{n} normals cannot promise {far} false alarms; the threshold is set for "
            f"{percent(least)}, the least they can ({fewest_for(rule.far)} normals could "
            f"promise {far})"
        )
    if calibration.source == "held_out":
        return f"{far} false alarms at most, by {n} normals that nothing was fitted on"
    bound = "" if calibration.source == "folds" else _bound(rule.far, n)
    return f"{far} false alarms expected, by {n} normals each judged after a refit on others{bound}"


def _bound(far: float, n: int) -> str:
    most = 2 * far - least_rate(n)
    return f"; {percent(most)} at most, where scores only fall when normals are added"


def percent(rate: float) -> str:
    """A rate in percent, short."""
    return f"{100 * rate:.3g} %"


def standing_out(scores: Sequence[float]) -> list[int]:
    """Which normals score so high after a refit on the others that they may be defective.

    Six robust deviations above the median, by the median of absolute deviations; a twentieth of
    the median counts as deviation at least. Fewer than three scores say nothing.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 3:
        return []
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    deviation = max(spread, LEAST_RELATIVE_SPREAD * abs(middle), np.finfo(np.float32).tiny)
    return [int(index) for index in np.flatnonzero((values - middle) / deviation > OUTLYING)]
