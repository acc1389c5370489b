"""Whether the camera, the light or the part has changed, by the ranks of recent scores.

When a lamp ages, every photo scores higher, and a threshold would reject them all, or pass what it
should not. Recent scores are compared with those of the calibration by the rank test of Wilcoxon,
Mann and Whitney (1947), two-sided. A few defects among many photos hardly move ranks; a shift of
all moves them at once. Leave-one-out scores are a little higher than those of later photos, since
each refit lacks one normal: the least p-value that is worth a word is small for that reason.
"""

from collections import deque
from collections.abc import Sequence

from scipy.stats import mannwhitneyu

WINDOW = 40
FEWEST = 10
ALARM = 1e-4


def drift_p_value(recent: Sequence[float], calibration: Sequence[float]) -> float:
    """How rarely two samples of one law differ as much in their ranks; small means a change."""
    return float(mannwhitneyu(recent, calibration, alternative="two-sided").pvalue)


class DriftWatch:
    """Looks at the most recent scores and says once that they have changed.

    Args:
        calibration: scores of normals.
        window: how many recent scores are looked at.
        alarm: p-values below it are told of.
    """

    def __init__(
        self, calibration: Sequence[float], *, window: int = WINDOW, alarm: float = ALARM
    ) -> None:
        self._calibration = calibration
        self._recent: deque[float] = deque(maxlen=window)
        self._alarm = alarm
        self._is_told = False

    def add(self, score: float) -> str | None:
        """Take in one score; a line when a change is seen that was not told of yet."""
        self._recent.append(score)
        if len(self._recent) < FEWEST:
            return None
        p_value = drift_p_value([*self._recent], self._calibration)
        if p_value >= self._alarm:
            self._is_told = False
            return None
        if self._is_told:
            return None
        self._is_told = True
        return (
            f"the last {len(self._recent)} scores are unlike those of the normals (rank test, "
            f"p = {p_value:.1g}): the camera, the light or the part has changed, or most parts are "
            "defective; look, then fit again or set the threshold anew"
        )
