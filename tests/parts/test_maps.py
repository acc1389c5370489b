import numpy as np
import pytest
import torch
from scipy import ndimage

from fewshot_ad.parts.maps import (
    finish,
    fuse,
    gaussian_blur,
    image_score,
    mask_to_grid,
    to_vectors,
    unlikelihood_map,
    upsample_maps,
)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def test_vectors_run_over_images_rows_columns() -> None:
    maps = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4)
    assert torch.equal(to_vectors(maps)[1 * 8 + 1 * 4 + 2], maps[1, :, 1, 2])


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.5, 4.0, 9.0])
@pytest.mark.parametrize("size", [(20, 31), (5, 3), (1, 1)])
def test_blur_is_scipys(sigma: float, size: tuple[int, int]) -> None:
    maps = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    theirs = [ndimage.gaussian_filter(image.double().numpy(), sigma) for image in maps]
    np.testing.assert_allclose(gaussian_blur(maps, sigma).numpy(), np.stack(theirs), atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampling_interpolates_along_each_axis(align_corners: bool) -> None:
    maps = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1))

    def places(old: int, new: int) -> np.ndarray:
        if align_corners:
            return np.linspace(0, old - 1, new)
        return ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)

    ours = upsample_maps(maps, (9, 10), align_corners)
    for image, result in zip(maps.numpy(), ours.numpy(), strict=True):
        down = np.stack([np.interp(places(4, 9), np.arange(4), column) for column in image.T], 1)
        across = np.stack([np.interp(places(3, 10), np.arange(3), row) for row in down])
        np.testing.assert_allclose(result, across, atol=1e-6)


def test_an_image_alone_has_the_bits_of_a_batch() -> None:
    maps = torch.rand(5, 7, 7, generator=torch.Generator().manual_seed(2))
    together = gaussian_blur(upsample_maps(maps, (32, 32)), 4.0)
    for number in range(5):
        alone = gaussian_blur(upsample_maps(maps[number : number + 1], (32, 32)), 4.0)
        assert torch.equal(alone[0], together[number])


def test_fuse_levels() -> None:
    levels = [torch.full((1, 2, 2), 1.0), torch.full((1, 4, 3), 4.0)]
    assert fuse(levels, (8, 8), "sum").unique().tolist() == [5]
    assert fuse(levels, (8, 8)).unique().tolist() == [2.5]


@pytest.mark.parametrize("how", ["mean", "sum"])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.5, 4.0])
@pytest.mark.parametrize("size", [(32, 32), (40, 31), (7, 9)])
def test_finishing_is_fusion_and_blur(size: tuple[int, int], sigma: float, how: str) -> None:
    levels = [torch.rand(3, *cells) for cells in ((7, 9), (4, 4), (1, 1), (40, 31), (32, 32))]
    expected = gaussian_blur(fuse([maps.double() for maps in levels], size, how), sigma)
    torch.testing.assert_close(
        finish(levels, size, sigma, how).double(), expected, rtol=1e-5, atol=1e-6
    )


def test_an_image_is_finished_alone_as_in_a_batch() -> None:
    maps = torch.rand(5, 16, 16)
    together = finish([maps], (64, 64), 4.0)
    for number in range(5):
        assert torch.equal(finish([maps[number : number + 1]], (64, 64), 4.0)[0], together[number])


def test_unlikelihood_is_what_is_missing_to_the_peak() -> None:
    levels = [torch.full((1, 2, 2), -1.0), torch.full((1, 1, 1), -3.0)]
    expected = 2 - np.exp(-0.5) - np.exp(-1)
    score = unlikelihood_map(levels, [-0.5, -2.0], (2, 2))
    assert score.flatten().tolist() == pytest.approx([expected] * 4)
    shifted = unlikelihood_map(levels, [-0.5, -2.0], (2, 2), total_peak=1.0)
    assert shifted.flatten().tolist() == pytest.approx([expected - 1] * 4)


def test_unlikelihood_of_an_image_ignores_the_others() -> None:
    levels = [torch.randn(4, 3, 3), torch.randn(4, 2, 2)]
    together = unlikelihood_map(levels, [0.0, 0.0], (6, 6))
    alone = unlikelihood_map([maps[2:3] for maps in levels], [0.0, 0.0], (6, 6))
    assert torch.equal(alone[0], together[2])


def test_image_score_is_the_mean_of_the_highest_pixels() -> None:
    maps = torch.tensor([[[1.0, 7.0], [5.0, 3.0]]])
    assert image_score(maps).tolist() == [7]
    assert image_score(maps, top=3).tolist() == [5]


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 1), (11, 17)])
def test_no_pixel_of_a_mask_is_lost(grid: tuple[int, int]) -> None:
    height, width = 10, 13
    pixels = torch.eye(height * width, dtype=torch.bool).view(-1, height, width)
    cells = mask_to_grid(pixels, grid)
    assert cells.shape[1:] == grid
    assert cells.flatten(1).any(dim=1).all()
    assert not mask_to_grid(torch.zeros_like(pixels[:1]), grid).any()


def test_a_cell_covers_its_own_pixels_only() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 3, 6] = True
    assert mask_to_grid(mask, (4, 4)).nonzero().tolist() == [[0, 1, 3]]
