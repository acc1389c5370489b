import pytest
import torch
from by_hand import joined_by_means
from noisy import noisy_ramps
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.uniad import UniAD
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> UniAD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64),
        "width": 16,
        "heads": 2,
        "layers": 1,
        "steps": 3,
    }
    return UniAD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noisy_ramps(4)


def test_map_and_score_are_distances_and_their_highest_mean_of_256_pixels(images: Tensor) -> None:
    method = small().fit(Support("plate", images[:2]))
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
        torch.testing.assert_close(ours, full, rtol=1e-4, atol=1e-5)
        means = [full[y : y + 16, x : x + 16].mean() for y in range(49) for x in range(49)]
        torch.testing.assert_close(score, torch.stack(means).max(), rtol=1e-4, atol=1e-5)
