"""Photos as people have them: a folder, paths or arrays; what is left out is named."""

import hashlib
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.data.trees import is_image, visible
from fewshot_ad.image_files import ImageStream, read_header, read_image
from fewshot_ad.images import prepare

Source = str | Path | ImageStream | np.ndarray
Photos = Source | Sequence[Source]
NAMED = 5
GREY_MODES = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True)
class View:
    """What a camera's photos have in common."""

    width: int
    height: int
    is_grey: bool

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'grey' if self.is_grey else 'colour'}"


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo as RGB bytes, upright as a viewer shows it."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    is_grey: bool = False

    @property
    def view(self) -> View:
        """Its size and kind."""
        height, width = self.pixels.shape[:2]
        return View(width, height, self.is_grey)


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """What is kept of a normal photo: its pixels at the size of the method."""

    name: str
    view: View
    square: UInt8[np.ndarray, "side side 3"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A photo that cannot be judged, and why; nobody must take it for a good one."""

    name: str
    reason: str
    decision: str = "UNREADABLE"

    def as_row(self) -> dict[str, Any]:
        """JSON-able."""
        return {"image": self.name, "decision": self.decision, "reason": self.reason}


def list_photos(photos: Photos) -> list[Source]:
    """The photos behind what a user gave, unread.

    What is no image in a folder is named in a warning and left out.

    Raises:
        FewShotError: a path leads nowhere, or a folder holds no image.
    """
    given = [photos] if isinstance(photos, Source) else list(photos)
    return [source for one in given for source in _expanded(one)]


def read_photo(source: Source, number: int = 0) -> Photo:
    """One photo, from its file, a stream or an array of bytes [h w], [h w 1] or [h w 3].

    Raises:
        FewShotError: no readable image, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, f"array-{number}")
    file = source if isinstance(source, ImageStream) else Path(source)
    pixels = read_image(file, exif_orientation=True)
    return Photo(str(file), pixels, read_header(file).mode in GREY_MODES)


def read_or_reason(source: Source) -> Photo | Unreadable:
    """One photo, or why it cannot be read."""
    try:
        return read_photo(source)
    except FewShotError as error:
        return Unreadable(str(source), str(error))


def read_normals(photos: Photos, preprocess: Preprocess) -> list[Normal]:
    """All normals at the size of a method; no more than one is in memory at its own size.

    Unreadable ones in a folder are named in a warning and left out.

    Raises:
        FewShotError: none is left, or one that was named itself cannot be read.
    """
    is_folder = isinstance(photos, str | Path) and Path(photos).is_dir()
    found: list[Normal] = []
    for number, source in enumerate(list_photos(photos)):
        try:
            photo = read_photo(source, number)
        except FewShotError as error:
            if not is_folder:
                raise
            warnings.warn(f"left out of the normals: {error}", stacklevel=3)
        else:
            found.append(Normal(photo.name, photo.view, square_of(photo, preprocess)))
    if not found:
        raise FewShotError("no normal photo was given; give one at least, better four or more")
    return found


def square_of(photo: Photo, preprocess: Preprocess) -> UInt8[np.ndarray, "side side 3"]:
    """The photo as bytes at the size of a method; ``prepare`` of both gives the same tensor."""
    unscaled = replace(preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    colours = prepare(photo.pixels, unscaled).permute(1, 2, 0).numpy()
    return np.rint(colours * 255).astype(np.uint8)


def without_copies(normals: Sequence[Normal]) -> list[Normal]:
    """Each picture once: a second copy would find its twin when it is left out, and score 0."""
    first: dict[bytes, Normal] = {}
    for normal in normals:
        twin = first.setdefault(hashlib.sha256(normal.square.tobytes()).digest(), normal)
        if twin is not normal:
            warnings.warn(
                f"{normal.name} shows the same pixels as {twin.name}: the copy is left out, for it "
                "would make the threshold too low",
                stacklevel=3,
            )
    return [*first.values()]


class ViewGuard:
    """Warns at the first photo of every size or kind that the normals did not have."""

    def __init__(self, known: Iterable[View]) -> None:
        self._known = {*known}
        self._seen = {*self._known}

    def look_at(self, photo: Photo) -> None:
        """Warn, if it is the first of its view."""
        remark = None if photo.view in self._seen else unlike_normals(photo, self._known)
        if remark is not None:
            self._seen.add(photo.view)
            warnings.warn(remark, stacklevel=2)


def unlike_normals(photo: Photo, known: Collection[View]) -> str | None:
    """What to say of a photo whose size or kind no normal had."""
    if photo.view in known:
        return None
    expected = ", ".join(sorted(str(view) for view in known))
    return (
        f"{photo.name} is {photo.view}, the normals were {expected}: its score means little; take "
        "photos as the normals were taken, or fit again"
    )


def warn_of_unlike_normals(normals: Sequence[Normal]) -> None:
    """Say so when normals differ in size or kind: a camera that moves makes scores wide."""
    views = list(dict.fromkeys(normal.view for normal in normals))
    if len(views) > 1:
        listed = ", ".join(str(view) for view in views[:NAMED])
        warnings.warn(
            f"the normals differ in size or kind ({listed}): each is brought to the method's size "
            "on its own, and the threshold becomes lax; better take all with one camera setting",
            stacklevel=3,
        )


def _expanded(source: Source) -> list[Source]:
    if isinstance(source, np.ndarray):
        return list(source) if source.ndim == 4 else [source]
    if isinstance(source, ImageStream):
        return [source]
    path = Path(source)
    if not path.exists():
        raise FewShotError(f"there is no photo or folder {path}; give one that exists")
    return [*_folder(path)] if path.is_dir() else [path]


def _folder(folder: Path) -> list[Path]:
    entries = visible(folder)
    found = [entry for entry in entries if is_image(entry)]
    others = [entry.name for entry in entries if not is_image(entry)]
    if not found:
        raise FewShotError(f"{folder} holds no images; expected photos directly in it")
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        warnings.warn(
            f"{folder}: left out what is no image: {', '.join(others[:NAMED])}{more}", stacklevel=5
        )
    return found


def _from_array(array: Shaped[np.ndarray, "..."], name: str) -> Photo:
    pixels = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise FewShotError(
            f"{name} is {array.dtype} of shape {list(array.shape)}: expected bytes (uint8) of "
            "shape [height width], or [height width 3] in RGB"
        )
    is_grey = pixels.shape[2] == 1
    return Photo(name, np.repeat(pixels, 3, axis=2) if is_grey else pixels, is_grey)
