import math

import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.boundary import (
    RunningBoundary,
    abnormal_focal_loss,
    asymmetric_weights,
    boundary_barrier,
    boundary_hinge,
    boundary_violation,
    likelihood_loss,
    quantile_boundary,
)

LIKELIHOOD = [-3.0, -1.0, -0.5, -2.0, -0.8, -4.0]
LABELS = [False, False, False, True, True, True]
BOUNDARY = -1.5


@pytest.fixture
def likelihood() -> Tensor:
    return torch.tensor(LIKELIHOOD, requires_grad=True)


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor(LABELS)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_boundary_is_a_low_quantile_of_the_normals() -> None:
    likelihood = torch.arange(100.0).flip(0)
    labels = likelihood >= 40
    assert quantile_boundary(likelihood, labels) == 2
    assert quantile_boundary(likelihood, labels, quantile=0.0) == 0
    assert quantile_boundary(likelihood, torch.ones(100, dtype=torch.bool)) is None


def test_running_boundary_without_and_with_correction() -> None:
    released, corrected = RunningBoundary(corrected=False), RunningBoundary()
    assert released.value == corrected.value == 0
    assert released.update(-2.0) == pytest.approx(-0.2)
    assert corrected.update(-2.0) == pytest.approx(-2.0)
    assert released.update(-4.0) == pytest.approx(-0.58)
    assert corrected.update(-4.0) == pytest.approx(-0.58 / 0.19)
    assert corrected.update(None) == pytest.approx(-0.58 / 0.19)


def test_violation_is_positive_on_the_wrong_side(likelihood: Tensor, labels: Tensor) -> None:
    ours = boundary_violation(likelihood, labels, BOUNDARY)
    assert ours.tolist() == pytest.approx([1.5, -0.5, -1.0, -0.4, 0.8, -2.4])


def test_hinge_as_a_sum_and_over_violators(likelihood: Tensor, labels: Tensor) -> None:
    total = boundary_hinge(likelihood, labels, BOUNDARY, margin=2.0, reduction="sum")
    assert total.item() == pytest.approx(1.5 + 1.5 + 2.7)
    mean = boundary_hinge(likelihood, labels, BOUNDARY, margin=2.0)
    assert mean.item() == pytest.approx(1.5 + (1.5 + 2.7) / 2)


def test_barrier_is_smooth(likelihood: Tensor, labels: Tensor) -> None:
    ours = boundary_barrier(likelihood, labels, BOUNDARY, margin=2.0)
    expected = softplus(1.5) + (softplus(1.5) + softplus(2.7)) / 2
    assert ours.item() == pytest.approx(expected)
    gradient = torch.autograd.grad(ours, likelihood)[0]
    assert gradient.sign().tolist() == [-1, 0, 0, 1, 1, 0]


def test_likelihood_loss(likelihood: Tensor) -> None:
    assert likelihood_loss(likelihood).item() == pytest.approx(-sum(LIKELIHOOD) / 6)
    expected = sum(softplus(-value) for value in LIKELIHOOD) / 6
    assert likelihood_loss(likelihood, "softplus").item() == pytest.approx(expected)


def test_focal_loss() -> None:
    probability, labels = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([True, True, False])
    expected = sum(-((1 - p) ** 2) * math.log(p) for p in (0.9, 0.2, 0.4)) / 3
    assert abnormal_focal_loss(probability, labels).item() == pytest.approx(expected, abs=1e-4)
    certain = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = abnormal_focal_loss(certain, torch.tensor([True, False]))
    loss.backward()
    assert torch.isfinite(certain.grad).all()


def test_asymmetric_weights() -> None:
    scaled = torch.tensor([-0.1, -0.5, -0.5, -3.0])
    weights = asymmetric_weights(scaled, torch.tensor([False, False, True, True]))
    expected = [
        1,
        11.7 * math.sqrt(1 - math.exp(-0.5)) * 0.5,
        0.53 * (1 + math.exp(-0.5)) ** 2 / 0.5,
        1,
    ]
    assert weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("labels", [[], [True] * 3, [False] * 3])
@pytest.mark.parametrize("value", [-9.0, 9.0])
def test_chunks_without_one_kind_or_any_violator(labels: list[bool], value: float) -> None:
    likelihood = torch.full((len(labels),), value, requires_grad=True)
    is_anomalous = torch.tensor(labels, dtype=torch.bool)
    losses = [
        boundary_hinge(likelihood, is_anomalous, 0.0),
        boundary_hinge(likelihood, is_anomalous, 0.0, reduction="sum"),
        boundary_barrier(likelihood, is_anomalous, 0.0),
        likelihood_loss(likelihood[is_anomalous]),
        abnormal_focal_loss(likelihood.sigmoid(), is_anomalous),
    ]
    total = torch.stack(losses).sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(likelihood.grad).all()
    if not labels or labels[0] == (value < 0):
        assert losses[0].item() == losses[1].item() == losses[2].item() == 0
