import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.standardising import Standardiser


@pytest.fixture
def maps() -> Tensor:
    noise = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(2))
    return noise * torch.tensor([4.0, 6.0, 10.0, 0.0]).view(4, 1, 1) + 7


def test_channels_come_out_with_mean_0_and_deviation_1(maps: Tensor) -> None:
    found = Standardiser(maps)(maps)
    for channel in range(3):
        values = maps[:, channel].double().numpy()
        expected = torch.from_numpy((values - values.mean()) / values.std()).float()
        torch.testing.assert_close(found[:, channel], expected, rtol=1e-4, atol=1e-5)


def test_a_channel_that_stood_still_is_not_blown_up(maps: Tensor) -> None:
    scale = Standardiser(maps)
    assert not scale(maps)[:, 3].any()
    usual = (maps.double().var(dim=(0, 2, 3), correction=0).mean() ** 0.5).item()
    moved = scale(maps + 1)[:, 3]
    torch.testing.assert_close(moved, torch.full_like(moved, 1 / (0.3 * usual)))


def test_constant_features_divide_nothing_by_zero() -> None:
    maps = torch.full((1, 2, 3, 3), 5.0)
    scale = Standardiser(maps)
    assert not scale(maps).any()
    assert scale(maps + 1).isfinite().all()


def test_units_mean_nothing_and_the_constants_travel_with_the_module(maps: Tensor) -> None:
    torch.testing.assert_close(Standardiser(1e-4 * maps)(1e-4 * maps), Standardiser(maps)(maps))
    assert {*Standardiser(maps).state_dict()} == {"mean", "deviation"}
