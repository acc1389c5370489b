import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.image_files import read_header, read_image, read_mask, write_image
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


def grey_16_big_endian_tiff(path, values):
    """A baseline TIFF written by hand, since Pillow writes none of big-endian 16-bit grey."""
    height, width = values.shape
    entries = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, values.size * 2)]
    pixels = values.astype(">u2").tobytes()
    head = (
        struct.pack(">2sHI", b"MM", 42, 8 + len(pixels)) + pixels + struct.pack(">H", len(entries))
    )
    for tag, kind, value in entries:
        packed = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        head += struct.pack(">HHI", tag, kind, 1) + packed
    path.write_bytes(head + b"\0\0\0\0")


def test_rgb_comes_back_byte_for_byte(tmp_path):
    image = noise(11, 7, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert read_header(tmp_path / "a.png") == ("RGB", (11, 7))


def test_grey_and_one_bit_are_repeated_three_times(tmp_path):
    grey = noise(6, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
    Image.fromarray(grey > 128).save(tmp_path / "bit.png")
    expected = np.stack([(grey > 128) * np.uint8(255)] * 3, axis=-1)
    assert np.array_equal(read_image(tmp_path / "bit.png"), expected)


@pytest.mark.parametrize("name", ["little.png", "little.tif", "big.tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, name):
    values = np.random.default_rng(1).integers(0, 65536, (4, 6), dtype=np.uint16)
    if name.startswith("big"):
        grey_16_big_endian_tiff(tmp_path / name, values)
    else:
        Image.fromarray(values).save(tmp_path / name)
    expected = np.stack([values // 256] * 3, axis=-1).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / name), expected)


def test_transparent_pixels_show_white(tmp_path):
    image = np.dstack([noise(5, 5, 3), np.full((5, 5), 255, np.uint8)])
    image[0, 0] = (10, 20, 30, 0)
    image[0, 1] = (0, 0, 0, 128)
    Image.fromarray(image).save(tmp_path / "rgba.png")
    read = read_image(tmp_path / "rgba.png")
    assert tuple(read[0, 0]) == (255, 255, 255)
    assert abs(int(read[0, 1, 0]) - 127) <= 1
    assert np.array_equal(read[1:], image[1:, :, :3])
    grey_alpha = Image.fromarray(image).convert("LA")
    grey_alpha.save(tmp_path / "la.png")
    assert tuple(read_image(tmp_path / "la.png")[0, 0]) == (255, 255, 255)


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\xff\xff"])
def test_palette_is_looked_up(tmp_path, transparency):
    indices = Image.new("P", (2, 2))
    indices.putdata([0, 1, 2, 1])
    indices.putpalette([9, 8, 7, 50, 60, 70, 200, 210, 220])
    options = {} if transparency is None else {"transparency": transparency}
    indices.save(tmp_path / "p.png", **options)
    read = read_image(tmp_path / "p.png")
    assert read[0, 1].tolist() == [50, 60, 70]
    assert read[1, 0].tolist() == [200, 210, 220]
    assert read[0, 0].tolist() == ([9, 8, 7] if transparency is None else [255, 255, 255])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif")[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_ignored_unless_asked_for(tmp_path):
    image = noise(4, 9, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), image)
    upright = read_image(tmp_path / "turned.png", exif_orientation=True)
    assert np.array_equal(upright, np.rot90(image, -1))


def truncated_png(path):
    Image.fromarray(noise(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def truncated_jpeg(path):
    Image.fromarray(noise(64, 64, 3)).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def float_tiff(path):
    Image.fromarray(np.ones((3, 3), np.float32)).save(path, format="TIFF")


def wide_integer_tiff(path):
    Image.fromarray(np.full((3, 3), 70000, np.int32)).save(path, format="TIFF")


BAD_IMAGES = {
    "truncated png": (truncated_png, ""),
    "truncated jpeg": (truncated_jpeg, "truncated"),
    "header only": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), ""),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no image at all"), "no known image format"),
    "absent": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "no such file"),
    "float": (float_tiff, "32-bit"),
    "32-bit integers": (wide_integer_tiff, "32-bit"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_is_one_line_with_its_path(tmp_path, kind):
    make, reason = BAD_IMAGES[kind]
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(FewShotError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["truncated png", "truncated jpeg", "empty", "text", "absent"])
def test_bad_mask_is_refused_like_a_bad_image(tmp_path, kind):
    BAD_IMAGES[kind][0](tmp_path / "bad.png")
    with pytest.raises(FewShotError, match=r"bad\.png"):
        read_mask(tmp_path / "bad.png")


def _as_rgba(marked):
    blue = np.zeros((*marked.shape, 4), np.uint8)
    blue[..., 2] = marked * 3
    blue[..., 3] = 255
    return Image.fromarray(blue)


def _as_palette(marked):
    image = Image.new("P", marked.shape[::-1])
    image.putdata(marked.astype(np.uint8).ravel().tolist())
    image.putpalette([200, 0, 0, 0, 0, 0])  # the background is red, the defect black
    return image


MASKS = {
    "0/255": lambda marked: Image.fromarray(marked * np.uint8(255)),
    "class index 1": lambda marked: Image.fromarray(marked.astype(np.uint8)),
    "1-bit": Image.fromarray,
    "16-bit": lambda marked: Image.fromarray(marked.astype(np.uint16)),
    "one channel of RGBA": _as_rgba,
    "palette index": _as_palette,
    "grey and alpha": lambda marked: Image.fromarray(marked * np.uint8(9)).convert("LA"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_mask_is_any_non_zero(tmp_path, kind):
    marked = np.random.default_rng(2).random((9, 6)) > 0.6
    MASKS[kind](marked).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), marked)


def test_cmyk_mask_counts_light_not_ink(tmp_path):
    marked = np.eye(4, dtype=bool)
    Image.fromarray(np.stack([marked * np.uint8(255)] * 3, axis=-1)).convert("CMYK").save(
        tmp_path / "m.tif"
    )
    assert np.array_equal(read_mask(tmp_path / "m.tif"), marked)


# Writing


def test_written_images_and_masks_come_back(tmp_path):
    image, mask = noise(5, 6, 3), noise(5, 6) > 99
    write_image(tmp_path / "a.png", image)
    write_image(tmp_path / "m.png", mask)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert np.unique(np.array(Image.open(tmp_path / "m.png"))).tolist() == [0, 255]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "m.png"]


@pytest.mark.parametrize("name", ["absent/a.png", "a.nonsense", "file/a.png"])
def test_what_cannot_be_written_leaves_nothing(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FewShotError, match="cannot write"):
        write_image(tmp_path / name, noise(3, 3, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# Into the frame of a method


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
