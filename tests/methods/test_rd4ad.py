import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.reading import read_labelled
from fewshot_ad.methods import rd4ad
from fewshot_ad.methods.rd4ad import RD4AD
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.support_training import train_on_support

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
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(8))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step."""
    losses: list[float] = []

    def listen(network, loss, *rest) -> None:
        def noted(rows, generator):
            losses.append((found := loss(rows, generator)).item())
            return found

        train_on_support(network, noted, *rest)

    monkeypatch.setattr(rd4ad, "train_on_support", listen)
    return losses


def turned(one: np.ndarray, other: np.ndarray) -> float:
    return 1 - float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def test_the_map_is_the_sum_over_levels_of_how_far_features_turn(images: Tensor) -> None:
    method = small(blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    assert method.decoder_ is not None
    levels = load_features("random:tiny", LEVELS, device="cpu")(images[2:3])
    with torch.no_grad():
        rebuilt = method.decoder_(levels)
    total = np.zeros((32, 32))
    for one, other in zip(levels, rebuilt, strict=True):
        a, b = one[0].double().numpy(), other[0].double().numpy()
        rows, columns = a.shape[1:]
        grid = [[turned(a[:, y, x], b[:, y, x]) for x in range(columns)] for y in range(rows)]
        given = torch.tensor(grid)[None, None]
        total += functional.interpolate(given, (32, 32), mode="bilinear")[0, 0].numpy()
    expected = gaussian_filter(total, 1.5)
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


@pytest.mark.parametrize("cosine", ["position", "whole_map"])
def test_the_loss_falls(images: Tensor, heard: list[float], cosine: str) -> None:
    small(steps=40, cosine=cosine).fit(Support("noise", images[:1]))
    assert sum(heard[-5:]) < 0.9 * sum(heard[:5])


def test_one_image_is_enough_and_a_painted_square_lights_up(images: Tensor) -> None:
    smooth = functional.interpolate(images[:, :, :4, :4], (64, 64), mode="bicubic")
    painted = smooth[:1].clone()
    painted[:, :, 20:36, 20:36] = 3.0
    grid = small(steps=60).fit(Support("clouds", smooth[:1])).predict(painted).anomaly_map[0]
    inside = grid[20:36, 20:36].mean()
    assert inside > 2 * (grid.sum() - 256 * inside) / (grid.numel() - 256)


@pytest.mark.slow
def test_washers_with_defects_are_told_from_normal_ones() -> None:
    method, dataset = RD4AD(device="cpu"), load_dataset("synthetic")
    shown = read_labelled(dataset, dataset.train("washer")[:16], method.preprocess)
    judged = read_labelled(dataset, dataset.test("washer"), method.preprocess)
    scores = method.fit(Support("washer", shown.images)).predict(judged.images).image_score
    assert roc_auc_score(judged.is_anomalous, scores) > 0.8
