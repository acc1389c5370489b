import math

import numpy as np
import pytest
import torch
from by_hand import spread
from listening import catch_trainings
from noisy import noise
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import cflow
from fewshot_ad.methods.cflow import CFLOW
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.flows import position_code


def small(**changes) -> CFLOW:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "flow_blocks": 2,
        "position_dims": 8,
        "steps": 5,
        "vectors_per_step": 32,
    }
    return CFLOW(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def likelihoods_by_loop(method: CFLOW, level: int, support: Tensor, image: Tensor) -> np.ndarray:
    """One position after another: standardise, flow, Gaussian."""
    assert method.flows_ is not None
    flow = method.flows_[level].flow
    extract = load_features("random:tiny", (2, 3), device="cpu")
    mean, deviation = spread(extract(support)[level])
    (maps,) = ((extract(image[None])[level] - mean) / deviation).float()
    codes = position_code(8, *maps.shape[1:])
    found = np.empty(maps.shape[1:])
    for row, column in np.ndindex(*found.shape):
        vector = maps[:, row, column]
        with torch.no_grad():
            latent, logdet = flow(vector[None], codes[None, :, row, column])
        constant = len(vector) * math.log(2 * math.pi)
        density = float(logdet) - 0.5 * (float(latent.square().sum()) + constant)
        found[row, column] = density / len(vector)
    return found


@pytest.mark.parametrize("score", ["distance", "likelihood"])
def test_maps_position_by_position(images: Tensor, score: str) -> None:
    method = small(score=score, blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    for image, ours in zip(images[2:], found.anomaly_map, strict=True):
        total = torch.full((1, 1, 32, 32), 2.0 if score == "likelihood" else 0.0).double()
        for level in (0, 1):
            peak = max(likelihoods_by_loop(method, level, images[:2], i).max() for i in images[:2])
            lacking = peak - likelihoods_by_loop(method, level, images[:2], image)
            values = np.sqrt(2 * lacking.clip(0)) if score == "distance" else -np.exp(-lacking)
            grid = torch.from_numpy(values)[None, None]
            total += functional.interpolate(grid, (32, 32), mode="bilinear")
        expected = gaussian_filter(total[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_training_makes_the_support_likelier(images: Tensor) -> None:
    support = Support("noise", images)
    means = []
    for steps in (1, 60):
        flows = small(steps=steps, noise=0.0, learning_rate=0.01).fit(support).flows_
        assert flows is not None
        maps = load_features("random:tiny", (2, 3), device="cpu")(images)
        found = [flow.map(level[:1]).mean() for flow, level in zip(flows, maps, strict=True)]
        means.append(torch.stack(found))
    assert (means[1] > means[0] + 0.2).all()


@pytest.mark.parametrize("shots", [1, 3])
def test_fewer_positions_than_a_step_sees_are_enough(images: Tensor, shots: int) -> None:
    method = small(vectors_per_step=100_000).fit(Support("noise", images[:shots]))
    assert method.predict(images).image_score.isfinite().all()


def test_constant_images_are_wholly_normal_and_nothing_is_divided_by_zero() -> None:
    images = torch.zeros(2, 3, 32, 32)
    found = small().fit(Support("dark", images)).predict(torch.cat([images, images + 1]))
    assert found.image_score.isfinite().all()
    assert found.image_score[2] > found.image_score[0]


def test_images_of_another_size_are_refused(images: Tensor) -> None:
    method = small().fit(Support("noise", images[:1]))
    words = r"images give \[2, 2\] positions, the support \[4, 4\]: CFLOW needs images of the size"
    with pytest.raises(FewShotError, match=words):
        method.predict(images[:, :, :16, :16])


@pytest.mark.parametrize("level", [0, 1])
def test_the_loss_is_of_the_logistic_of_likelihoods(
    images: Tensor, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, cflow)
    method = small(noise=0.0).fit(Support("noise", images[:2]))
    _, loss, count = caught[level]
    found = loss(torch.arange(count), torch.Generator())
    likelihoods = [likelihoods_by_loop(method, level, images[:2], each) for each in images[:2]]
    expected = np.log1p(np.exp(-np.stack(likelihoods))).mean()
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
