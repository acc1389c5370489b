import numpy as np
import pytest
import torch
from listening import catch_trainings
from plates import PLAIN, SIZE, as_images, plate_support, plates
from torch import nn

from fewshot_ad.methods.anoddpm import LAST, AnoDDPM
from fewshot_ad.parts import image_methods
from fewshot_ad.parts.training import step_generator


def small(**changes) -> AnoDDPM:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 8, "steps": 1}
    return AnoDDPM(**(settings | {"blur": 0.0, "batch_size": 2, "stride": 125} | changes))


class Told(nn.Module):
    """Tells a fixed share of what it sees as noise."""

    def forward(self, diffused: torch.Tensor, times: torch.Tensor):
        class Output:
            sample = 0.3 * diffused

        return Output()


@pytest.mark.parametrize("stride", [1, 2])
def test_the_way_there_and_back_is_the_papers(stride: int) -> None:
    """Algorithm 2 with scalars; with a stride, the posterior between the steps that are taken."""
    method = small(timesteps=20, reach=6, stride=stride, noise="gaussian")
    colours = 2 * plates(1, seed=3) - 1
    kept = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 20))])  # after t steps
    generator = step_generator(0, LAST)

    def draw() -> np.ndarray:
        return torch.randn(colours.shape, generator=generator).double().numpy()

    first = 7  # step 6, counted from 0
    now = np.sqrt(kept[first]) * colours.double().numpy() + np.sqrt(1 - kept[first]) * draw()
    for step in range(6, -1, -stride):
        here, before = kept[step + 1], kept[max(0, step + 1 - stride)]
        told, noise = 0.3 * now, draw()
        start = np.clip((now - np.sqrt(1 - here) * told) / np.sqrt(here), -1, 1)
        beta = 1 - here / before
        mean = np.sqrt(before) * beta / (1 - here) * start
        mean = mean + np.sqrt(here / before) * (1 - before) / (1 - here) * now
        now = mean + np.sqrt((1 - before) / (1 - here) * beta) * noise
    found = method._there_and_back(colours, Told())
    np.testing.assert_allclose(found, now, atol=0.01 if stride == 1 else 0.02)


@pytest.mark.parametrize("noise", ["simplex", "gaussian"])
def test_noise_has_mean_0_and_deviation_1_and_channels_differ(noise: str) -> None:
    drawn = small(noise=noise)._draw(torch.zeros(2, 3, 32, 32), torch.Generator().manual_seed(0))
    assert drawn.mean(dim=(2, 3)).abs().max() < 0.15
    assert (drawn.std(dim=(2, 3)) - 1).abs().max() < 0.1
    assert not torch.equal(drawn[0, 0], drawn[0, 1])
    neighbours = (drawn[..., 1:] * drawn[..., :-1]).mean()
    assert bool(neighbours > 0.5) is (noise == "simplex")


def test_the_map_is_the_squared_difference() -> None:
    method, colours = small().fit(plate_support(1)), plates(1, seed=3)
    assert method.denoiser_ is not None
    with torch.no_grad():
        returned = method._there_and_back(2 * colours - 1, method.denoiser_)
    expected = (returned - (2 * colours - 1)).double().numpy()[0] ** 2
    found = method.predict(as_images(colours)).anomaly_map[0]
    np.testing.assert_allclose(found, expected.mean(axis=0), rtol=1e-3, atol=1e-4)


def test_training_leads_the_support_back() -> None:
    support = plate_support(2)
    few, many = (
        small(steps=steps).fit(support).predict(support.images).anomaly_map.mean()
        for steps in (1, 30)
    )
    assert many < 0.8 * few


def test_the_loss_is_the_squared_error_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 1."""
    caught = catch_trainings(monkeypatch, image_methods)
    small(noise="gaussian", shift=0.0, turn=0.0).fit(plate_support(2))
    network, loss, _ = caught[0]
    found = loss(torch.arange(2), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    times = torch.randint(1000, (2,), generator=generator)
    noise = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[times]
    kept = torch.tensor(kept).float().view(2, 1, 1, 1)
    diffused = kept.sqrt() * (2 * plates(2) - 1) + (1 - kept).sqrt() * noise
    expected = (network(diffused, times).sample - noise).square().mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
