"""How far a difference of two AUROCs would swing with other test images and other supports.

AUROC is a share of pairs: one anomalous unit, one normal unit, in the right order or not. Counted
once per pair of *images*, the pairs of any resample of the images are a weighted sum of those
counts, so thousands of resamples cost a product of matrices, for images and for pixels alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 2048
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The pairs behind an AUROC, image by image.

    Attributes:
        wins: at [i, j] the pairs of an anomalous unit of image i above a normal unit of image j,
            ties counted half.
        positives, negatives: anomalous and normal units of every image.
    """

    wins: Float[np.ndarray, "n n"]
    positives: Float[np.ndarray, " n"]
    negatives: Float[np.ndarray, " n"]

    def auroc(self, counts: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
        """AUROC where every image is taken as often as ``counts`` says."""
        won = np.einsum("bi,bi->b", counts @ self.wins, counts)
        return won / ((counts @ self.positives) * (counts @ self.negatives))


def image_pairs(scores: Float[np.ndarray, " n"], is_anomalous: Bool[np.ndarray, " n"]) -> Pairs:
    """Every image is one unit; exact."""
    order = np.unique(scores, return_inverse=True)[1]
    levels = np.zeros((len(scores), int(order.max()) + 1))
    levels[np.arange(len(scores)), order] = 1.0
    return _pairs(levels * is_anomalous[:, np.newaxis], levels * ~is_anomalous[:, np.newaxis])


def pixel_pairs(
    maps: Sequence[Float[np.ndarray, "_ _"]], masks: Sequence[Bool[np.ndarray, "_ _"]]
) -> Pairs:
    """Every pixel is one unit; scores that fall between the same two quantiles count as equal.

    The quantiles are of all pixels, ``BINS`` of them, so AUROC is off by less than 1e-3.
    """
    pixels = np.concatenate([one.ravel()[:: max(1, one.size // 4096)] for one in maps])
    edges = np.unique(np.quantile(pixels, np.linspace(0, 1, BINS + 1)[1:-1]))
    counted = [_histograms(*pair, edges) for pair in zip(maps, masks, strict=True)]
    anomalous, normal = (np.stack(side) for side in zip(*counted, strict=True))
    return _pairs(anomalous, normal)


def resamples(
    is_anomalous: Bool[np.ndarray, " n"], n_resamples: int, generator: np.random.Generator
) -> Float[np.ndarray, "b n"]:
    """How often each image is drawn, with replacement, among the normal and among the anomalous.

    Both keep their number, so that no resample lacks a side.
    """
    counts = np.zeros((n_resamples, len(is_anomalous)))
    for side in (is_anomalous, ~is_anomalous):
        where = np.flatnonzero(side)
        share = np.full(len(where), 1.0 / max(len(where), 1))
        if len(where):
            counts[:, where] = generator.multinomial(len(where), share, n_resamples)
    return counts


def differences(
    first: Sequence[Pairs],
    second: Sequence[Pairs],
    is_anomalous: Bool[np.ndarray, " n"],
    generator: np.random.Generator,
    n_resamples: int = RESAMPLES,
) -> Float[np.ndarray, " b"]:
    """Resampled differences ``second - first`` of the mean AUROC over supports.

    Images are drawn anew, and supports too where there are several; both sides see the same draw,
    and all supports the same images (Efron and Tibshirani, An Introduction to the Bootstrap, 1993;
    crossed factors as in Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 1, 2007).

    Args:
        first: the pairs of each support.
        second: those that are compared, supports in the same order.
        is_anomalous: of the images.
        generator: of the draws.
        n_resamples: how many.
    """
    counts = resamples(is_anomalous, n_resamples, generator)
    by_support = np.stack(
        [b.auroc(counts) - a.auroc(counts) for a, b in zip(first, second, strict=True)]
    )
    n_supports = len(by_support)
    drawn: Int[np.ndarray, "b s"] = generator.integers(n_supports, size=(n_resamples, n_supports))
    return by_support[drawn, np.arange(n_resamples)[:, np.newaxis]].mean(axis=1)


def interval(values: Float[np.ndarray, " b"], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _histograms(
    one: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], edges: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Anomalous and normal pixels per bin."""
    bins = np.searchsorted(edges, one.ravel())
    all_pixels, anomalous = (
        np.bincount(chosen, minlength=len(edges) + 1).astype(np.float64)
        for chosen in (bins, bins[mask.ravel()])
    )
    return anomalous, all_pixels - anomalous


def _pairs(anomalous: Float[np.ndarray, "n k"], normal: Float[np.ndarray, "n k"]) -> Pairs:
    below = np.cumsum(normal, axis=1) - normal / 2
    return Pairs(anomalous @ below.T, anomalous.sum(axis=1), normal.sum(axis=1))
