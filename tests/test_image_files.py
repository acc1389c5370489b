import struct

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.image_files import read_header, read_image, read_mask, write_image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


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
