"""How much a stranger may send: bytes, photos and decoded pixels; one set for service and page.

A few kilobytes of PNG or TIFF can stand for gigabytes of pixels. So the header is read first, and
what it declares is held to a limit before anything is decoded. Only formats that cameras and
people use are opened at all: some of Pillow's others are decoded by starting another program.
"""

from dataclasses import dataclass

from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.image_files import Content, ImageStream, decode

MB = 2**20
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
TIFF_TILE = 322, 323  # width and length, which may exceed those of the image
LONGEST_NAME = 200
MOST_OBLONG = 100  # a line of pixels would be enlarged until its short side fills a method's square


class OverLimitError(FewShotError):
    """More was sent than may be; less of it will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may have.

    Attributes:
        body_bytes: of all its photos together, as they are sent.
        photos: how many.
        pixels: of one photo, decoded.
    """

    body_bytes: int = 64 * MB
    photos: int = 16
    pixels: int = 50_000_000

    def check_bytes(self, n_bytes: int) -> None:
        """Refuse more bytes than a request may have.

        Raises:
            OverLimitError: there are more.
        """
        if n_bytes > self.body_bytes:
            raise OverLimitError(
                f"more than {self.body_bytes / MB:.4g} MB were sent at once; send fewer or smaller "
                "photos"
            )

    def check_photos(self, count: int) -> None:
        """Refuse more photos than a request may have.

        Raises:
            OverLimitError: there are more.
        """
        if count > self.photos:
            raise OverLimitError(
                f"{count} photos were sent at once; send {self.photos} at most, and the others "
                "after them"
            )

    def check_pixels(self, file: ImageStream) -> int:
        """How many pixels a photo decodes to, told from its header alone.

        Raises:
            OverLimitError: more than there may be.
            FewShotError: it is no image of a format that it may have, or a mere line of pixels.
        """
        try:
            count, oblong = decode(file, _declared)
        except FewShotError as error:
            if not isinstance(error.__cause__, Image.DecompressionBombError):
                raise
            raise self._too_many_pixels(file, f"above {Image.MAX_IMAGE_PIXELS}") from error
        if count > self.pixels:
            raise self._too_many_pixels(file, str(count))
        if oblong > MOST_OBLONG:
            raise FewShotError(
                f"{file} is {oblong:.4g} times as long as wide; send photos below {MOST_OBLONG}"
            )
        return count

    def _too_many_pixels(self, file: ImageStream, found: str) -> OverLimitError:
        return OverLimitError(f"{file} has {found} pixels; send photos of at most {self.pixels}")


def sent_photo(name: str, content: Content) -> ImageStream:
    """What a stranger sent: of the usual formats, and under a name that fits in a line."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return ImageStream(" ".join(printable.split())[:LONGEST_NAME] or "photo", content, FORMATS)


def _declared(image: Image.Image) -> tuple[int, float]:
    """Pixels that a decoder may have to hold, and how many times the long side is the short one."""
    tags = getattr(image, "tag_v2", {})
    width, length = (int(tags.get(tag, 0)) for tag in TIFF_TILE)
    oblong = max(image.size) / max(1, min(image.size))
    return max(image.width * image.height, width * length), oblong
