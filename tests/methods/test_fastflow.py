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

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import fastflow
from fewshot_ad.methods.fastflow import FastFlow
from fewshot_ad.parts.feature_cache import load_features

LEVELS = (2, 3)


def small(**changes) -> FastFlow:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "levels": LEVELS,
        "steps": 5,
    }
    return FastFlow(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def by_jacobian(method: FastFlow, support: Tensor, image: Tensor) -> float:
    """Log-likelihood of a whole map per channel: a Gaussian, and all of the Jacobian at once."""
    assert method.flows_ is not None
    extract = load_features("random:tiny", (2,), device="cpu")
    known, maps = extract(support)[0].double(), extract(image[None])[0].double()
    mean, deviation = spread(known)
    maps = (maps - mean) / deviation
    flow = method.flows_[0].flow.double()
    latents, _ = flow(maps)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x)[0], maps)
    logdet = torch.linalg.slogdet(jacobian.reshape(maps.numel(), maps.numel())).logabsdet
    flow.float()
    gaussian = -0.5 * latents.square().sum() - 0.5 * maps.numel() * math.log(2 * math.pi)
    return float(gaussian + logdet) / maps.shape[1]


def test_likelihoods_of_positions_add_up_to_that_of_the_map(images: Tensor) -> None:
    corners = images[:, :, :16, :16]
    method = small(levels=(2,)).fit(Support("noise", corners[:2]))
    assert method.flows_ is not None
    (maps,) = load_features("random:tiny", (2,), device="cpu")(corners[2:3])
    method.flows_[0].peak.value.fill_(100.0)  # nothing is cut off
    lacking = method.flows_[0].anomaly(maps, "distance").square() / 2
    expected = by_jacobian(method, corners[:2], corners[2])
    assert float((100 - lacking).sum()) == pytest.approx(expected, rel=1e-3)


def test_maps_are_the_mean_over_levels_of_what_positions_lack(images: Tensor) -> None:
    method = small(blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    assert method.flows_ is not None
    extract = load_features("random:tiny", LEVELS, device="cpu")

    def likelihood(level: int, image: Tensor) -> np.ndarray:
        assert method.flows_ is not None
        with torch.no_grad():
            latents, logdet = method.flows_[level](extract(image[None])[level])
        squared = latents[0].square().mean(dim=0) + math.log(2 * math.pi)
        return (logdet[0] / latents.shape[1] - squared / 2).double().numpy()

    for image, ours in zip(images[2:], found.anomaly_map, strict=True):
        total = torch.zeros(1, 1, 32, 32).double()
        for level in (0, 1):
            peak = max(likelihood(level, one).max() for one in images[:2])
            distance = np.sqrt(2 * (peak - likelihood(level, image)).clip(0))
            grid = torch.from_numpy(distance)[None, None]
            total += functional.interpolate(grid, (32, 32), mode="bilinear") / 2
        expected = gaussian_filter(total[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_the_papers_score_is_the_likelihood_without_the_determinant(images: Tensor) -> None:
    method = small(score="likelihood", blur=0.0, levels=(2,)).fit(Support("noise", images[:1]))
    assert method.flows_ is not None
    maps = load_features("random:tiny", (2,), device="cpu")(images[1:2])[0]
    with torch.no_grad():
        latents, _ = method.flows_[0](maps)
    likelihood = (-latents.square().mean(dim=1) / 2).exp()[:, None]
    expected = 0 - functional.interpolate(likelihood, (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(method.predict(images[1:2]).anomaly_map, expected)


def test_training_makes_the_support_likelier(images: Tensor) -> None:
    means = []
    for steps in (1, 60):
        method = small(steps=steps, noise=0.0, score="likelihood", blur=0.0)
        means.append(method.fit(Support("noise", images)).predict(images).anomaly_map.mean())
    assert means[1] < means[0] - 0.02


def test_constant_images_divide_nothing_by_zero() -> None:
    images = torch.zeros(2, 3, 32, 32)
    found = small().fit(Support("dark", images)).predict(torch.cat([images, images + 1]))
    assert found.image_score.isfinite().all()
    assert found.image_score[2] > found.image_score[0]


def test_the_loss_is_the_negative_likelihood_per_channel_and_position(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    corners = images[:2, :, :16, :16]
    caught = catch_trainings(monkeypatch, fastflow)
    method = small(levels=(2,), noise=0.0).fit(Support("noise", corners))
    found = caught[0].loss(torch.arange(2), torch.Generator())
    expected = -np.mean([by_jacobian(method, corners, corner) for corner in corners]) / (2 * 2)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
