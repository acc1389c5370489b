"""What strangers may send: told from headers, so that nothing is decoded that is too much."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.photos import read_photo
from fewshot_ad.serving.limits import FORMATS, LONGEST_NAME, Limits, OverLimitError, sent_photo

PIXELS = np.arange(50 * 70 * 3, dtype=np.uint8).reshape(70, 50, 3)


def sent(content, name="a.png"):
    return sent_photo(name, io.BytesIO(content))


def encoded(pixels, image_format="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, image_format)
    return content.getvalue()


def png_header(width, height):
    """A PNG that declares a size, and ends where its pixels should begin."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    begun = struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    return b"\x89PNG\r\n\x1a\n" + begun + struct.pack(">I", 9999) + b"IDAT"


def tiff_header(side, tile):
    """A grey TIFF that declares its size, and tiles of another one."""
    entries = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 9}
    packed = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()]
    return b"II*\0" + struct.pack("<IH", 8, len(packed)) + b"".join(packed) + b"\0" * 4


@pytest.mark.parametrize("image_format", FORMATS)
def test_usual_formats_pass_and_are_left_open_to_be_read(image_format):
    photo = sent(encoded(PIXELS, image_format))
    assert Limits().check_pixels(photo) == 50 * 70
    assert read_photo(photo).pixels.shape == (70, 50, 3)
    assert not photo.content.closed


def test_a_stream_is_read_as_its_file(tmp_path):
    grey = encoded(PIXELS[..., 0], "TIFF")
    (tmp_path / "a.tif").write_bytes(grey)
    one, other = read_photo(tmp_path / "a.tif"), read_photo(sent(grey))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.is_grey
    assert one.view == other.view


def test_pixels_are_counted_before_they_are_decoded():
    bomb = encoded(np.zeros((400, 500), dtype=np.uint8))
    assert len(bomb) < 1000
    assert Limits(pixels=200_000).check_pixels(sent(bomb)) == 200_000
    with pytest.raises(OverLimitError, match=r"a\.png has 200000 pixels; send .* at most 199999"):
        Limits(pixels=199_999).check_pixels(sent(bomb))


@pytest.mark.parametrize("side", [9_000, 60_000])  # the second one is refused by Pillow itself
def test_a_header_is_enough_to_refuse(side):
    with pytest.raises(OverLimitError, match="pixels; send photos of at most 50000000"):
        Limits().check_pixels(sent(png_header(side, side)))


def test_the_tiles_of_a_tiff_count_too():
    assert Limits().check_pixels(sent(tiff_header(50, 64))) == 64 * 64
    with pytest.raises(OverLimitError, match="900000000 pixels"):
        Limits().check_pixels(sent(tiff_header(50, 30_000)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "no known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no known image"),
        (encoded(np.zeros((3, 400, 3), dtype=np.uint8)), "133.3 times as long as wide"),
    ],
    ids=["empty", "text", "eps", "line"],
)
def test_what_is_no_photo_is_refused_in_one_line(content, reason):
    with pytest.raises(FewShotError, match=reason) as caught:
        Limits().check_pixels(sent(content, "what\r\nis\x00it"))
    assert not isinstance(caught.value, OverLimitError)
    assert str(caught.value).startswith("what is it ")


def test_counts_and_bytes_are_refused_beyond_their_limits():
    limits = Limits(body_bytes=2**20, photos=2)
    limits.check_bytes(2**20)
    limits.check_photos(2)
    with pytest.raises(OverLimitError, match="more than 1 MB"):
        limits.check_bytes(2**20 + 1)
    with pytest.raises(OverLimitError, match="3 photos were sent at once; send 2 at most"):
        limits.check_photos(3)


def test_names_fit_in_a_line():
    assert str(sent(b"", " \n\x1b ")) == "photo"
    assert len(str(sent(b"", "x" * 9999))) == LONGEST_NAME
