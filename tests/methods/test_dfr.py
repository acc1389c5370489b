import numpy as np
import pytest
import torch
from by_hand import enlarged, spread
from listening import catch_trainings
from noisy import noise
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.checks import check_method, shrunk
from fewshot_ad.methods import dfr
from fewshot_ad.methods.dfr import DFR, build_autoencoder
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> DFR:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "levels": (2, 3),
        "steps": 5,
        "vectors_per_step": 16,
    }
    return DFR(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def standardised(support: Tensor, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """[m c] of the support, [b h w c] of images: every level standardised, then joined."""
    extract = load_features("random:tiny", (2, 3), device="cpu")
    found = []
    for known, queries in zip(extract(support), extract(images), strict=True):
        mean, deviation = spread(known)
        found.append((torch.cat([known, queries]) - mean) / deviation)
    second = functional.interpolate(found[1], found[0].shape[2:], mode="bilinear")
    joined = torch.cat([found[0], second], dim=1).permute(0, 2, 3, 1).numpy()
    shots = len(support)
    return joined[:shots].reshape(-1, joined.shape[-1]), joined[shots:]


def large(grid: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(enlarged(grid, (32, 32)), sigma)


@pytest.mark.parametrize("explained", [0.5, 0.9])
def test_the_error_of_scikit_learns_components(images: Tensor, explained: float) -> None:
    method = small(explained=explained, blur=1.5)
    found = method.fit(Support("noise", images[:2])).predict(images[2:])
    known, queries = standardised(images[:2], images[2:])
    pca = PCA(explained, svd_solver="full").fit(known)
    for query, ours in zip(queries, found.anomaly_map, strict=True):
        vectors = query.reshape(-1, query.shape[-1])
        error = ((vectors - pca.inverse_transform(pca.transform(vectors))) ** 2).mean(axis=1)
        expected = large(error.reshape(query.shape[:2]), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_the_autoencoder_is_judged_position_by_position(images: Tensor) -> None:
    method = small(solver="autoencoder", blur=0.0).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3]).anomaly_map[0]
    assert method.residual_ is not None
    _, (query,) = standardised(images[:2], images[2:3])
    error = np.empty(query.shape[:2])
    for row, column in np.ndindex(*error.shape):
        vector = torch.from_numpy(query[row, column])[None].float()
        error[row, column] = float(method.residual_(vector).square().mean())
    np.testing.assert_allclose(found.numpy(), large(error, 0.0), rtol=1e-3)


def test_widths_follow_the_paper() -> None:
    layers = list(build_autoencoder(40, 6, seed=0))
    linear = [one for one in layers if isinstance(one, nn.Linear)]
    assert [one.in_features for one in linear] == [40, 26, 12, 6, 12, 26]
    assert linear[-1].out_features == 40
    kinds = [type(one).__name__[:6] for one in layers]
    hidden = ["Linear", "BatchN", "ReLU"]
    assert kinds == [*hidden, *hidden, "Linear", *hidden, *hidden, "Linear"]


def test_training_rebuilds_the_support_better_and_better(images: Tensor) -> None:
    means = []
    for steps in (1, 150):
        method = small(solver="autoencoder", steps=steps, learning_rate=0.01)
        means.append(method.fit(Support("noise", images)).predict(images).anomaly_map.mean())
    assert means[1] < 0.8 * means[0]


def test_the_bottleneck_is_as_wide_as_the_components_are_many(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, _ = standardised(images[:1], images[:1])
    asked = []

    def build(channels: int, width: int, seed: int) -> nn.Sequential:
        asked.append((channels, width, seed))
        return build_autoencoder(channels, width, seed)

    monkeypatch.setattr(dfr, "build_autoencoder", build)
    small(solver="autoencoder", explained=0.7, seed=3).fit(Support("noise", images[:1]))
    assert asked == [(256, PCA(0.7, svd_solver="full").fit(known).n_components_, 3)]


def test_the_trained_form_keeps_the_contract() -> None:
    check_method(shrunk(DFR(solver="autoencoder")))


def test_the_track_tells_whether_it_is_trained() -> None:
    assert (small().track, small(solver="autoencoder").track) == ("training_free", "target_tuned")


@pytest.mark.parametrize("solver", ["pca", "autoencoder"])
def test_constant_images_divide_nothing_by_zero(solver: str) -> None:
    images = torch.zeros(2, 3, 32, 32)
    method = small(solver=solver).fit(Support("dark", images))
    found = method.predict(torch.cat([images, images + 1]))
    assert found.image_score.isfinite().all()
    assert found.image_score[2] > found.image_score[0]


def test_one_position_has_components_but_no_batch_norm(images: Tensor) -> None:
    dot = Support("dot", images[:1, :, :8, :8])
    assert small().fit(dot).predict(dot.images).image_score.isfinite().all()
    with pytest.raises(FewShotError, match="one position in all, and a batch norm needs two"):
        small(solver="autoencoder").fit(dot)


def test_the_loss_is_the_mean_squared_error(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, dfr)
    small(solver="autoencoder").fit(Support("noise", images[:2]))
    autoencoder, loss, count = caught[0]
    vectors = torch.from_numpy(standardised(images[:2], images[:1])[0]).float()
    assert count == len(vectors)
    expected = (autoencoder(vectors[:9]) - vectors[:9]).square().mean()
    found = loss(torch.arange(9), torch.Generator())
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
