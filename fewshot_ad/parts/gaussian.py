"""One Gaussian per position of a grid, from as little as one image.

A covariance of N samples has rank N - 1 at most, so each is drawn towards the mean covariance of
all positions, as far as that brings them nearer to the true ones: the share of Ledoit and Wolf, for
Gaussian samples as in Chen, Wiesel, Eldar and Hero (https://arxiv.org/abs/0907.4698), since two
samples alone do not tell how wrong their covariance is. What all positions share is whitened away
once; what is left of a position is the identity plus a few directions, which keeps its solve small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian per position, in float64; p positions, c channels, m directions.

    Attributes:
        grid: height and width; positions are counted row by row.
        mean: of every position.
        whitener: lower Cholesky factor of the part of the covariance that all positions share.
        directions: a position's own part: of a whitened vector w, its Mahalanobis distance is the
            root of ``|w|^2 - |directions w|^2``.
        shrinkage: share of the mean covariance in that of every position.
    """

    grid: tuple[int, int]
    mean: Float64[Tensor, "p c"]
    whitener: Float64[Tensor, "c c"]
    directions: Float64[Tensor, "p m c"]
    shrinkage: float

    def mahalanobis(self, maps: Float[Tensor, "c h w"]) -> Float64[Tensor, "h w"]:
        """Distance of every position of one image from the mean there."""
        away = maps.flatten(1).T.double() - self.mean
        white = _whiten(away, self.whitener)
        along = (self.directions @ white[:, :, None])[:, :, 0]
        squared = white.square().sum(dim=1) - along.square().sum(dim=1)
        return squared.clamp(min=0).sqrt().view(self.grid)


def fit_gaussians(
    maps: Float[Tensor, "n c h w"],
    neighbourhood: int = 1,
    shrinkage: float | None = None,
    ridge: float = 0.01,
) -> Gaussians:
    """Estimate mean and covariance of every position over the images.

    Args:
        maps: features of the support.
        neighbourhood: side, odd, of the square of positions whose features are samples of the one
            in its middle; the border is repeated outwards.
        shrinkage: share of the mean covariance over all positions; None estimates it. One sample
            has no covariance: it takes all of it.
        ridge: added to the variance of every channel, in units of their mean variance over all
            images and positions; above 0.
    """
    size = len(maps) * neighbourhood**2
    moments = _moments(maps, neighbourhood)
    share = moments.shrinkage(size) if shrinkage is None or size == 1 else shrinkage
    variance = maps.var(dim=(0, 2, 3), correction=0).mean().double()
    floor = ridge * torch.where(variance > 0, variance, 1.0)
    shared = share * moments.pooled + floor * torch.eye(maps.shape[1]).to(moments.pooled)
    whitener = torch.linalg.cholesky(shared)
    own = ((1 - share) / size) ** 0.5
    means, directions = [], []
    for samples in _windows(maps, neighbourhood):
        mean = samples.mean(dim=1, keepdim=True)
        means.append(mean[:, 0])
        directions.append(_directions(own * _whiten(samples - mean, whitener)))
    grid = maps.shape[2], maps.shape[3]
    return Gaussians(grid, torch.cat(means), whitener, torch.cat(directions), share)


@dataclass(frozen=True)
class _Moments:
    """Of the covariances S of all positions: their mean T, mean of (tr S)^2 and of |S|^2."""

    pooled: Float64[Tensor, "c c"]
    trace: float
    squared: float

    def shrinkage(self, size: int) -> float:
        """The best share of T for ``size`` samples a position, one for all positions.

        It is E|S - true|^2 / E|S - T|^2. With v = size - 1, Gaussian samples have the errors
        (|true|^2 + (tr true)^2) / v and E(tr S)^2 = (tr true)^2 + 2 |true|^2 / v. Where |true|^2 is
        the same part r of (tr true)^2 as it is in T, the first follows from the second.
        """
        total = float(self.pooled.square().sum())
        distance = self.squared - total
        if distance <= 0:
            return 1.0
        part = total / float(self.pooled.trace()) ** 2
        error = (1 + part) / (size - 1 + 2 * part) * self.trace
        return min(1.0, error / distance)


def _moments(maps: Tensor, neighbourhood: int) -> _Moments:
    channels, height, width = maps.shape[1:]
    pooled = torch.zeros(channels, channels, dtype=torch.float64, device=maps.device)
    trace = squared = 0.0
    for samples in _windows(maps, neighbourhood):
        away = samples - samples.mean(dim=1, keepdim=True)
        size = away.shape[1]
        rows = away.flatten(0, 1)
        pooled += rows.T @ rows / size
        trace += float((away.square().sum(dim=(1, 2)) / size).square().sum())
        products = away @ away.mT if size < channels else away.mT @ away
        squared += float(products.square().sum()) / size**2
    positions = height * width
    return _Moments(pooled / positions, trace / positions, squared / positions)


def _directions(white: Float64[Tensor, "p n c"]) -> Float64[Tensor, "p m c"]:
    """What W^T W adds to the identity, as rows A with (I + W^T W)^-1 = I - A^T A (Woodbury)."""
    if white.shape[1] > white.shape[2]:
        white = torch.linalg.qr(white, mode="r").R  # fewer rows of the same W^T W
    inner = torch.eye(white.shape[1]).to(white) + white @ white.mT
    return torch.linalg.solve_triangular(torch.linalg.cholesky(inner), white, upper=False)


def _whiten(
    rows: Float64[Tensor, "*n c"], factor: Float64[Tensor, "c c"]
) -> Float64[Tensor, "*n c"]:
    return torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)


def _windows(maps: Float[Tensor, "n c h w"], side: int) -> Iterator[Float64[Tensor, "w m c"]]:
    """Samples of the positions of one row of the grid after another."""
    padded = functional.pad(maps, (side // 2,) * 4, mode="replicate")
    for row in range(maps.shape[2]):
        windows = padded[:, :, row : row + side].unfold(3, side, 1)  # n c side w side
        yield windows.permute(3, 0, 2, 4, 1).flatten(1, 3).double()
