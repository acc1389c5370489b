"""Finds folders, images and masks in a tree of files, in an order that no file system decides."""

import re
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path

from fewshot_ad.api import FewShotError

__all__ = [
    "below",
    "by_stem",
    "images",
    "is_image",
    "mask_of",
    "named",
    "natural",
    "subfolders",
    "visible",
]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"}
)
MASK_ENDINGS = ("_mask", "_label", "_GT", "")


def named(folder: Path, names: Iterable[str]) -> list[Path]:
    """Subfolders of one of these lower-case names, in any case."""
    return [entry for entry in subfolders(folder) if entry.name.lower() in names]


def below(folder: Path, path: str) -> list[Path]:
    """Folders at a path like ``test/good``, in any case: several where names differ in case."""

    def step(places: list[Path], name: str) -> list[Path]:
        return [found for place in places for found in named(place, {name.lower()})]

    return reduce(step, path.split("/"), [folder])


def subfolders(folder: Path) -> list[Path]:
    """Folders inside a folder that are not hidden, in natural order."""
    return [entry for entry in visible(folder) if entry.is_dir()]


def images(folder: Path) -> list[Path]:
    """Files of a folder that end as images do, in natural order."""
    return [entry for entry in visible(folder) if is_image(entry)]


def visible(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, in natural order.

    Raises:
        FewShotError: the folder cannot be looked into.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FewShotError(f"cannot look into {folder}: {error.strerror}") from error
    return sorted(entries, key=lambda entry: natural(entry.name))


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by stem; also by lower-case stem, where that is free."""
    listed = list(files)
    return {f.stem.lower(): f for f in listed} | {f.stem: f for f in listed}


def mask_of(stem: str, masks: Mapping[str, Path]) -> Path | None:
    """The mask of an image: of its stem, plain or with ``_mask``, ``_label`` or ``_GT``."""
    candidates = [stem + ending for ending in MASK_ENDINGS]
    candidates += [name.lower() for name in candidates]
    return next((masks[name] for name in candidates if name in masks), None)


def natural(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Sort key: folder by folder, numbers by value, all else by code point, ties by the path."""
    return (*(_numbered(part) for part in path.split("/")), (path,))


def _numbered(name: str) -> tuple[str | int, ...]:
    pieces = re.split("([0-9]+)", name)  # every second piece is a number
    return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces))


def is_image(file: Path) -> bool:
    """Whether a file ends as images do."""
    return file.suffix.lower() in SUFFIXES and file.is_file()
