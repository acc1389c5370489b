import numpy as np
import pytest
import torch
from by_hand import turned, turned_grid
from torch import Tensor

from fewshot_ad.parts.cosines import cosine_distances, cosine_loss, whole_map_distances


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


def test_distances_of_positions_and_of_whole_maps(images: Tensor) -> None:
    taught, learned = images[:1, :, :2, :3].double(), images[1:, :, :2, :3].double()
    (found,) = cosine_distances([taught], [learned])
    expected = turned_grid(taught[0], learned[0])
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9)
    (whole,) = whole_map_distances([taught], [learned])
    assert float(whole) == pytest.approx(
        turned(*(each.flatten().numpy() for each in (taught, learned)))
    )
    twice = [taught, taught], [learned, learned]
    assert float(cosine_loss(*twice)) == pytest.approx(2 * np.mean(expected))
    assert float(cosine_loss(*twice, "whole_map")) == pytest.approx(2 * float(whole))


def test_a_distance_is_half_the_squared_one_of_unit_vectors(images: Tensor) -> None:
    taught, learned = (each / each.norm(dim=1, keepdim=True) for each in images.split(1))
    (found,) = cosine_distances([taught], [learned])
    torch.testing.assert_close(found, (taught - learned).square().sum(dim=1) / 2)
