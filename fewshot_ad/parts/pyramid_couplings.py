"""Flows over Laplacian pyramids whose scales move each other (PyramidFlow, sections 3.2 and 3.3).

https://arxiv.org/abs/2303.02595. Nothing is lost and volume is kept: taking a pyramid apart and
putting it together are exact opposites, and couplings have a determinant of one.
"""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.flows import draw_rotation
from fewshot_ad.parts.seeding import seeded_weights

Pyramid = list[Float[Tensor, "b c _ _"]]
"""Maps of one image from fine to coarse."""

Volume = Literal["channel", "spatial"]

TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
REACH = len(TAPS) // 2


def decompose(maps: Float[Tensor, "b c h w"], scales: int) -> Pyramid:
    """What each scale has over the next coarser one, and the coarsest as it is."""
    pyramid = []
    for _ in range(scales - 1):
        coarse = halve(maps)
        pyramid.append(maps - enlarge(coarse, maps))
        maps = coarse
    return [*pyramid, maps]


def compose(pyramid: Pyramid) -> Float[Tensor, "b c h w"]:
    """The maps that :func:`decompose` took apart; linear in the pyramid."""
    *finer, maps = pyramid
    for detail in reversed(finer):
        maps = detail + enlarge(maps, detail)
    return maps


def halve(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Every second position of the blurred maps."""
    return _blur(maps)[:, :, ::2, ::2]


def enlarge(
    maps: Float[Tensor, "b c h w"], like: Float[Tensor, "b c H W"]
) -> Float[Tensor, "b c H W"]:
    """Every position repeated up to the size of ``like``, then blurred."""
    return _blur(functional.interpolate(maps, (like.shape[-2], like.shape[-1]), mode="nearest"))


class ScaleCoupling(nn.Module):
    """One step: every second scale moves as its neighbours say, then the others, then all rotate.

    A fresh step only rotates.

    Args:
        channels: of the maps.
        scales: of the pyramid, two at least.
        kernel: side of the convolutions, odd.
        volume: ``channel`` takes the mean over channels from the log-scales of each position,
            ``spatial`` the mean over positions from those of each channel.
        rotations: [scales c c], orthogonal.
    """

    rotations: Tensor

    def __init__(
        self,
        channels: int,
        scales: int,
        kernel: int,
        volume: Volume,
        rotations: Float[Tensor, "s c c"],
    ) -> None:
        super().__init__()
        self.volume = volume
        neighbours = [1, *[2] * (scales - 2), 1]
        self.subnets = nn.ModuleList(_subnet(n * channels, channels, kernel) for n in neighbours)
        self.register_buffer("rotations", rotations)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Towards the latents."""
        pyramid = list(pyramid)
        for place in self._order(len(pyramid)):
            log_scale, shift = self._read(pyramid, place)
            pyramid[place] = pyramid[place] * log_scale.exp() + shift
        return [_rotate(each, by) for each, by in zip(pyramid, self.rotations, strict=True)]

    def inverse(self, latents: Pyramid) -> Pyramid:
        """Back to the pyramid."""
        pyramid = [_rotate(each, by.T) for each, by in zip(latents, self.rotations, strict=True)]
        for place in reversed(self._order(len(pyramid))):
            log_scale, shift = self._read(pyramid, place)
            pyramid[place] = (pyramid[place] - shift) * (-log_scale).exp()
        return pyramid

    def _order(self, scales: int) -> list[int]:
        return [*range(0, scales, 2), *range(1, scales, 2)]

    def _read(self, pyramid: Pyramid, place: int) -> tuple[Tensor, Tensor]:
        """Log-scale and shift that the neighbours of a scale give it."""
        seen = [halve(pyramid[place - 1])] if place > 0 else []
        seen += [enlarge(each, pyramid[place]) for each in pyramid[place + 1 : place + 2]]
        raw, shift = self.subnets[place](torch.cat(seen, dim=1)).chunk(2, dim=1)
        log_scale = 4 / math.pi * torch.atan(raw / 2)
        over = (1,) if self.volume == "channel" else (2, 3)
        return log_scale - log_scale.mean(dim=over, keepdim=True), shift


class ScaleFlow(nn.Module):
    """Coupling steps one after another.

    Args:
        channels: of the maps.
        scales: of the pyramid, two at least.
        blocks: how many steps.
        kernel: side of the convolutions, odd.
        volume: see :class:`ScaleCoupling`.
        seed: draws weights and rotations; the global generators are left as they were.
    """

    def __init__(
        self,
        channels: int,
        scales: int = 4,
        blocks: int = 4,
        kernel: int = 7,
        volume: Volume = "channel",
        seed: int = 0,
    ) -> None:
        super().__init__()
        with seeded_weights(seed) as generator:
            steps = []
            for _ in range(blocks):
                rotations = [draw_rotation(channels, generator) for _ in range(scales)]
                step = ScaleCoupling(channels, scales, kernel, volume, torch.stack(rotations))
                steps.append(step)
        self.couplings = cast("Sequence[ScaleCoupling]", nn.ModuleList(steps))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Latents of every scale."""
        for coupling in self.couplings:
            pyramid = coupling(pyramid)
        return pyramid

    def inverse(self, latents: Pyramid) -> Pyramid:
        """The pyramid that :meth:`forward` turns into ``latents``."""
        for coupling in reversed(self.couplings):
            latents = coupling.inverse(latents)
        return latents


def _subnet(width_in: int, channels: int, kernel: int) -> nn.Sequential:
    last = nn.Conv2d(channels, 2 * channels, kernel, padding="same")
    for weight in last.parameters():
        nn.init.zeros_(weight)
    first = nn.Conv2d(width_in, channels, kernel, padding="same")
    return nn.Sequential(first, nn.LeakyReLU(), last)


def _rotate(maps: Float[Tensor, "b c h w"], by: Float[Tensor, "c c"]) -> Float[Tensor, "b c h w"]:
    return functional.conv2d(maps, by[:, :, None, None])


def _blur(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    channels = maps.shape[1]
    taps = torch.tensor(TAPS, dtype=maps.dtype, device=maps.device)
    down = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    padded = functional.pad(maps, (REACH,) * 4, mode="replicate")
    blurred = functional.conv2d(padded, down, groups=channels)
    return functional.conv2d(blurred, down.mT, groups=channels)
