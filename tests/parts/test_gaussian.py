import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.gaussian import fit_gaussians


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def samples_by_loop(maps: Tensor, side: int) -> dict[tuple[int, int], np.ndarray]:
    """[m c] of every position: all images, all positions of the square, the border repeated."""
    values, reach = maps.double().numpy(), side // 2
    height, width = values.shape[2:]
    found = {}
    for row, column in np.ndindex(height, width):
        rows = np.clip(range(row - reach, row + reach + 1), 0, height - 1)
        columns = np.clip(range(column - reach, column + reach + 1), 0, width - 1)
        found[row, column] = np.array([v[:, r, c] for v in values for r in rows for c in columns])
    return found


def covariance(samples: np.ndarray) -> np.ndarray:
    return np.cov(samples.T, ddof=0).reshape(samples.shape[1], samples.shape[1])


@pytest.mark.parametrize(("shots", "side"), [(1, 3), (2, 1), (4, 1), (3, 3), (9, 1)])
@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3, 1.0])
def test_distances_by_explicit_covariances(shots: int, side: int, shrinkage: float | None) -> None:
    scale = torch.linspace(0.2, 3, 20).view(4, 5)  # positions vary differently
    maps, query = scale * drawn(shots, 6, 4, 5) + 2, drawn(6, 4, 5, seed=1) + 2
    fitted = fit_gaussians(maps, side, shrinkage, ridge=0.1)
    found = fitted.mahalanobis(query).numpy()
    samples = samples_by_loop(maps, side)
    share = fitted.shrinkage
    assert 0 < share < 1 if shrinkage is None else share == shrinkage
    pooled = np.mean([covariance(each) for each in samples.values()], axis=0)
    floor = 0.1 * np.mean([channel.var() for channel in maps.double().numpy().swapaxes(0, 1)])
    for (row, column), each in samples.items():
        own = (1 - share) * covariance(each) + share * pooled + floor * np.eye(6)
        away = query[:, row, column].double().numpy() - each.mean(axis=0)
        expected = np.sqrt(away @ np.linalg.solve(own, away))
        assert found[row, column] == pytest.approx(expected, rel=1e-6)


def test_one_sample_is_a_distance_to_the_mean() -> None:
    """No covariance at all: nothing but the ridge is left."""
    maps, query = drawn(1, 5, 3, 3), drawn(5, 3, 3, seed=1)
    fitted = fit_gaussians(maps, 1, shrinkage=0.0, ridge=0.25)
    assert fitted.shrinkage == 1.0
    variance = maps[0].double().var(dim=(1, 2), correction=0).mean()
    expected = (query - maps[0]).double().norm(dim=0) / (0.25 * variance).sqrt()
    torch.testing.assert_close(fitted.mahalanobis(query), expected)


def best_share(maps: Tensor, true: np.ndarray) -> float:
    """Where the mean squared error of the shrunk covariances is least, the truth being known.

    Covariances of ddof 0 are too small by (n - 1) / n, and so is what they are compared with.
    """
    shots = len(maps)
    own = np.array([covariance(each) for each in samples_by_loop(maps, 1).values()])
    true, pooled = true * (shots - 1) / shots, own.mean(axis=0)
    return float(((own - true) * (own - pooled)).sum() / ((own - pooled) ** 2).sum())


@pytest.mark.parametrize("shots", [2, 3, 6, 20])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_estimated_share_is_near_the_best(shots: int, spread: float) -> None:
    scale = (spread * drawn(1, 1, 30, 30, seed=2)).exp()
    mixing = drawn(5, 5, seed=3)
    maps = scale * torch.einsum("dc,nchw->ndhw", mixing, drawn(shots, 5, 30, 30))
    true = np.array([float(s) ** 2 * (mixing @ mixing.T).numpy() for s in scale.flatten()])
    estimated = fit_gaussians(maps).shrinkage
    assert estimated == pytest.approx(best_share(maps, true), abs=0.1)
    assert estimated > 0.9 if spread == 0 else estimated < 1


@pytest.mark.parametrize("shots", [1, 3])
def test_constant_features_divide_nothing_by_zero(shots: int) -> None:
    maps = torch.full((shots, 4, 3, 3), 7.0)
    fitted = fit_gaussians(maps, 3)
    assert not fitted.mahalanobis(maps[0]).any()
    assert fitted.mahalanobis(maps[0] + 1).isfinite().all()


def test_one_position_is_a_grid() -> None:
    maps = drawn(3, 4, 1, 1)
    assert fit_gaussians(maps, 3).mahalanobis(maps[0]).isfinite().all()


def test_scale_of_features_means_nothing() -> None:
    maps, query = drawn(3, 4, 5, 5), drawn(4, 5, 5, seed=1)
    small = fit_gaussians(maps).mahalanobis(query)
    large = fit_gaussians(1000 * maps).mahalanobis(1000 * query)
    torch.testing.assert_close(large, small, rtol=1e-5, atol=0)


def test_only_small_solves_are_kept() -> None:
    assert fit_gaussians(drawn(2, 8, 3, 3)).directions.shape == (9, 2, 8)
    assert fit_gaussians(drawn(20, 8, 3, 3)).directions.shape == (9, 8, 8)
