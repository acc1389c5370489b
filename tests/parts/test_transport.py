import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fewshot_ad.parts.transport import sinkhorn_divergence


@pytest.fixture
def clouds() -> Tensor:
    """Two pairs of clouds of six points in the plane."""
    return torch.randn(2, 2, 6, 2, generator=torch.Generator().manual_seed(1)).double()


def test_with_little_blur_it_is_the_cost_of_the_best_assignment(clouds: Tensor) -> None:
    found = sinkhorn_divergence(clouds[0], clouds[1], blur=0.05, rounds=2000)
    for ours, one, other in zip(found, *clouds.numpy(), strict=True):
        costs = ((one[:, None] - other[None]) ** 2).sum(axis=2) / 2
        rows, columns = linear_sum_assignment(costs)
        assert float(ours) == pytest.approx(costs[rows, columns].mean(), rel=0.02)


def plan_by_loops(costs: np.ndarray, epsilon: float) -> float:
    """Primal value: what is moved costs, and being far from the product of the masses costs too."""
    n, m = costs.shape
    kernel, left, right = np.exp(-costs / epsilon), np.ones(n), np.ones(m)
    for _ in range(2000):
        left = (1 / n) / (kernel @ right)
        right = (1 / m) / (kernel.T @ left)
    plan = left[:, None] * kernel * right[None]
    return float((plan * costs).sum() + epsilon * (plan * np.log(plan * n * m)).sum())


def test_with_much_blur_it_is_that_of_the_smoothed_plans(clouds: Tensor) -> None:
    one, other = clouds[0, :1], clouds[1, :1, :4]
    (found,) = sinkhorn_divergence(one, other, blur=1.0, rounds=200)
    a, b = one[0].numpy(), other[0].numpy()
    across, first, second = (
        plan_by_loops(((x[:, None] - y[None]) ** 2).sum(axis=2) / 2, 1.0)
        for x, y in ((a, b), (a, a), (b, b))
    )
    assert float(found) == pytest.approx(across - (first + second) / 2, rel=1e-6)


def test_equal_clouds_are_at_no_distance_whatever_their_order(clouds: Tensor) -> None:
    shuffled = clouds[0][:, torch.tensor([3, 1, 5, 0, 2, 4])]
    found = sinkhorn_divergence(clouds[0], shuffled, blur=0.5)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-6, rtol=0)


def test_following_its_gradient_brings_clouds_together(clouds: Tensor) -> None:
    moving = clouds[0].clone().requires_grad_()
    before = sinkhorn_divergence(moving, clouds[1], blur=0.3).sum()
    (slope,) = torch.autograd.grad(before, moving)
    after = sinkhorn_divergence(moving - slope, clouds[1], blur=0.3).sum()
    assert after.item() < 0.9 * before.item()
