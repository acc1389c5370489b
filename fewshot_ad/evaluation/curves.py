"""The curves behind the areas, at fixed places, so that those of many episodes can be averaged."""

import numpy as np
from jaxtyping import Float

from fewshot_ad.evaluation.ranking import Ranking

POINTS = 101
GRID = np.linspace(0.0, 1.0, POINTS) ** 2
"""False-positive rates (or recalls) of the points; closer together near zero, where it matters."""

CURVES = {
    "i_roc": ("Images, ROC", "false-positive rate", "true-positive rate"),
    "i_pr": ("Images, precision and recall", "recall", "precision"),
    "p_roc": ("Pixels, ROC", "false-positive rate", "true-positive rate"),
    "p_pr": ("Pixels, precision and recall", "recall", "precision"),
    "pro": ("Regions, PRO", "false-positive rate", "mean overlap of regions"),
}
"""Title, horizontal and vertical axis of each curve."""

Curve = Float[np.ndarray, "101"]


def image_curves(ranking: Ranking) -> dict[str, Curve]:
    """Heights over ``GRID`` of the curves of a ranking of images."""
    return {f"i_{name}": curve for name, curve in _curves(ranking).items()}


def pixel_curves(ranking: Ranking, n_regions: int) -> dict[str, Curve]:
    """Heights over ``GRID`` of the curves of a ranking of pixels."""
    pro = ranking.climb(ranking.region_shares / n_regions, GRID)
    return {f"p_{name}": curve for name, curve in _curves(ranking).items()} | {"pro": pro}


def _curves(ranking: Ranking) -> dict[str, Curve]:
    share = ranking.positives / ranking.positives.sum()
    return {"roc": ranking.climb(share, GRID), "pr": ranking.precision(GRID)}
