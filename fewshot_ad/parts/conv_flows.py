"""Normalizing flows over feature maps: convolutions let a position see its surroundings.

The coupling of RealNVP (https://arxiv.org/abs/1605.08803) with the scale of Glow, as FastFlow uses
them. Latents keep the shape of the maps, and the log-determinant is told position by position.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.flows import log_likelihood
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.seeding import seeded_weights

Moved = tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"]]
"""Maps, and what each position adds to the log-determinant."""


class ConvCoupling(nn.Module):
    """One step: the second half of the channels moves as a small network reads off the first.

    Then every channel has a scale and an offset, and channels change places. A fresh step changes
    nothing but the places.

    Args:
        channels: of the maps, two at least.
        hidden: width of the small network.
        kernel: side of its convolutions, odd.
        clamping: greatest log-scale.
        order: which channel comes first, second ... afterwards.
    """

    order: Tensor

    def __init__(
        self, channels: int, hidden: int, kernel: int, clamping: float, order: Tensor
    ) -> None:
        super().__init__()
        self.widths = [channels - channels // 2, channels // 2]
        self.clamping = clamping
        last = nn.Conv2d(hidden, 2 * self.widths[1], kernel, padding="same")
        for weight in last.parameters():
            nn.init.zeros_(weight)
        first = nn.Conv2d(self.widths[0], hidden, kernel, padding="same")
        self.subnet = nn.Sequential(first, nn.ReLU(), last)
        self.log_gain = nn.Parameter(torch.zeros(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("order", order)

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Moved:
        """Towards the latents."""
        kept, moved = maps.split(self.widths, dim=1)
        log_scale, shift = self._read(kept)
        joined = torch.cat([kept, moved * log_scale.exp() + shift], dim=1)
        latents = joined * self.log_gain.exp() + self.offset
        return latents[:, self.order], log_scale.sum(dim=1) + self.log_gain.sum()

    def inverse(self, latents: Float[Tensor, "b c h w"]) -> Moved:
        """Back to the maps, with the log-determinant this way."""
        joined = latents[:, self.order.argsort()]
        joined = (joined - self.offset) * (-self.log_gain).exp()
        kept, moved = joined.split(self.widths, dim=1)
        log_scale, shift = self._read(kept)
        maps = torch.cat([kept, (moved - shift) * (-log_scale).exp()], dim=1)
        return maps, -log_scale.sum(dim=1) - self.log_gain.sum()

    def _read(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift of the other half."""
        raw, shift = self.subnet(kept).chunk(2, dim=1)
        return self.clamping * torch.tanh(raw / self.clamping), shift


class ConvFlow(nn.Module):
    """Coupling steps one after another.

    Args:
        channels: of the maps.
        blocks: how many steps; 0 for the identity.
        kernels: sides of the convolutions, taken in turn from step to step.
        hidden_ratio: width of the small networks over that of what they read.
        clamping: greatest log-scale of a step.
        seed: draws weights and places; the global generators are left as they were.

    Raises:
        FewShotError: there is one channel, which leaves nothing to read from.
    """

    def __init__(
        self,
        channels: int,
        blocks: int = 8,
        kernels: Sequence[int] = (3, 1),
        hidden_ratio: float = 1.0,
        clamping: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if channels < 2:
            raise FewShotError(
                f"features have {channels} channel: a flow couples two or more; choose other levels"
            )
        hidden = max(1, round(hidden_ratio * (channels - channels // 2)))
        with seeded_weights(seed) as generator:
            steps = [
                ConvCoupling(
                    channels,
                    hidden,
                    kernels[number % len(kernels)],
                    clamping,
                    torch.randperm(channels, generator=generator),
                )
                for number in range(blocks)
            ]
        self.couplings = cast("Sequence[ConvCoupling]", nn.ModuleList(steps))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Moved:
        """Latents, and the log-determinant by position; their sum is that of the Jacobian."""
        logdet = torch.zeros_like(maps[:, 0])
        for coupling in self.couplings:
            maps, gained = coupling(maps)
            logdet = logdet + gained
        return maps, logdet

    def inverse(self, latents: Float[Tensor, "b c h w"]) -> Moved:
        """Maps that :meth:`forward` turns into ``latents``, and the log-determinant this way."""
        logdet = torch.zeros_like(latents[:, 0])
        for coupling in reversed(self.couplings):
            latents, gained = coupling.inverse(latents)
            logdet = logdet + gained
        return latents, logdet


def log_likelihood_map(
    latents: Float[Tensor, "b c h w"], logdet: Float[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """Log-likelihood per channel of every position under a unit Gaussian."""
    return log_likelihood(to_vectors(latents), logdet.flatten()).view_as(logdet)
