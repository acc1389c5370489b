import math

import pytest
import torch

from fewshot_ad.parts.violations import hinge, masked_mean, softplus_barrier, weighted_barrier

VALUES = [-2.0, 0.5, 1.5]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_means_over_the_violators() -> None:
    values = torch.tensor(VALUES)
    assert masked_mean(values, values < 1).item() == pytest.approx(-0.75)
    assert hinge(values).item() == pytest.approx(1.0)
    assert softplus_barrier(values).item() == pytest.approx((softplus(0.5) + softplus(1.5)) / 2)
    expected = (math.exp(0.5) * softplus(0.5) + math.exp(1.5) * softplus(1.5)) / 2
    assert weighted_barrier(values).item() == pytest.approx(expected)


def test_the_weight_carries_no_gradient_and_stops_growing() -> None:
    value = torch.tensor([1.5], requires_grad=True)
    weighted_barrier(value).backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(math.exp(1.5) / (1 + math.exp(-1.5)))
    assert weighted_barrier(torch.tensor([1e4])).item() == pytest.approx(
        1e4 * math.exp(20), rel=1e-5
    )


@pytest.mark.parametrize("loss", [hinge, softplus_barrier, weighted_barrier])
@pytest.mark.parametrize("values", [[], [-1.0, -200.0]])
def test_no_violator_is_a_zero_that_can_be_derived(loss, values: list[float]) -> None:
    violation = torch.tensor(values, requires_grad=True)
    result = loss(violation)
    result.backward()
    assert result.item() == 0
    assert violation.grad is not None
    assert not violation.grad.any()
