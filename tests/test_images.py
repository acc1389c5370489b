import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.images import align, overlay, prepare, prepare_mask, restore_map

GEOMETRIES = ["squash", "pad", "crop"]
BLACK, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # leaves the pixels as they are
SIZES_HW = [(40, 40), (30, 50), (53, 31), (16, 64), (7, 5), (1, 9)]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width):
    """An image whose red grows downwards and whose green grows to the right."""
    rows = np.linspace(0, 255, height)[:, None] * np.ones((1, width))
    columns = np.linspace(0, 255, width)[None] * np.ones((height, 1))
    return np.stack([rows, columns, np.full((height, width), 90.0)], axis=-1).astype(np.uint8)


# Reading


def test_squash_and_crop_are_those_of_torchvision():
    image = noise(37, 61, 3)
    bicubic = transforms.InterpolationMode.BICUBIC
    for geometry, steps in {
        "squash": [transforms.Resize((24, 24), bicubic)],
        "crop": [transforms.Resize(24, bicubic), transforms.CenterCrop(24)],
    }.items():
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
        steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
        expected = transforms.Compose(steps)(Image.fromarray(image))
        ours = prepare(image, Preprocess(24, geometry, mean, std))
        assert torch.allclose(ours, expected, atol=1e-6), geometry


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_every_size_becomes_the_square(geometry, size_hw):
    preprocess = Preprocess(20, geometry)
    image, mask = noise(*size_hw, 3), np.ones(size_hw, dtype=bool)
    prepared, truth = prepare(image, preprocess), prepare_mask(mask, preprocess)
    assert prepared.shape == (3, 20, 20)
    assert prepared.dtype == torch.float32
    assert torch.isfinite(prepared).all()
    assert truth.shape == (20, 20)
    assert truth.all()


def test_pad_repeats_the_border_and_keeps_the_aspect():
    image = smooth(10, 20)
    plain = Preprocess(20, "pad", BLACK, ONE)
    padded = prepare(image, plain).permute(1, 2, 0) * 255
    assert torch.equal(padded[5:15].round().to(torch.uint8), torch.from_numpy(image))
    assert torch.equal(padded[:5], padded[5:6].expand(5, 20, 3))
    assert torch.equal(padded[15:], padded[14:15].expand(5, 20, 3))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size_hw", [(40, 40), (30, 50), (53, 31)])
def test_mask_follows_its_image(geometry, size_hw):
    """A bright disc and its mask must still cover each other after any geometry."""
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    disc = (rows - size_hw[0] * 0.55) ** 2 + (columns - size_hw[1] * 0.45) ** 2 < 64
    image = np.stack([disc * np.uint8(255)] * 3, axis=-1)
    preprocess = Preprocess(48, geometry, BLACK, ONE)
    seen = prepare(image, preprocess)[0] > 0.5
    mask = prepare_mask(disc, preprocess)
    assert (seen & mask).sum() / (seen | mask).sum() > 0.85


def test_mask_is_resized_nearest():
    mask = np.random.default_rng(3).random((13, 29)) > 0.5
    ours = prepare_mask(mask, Preprocess(9, "squash"))
    for row in range(9):
        for column in range(9):
            source = mask[int((row + 0.5) * 13 / 9), int((column + 0.5) * 29 / 9)]
            assert bool(ours[row, column]) == source


# And back


def bilinear_by_hand(values, height, width):
    """Slow bilinear enlargement, half-pixel centres, border repeated."""
    result = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            y = np.clip((row + 0.5) * values.shape[0] / height - 0.5, 0, values.shape[0] - 1)
            x = np.clip((column + 0.5) * values.shape[1] / width - 0.5, 0, values.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, values.shape[0] - 1), min(x0 + 1, values.shape[1] - 1)
            top = values[y0, x0] * (1 - x + x0) + values[y0, x1] * (x - x0)
            low = values[y1, x0] * (1 - x + x0) + values[y1, x1] * (x - x0)
            result[row, column] = top * (1 - y + y0) + low * (y - y0)
    return result


def test_restoring_a_squash_is_plain_bilinear():
    values = np.random.default_rng(4).random((8, 8), dtype=np.float32)
    restored = restore_map(torch.from_numpy(values), Preprocess(8), (19, 30))
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, bilinear_by_hand(values, 19, 30), atol=1e-5)


def test_restoring_a_pad_cuts_the_padding_off():
    values = np.full((8, 8), 99.0, dtype=np.float32)
    values[2:6] = np.random.default_rng(5).random((4, 8))
    restored = restore_map(values, Preprocess(8, "pad"), (20, 40))
    np.testing.assert_allclose(restored, bilinear_by_hand(values[2:6], 20, 40), atol=1e-5)


def test_restoring_a_crop_gives_the_minimum_to_what_was_cut_away():
    values = 1 + np.random.default_rng(6).random((8, 8), dtype=np.float32)
    restored = restore_map(values, Preprocess(8, "crop"), (20, 40))
    np.testing.assert_allclose(restored[:, 10:30], bilinear_by_hand(values, 20, 20), atol=1e-5)
    assert (restored[:, :10] == values.min()).all()
    assert (restored[:, 30:] == values.min()).all()


@pytest.mark.parametrize("eval_size", ["native", 32])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size_hw", [(60, 60), (48, 90), (101, 64)])
def test_a_perfect_map_lies_on_its_mask(geometry, size_hw, eval_size):
    """The centre of gravity survives the way in and back, to a sixth of a native pixel."""
    mask = np.zeros(size_hw, dtype=bool)
    top, left = int(size_hw[0] * 0.45), int(size_hw[1] * 0.4)
    mask[top : top + 16, left : left + 13] = True
    preprocess = Preprocess(64, geometry, BLACK, ONE)
    perfect = prepare(np.stack([mask * np.uint8(255)] * 3, axis=-1), preprocess)[0]
    aligned, truth = align(perfect, mask, preprocess, eval_size)
    assert aligned.shape == truth.shape == (size_hw if eval_size == "native" else (32, 32))
    seen = np.where(aligned > 0.2, aligned, 0)
    rows, columns = (np.arange(side) + 0.5 for side in seen.shape)
    row = (seen.sum(axis=1) @ rows) / seen.sum() * size_hw[0] / seen.shape[0]
    column = (seen.sum(axis=0) @ columns) / seen.sum() * size_hw[1] / seen.shape[1]
    assert (row, column) == pytest.approx((top + 8, left + 6.5), abs=1 / 6)


def test_a_defect_outside_the_crop_stays_in_the_count():
    mask = np.zeros((20, 60), dtype=bool)
    mask[:, :5] = True
    preprocess = Preprocess(20, "crop")
    assert not prepare_mask(mask, preprocess).any()
    aligned, truth = align(torch.rand(20, 20), mask, preprocess, 60)
    assert truth[:, :5].all()
    assert (aligned[truth] == aligned.min()).all()


def test_align_interpolates_once_and_takes_masks_nearest():
    values = np.random.default_rng(7).random((8, 8), dtype=np.float32)
    mask = np.random.default_rng(8).random((5, 50)) > 0.5
    aligned, truth = align(values, mask, Preprocess(8), 16)
    np.testing.assert_allclose(aligned, bilinear_by_hand(values, 16, 16), atol=1e-5)
    rows = [int((row + 0.5) * 5 / 16) for row in range(16)]
    columns = [int((column + 0.5) * 50 / 16) for column in range(16)]
    assert np.array_equal(truth, mask[np.ix_(rows, columns)])


@pytest.mark.parametrize("eval_size", [0, -1])
def test_eval_size_must_be_positive(eval_size):
    with pytest.raises(FewShotError, match="eval_size"):
        align(torch.zeros(8, 8), np.zeros((9, 9), dtype=bool), Preprocess(8), eval_size)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(FewShotError, match="7x7"):
        restore_map(torch.zeros(7, 7), Preprocess(8), (9, 9))


# Heat maps


def test_low_shows_the_image_and_brightness_grows_with_the_map():
    image = np.full((1, 50, 3), 60, np.uint8)
    painted = overlay(image, np.linspace(-1, 2, 50)[None], 0.0, 1.0)
    assert np.array_equal(painted[0, :17], image[0, :17])
    luminance = painted[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert luminance[-1] > 200
    assert np.array_equal(painted[0, 33:], np.repeat(painted[0, -1:], 17, axis=0))
    ramp = overlay(np.zeros_like(image), np.linspace(0, 1, 50)[None], 0.0, 1.0)[0]
    assert (np.diff(ramp @ np.array([0.2126, 0.7152, 0.0722])) >= -0.5).all()


def test_the_scale_is_the_callers_not_the_images():
    image = noise(6, 6, 3)
    quiet = np.random.default_rng(9).random((6, 6)) * 0.01
    assert np.abs(overlay(image, quiet, 0.0, 1.0).astype(int) - image).max() <= 4
    assert np.array_equal(overlay(image, quiet, 1.0, 1.0), image)


def test_the_contour_runs_around_the_mask_and_leaves_it_visible():
    image, mask = noise(20, 20, 3), np.zeros((20, 20), dtype=bool)
    mask[5:10, 6:12] = True
    painted = overlay(image, torch.zeros(20, 20), 0.0, 1.0, mask)
    cyan = (painted == (0, 255, 255)).all(axis=-1)
    assert np.array_equal(painted[mask], image[mask])
    assert cyan[4, 6:12].all()
    assert cyan[5:10, 5].all()
    assert cyan.sum() == 2 * (5 + 6)
