import numpy as np
import pytest
import torch
from by_hand import spread
from listening import hear_losses
from noisy import noise
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import simplenet
from fewshot_ad.methods.simplenet import SimpleNet, hinge_loss
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> SimpleNet:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "hidden": 16,
        "steps": 5,
    }
    return SimpleNet(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def standardised(support: Tensor, images: Tensor) -> Tensor:
    """[b c h w] of images: each level averaged over 3x3, joined, standardised over the support."""
    extract = load_features("random:tiny", (2, 3), device="cpu")
    levels = []
    for maps in extract(torch.cat([support, images])):
        mean = uniform_filter(maps.double().numpy(), size=(1, 1, 3, 3), mode="constant")
        levels.append(torch.from_numpy(mean))
    second = functional.interpolate(levels[1], levels[0].shape[2:], mode="bilinear")
    joined = torch.cat([levels[0], second], dim=1)
    mean, deviation = spread(joined[: len(support)])
    return (joined[len(support) :] - mean) / deviation


def test_the_map_is_what_the_discriminator_says_against_normal(images: Tensor) -> None:
    method = small(blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    assert method.network_ is not None
    network = method.network_.double()
    for patches, ours in zip(standardised(images[:2], images[2:]), found.anomaly_map, strict=True):
        grid = torch.zeros(patches.shape[1:], dtype=torch.float64)
        for row in range(grid.shape[0]):
            for column in range(grid.shape[1]):
                grid[row, column] = -network(patches[None, :, row, column])[0]
        large = functional.interpolate(grid[None, None], (32, 32), mode="bilinear")[0, 0]
        expected = gaussian_filter(large.numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_the_loss_of_a_step_by_hand(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def one_step(network, loss, count, budget, label) -> None:
        assert count == 2 * 4 * 4
        rows = torch.arange(count)
        before = loss(rows, torch.Generator().manual_seed(3))
        noise = 0.7 * torch.randn(count, 256, generator=torch.Generator().manual_seed(3))
        patches = standardised(images[:2], images[:2]).permute(0, 2, 3, 1).flatten(0, 2)
        network.double().train()
        logits = network(torch.cat([patches, patches + noise]))  # the adapter is the identity
        normal, noisy = logits[:count].tolist(), logits[count:].tolist()
        pairs = zip(normal, noisy, strict=True)
        by_hand = [max(0, 0.4 - one) + max(0, 0.4 + two) for one, two in pairs]
        found.append((before.item(), float(np.mean(by_hand))))
        network.float()

    monkeypatch.setattr(simplenet, "train_on_support", one_step)
    small(noise=0.7, margin=0.4).fit(Support("noise", images[:2]))
    assert found[0][0] == pytest.approx(found[0][1], rel=1e-4)


def test_the_hinge_leaves_alone_what_is_right_enough() -> None:
    normal, noisy = torch.tensor([0.6, 0.1]), torch.tensor([-2.0, 0.5])
    assert float(hinge_loss(normal, noisy, 0.5)) == pytest.approx(0.2 + 0.5)


def test_training_tells_noise_from_the_support(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = hear_losses(monkeypatch, simplenet)
    small(steps=60, noise=1.0, learning_rate=1e-3).fit(Support("noise", images))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def plates(count: int, seed: int) -> Tensor:
    return 0.2 * torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shots", [1, 4])
def test_a_painted_square_lights_up(shots: int) -> None:
    method = small(backbone="tiny", preprocess=Preprocess(size=64), hidden=64, steps=60)
    query = plates(3, seed=2)
    query[2, :, 24:40, 8:24] += 2
    found = method.fit(Support("plate", plates(shots, seed=1))).predict(query)
    assert found.image_score[2] > found.image_score[:2].max()
    here, far_away = found.anomaly_map[2, 24:40, 8:24], found.anomaly_map[2, :, 48:]
    assert here.mean() > 1.5 * far_away.mean()  # features of 64 px see all of the image


def test_one_position_is_enough() -> None:
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(8))
    method = small(preprocess=Preprocess(size=8), levels=(3,)).fit(Support("dot", images))
    assert method.predict(images).image_score.isfinite().all()
