import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.residual_distance import ResidualDistance
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> ResidualDistance:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return ResidualDistance(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("unit_length", [True, False])
def test_it_is_the_mean_over_levels_of_the_nearest_distance(
    images: Tensor, unit_length: bool
) -> None:
    found = small(blur=1.5, unit_length=unit_length).fit(Support("noise", images[:3]))
    ours = found.predict(images[3:]).anomaly_map[0]
    expected = torch.zeros(48, 48, dtype=torch.float64)
    for level in load_features("random:tiny", (2, 3), device="cpu")(images):
        vectors = level.permute(0, 2, 3, 1).double().numpy()
        if unit_length:
            vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        bank = vectors[:3].reshape(-1, vectors.shape[-1])
        grid = [[min(np.linalg.norm(bank - v, axis=1)) for v in row] for row in vectors[3]]
        small_map = torch.tensor(np.array(grid))[None, None]
        expected += functional.interpolate(small_map, (48, 48), mode="bilinear")[0, 0] / 2
    np.testing.assert_allclose(ours, gaussian_filter(expected.numpy(), 1.5), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [None, 8])
def test_a_support_image_is_at_distance_zero(images: Tensor, channels: int | None) -> None:
    found = small(channels=channels).fit(Support("noise", images[:2])).predict(images[1:3])
    assert not found.anomaly_map[0].any()
    assert found.anomaly_map[1].min() > 0


def test_more_support_never_raises_a_distance(images: Tensor) -> None:
    one, two = (
        small(blur=0.0).fit(Support("noise", images[:n])).predict(images[3:]) for n in (1, 2)
    )
    assert (two.anomaly_map <= one.anomaly_map).all()
    assert (two.anomaly_map < one.anomaly_map).any()
