import numpy as np
import pytest
import torch
from by_hand import turned, turning_map
from listening import hear_losses
from noisy import noise
from torch import Tensor

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import rd4ad
from fewshot_ad.methods.rd4ad import RD4AD
from fewshot_ad.parts.feature_cache import load_features

LEVELS = (1, 2)


def small(**changes) -> RD4AD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "levels": LEVELS,
        "width": 8,
        "steps": 5,
        "support_views": 4,
    }
    return RD4AD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step."""
    return hear_losses(monkeypatch, rd4ad)


def test_the_map_is_the_sum_over_levels_of_how_far_features_turn(images: Tensor) -> None:
    method = small(blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    assert method.decoder_ is not None
    levels = load_features("random:tiny", LEVELS, device="cpu")(images[2:3])
    with torch.no_grad():
        rebuilt = method.decoder_(levels)
    expected = turning_map(levels, rebuilt, (32, 32), 1.5)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-5)
    assert found.image_score[0] == found.anomaly_map.max()


@pytest.mark.parametrize("cosine", ["position", "whole_map"])
def test_the_first_loss_is_that_of_the_mean_features(
    images: Tensor, heard: list[float], cosine: str
) -> None:
    """All images are in the first batch, and the decoder says the mean of every position."""
    small(steps=1, support_views=1, cosine=cosine).fit(Support("noise", images))
    total = 0.0
    for maps in load_features("random:tiny", LEVELS, device="cpu")(images):
        mean = maps.mean(dim=(0, 2, 3)).view(1, -1, 1, 1).expand_as(maps)
        pairs = [(maps.movedim(1, -1).flatten(0, 2), mean.movedim(1, -1).flatten(0, 2))]
        if cosine == "whole_map":
            pairs = [(maps.flatten(1), mean.flatten(1))]
        a, b = (each.double().numpy() for each in pairs[0])
        total += np.mean([turned(u, v) for u, v in zip(a, b, strict=True)])
    assert heard == [pytest.approx(total, rel=1e-4)]
