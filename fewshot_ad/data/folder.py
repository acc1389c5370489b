"""Any folder of images in the layout of MVTec AD."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, UInt8

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.assets import unknown_name
from fewshot_ad.images import read_header, read_image, read_mask

__all__ = ["Folder"]

NORMAL_NAMES = frozenset({"good", "ok", "normal"})
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"}
)
MASK_ENDINGS = ("_mask", "_label", "_GT", "")
LAYOUT = "CLASS/train/good/*, CLASS/test/good/*, CLASS/test/DEFECT/*, CLASS/ground_truth/DEFECT/*"


class MaskSizeError(FewShotError):
    """A mask is not of the size of its image."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What lies in the folder of one class; ``unused`` images are neither sample nor mask."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    unused: tuple[str, ...]


class Folder:
    """Any folder in the layout of MVTec AD, of one class or of several.

    Classes are folders, or the root is one: it then holds ``train`` and ``test`` itself. Normal
    images lie in ``train/good`` (or directly in ``train``) and ``test/good``, every other folder of
    ``test`` is a kind of defect; ``ok`` and ``normal`` are read as ``good``. Masks are optional and
    lie in ``ground_truth/DEFECT``, paired by the stem of the image, plain or with ``_mask``,
    ``_label`` or ``_GT``. Case does not matter for these names, nor does the kind of image file.

    Raises:
        FewShotError: the root is absent or holds no class.
    """

    name: str = "folder"
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """Images in train and test of the classes, for datasets of which these are known."""

    def __init__(self, root: Path | str | None = None, name: str | None = None) -> None:
        self.root = self._checked_root(root)
        self.name = name or self.name
        self._class_folders = self._find_classes()
        self.classes = tuple(self._class_folders)
        self._listings: dict[str, _Listing] = {}
        self._digests: dict[str, str] = {}

    def train(self, class_name: str) -> tuple[Sample, ...]:
        """Normal samples of ``train``, in natural order; empty for a class that has only ``test``.

        Raises:
            FewShotError: the class is unknown or its folder holds no images.
        """
        return self._listing(class_name).train

    def test(self, class_name: str) -> tuple[Sample, ...]:
        """Normal and anomalous samples of ``test``, in natural order; empty when there is none.

        Raises:
            FewShotError: the class is unknown or its folder holds no images.
        """
        return self._listing(class_name).test

    def unused(self, class_name: str) -> tuple[str, ...]:
        """Paths of images in the folder of a class that serve as neither image nor mask.

        Raises:
            FewShotError: the class is unknown or its folder holds no images.
        """
        return self._listing(class_name).unused

    def read_image(self, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
        """The image as RGB bytes.

        Raises:
            FewShotError: the path leaves the root, or is no readable image.
        """
        return read_image(self.locate(sample.path))

    def read_mask(self, sample: Sample) -> Bool[np.ndarray, "h w"] | None:
        """Ground truth at native size: all false for a normal image, None for a missing mask.

        Raises:
            FewShotError: a path leaves the root, is no readable image, or the sizes differ.
        """
        if sample.is_anomalous and sample.mask_path is None:
            return None
        size_hw = read_header(self.locate(sample.path)).size_hw
        if not sample.is_anomalous or sample.mask_path is None:
            return np.zeros(size_hw, dtype=bool)
        mask = read_mask(self.locate(sample.mask_path))
        if mask.shape != size_hw:
            raise MaskSizeError(
                f"mask {sample.mask_path} is {_size(mask.shape)} pixels, its image {sample.path} "
                f"{_size(size_hw)}; draw the mask on the image as it is stored"
            )
        return mask

    def digest(self, sample: Sample) -> str:
        """SHA-256 of the bytes of the image file, read once.

        Raises:
            FewShotError: the path leaves the root, or cannot be read.
        """
        if sample.path not in self._digests:
            path = self.locate(sample.path)
            try:
                with path.open("rb") as file:
                    self._digests[sample.path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise FewShotError(f"cannot read {path}: {error.strerror}") from error
        return self._digests[sample.path]

    def locate(self, relative: str) -> Path:
        """Where a file of a sample lies.

        Raises:
            FewShotError: the path is absolute or leaves the root, be it through a link.
        """
        pure = PurePosixPath(relative)
        if not (pure.is_absolute() or ".." in pure.parts or "\0" in relative):
            path = self.root / pure
            if path.resolve().is_relative_to(self.root.resolve()):
                return path
        raise FewShotError(
            f"{relative!r} leads out of {self.root}; the files of a dataset lie inside its root"
        )

    def _checked_root(self, root: Path | str | None) -> Path:
        if root is None:
            raise FewShotError(f"dataset {self.name!r} needs its root; give it as {self.name}:ROOT")
        path = Path(root).expanduser()
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise FewShotError(f"the root {path} of dataset {self.name!r} {found}; give a folder")
        return path

    def _find_classes(self) -> dict[str, Path]:
        """Folders with a ``train`` or ``test``, and empty ones, so that these are told of."""
        if _has_splits(self.root):
            return {self.root.resolve().name: self.root}
        found = [f for f in _subfolders(self.root) if _has_splits(f) or not _visible(f)]
        if not any(_has_splits(folder) for folder in found):
            raise FewShotError(f"{self.root} holds no class; expected {LAYOUT}")
        return {folder.name: folder for folder in found}

    def _listing(self, class_name: str) -> _Listing:
        if class_name not in self._class_folders:
            raise unknown_name(f"class of {self.name}", class_name, self.classes)
        if class_name not in self._listings:
            self._listings[class_name] = self._scan(class_name)
        return self._listings[class_name]

    def _scan(self, class_name: str) -> _Listing:
        folder = self._class_folders[class_name]
        train = list(self._normals(_train_images(folder), class_name))
        test = list(self._test_samples(folder, class_name))
        if not train and not test:
            raise FewShotError(f"class folder {folder} holds no images; expected {LAYOUT}")
        used = {path for s in train + test for path in (s.path, s.mask_path) if path}
        everything = {self._relative(file) for file in folder.rglob("*") if _is_image(file)}
        visible = {path for path in everything - used if "/." not in path}
        return _Listing(
            tuple(sorted(train, key=_sample_order)),
            tuple(sorted(test, key=_sample_order)),
            tuple(sorted(visible, key=_natural)),
        )

    def _test_samples(self, folder: Path, class_name: str) -> Iterator[Sample]:
        for split in _named(folder, {"test"}):
            for kind in _subfolders(split):
                if kind.name.lower() in NORMAL_NAMES:
                    yield from self._normals(_images(kind), class_name)
                else:
                    yield from self._anomalies(kind, class_name, _mask_index(folder, kind.name))

    def _normals(self, files: Iterable[Path], class_name: str) -> Iterator[Sample]:
        for file in files:
            yield Sample(self._relative(file), class_name, is_anomalous=False)

    def _anomalies(
        self, kind: Path, class_name: str, masks: Mapping[str, Path]
    ) -> Iterator[Sample]:
        for file in _images(kind):
            mask = _mask_of(file.stem, masks)
            mask_path = self._relative(mask) if mask else None
            yield Sample(
                self._relative(file),
                class_name,
                is_anomalous=True,
                mask_path=mask_path,
                defect=kind.name,
            )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _has_splits(folder: Path) -> bool:
    return bool(_named(folder, {"train", "test"}))


def _named(folder: Path, names: Iterable[str]) -> list[Path]:
    """Subfolders of one of these lower-case names, in any case."""
    return [entry for entry in _subfolders(folder) if entry.name.lower() in names]


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _images(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if _is_image(entry)]


def _visible(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FewShotError(f"cannot look into {folder}: {error.strerror}") from error
    return sorted(entries, key=lambda entry: _natural(entry.name))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _train_images(folder: Path) -> list[Path]:
    splits = _named(folder, {"train"})
    normal = [kind for split in splits for kind in _named(split, NORMAL_NAMES)]
    return [file for place in normal or splits for file in _images(place)]


def _mask_index(folder: Path, defect: str) -> dict[str, Path]:
    """Masks of a defect by stem; also by lower-case stem, where that is free."""
    places = _named(folder, {"ground_truth"})
    kinds = [kind for place in places for kind in _named(place, {defect.lower()})]
    files = [file for kind in kinds for file in _images(kind)]
    return {f.stem.lower(): f for f in files} | {f.stem: f for f in files}


def _mask_of(stem: str, masks: Mapping[str, Path]) -> Path | None:
    candidates = [stem + ending for ending in MASK_ENDINGS]
    candidates += [name.lower() for name in candidates]
    return next((masks[name] for name in candidates if name in masks), None)


def _natural(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Sort key: folder by folder, numbers by value, all else by code point, ties by the path."""
    return (*(_numbered(part) for part in path.split("/")), (path,))


def _numbered(name: str) -> tuple[str | int, ...]:
    pieces = re.split("([0-9]+)", name)  # every second piece is a number
    return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _sample_order(sample: Sample) -> tuple[tuple[str | int, ...], ...]:
    return _natural(sample.path)


def _size(size_hw: Iterable[int]) -> str:
    return "x".join(str(side) for side in reversed(tuple(size_hw)))
