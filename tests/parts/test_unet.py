import pytest
import torch
from torch import nn

from fewshot_ad.parts.unet import UNet, group_normalised


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (19, 8)])
def test_maps_have_the_size_of_the_images(skips: bool, size: tuple[int, int]) -> None:
    network = UNet(3, 2, width=4, skips=skips)
    assert network(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def test_an_image_is_told_the_same_beside_any_other() -> None:
    network = UNet(3, 1, width=4).train()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


@pytest.mark.parametrize("skips", [True, False])
def test_only_skips_lead_around_the_deepest_layer(skips: bool) -> None:
    network = UNet(3, 1, width=4, skips=skips).requires_grad_(False)
    for weight in network.down[-1].parameters():
        weight.zero_()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = network(images)
    assert torch.allclose(found[0], found[1]) is not skips


def test_layers_double_up_to_a_limit() -> None:
    network = UNet(3, 1, width=3, depth=5)
    widths = [m.out_channels for m in network.down.modules() if isinstance(m, nn.Conv2d)]
    assert widths[::2] == [6, 12, 24, 24, 24]


def test_weights_hang_on_the_seed() -> None:
    one, same, other = (UNet(3, 1, width=4, seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_norm_of_batches_is_left_and_weights_stay() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6))
    network = nn.Sequential(inner, nn.BatchNorm2d(6), nn.ReLU())
    kept = inner[0]
    assert group_normalised(network) is network
    assert [type(part).__name__ for part in network.modules()].count("GroupNorm") == 2
    assert inner[0] is kept
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[:1], network(images[:1]))
