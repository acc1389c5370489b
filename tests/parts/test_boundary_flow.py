import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.boundary_flow import BoundaryFlow, BoundarySettings
from fewshot_ad.parts.flows import log_likelihood, position_vectors


def settings(**changes) -> BoundarySettings:
    usual = {
        "flow_blocks": 2,
        "position_dims": 4,
        "vectors_per_step": 10_000,
        "warm_up_steps": 0,
        "boundary_weight": 2.0,
        "boundary_quantile": 0.1,
        "margin": 0.05,
        "normalizer": 3.0,
    }
    return BoundarySettings(**(usual | changes))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def maps() -> Tensor:
    return 5 * torch.randn(4, 6, 3, 5, generator=generator(1)) + 2


@pytest.fixture
def cells() -> Tensor:
    where = torch.zeros(4, 3, 5, dtype=torch.bool)
    where[2, 1] = where[3, :, 2] = True
    return where


def loss_by_loop(likelihood: np.ndarray, is_anomalous: np.ndarray, how: BoundarySettings) -> float:
    """Section 3 of BGAD with the focal weights of its code, one position after the other."""
    scaled = likelihood / how.normalizer
    ranked = sorted(scaled[~is_anomalous])
    boundary = ranked[int(how.boundary_quantile * len(ranked))]
    unlikely, below, above = [], [], []
    for value, anomalous in zip(scaled, is_anomalous, strict=True):
        if anomalous:
            if value >= boundary - how.margin:
                above.append(value - boundary + how.margin)
            continue
        weight = 11.7 * (1 - np.exp(value)) ** 0.5 * abs(value) if value <= -0.2 else 1.0
        unlikely.append(-weight * value)
        if value <= boundary:
            below.append(boundary - value)
    hinges = sum(np.mean(values) for values in (below, above) if values)
    return float(np.mean(unlikely) + how.boundary_weight * hinges)


def test_features_are_centred_by_channel_and_scaled_as_a_whole(maps: Tensor) -> None:
    flow = BoundaryFlow(maps, settings(), seed=3)
    vectors = maps.permute(0, 2, 3, 1).reshape(-1, 6)
    centred = vectors - vectors.mean(dim=0)
    scaled = centred / centred.square().mean().sqrt()
    expected = log_likelihood(*flow.flow(scaled, position_vectors(4, 4, 3, 5)))
    torch.testing.assert_close(flow.log_likelihood(maps), expected)
    some = torch.tensor([7, 3, 59])
    torch.testing.assert_close(flow.log_likelihood(maps, some), expected[some])


def test_features_without_any_difference_have_a_likelihood() -> None:
    flow = BoundaryFlow(torch.full((1, 4, 2, 2), 3.0), settings(), seed=3)
    assert flow.log_likelihood(torch.full((1, 4, 2, 2), 3.0)).isfinite().all()


@pytest.mark.parametrize("margin", [0.05, 50.0])
def test_the_loss_is_likelihood_pull_and_push(maps: Tensor, cells: Tensor, margin: float) -> None:
    how = settings(margin=margin)
    flow = BoundaryFlow(maps[:2], how, seed=3)
    found = flow.loss(maps, cells, generator())
    likelihood = flow.log_likelihood(maps).detach().double().numpy()
    expected = loss_by_loop(likelihood, cells.flatten().numpy(), how)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_before_the_boundary_only_normals_are_learned(maps: Tensor, cells: Tensor) -> None:
    how = settings(warm_up_steps=1)
    flow = BoundaryFlow(maps[:2], how, seed=3)
    normal = flow.log_likelihood(maps)[~cells.flatten()]
    first = flow.loss(maps, cells, generator())
    assert first.item() == pytest.approx(-normal.mean().item() / how.normalizer, rel=1e-5)
    assert flow.boundary.updates == 1
    assert flow.loss(maps, cells, generator()).item() != pytest.approx(first.item())


def test_without_anomalies_nothing_is_pushed_and_nothing_is_nan(maps: Tensor) -> None:
    how = settings()
    flow = BoundaryFlow(maps, how, seed=3)
    nowhere = torch.zeros(4, 3, 5, dtype=torch.bool)
    loss = flow.loss(maps, nowhere, generator())
    likelihood = flow.log_likelihood(maps).detach().double().numpy()
    expected = loss_by_loop(likelihood, nowhere.flatten().numpy(), how)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert all(w.grad.isfinite().all() for w in flow.parameters() if w.grad is not None)


def test_a_step_sees_as_many_normal_as_anomalous_positions(
    maps: Tensor, cells: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = BoundaryFlow(maps, settings(vectors_per_step=5), seed=3)
    seen = []
    plain = flow.log_likelihood
    monkeypatch.setattr(flow, "log_likelihood", lambda m, rows: seen.append(rows) or plain(m, rows))
    flow.loss(maps, cells, generator())
    (rows,) = seen
    assert len(set(rows.tolist())) == len(rows) == 10
    assert cells.flatten()[rows].sum() == 5


def test_likelihoods_are_measured_from_the_likeliest_normal_position(maps: Tensor) -> None:
    flow = BoundaryFlow(maps, settings(), seed=3)
    flow.measure_peak(maps[:2])
    likelihood = flow.log_likelihood(maps)
    expected = likelihood[:30].max() - likelihood
    torch.testing.assert_close(flow.lacking(maps), expected.view(4, 3, 5))
