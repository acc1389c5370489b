"""The directions in which normal features vary, and what of a feature lies beside them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Subspace:
    """A mean and orthonormal directions, the strongest first.

    Attributes:
        mean: where the directions meet.
        basis: one direction per column.
    """

    mean: Float[Tensor, " c"]
    basis: Float[Tensor, "c d"]

    @property
    def dims(self) -> int:
        """How many directions there are."""
        return self.basis.shape[1]

    def residual(self, vectors: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """What is left of centred vectors when their part in the subspace is taken away."""
        away = vectors - self.mean
        return away - (away @ self.basis) @ self.basis.T


def fit_subspace(vectors: Float[Tensor, "n c"], explained: float) -> Subspace:
    """Principal components, as many as hold a share of the variance, one at least.

    Args:
        vectors: of normal positions.
        explained: share of the variance, in (0, 1].
    """
    mean = vectors.mean(dim=0, dtype=torch.float64)
    channels = vectors.shape[1]
    covariance = torch.zeros(channels, channels, dtype=torch.float64, device=vectors.device)
    for chunk in vectors.split(ROWS_AT_ONCE):
        away = chunk.double() - mean
        covariance += away.T @ away / len(vectors)
    variances, directions = torch.linalg.eigh(covariance)
    held = variances.flip(0).clamp(min=0).cumsum(dim=0)
    enough = explained * held[-1] * (1 - 1e-12)  # all of it is reached, whatever sums round to
    dims = int((held < enough).sum()) + 1
    return Subspace(mean.to(vectors), directions.flip(1)[:, :dims].to(vectors))
