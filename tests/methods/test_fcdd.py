import math

import numpy as np
import pytest
import torch
from by_hand import spread
from listening import hear_losses
from noisy import noise
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import fcdd
from fewshot_ad.methods.fcdd import FCDD, blow_up, build_head, distances, one_class_loss
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> FCDD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "hidden": 8,
        "painted_views": 6,
        "steps": 5,
    }
    return FCDD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def gaussians(grid: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Every pixel by loops: the mean of positions, weighted by distance to their centres."""
    step, found = size / len(grid), np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            weights = np.zeros(grid.shape)
            for i in range(grid.shape[0]):
                for j in range(grid.shape[1]):
                    down = row - ((i + 0.5) * step - 0.5)
                    right = column - ((j + 0.5) * step - 0.5)
                    weights[i, j] = math.exp(-(down**2 + right**2) / (2 * sigma**2))
            found[row, column] = (weights * grid).sum() / weights.sum()
    return found


def test_pixels_are_means_by_gaussians() -> None:
    grid = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(2))
    expected = gaussians(grid[0].double().numpy(), 12, sigma=2.5)
    np.testing.assert_allclose(blow_up(grid, (12, 12), 2.5)[0].numpy(), expected, rtol=1e-5)


def test_a_level_map_stays_level_up_to_the_border() -> None:
    torch.testing.assert_close(blow_up(torch.ones(1, 3, 2), (9, 8), 1.0), torch.ones(1, 9, 8))


def test_the_map_is_the_distance_of_every_position_blown_up(images: Tensor) -> None:
    method = small(sigma=4.0, top_share=0.02).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    known, maps = (
        load_features("random:tiny", (2,), device="cpu")(x)[0].double()
        for x in (images[:2], images[2:3])
    )
    mean, deviation = spread(known)
    maps = (maps - mean) / deviation
    assert method.head_ is not None
    first, _, second = method.head_.double()
    hidden = functional.conv2d(maps, first.weight, padding=1)
    hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
    number = torch.einsum("c,chw->hw", second.weight[0, :, 0, 0], hidden[0]).numpy()
    expected = gaussians(np.sqrt(number**2 + 1) - 1, 32, 4.0)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-6)
    highest = np.sort(expected.ravel())[-math.ceil(0.02 * 32 * 32) :]
    assert float(found.image_score[0]) == pytest.approx(highest.mean(), rel=1e-3)


def test_distances_are_exact_where_they_are_small() -> None:
    numbers = torch.tensor([0.0, 1e-6, 1.0, 1e6]).view(4, 1, 1, 1)
    expected = [0.0, 0.5e-12, math.sqrt(2) - 1, 1e6 - 1]
    assert distances(numbers).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_loss_by_hand() -> None:
    pixels = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 2.0], [1.0, 0.1]]])
    masks = torch.tensor([[[False, False], [False, False]], [[False, True], [True, False]]])
    normal = (0.1 + 0.2 + 0.3 + 0.4) / 4
    anomalous = (0.5 + 0.1) / 4 - math.log(1 - math.exp(-(2.0 + 1.0) / 2))
    found = one_class_loss(pixels, masks)
    assert float(found) == pytest.approx((normal + anomalous) / 2, rel=1e-5)


def test_the_loss_of_nothing_said_is_finite_and_has_a_slope() -> None:
    pixels = torch.full((1, 2, 2), 1e-12, requires_grad=True)
    found = one_class_loss(pixels, torch.ones(1, 2, 2, dtype=torch.bool))
    found.backward()
    assert found.isfinite()
    assert pixels.grad is not None
    assert (pixels.grad < 0).all()


@pytest.mark.parametrize(("shots", "views"), [(1, 6), (4, 2)])
def test_any_number_of_images_is_painted(images: Tensor, shots: int, views: int) -> None:
    method = small(painted_views=views).fit(Support("noise", images[:shots]))
    assert method.predict(images).image_score.isfinite().all()


@pytest.mark.parametrize("teach", ["pixel", "image"])
def test_a_batch_holds_both_kinds(images: Tensor, teach: str, monkeypatch) -> None:
    seen = []
    loss = fcdd.one_class_loss
    monkeypatch.setattr(fcdd, "one_class_loss", lambda *of: seen.append(of[1]) or loss(*of))
    small(teach=teach, batch_size=4).fit(Support("noise", images[:1]))
    for masks in seen:
        shares = masks.float().mean(dim=(1, 2))
        assert shares[0] == 0
        assert len(shares) == 5
        assert (shares[1:] == 1).all() if teach == "image" else (shares[1:] < 0.9).all()


def test_training_lowers_the_loss(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = hear_losses(monkeypatch, fcdd)
    small(steps=40).fit(Support("noise", images))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.parametrize("anomalies", ["confetti", "cut_paste"])
def test_paint_is_where_the_mask_says(images: Tensor, anomalies: str) -> None:
    plates = images.clamp(-1.5, 1.5)  # colours from 0 to 1
    painted, masks = small(anomalies=anomalies)._paint(plates[:2])
    originals = plates[torch.arange(6) % 2]
    changed = ((painted - originals).abs() > 1e-4).any(dim=1)
    assert masks.flatten(1).any(dim=1).all()
    assert not (changed & ~masks).any()
    assert (changed & masks).float().sum() > 0.9 * masks.sum()


@pytest.mark.parametrize("shots", [1, 4])
def test_a_painted_square_lights_up(shots: int) -> None:
    def plates(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.2 * torch.randn(count, 3, 64, 64, generator=generator)

    query = plates(3, seed=2)
    query[2, :, 24:40, 8:24] += 1.5
    method = small(backbone="tiny", steps=30, preprocess=Preprocess(size=64), painted_views=16)
    found = method.fit(Support("plate", plates(shots, seed=1))).predict(query)
    assert found.image_score[2] > 2 * found.image_score[:2].max()
    row, column = divmod(int(found.anomaly_map[2].argmax()), 64)
    assert 20 <= row < 44
    assert 4 <= column < 28


def test_the_head_has_no_bias_and_its_weights_are_of_the_seed() -> None:
    one, same, other = (build_head(5, 3, seed) for seed in (1, 1, 2))
    assert all(layer.bias is None for layer in (one[0], one[2]))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_constant_images_divide_nothing_by_zero() -> None:
    dark = torch.zeros(2, 3, 32, 32)
    found = small().fit(Support("dark", dark)).predict(torch.cat([dark, dark + 1]))
    assert found.image_score.isfinite().all()
    assert found.image_score[2] > found.image_score[0]
