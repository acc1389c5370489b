"""A boundary in log-likelihood between normal and anomalous, and the flow losses around it.

``log_likelihood`` is per channel. A chunk without normals, anomalies or violators loses that term
only, never the run.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.violations import hinge, softplus_barrier


@torch.no_grad()
def quantile_boundary(
    log_likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"], quantile: float = 0.05
) -> float | None:
    """Log-likelihood under which ``quantile`` of the normals lie; None if there are none."""
    ranked = log_likelihood[~is_anomalous].sort().values
    return float(ranked[int(quantile * len(ranked))]) if len(ranked) else None


@dataclass
class RunningBoundary:
    """Exponential mean of the boundaries of the chunks.

    It starts at 0, so that it is far too high for the first twenty chunks or so. ``corrected``
    divides this bias out, as Adam does; the released code does not.
    """

    decay: float = 0.9
    corrected: bool = True
    mean: float = 0.0
    updates: int = 0

    def update(self, boundary: float | None) -> float:
        """Take in the boundary of one chunk (None changes nothing) and return the running one."""
        if boundary is not None:
            self.mean = self.decay * self.mean + (1 - self.decay) * boundary
            self.updates += 1
        return self.value

    @property
    def value(self) -> float:
        """The running boundary; 0 before the first update."""
        if not (self.corrected and self.updates):
            return self.mean
        return self.mean / (1 - self.decay**self.updates)


def boundary_violation(
    log_likelihood: Float[Tensor, " n"],
    is_anomalous: Bool[Tensor, " n"],
    boundary: float,
    margin: float = 0.1,
) -> Float[Tensor, " n"]:
    """How far a vector lies on the wrong side of the boundary.

    Normals belong above it, anomalies below it by a margin at least.
    """
    above = log_likelihood - boundary
    return torch.where(is_anomalous, above + margin, -above)


def boundary_hinge(
    log_likelihood: Float[Tensor, " n"],
    is_anomalous: Bool[Tensor, " n"],
    boundary: float,
    margin: float = 0.1,
    reduction: Literal["sum", "violators"] = "violators",
) -> Float[Tensor, ""]:
    """Pulls violators back to their side of the boundary (ResAD, eq. 5).

    The paper writes a ``sum`` over all vectors; BGAD, from which the boundary comes, takes the mean
    over the ``violators`` of each kind, with log-likelihoods divided by 10 beforehand.
    """
    violation = boundary_violation(log_likelihood, is_anomalous, boundary, margin)
    if reduction == "sum":
        return violation.clamp(min=0).sum()
    return hinge(violation[~is_anomalous]) + hinge(violation[is_anomalous])


def boundary_barrier(
    log_likelihood: Float[Tensor, " n"],
    is_anomalous: Bool[Tensor, " n"],
    boundary: float,
    margin: float = 0.1,
) -> Float[Tensor, ""]:
    """ResAD++'s smooth form: log(1 + e^v), mean over the violators of each kind."""
    violation = boundary_violation(log_likelihood, is_anomalous, boundary, margin)
    return softplus_barrier(violation[~is_anomalous]) + softplus_barrier(violation[is_anomalous])


def likelihood_loss(
    log_likelihood: Float[Tensor, " n"], form: Literal["plain", "softplus"] = "plain"
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood, or its softplus, which flattens far above 0 (ResAD++)."""
    unlikelihood = -log_likelihood if form == "plain" else functional.softplus(-log_likelihood)
    return unlikelihood.sum() / max(1, len(unlikelihood))


def abnormal_focal_loss(
    abnormal_probability: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Binary focal loss with exponent 2, labels and probabilities smoothed by 1e-5 (ResAD++)."""
    smooth = 1e-5
    label = is_anomalous.to(abnormal_probability.dtype).clamp(smooth, 1 - smooth)
    right = label * abnormal_probability + (1 - label) * (1 - abnormal_probability) + smooth
    return (-((1 - right) ** 2) * right.log()).sum() / max(1, len(right))


@torch.no_grad()
def asymmetric_weights(
    log_likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """BGAD's focal weights: unlikely normals and likely anomalies weigh more.

    Log-likelihoods come divided by 10.
    """
    likelihood, size = log_likelihood.exp(), log_likelihood.abs()
    normal = torch.where(log_likelihood <= -0.2, 11.7 * (1 - likelihood).sqrt() * size, 1.0)
    anomalous = torch.where(log_likelihood > -1, 0.53 * (1 + likelihood) ** 2 / size, 1.0)
    return torch.where(is_anomalous, anomalous, normal)
