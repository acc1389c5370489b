"""Feature constraintors gather the normal residuals of all classes in one compact region."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.data_parallel import in_shares
from fewshot_ad.parts.least_squares import LeastSquaresConstraintor
from fewshot_ad.parts.seeding import seeded_weights

ConstraintorKind = Literal["conv", "least_squares", "identity", "none"]


def build_constraintor(
    kind: ConstraintorKind, channels: int, seed: int, width: int | None = None
) -> nn.Module:
    """The constraintor of one level by its kind; ``none`` passes residuals on as they are.

    Args:
        kind: which one.
        channels: of the residuals.
        seed: of first weights.
        width: of what comes out of ``least_squares``; the others change no width.
    """
    if kind == "conv":
        return ConvConstraintor(channels, seed)
    if kind == "least_squares":
        return LeastSquaresConstraintor(channels, width)
    return IdentityConstraintor(channels) if kind == "identity" else nn.Identity()


class ConvConstraintor(nn.Module):
    """Convolution 3x3, batch norm, ReLU; one per level (ResAD, section 3.3 and table 2b)."""

    def __init__(self, channels: int, seed: int = 0) -> None:
        super().__init__()
        with seeded_weights(seed):
            self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Constrained residuals, none negative."""
        return functional.relu(self.bn(in_shares(self.conv, residuals)))  # norm of the whole batch


class IdentityConstraintor(nn.Module):
    """A 3x3 convolution beside a shortcut, starting as the identity.

    Ours, not the paper's: with few known classes a constraintor from scratch forgets what a long
    residual means before it has learned anything better. This one can only move away from it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        with seeded_weights(0):  # the draw is thrown away, but must not touch the global generator
            self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
            nn.init.zeros_(self.conv.weight)

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Constrained residuals of either sign."""
        return residuals + in_shares(self.conv, residuals)


class TokenConstraintor(nn.Module):
    """Two linear layers per position, a channel gate between; for the residuals of a transformer.

    ResAD++ trains it with :func:`fewshot_ad.parts.one_class.orthogonality_penalty`.
    """

    def __init__(self, channels: int, expansion: int = 4, seed: int = 0) -> None:
        super().__init__()
        hidden = expansion * channels
        with seeded_weights(seed):
            self.fc1 = nn.Linear(channels, hidden)
            self.se = _ChannelGate(hidden)
            self.fc2 = nn.Linear(hidden, channels)

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Constrained residuals of either sign."""
        tokens = self.fc1(residuals.flatten(2).mT)
        tokens = self.fc2(functional.gelu(self.se(tokens)))
        return tokens.mT.reshape(residuals.shape)


class _ChannelGate(nn.Module):
    """Squeeze-and-excitation over the tokens of an image."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = _multiple_of_eight(channels / reduction)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        gate = self.fc2(functional.relu(self.fc1(tokens.mean(dim=1, keepdim=True))))
        return tokens * torch.sigmoid(gate)


def _multiple_of_eight(width: float) -> int:
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8
