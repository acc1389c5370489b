"""Means over the elements that break a constraint, of which boundary and contraction are made."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def masked_mean(values: Float[Tensor, " n"], mask: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the chosen values; 0, with a gradient of zero, where none is chosen."""
    return values[mask].sum() / mask.sum().clamp(min=1)


def hinge(violation: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the violations from 0 upwards; 0 where there is none (BGAD)."""
    return masked_mean(violation, violation >= 0)


def softplus_barrier(violation: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of log(1 + e^v) over the violations from 0 upwards; 0 where there is none (ResAD++)."""
    return masked_mean(functional.softplus(violation), violation >= 0)


def weighted_barrier(violation: Float[Tensor, " n"], greatest: float = 20.0) -> Float[Tensor, ""]:
    """Mean of e^v log(1 + e^v) over the positive violations; 0 where there is none (ResAD++).

    The weight e^v carries no gradient. Above ``greatest`` it stops growing: the released code lets
    it overflow.
    """
    weight = violation.detach().clamp(max=greatest).exp()
    return masked_mean(weight * functional.softplus(violation), violation > 0)
