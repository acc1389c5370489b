"""Image files: read whatever cameras and datasets write, and write arrays whole or not at all."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot_ad.api import FewShotError

T = TypeVar("T")
Content = BinaryIO | BytesIO  # of which neither is the other when types are checked as it runs


class Header(NamedTuple):
    """What the first bytes of an image file tell: Pillow's mode and (height, width) in pixels."""

    mode: str
    size_hw: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ImageStream:
    """An image file that has no path, as one that was sent.

    Attributes:
        name: to speak of it by.
        content: its bytes; read from the beginning, and left open.
        formats: that it may have, by Pillow's names; all that Pillow knows, if None.
    """

    name: str
    content: Content
    formats: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.name


ImageFile = Path | ImageStream


def read_header(file: ImageFile) -> Header:
    """Mode and size without decoding the pixels.

    Raises:
        FewShotError: the file is absent, empty or not an image.
    """
    return decode(file, lambda image: Header(image.mode, (image.height, image.width)))


def read_image(file: ImageFile, *, exif_orientation: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """The first frame as RGB bytes, whatever the mode of the file.

    Grey is repeated three times. 16-bit grey keeps its high byte (``>> 8``), as 16-bit colour does:
    a fixed scale, so that brightness stays comparable between images. Transparent pixels show
    white, as in a viewer. CMYK is converted without a colour profile. EXIF orientation is ignored
    unless asked for, since masks are drawn on the pixels as they are stored.

    Raises:
        FewShotError: the file is absent, empty, truncated, not an image or of 32-bit pixels.
    """

    def convert(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        return _rgb(ImageOps.exif_transpose(image) if exif_orientation else image)

    return decode(file, convert)


def read_mask(path: Path) -> Bool[np.ndarray, "h w"]:
    """True where any colour channel is not zero; a palette counts by index, alpha does not count.

    Raises:
        FewShotError: the file is absent, empty, truncated or not an image.
    """
    return decode(path, _is_marked)


def decode(file: ImageFile, convert: Callable[[Image.Image], T]) -> T:
    """What ``convert`` makes of an image that is open, its pixels not decoded yet.

    Raises:
        FewShotError: the file is absent, empty, damaged, not an image or not of its formats.
    """
    formats = None if isinstance(file, Path) else file.formats
    try:
        with Image.open(_opened(file), formats=formats) as image:
            return convert(image)
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        reason = _why_unreadable(file, error)
        raise FewShotError(
            f"{file} cannot be read as an image: {reason}; replace or remove it"
        ) from error


def write_image(path: Path, image: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> None:
    """Write RGB bytes, or a mask as 0 and 255, in the format of the suffix; whole or not at all.

    Raises:
        FewShotError: the folder cannot be written to, or the suffix is of no known format.
    """
    pixels = image if image.dtype == np.uint8 else image.astype(np.uint8) * np.uint8(255)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as scratch:
            Image.fromarray(pixels).save(Path(scratch) / path.name)
            (Path(scratch) / path.name).replace(path)
    except (OSError, ValueError) as error:
        raise FewShotError(f"cannot write {path}: {error}; choose another place or name") from error


def _opened(file: ImageFile) -> Path | Content:
    if isinstance(file, Path):
        return file
    file.content.seek(0)
    return file.content


def _why_unreadable(file: ImageFile, error: Exception) -> str:
    if isinstance(file, Path) and not file.is_file():
        return "there is no such file"
    if _is_empty(file):
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is of no known image format"
    return " ".join(str(error).split()) or type(error).__name__


def _is_empty(file: ImageFile) -> bool:
    if isinstance(file, Path):
        return file.stat().st_size == 0
    file.content.seek(0)
    return not file.content.read(1)


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no fixed scale, store 8 or 16 bits")
    if image.mode.startswith("I"):
        return np.repeat(_high_byte(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _high_byte(grey: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    if grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max:
        raise ValueError("32-bit integer pixels have no fixed scale, store 8 or 16 bits")
    return (grey >> 8).astype(np.uint8)


def _is_marked(image: Image.Image) -> Bool[np.ndarray, "h w"]:
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # where black is not zero
        image = image.convert("RGB")
    marked = np.array(image) != 0
    if marked.ndim == 2:
        return marked
    has_alpha = image.mode in ("LA", "PA", "RGBA")
    return (marked[..., :-1] if has_alpha else marked).any(axis=-1)
