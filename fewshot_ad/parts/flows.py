"""Normalizing flows over feature vectors: the likelihood of a residual, given its position."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.official import load_weights
from fewshot_ad.parts.seeding import seeded_weights

# Its docstrings hold invalid escapes, which Python tells whenever it compiles them.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock


class ConditionalFlow(nn.Module):
    """Affine coupling blocks, each followed by a learned scale and a fixed random rotation.

    Args:
        channels: width of the vectors.
        blocks: coupling blocks (8 in the paper, 10 in the released code), 0 for the identity.
        condition_dims: width of the condition that every block sees, 0 for none.
        clamping: greatest log-scale of a coupling.
        seed: draws weights and rotations; the global generators are left as they were.
    """

    def __init__(
        self,
        channels: int,
        blocks: int = 8,
        condition_dims: int = 256,
        clamping: float = 1.9,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.condition_dims = condition_dims
        self.inn = SequenceINN(channels)
        condition = {"cond": 0, "cond_shape": (condition_dims,)} if condition_dims else {}
        with seeded_weights(seed) as generator:
            for _ in range(blocks):
                self.inn.append(
                    AllInOneBlock,
                    **condition,
                    subnet_constructor=_subnet,
                    affine_clamping=clamping,
                    global_affine_type="SOFTPLUS",
                )
            for block in self.inn.module_list:
                _install_rotation(block, draw_rotation(channels, generator))

    def forward(
        self, vectors: Float[Tensor, "n c"], condition: Float[Tensor, "n d"] | None = None
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
        """Latent vectors and the log-determinant of the Jacobian; no blocks change nothing."""
        latents, logdet = self.inn(vectors, c=_as_list(condition))
        return latents, vectors.new_zeros(vectors.shape[0]) + logdet

    def on_grid(
        self, maps: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "bhw c"], Float[Tensor, " bhw"]]:
        """What :meth:`forward` finds at all positions with their codes, in about half the time.

        One half of a code tells the column and the other the row, so that the first layer of a
        subnet sees them once per column and per row, not once per position.
        """
        batch, channels, height, width = maps.shape
        latents = maps.permute(0, 2, 3, 1)
        across, down = (
            each.to(maps) for each in position_halves(self.condition_dims, height, width)
        )
        logdet = maps.new_zeros(batch, height, width)
        for block in self.inn.module_list:
            latents, change = _on_grid(block, latents, across, down)
            logdet = logdet + change
        return latents.reshape(-1, channels), logdet.flatten()

    def inverse(
        self, latents: Float[Tensor, "n c"], condition: Float[Tensor, "n d"] | None = None
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
        """Vectors that :meth:`forward` maps to ``latents``, and the log-determinant this way."""
        return self.inn(latents, c=_as_list(condition), rev=True)

    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the official flow of one level (``module_list.0.global_scale`` ...).

        Raises:
            FewShotError: weights are missing, left over or of another shape.
        """
        load_weights(self.inn, state)


def log_likelihood(
    latents: Float[Tensor, "n c"], logdet: Float[Tensor, " n"], centre: float = 0.0
) -> Float[Tensor, " n"]:
    """Log-likelihood per channel under a unit Gaussian.

    Its ``centre`` is 0 for normal vectors, 1 for the abnormal twin of ResAD++.
    """
    channels = latents.shape[1]
    squared = (latents - centre).square().sum(dim=1)
    return (logdet - 0.5 * squared - 0.5 * channels * math.log(2 * math.pi)) / channels


def abnormal_probability(latents: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Share of the abnormal Gaussian in a softmax over both log-likelihoods per channel.

    Jacobian and constants cancel: (|z|^2 - |z - 1|^2) / 2c = mean(z) - 1/2.
    """
    return torch.sigmoid(latents.mean(dim=1) - 0.5)


def position_code(dims: int, height: int, width: int) -> Float[Tensor, "d h w"]:
    """Sines and cosines of the column in the first half of the dims, of the row in the second.

    ``dims`` is a multiple of 4; wavelengths run from 2 pi to 10000 * 2 pi positions.
    """
    across, down = position_halves(dims, height, width)
    across = across.T[:, None, :].expand(dims // 2, height, width)
    down = down.T[:, :, None].expand(dims // 2, height, width)
    return torch.cat([across, down])


def position_halves(
    dims: int, height: int, width: int
) -> tuple[Float[Tensor, "w d"], Float[Tensor, "h d"]]:
    """What position codes say of every column, and of every row; empty for no dims."""
    half = dims // 2
    rate = torch.exp(torch.arange(0, half, 2) * (-math.log(1e4) / max(half, 1)))
    return _waves(width, rate), _waves(height, rate)


def position_vectors(dims: int, batch: int, height: int, width: int) -> Float[Tensor, "bhw d"]:
    """Position codes of a batch of maps, ordered as by :func:`fewshot_ad.parts.maps.to_vectors`."""
    return position_code(dims, height, width).flatten(1).T.repeat(batch, 1)


def draw_rotation(channels: int, generator: torch.Generator) -> Float[Tensor, "c c"]:
    """Random orthogonal matrix, uniform by Haar's measure.

    QR of a Gaussian matrix, the signs of R moved into Q. The determinant may be -1, which no
    likelihood sees. SO(n) sampling as FrEIA does it takes minutes at 1024.
    """
    orthogonal, upper = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
    return orthogonal * upper.diagonal().sign()


def _install_rotation(block: nn.Module, rotation: Tensor) -> None:
    with torch.no_grad():
        block.get_parameter("w_perm").copy_(rotation)
        block.get_parameter("w_perm_inv").copy_(rotation.T)


def _on_grid(
    block: Any,
    vectors: Float[Tensor, "b h w c"],
    across: Float[Tensor, "w d"],
    down: Float[Tensor, "h d"],
) -> tuple[Float[Tensor, "b h w c"], Float[Tensor, "b h w"]]:
    """What an ``AllInOneBlock`` of FrEIA does with vectors and a condition ``across + down``."""
    first, _, last = block.subnet
    passive, active = vectors.split(block.splits, dim=-1)
    dims = passive.shape[-1], across.shape[-1], down.shape[-1]
    of_vector, of_column, of_row = first.weight.split(dims, dim=1)
    hidden = functional.linear(passive, of_vector, first.bias)
    hidden += functional.linear(across, of_column)
    hidden += functional.linear(down, of_row)[:, None]
    log_scale, shift = (0.1 * last(hidden.relu_())).chunk(2, dim=-1)
    log_scale = block.clamp * log_scale.tanh()
    coupled = torch.cat([passive, active * log_scale.exp() + shift], dim=-1)
    scale = block.global_scale_activation(block.global_scale)
    rotated = functional.linear(coupled * scale + block.global_offset, block.w_perm)
    return rotated, log_scale.sum(dim=-1) + scale.log().sum()


def _subnet(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width_in, 2 * width_in), nn.ReLU(), nn.Linear(2 * width_in, width_out)
    )


def _waves(length: int, rate: Float[Tensor, " r"]) -> Float[Tensor, "n d"]:
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


def _as_list(condition: Tensor | None) -> list[Tensor] | None:
    return None if condition is None else [condition]
