import numpy as np
import pytest
import torch
from by_hand import joined_by_means
from noisy import noisy_ramps
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.adtr import ADTR
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> ADTR:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64),
        "width": 16,
        "heads": 2,
        "layers": 1,
        "steps": 3,
    }
    return ADTR(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noisy_ramps(4)


def test_map_is_the_blurred_distance_and_its_highest_pixel_the_score(images: Tensor) -> None:
    method = small(blur=1.5).fit(Support("plate", images[:2]))
    found = method.predict(images[2:])
    extract = load_features("random:tiny", (1, 2, 3), device="cpu")
    assert method.rebuilder_ is not None
    pairs = zip(images[2:], found.anomaly_map, found.image_score, strict=True)
    for image, ours, score in pairs:
        levels = extract(image[None])
        scaled = method.rebuilder_.scale(joined_by_means(levels))
        with torch.no_grad():
            distance = (method.rebuilder_(scaled) - scaled).square().sum(dim=1).sqrt()
        full = functional.interpolate(distance[None], (64, 64), mode="bilinear")[0, 0]
        expected = gaussian_filter(full.double().numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-4)
        assert score == ours.max()
