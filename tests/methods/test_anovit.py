import numpy as np
import pytest
import torch
from listening import catch_trainings
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import anovit
from fewshot_ad.methods.anovit import AnoViT
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> AnoViT:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        "inner_size": 32,
        "width": 16,
        "steps": 3,
    }
    return AnoViT(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    """Four noisy plates."""
    noise = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    return 0.05 * noise + torch.linspace(-0.8, 0.8, 64)


def test_map_is_the_blurred_squared_difference_of_colours(images: Tensor) -> None:
    method = small(blur=1.5, inner_size=64).fit(Support("plate", images[:2]))
    found = method.predict(images[2:3])
    assert method.decoder_ is not None
    (tokens,) = load_features("random:tiny", (3,), device="cpu")(images[2:3])
    with torch.no_grad():
        drawn = method.decoder_(tokens)[0]
    colours = (0.5 * images[2] + 0.5).clamp(0, 1)
    squared = sum((drawn[n] - colours[n]) ** 2 for n in range(3)) / 3
    expected = gaussian_filter(squared.double().numpy(), 1.5)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


@pytest.mark.parametrize(("inner_size", "doublings"), [(16, 2), (32, 3), (40, 3), (64, 4)])
def test_the_grid_is_doubled_to_what_is_nearest(
    images: Tensor, inner_size: int, doublings: int
) -> None:
    method = small(inner_size=inner_size, steps=1).fit(Support("plate", images[:1]))
    assert method.decoder_ is not None
    layers = [one for one in method.decoder_.layers if isinstance(one, torch.nn.ConvTranspose2d)]
    assert len(layers) == doublings
    assert method.decoder_(torch.zeros(1, 160, 4, 4)).shape == (1, 3, inner_size, inner_size)


def test_training_learns_colours(images: Tensor) -> None:
    errors = []
    for steps in (1, 100):
        method = small(steps=steps, learning_rate=5e-3).fit(Support("plate", images))
        errors.append(method.predict(images).anomaly_map.mean())
    assert errors[1] < 0.3 * errors[0]


def test_the_loss_is_the_squared_error_of_colours(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, anovit)
    small(inner_size=64).fit(Support("plate", images))
    decoder, loss, count = caught[0]
    assert count == 4
    (tokens,) = load_features("random:tiny", (3,), device="cpu")(images[1:3])
    colours = (0.5 * images[1:3] + 0.5).clamp(0, 1)
    expected = (decoder(tokens) - colours).square().mean()
    found = loss(torch.tensor([1, 2]), torch.Generator())
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
