"""Which images of an episode are worth a look, and the colour scale that they share."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

EXAMPLES = 3
LOW_PERCENTILE, HIGH_PERCENTILE = 50.0, 99.5


@dataclass(frozen=True)
class Scale:
    """The anomaly values that are painted transparent (and below) and brightest (and above)."""

    low: float
    high: float


def shared_scale(maps: Float[np.ndarray, "b h w"]) -> Scale:
    """One scale for all maps of an episode: from their median to their 99.5th percentile.

    Both are taken over the pixels of all query maps together, never over those of one image.
    """
    low, high = np.percentile(maps, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return Scale(float(low), float(high))


def pick_examples(
    scores: Float[np.ndarray, " b"], is_anomalous: Bool[np.ndarray, " b"]
) -> dict[str, list[int]]:
    """Indices of the images worth a look, by kind, the most telling first; ties in query order."""
    highest_first = [int(i) for i in np.argsort(-scores, kind="stable")]
    lowest_first = [int(i) for i in np.argsort(scores, kind="stable")]
    return {
        "Highest scores": highest_first[:EXAMPLES],
        "Worst misses (anomalous, lowest scores)": [i for i in lowest_first if is_anomalous[i]][
            :EXAMPLES
        ],
        "False alarms (normal, highest scores)": [i for i in highest_first if not is_anomalous[i]][
            :EXAMPLES
        ],
    }
