import numpy as np
import pytest
import torch
from listening import catch_trainings
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import pyramidflow
from fewshot_ad.methods.pyramidflow import PyramidFlow
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.pyramid_couplings import compose, decompose

SIZE = 48


def small(**changes) -> PyramidFlow:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "scales": 3,
        "flow_blocks": 2,
        "steps": 3,
    }
    return PyramidFlow(**(settings | changes))


def noise(n: int, seed: int = 8) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def latents_of(method: PyramidFlow, images: Tensor) -> list[Tensor]:
    """Composed latents of every image, [c h w]."""
    assert method.model_ is not None
    mean, scale, flow, scales = method.model_
    maps = load_features("random:tiny", (1,), device="cpu")(images)[0]
    pyramids = [flow(decompose((each[None] - mean) / scale, scales)) for each in maps]
    return [compose([each.double() for each in pyramid])[0] for pyramid in pyramids]


def pair_loss(method: PyramidFlow, images: Tensor) -> float:
    """Mean size of the Fourier transform of the difference of any two images, by loops."""
    latents = [each.numpy() for each in latents_of(method, images)]
    sizes = [
        np.abs(np.fft.fft2(channel)).mean() / np.sqrt(channel.size)
        for place, one in enumerate(latents)
        for other in latents[:place]
        for channel in one - other
    ]
    return float(np.mean(sizes))


def test_it_is_the_mean_distance_to_the_mean_latent() -> None:
    support, images = noise(3), noise(2, seed=5)
    method = small().fit(Support("noise", support))
    template = sum(latents_of(method, support)) / 3
    judged = zip(latents_of(method, images), method.predict(images).anomaly_map, strict=True)
    for latents, ours in judged:
        distance = sum(channel.abs() for channel in latents - template) / len(template)
        large = functional.interpolate(distance[None, None], (SIZE, SIZE), mode="bilinear")
        np.testing.assert_allclose(ours, large[0, 0], rtol=1e-3, atol=1e-4)


def test_training_brings_normal_images_together() -> None:
    images = noise(3)
    short, long = (
        small(steps=steps, learning_rate=1e-3).fit(Support("noise", images)) for steps in (1, 60)
    )
    assert pair_loss(long, images) < 0.97 * pair_loss(short, images)


def test_one_image_is_its_own_template() -> None:
    image = noise(1)
    method = small().fit(Support("noise", image))
    assert not method.predict(image).anomaly_map.any()
    assert method.predict(noise(1, seed=5)).image_score > 0


def test_from_pixels_as_from_features() -> None:
    method = small(backbone=None).fit(Support("noise", noise(2)))
    assert method.weights_digest is None
    assert method.template_ is not None
    assert method.template_.shape == (16, SIZE, SIZE)
    assert method.predict(noise(1, seed=5)).anomaly_map.std() > 0


def test_the_settings_of_the_paper_train() -> None:
    method = small().variant(**PyramidFlow.PAPER).variant(steps=1, flow_blocks=1)
    assert method.fit(Support("noise", noise(2))).predict(noise(1)).anomaly_map.isfinite().all()


def test_the_loss_is_the_spectrum_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = catch_trainings(monkeypatch, pyramidflow)
    method = small().fit(Support("noise", noise(3)))
    _, loss, count = caught[0]
    assert count == 3  # pairs of three images
    found = loss(torch.arange(3), torch.Generator())
    assert float(found.detach()) == pytest.approx(pair_loss(method, noise(3)), rel=1e-4)
