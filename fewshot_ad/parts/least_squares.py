"""A feature constraintor that is solved for instead of trained.

ResAD's abnormal-invariant loss (eq. 2) draws normal residuals to the centre and keeps anomalous
ones where they are. With squares for its norms and a 3x3 convolution for the constraintor, its
minimiser is a linear filter in closed form, the filter that Wiener derived for noise: normal
residuals are what is to be taken out, anomalous ones what is to come through. There are no first
weights and no steps that could go astray; how well it carries over still hangs on how many and how
varied the known classes are (docs/resad.md).

Extrapolation, Interpolation, and Smoothing of Stationary Time Series. Wiener. MIT Press 1949.
The approximation of one matrix by another of lower rank. Eckart, Young. Psychometrika 1936.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.data_parallel import in_shares

SIDE = 3
POSITIONS = 8192  # of a class and kind that are looked at: the moments hardly change beyond
CHUNK = 8  # images that are unfolded at once
PRIOR = 0.05  # imagined windows per unknown that are to stay as they are
LEAST_LEFT = 1e-4  # of a few normal windows W may leave nothing, which is no unit to scale by

LabelledMaps = tuple[Float[Tensor, "_ c h w"], Bool[Tensor, "_ h w"]]


class Moments(NamedTuple):
    """Mean products of the values in a 3x3 window, of normal and of anomalous positions.

    ``defects`` is the number of anomalous positions that were looked at.
    """

    normal: Float[Tensor, "k k"]
    anomalous: Float[Tensor, "k k"]
    defects: int


class LeastSquaresConstraintor(nn.Module):
    """A 3x3 convolution at the minimum of the squared eq. 2; the identity until it is solved.

    Args:
        channels: of the residuals.
        width: how many channels come out, at most ``channels``; with fewer, it is the best
            convolution of that rank, and what follows has less to do.
    """

    kernel: Tensor

    def __init__(self, channels: int, width: int | None = None) -> None:
        super().__init__()
        width = min(channels, width or channels)
        kernel = torch.zeros(width, channels, SIDE, SIDE)
        kernel[:, :, SIDE // 2, SIDE // 2] = torch.eye(width, channels)
        self.register_buffer("kernel", kernel)

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Constrained residuals of either sign, about one per channel on known normals."""
        return in_shares(self._filtered, residuals)

    def _filtered(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        # One image at a time, so that an image has the same bits alone and in a batch.
        constrained = [functional.conv2d(one, self.kernel, padding="same") for one in residuals]
        return torch.stack(constrained)

    @torch.no_grad()
    def solve(self, classes: Sequence[LabelledMaps], seed: int = 0) -> None:
        """Minimise E|W u|^2 over normals + E|W u - r|^2 over anomalies, u the window around r.

        Setting the derivative to zero gives W = R (A + C)^-1, with C and A the second moments of
        normal and anomalous windows and R those of anomalous centres with their windows. A few
        imagined anomalies, ``PRIOR`` per unknown and alike in every direction, keep W near the
        identity where there are not many real ones.

        Args:
            classes: residuals and which positions are anomalous, of every known class. They weigh
                alike, whatever their number of defects and the length of their residuals. Without
                any anomalous position the constraintor stays the identity.
            seed: of the positions that are looked at, where there are more than ``POSITIONS``.
        """
        normal, anomalous, defects = _mean_moments(classes, torch.Generator().manual_seed(seed))
        if not (normal.isfinite().all() and anomalous.isfinite().all()):
            return
        size, middle = len(normal), self._middle()
        imagined = PRIOR * size / defects
        anomalous = anomalous + imagined * anomalous.diagonal().mean() * torch.eye(size).to(normal)
        both = anomalous + normal
        filters = torch.linalg.solve(both, anomalous[:, middle])
        if len(self.kernel) < len(middle):
            filters = filters @ _loudest(filters, both, len(self.kernel))
        left = (filters * (normal @ filters)).sum() / len(self.kernel)  # mean square of normals
        filters = filters / left.clamp(min=LEAST_LEFT).sqrt()
        self.kernel.copy_(filters.T.reshape(self.kernel.shape))

    def _middle(self) -> Tensor:
        """Which entries of a window belong to its middle, channel by channel."""
        area, channels = SIDE * SIDE, self.kernel.shape[1]
        return torch.arange(channels, device=self.kernel.device) * area + area // 2


def _loudest(
    filters: Float[Tensor, "k c"], moments: Float[Tensor, "k k"], width: int
) -> Float[Tensor, "c d"]:
    """Orthonormal directions of what comes through; the rest of it is the least that can be lost.

    The loss is |W' u - W u|^2 above its minimum in the mean over windows u, so the best W' of a
    rank keeps the greatest principal components of W u (Eckart and Young).
    """
    _, directions = torch.linalg.eigh(filters.T @ moments @ filters)
    return directions[:, -width:]


def window_moments(
    maps: Float[Tensor, "n c h w"], cells: Bool[Tensor, "n h w"], generator: torch.Generator
) -> Moments:
    """Second moments of the 3x3 windows of one class, in units of its normals' mean square.

    Args:
        maps: residuals.
        cells: which positions are anomalous.
        generator: picks the positions where there are more than ``POSITIONS`` of a kind.

    Returns:
        Moments in float64, windows unfolded channel by channel; NaN for a kind that is absent.
    """
    kinds = [_some(kind, generator) for kind in (~cells, cells)]
    normal, anomalous = (_mean_product(maps, places) for places in kinds)
    middle = normal.diagonal()[SIDE * SIDE // 2 :: SIDE * SIDE]
    unit = middle.mean().clamp(min=torch.finfo(torch.float32).tiny)
    return Moments(normal / unit, anomalous / unit, int(kinds[1].sum()))


def _mean_product(maps: Tensor, places: Tensor) -> Float[Tensor, "k k"]:
    width = maps.shape[1] * SIDE * SIDE
    total = torch.zeros(width, width, dtype=torch.float64, device=maps.device)
    for chunk, wanted in zip(maps.split(CHUNK), places.split(CHUNK), strict=True):
        if wanted.any():
            windows = functional.unfold(chunk, SIDE, padding=SIDE // 2).mT
            rows = windows[wanted.flatten(1)]
            total += (rows.T @ rows).double()
    return total / places.sum()


def _some(places: Bool[Tensor, "n h w"], generator: torch.Generator) -> Bool[Tensor, "n h w"]:
    """At most ``POSITIONS`` of the places, at random."""
    chosen = places.flatten().nonzero()[:, 0]
    if len(chosen) <= POSITIONS:
        return places
    kept = torch.randperm(len(chosen), generator=generator)[:POSITIONS].to(chosen.device)
    some = torch.zeros(places.numel(), dtype=torch.bool, device=places.device)
    some[chosen[kept]] = True
    return some.view(places.shape)


def _mean_moments(classes: Sequence[LabelledMaps], generator: torch.Generator) -> Moments:
    """Means over the classes that have the kind, NaN if none has; only two matrices are held."""
    normal, anomalous = _Mean(), _Mean()
    defects = 0
    for maps, cells in classes:
        found = window_moments(maps, cells, generator)
        normal.add(found.normal)
        anomalous.add(found.anomalous)
        defects += found.defects
    return Moments(normal.value, anomalous.value, defects)


class _Mean:
    """Of what is finite among the matrices added one by one."""

    def __init__(self) -> None:
        self._total, self._count = torch.zeros((), dtype=torch.float64), 0

    def add(self, matrix: Tensor) -> None:
        if matrix.isfinite().all():
            self._total, self._count = self._total.to(matrix) + matrix, self._count + 1

    @property
    def value(self) -> Tensor:
        return self._total / self._count if self._count else torch.full((1, 1), torch.nan)
