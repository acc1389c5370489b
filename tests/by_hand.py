"""Slow, obvious versions of what several methods compute."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

LEAST_DEVIATION = 0.3


def turned(one: np.ndarray, other: np.ndarray) -> float:
    """1 - cosine of two vectors."""
    return 1 - float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def turned_grid(one: Tensor, other: Tensor) -> np.ndarray:
    """1 - cosine at every position of two maps [c h w], one position after another."""
    a, b = one.double().numpy(), other.double().numpy()
    grid = np.empty(a.shape[1:])
    for row, column in np.ndindex(*grid.shape):
        grid[row, column] = turned(a[:, row, column], b[:, row, column])
    return grid


def enlarged(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h w] resized bilinearly."""
    given = torch.from_numpy(grid)[None, None]
    return functional.interpolate(given, size, mode="bilinear")[0, 0].numpy()


def turning_map(
    levels: Sequence[Tensor], rebuilt: Sequence[Tensor], size: tuple[int, int], blur: float
) -> np.ndarray:
    """How far one image's features turn on all levels together, blurred: the sum over levels."""
    with torch.no_grad():
        grids = [turned_grid(one[0], other[0]) for one, other in zip(levels, rebuilt, strict=True)]
    return gaussian_filter(sum(enlarged(grid, size) for grid in grids), blur)


def spread(known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel of maps [b c h w], the latter with a floor, [c 1 1]."""
    values = known.double().transpose(0, 1).flatten(1)
    mean, deviation = values.mean(dim=1), values.std(dim=1, correction=0)
    floor = float(LEAST_DEVIATION * deviation.square().mean().sqrt())
    return mean.view(-1, 1, 1), deviation.clamp(min=floor).view(-1, 1, 1)


def joined_by_means(levels: Sequence[Tensor]) -> Tensor:
    """Levels of whose grids each is twice as wide as the next, on the last grid, by means."""
    last = levels[-1].shape[-1]
    boxes = [(maps, maps.shape[-1] // last) for maps in levels]
    return torch.cat([maps.unfold(2, s, s).unfold(3, s, s).mean((4, 5)) for maps, s in boxes], 1)


def whole_turns(levels: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> list[float]:
    """1 - cosine of each image's features as one long vector, the mean over images, per level."""
    pairs = zip(levels, rebuilt, strict=True)
    vectors = [[maps.detach().flatten(1).double().numpy() for maps in pair] for pair in pairs]
    return [float(np.mean([turned(*each) for each in zip(*two, strict=True)])) for two in vectors]


def focal_and_dice(chances: np.ndarray, wanted: np.ndarray, gamma: float) -> tuple[float, float]:
    """Losses of a marked map: cross-entropy of what is not sure, and 1 - overlap."""
    right = np.where(wanted, chances, 1 - chances)
    focal = -((1 - right) ** gamma * np.log(right)).mean()
    overlap = 2 * (chances * wanted).sum() + 1
    return float(focal), float(1 - overlap / (chances.sum() + wanted.sum() + 1))
