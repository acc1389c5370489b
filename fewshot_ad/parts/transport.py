"""How far one cloud of vectors is from another when mass is moved at least cost, and smoothly.

Interpolating between Optimal Transport and MMD using Sinkhorn Divergences. Feydy, Sejourne,
Vialard, Amari, Trouve, Peyre. AISTATS 2019. https://arxiv.org/abs/1810.08278
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Clouds = Float[Tensor, "b _ d"]


def sinkhorn_divergence(
    one: Clouds, other: Clouds, blur: float = 0.05, rounds: int = 30
) -> Float[Tensor, " b"]:
    """0 for equal clouds, whatever the order of their vectors; clouds at the same place are pairs.

    Args:
        one: vectors of equal mass.
        other: as many or not.
        blur: distance below which two vectors count as one; moving costs half the squared distance.
        rounds: of the fixed-point iteration.
    """
    across = _transport_cost(one, other, blur**2, rounds)
    within = [_transport_cost(cloud, cloud, blur**2, rounds) for cloud in (one, other)]
    return across - (within[0] + within[1]) / 2


def _transport_cost(one: Clouds, other: Clouds, epsilon: float, rounds: int) -> Float[Tensor, " b"]:
    """Value of the dual potentials, made by turns the best answer to each other."""
    costs = _half_squares(one, other)
    there, back = torch.zeros_like(costs[:, :, 0]), torch.zeros_like(costs[:, 0])
    for _ in range(rounds):
        there = _softest((costs - back[:, None]), epsilon, 2)
        back = _softest((costs - there[:, :, None]), epsilon, 1)
    return there.mean(dim=1) + back.mean(dim=1)


def _half_squares(one: Clouds, other: Clouds) -> Float[Tensor, "b n m"]:
    squares = one.square().sum(dim=2)[:, :, None] + other.square().sum(dim=2)[:, None]
    return (squares / 2 - one @ other.mT).clamp(min=0)


def _softest(costs: Float[Tensor, "b n m"], epsilon: float, dim: int) -> Float[Tensor, "b _"]:
    """Smooth minimum along a dimension."""
    return -epsilon * ((-costs / epsilon).logsumexp(dim) - math.log(costs.shape[dim]))
