import math

import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.one_class import (
    abnormal_invariant_loss,
    bidirectional_contraction,
    contraction_radius,
    invariance,
    orthogonality_penalty,
    released_invariant_loss,
    spread,
)

LABELS = torch.tensor([False, True, False, True, False, False])


@pytest.fixture
def vectors() -> Tensor:
    scale = torch.tensor([0.1, 0.2, 0.6, 2.0, 4.0, 0.9])[:, None]
    return (scale * torch.randn(6, 4, generator=torch.Generator().manual_seed(5))).requires_grad_()


@pytest.fixture
def before() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(6), requires_grad=True)


def size(vector: Tensor) -> float:
    return math.sqrt(sum(float(v) ** 2 for v in vector.detach()))


def pull(vector: Tensor) -> float:
    return math.sqrt(size(vector) + 1) - 1


def barrier(violations: list[float]) -> float:
    broken = [math.exp(v) * math.log1p(math.exp(v)) for v in violations if v > 0]
    return sum(broken) / len(broken) if broken else 0.0


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_spread(vectors: Tensor) -> None:
    assert spread(vectors).tolist() == pytest.approx([pull(v) for v in vectors], abs=1e-6)


def test_abnormal_invariant_loss(vectors: Tensor, before: Tensor) -> None:
    rows = zip(vectors, before, LABELS, strict=True)
    expected = mean([size(x - t) if label else pull(x) for x, t, label in rows])
    assert abnormal_invariant_loss(vectors, before, LABELS).item() == pytest.approx(expected)


def test_released_invariant_loss(vectors: Tensor, before: Tensor) -> None:
    expected = mean([pull(x) for x in vectors[~LABELS]]) + mean(
        [size(x - t) ** 2 / 4 for x, t in zip(vectors[LABELS], before[LABELS], strict=True)]
    )
    assert released_invariant_loss(vectors, before, LABELS).item() == pytest.approx(expected)


def test_bidirectional_contraction(vectors: Tensor, before: Tensor) -> None:
    radius = 0.3
    normal, anomalous = ([pull(v) for v in vectors[kind]] for kind in (~LABELS, LABELS))
    assert min(normal) < 0.99 * radius
    assert min(anomalous) < radius + 0.1
    expected = barrier([a - radius for a in normal]) + barrier([0.99 * radius - a for a in normal])
    expected += barrier([radius + 0.1 - a for a in anomalous])
    pairs = list(zip(vectors[LABELS], before[LABELS], strict=True))
    expected += mean([size(x - t) ** 2 / 4 for x, t in pairs])
    expected += mean([1 - float(x.detach() @ t.detach()) / size(x) / size(t) for x, t in pairs])
    ours = bidirectional_contraction(vectors, before, LABELS, radius)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_only_the_constrained_vectors_learn(vectors: Tensor, before: Tensor) -> None:
    for loss in (abnormal_invariant_loss, released_invariant_loss, invariance):
        loss(vectors, before, LABELS).backward()
    assert before.grad is None
    assert vectors.grad is not None


def test_one_anomaly_at_zero_collapses_the_released_radius_only() -> None:
    anomalies = torch.cat([torch.zeros(1, 3), torch.full((99, 3), 5.0)])
    labels = torch.ones(100, dtype=torch.bool)
    assert contraction_radius(anomalies, labels, quantile=0.0, smallest=0.0) == 0
    assert contraction_radius(anomalies, labels) == 0.4
    assert contraction_radius(torch.zeros(100, 3), labels) == 0.1
    assert contraction_radius(anomalies, ~labels) == 0.4


def test_orthogonality_penalty(vectors: Tensor) -> None:
    normal = vectors[~LABELS].detach()
    total = 0.0
    for i in range(4):
        for j in range(4):
            total += (float((normal[:, i] * normal[:, j]).sum()) - (i == j)) ** 2
    assert orthogonality_penalty(vectors, LABELS).item() == pytest.approx(
        0.5 * total / 16, rel=1e-5
    )


def contraction(constrained: Tensor, residuals: Tensor, labels: Tensor) -> Tensor:
    radius = contraction_radius(constrained, labels)
    return bidirectional_contraction(constrained, residuals, labels, radius)


def penalty(constrained: Tensor, residuals: Tensor, labels: Tensor) -> Tensor:
    return orthogonality_penalty(constrained, labels)


@pytest.mark.parametrize(
    "loss", [abnormal_invariant_loss, released_invariant_loss, contraction, invariance, penalty]
)
@pytest.mark.parametrize("labels", [[], [True] * 4, [False] * 4, [True, False, False, False]])
@pytest.mark.parametrize("value", [0.0, 1e6])
def test_losses_and_gradients_stay_finite(loss, labels: list[bool], value: float) -> None:
    vectors = torch.full((len(labels), 3), value, requires_grad=True)
    result = loss(vectors, torch.zeros(len(labels), 3), torch.tensor(labels, dtype=torch.bool))
    result.backward()
    assert torch.isfinite(result)
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    if not labels:
        assert result.item() == 0
