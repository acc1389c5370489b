"""From values per position to anomaly map and image score, and from masks to the feature grid."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Prediction

Levels = Sequence[Float[Tensor, "b _ _"]]


def to_vectors(maps: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "bhw c"]:
    """One row per position: over images, then rows, then columns."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def upsample_maps(
    maps: Float[Tensor, "b h w"], size: tuple[int, int], align_corners: bool = False
) -> Float[Tensor, "b H W"]:
    """Bilinear resize to ``size`` (height, width); the official ResAD code aligns corners."""
    resized = functional.interpolate(
        maps[:, None], size, mode="bilinear", align_corners=align_corners
    )
    return resized[:, 0]


def gaussian_blur(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Blur by ``sigma`` pixels as ``scipy.ndimage.gaussian_filter``: to 4 sigma, edges mirrored."""
    weights = blur_weights(sigma)
    if len(weights) == 1:
        return maps
    return _blur_columns(_blur_columns(maps.mT, weights).mT, weights).contiguous()


def blur_weights(sigma: float) -> list[float]:
    """Weights of a pixel and of those 1, 2 ... pixels away on either side, up to 4 sigma."""
    radius = int(4 * sigma + 0.5)
    if not radius:
        return [1.0]
    heights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = heights[0] + 2 * sum(heights[1:])
    return [height / total for height in heights]


def fuse(
    levels: Levels,
    size: tuple[int, int],
    how: Literal["mean", "sum"] = "mean",
    align_corners: bool = False,
) -> Float[Tensor, "b H W"]:
    """Bring the maps of all levels to ``size`` and take their mean or sum."""
    stacked = torch.stack([upsample_maps(maps, size, align_corners) for maps in levels])
    return stacked.mean(dim=0) if how == "mean" else stacked.sum(dim=0)


def finish(
    levels: Levels,
    size: tuple[int, int],
    sigma: float,
    how: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, "b H W"]:
    """``gaussian_blur(fuse(levels, size, how), sigma)`` up to rounding, ten times as quick.

    Both steps are linear and treat one side after the other, so that together they are a product
    with one matrix from the left and one from the right. What needs no upsampling is blurred as it
    is: two products of its own size are no quicker.
    """
    finished = torch.stack([_finished(maps, size, sigma) for maps in levels])
    return finished.mean(dim=0) if how == "mean" else finished.sum(dim=0)


def unlikelihood_map(
    levels: Levels,
    level_peak: Sequence[float],
    size: tuple[int, int],
    total_peak: float | None = None,
    align_corners: bool = False,
) -> Float[Tensor, "b H W"]:
    """Anomaly map from log-likelihoods: what the summed likelihoods lack to ``total_peak``.

    The official code takes both peaks over all test images of the class, so a score depends on its
    neighbours. Here they are constants that the method fixes beforehand, on the support or on known
    classes.

    Args:
        levels: log-likelihood per channel, one map per level.
        level_peak: log-likelihood that counts as likelihood 1, per level.
        size: height and width of the result.
        total_peak: greatest sum of likelihoods, the number of levels if not given; shifts all
            scores alike.
        align_corners: as in :func:`upsample_maps`.
    """
    pairs = zip(levels, level_peak, strict=True)
    likelihood = fuse([(maps - peak).exp() for maps, peak in pairs], size, "sum", align_corners)
    return (len(levels) if total_peak is None else total_peak) - likelihood


def image_score(anomaly_map: Float[Tensor, "b h w"], top: int = 1) -> Float[Tensor, " b"]:
    """Mean of the ``top`` highest pixels; the maximum by default."""
    return anomaly_map.flatten(1).topk(top, dim=1).values.mean(dim=1)


def no_prediction(images: Float[Tensor, "b 3 h w"]) -> Prediction:
    """What any method says of no images: no scores, and no maps of their size."""
    return Prediction(torch.zeros(0), torch.zeros(0, *images.shape[-2:]))


def mask_to_grid(masks: Bool[Tensor, "b H W"], size: tuple[int, int]) -> Bool[Tensor, "b h w"]:
    """Masks at the size of a feature grid: a cell is anomalous if any of its pixels is."""
    return functional.adaptive_max_pool2d(masks[:, None].float(), size)[:, 0] > 0


def map_to_grid(maps: Float[Tensor, "b H W"], size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """Anomaly maps at the size of a feature grid: the mean of the pixels of each cell."""
    return functional.adaptive_avg_pool2d(maps[:, None], size)[:, 0]


def _finished(maps: Tensor, size: tuple[int, int], sigma: float) -> Float[Tensor, "b H W"]:
    if maps.shape[1:] == size:
        return gaussian_blur(maps, sigma)
    (height, width), (cells_down, cells_across) = size, maps.shape[1:]
    down, across = _side(cells_down, height, sigma), _side(cells_across, width, sigma)
    return down.to(maps) @ maps @ across.mT.to(maps)


@cache
def _side(cells: int, pixels: int, sigma: float) -> Float[Tensor, "p c"]:
    """What upsampling and blur spread of each cell of a column to each of its pixels."""
    with torch.inference_mode(mode=False):  # whoever asks first: it is kept for all
        alone = torch.eye(cells, dtype=torch.float64)[None]
        enlarged = upsample_maps(alone, (pixels, cells))
        return _blur_columns(enlarged, blur_weights(sigma))[0].float()


def _blur_columns(maps: Tensor, weights: list[float]) -> Tensor:
    """Blur along the height; sums of slices give an image the same bits alone and in a batch."""
    height, radius = maps.shape[1], len(weights) - 1
    place = torch.arange(-radius, height + radius, device=maps.device) % (2 * height)
    padded = maps[:, torch.minimum(place, 2 * height - 1 - place)]
    blurred = weights[0] * padded[:, radius : radius + height]
    for offset, weight in enumerate(weights[1:], start=1):
        before = padded[:, radius - offset : radius - offset + height]
        blurred += weight * (before + padded[:, radius + offset : radius + offset + height])
    return blurred
