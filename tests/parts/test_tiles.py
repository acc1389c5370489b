import pytest
import torch

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.tiles import Tiling


@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((10, 10), [(0, 0)]),
        ((10, 18), [(0, 0), (0, 8)]),
        ((10, 19), [(0, 0), (0, 8), (0, 9)]),
        ((26, 10), [(0, 0), (8, 0), (16, 0)]),
        ((18, 18), [(0, 0), (0, 8), (8, 0), (8, 8)]),
    ],
)
def test_tiles_lie_four_fifths_apart_and_the_last_ends_with_the_image(size, corners) -> None:
    assert Tiling(size, 10).corners == corners


@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.9])
def test_every_pixel_comes_back(overlap: float) -> None:
    tiling = Tiling((23, 37), 11, overlap)
    images = torch.randn(2, 1, 23, 37, generator=torch.Generator().manual_seed(0))
    tiles = tiling.cut(images)
    assert {tuple(tile.shape) for tile in tiles} == {(2, 1, 11, 11)}
    joined = tiling.join([tile[:, 0] for tile in tiles])
    torch.testing.assert_close(joined, images[:, 0])


def test_where_tiles_overlap_they_are_averaged() -> None:
    tiling = Tiling((2, 3), 2, 0.5)
    maps = [torch.full((1, 2, 2), value) for value in (1.0, 3.0)]
    assert tiling.join(maps).tolist() == [[[1, 2, 3], [1, 2, 3]]]


def test_an_image_smaller_than_a_tile_is_refused() -> None:
    with pytest.raises(FewShotError, match="images are 10x8, smaller than tiles of 9"):
        _ = Tiling((10, 8), 9).corners
