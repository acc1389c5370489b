"""What every dataset of files has in common: its root, its samples, and how they are read."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, UInt8

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.assets import unknown_name
from fewshot_ad.data.trees import is_image, natural
from fewshot_ad.image_files import read_header, read_image, read_mask

__all__ = ["ImageFiles", "MaskSizeError"]


class MaskSizeError(FewShotError):
    """A mask is not of the size of its image."""


@dataclass(frozen=True, slots=True)
class _Listing:
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


class ImageFiles(ABC):
    """A dataset whose images lie below a root. A layout says where classes and samples are.

    Attributes:
        layout: of the files, in one line, as errors and ``fewshot-ad data info`` show it.
        expected: images in train and test of the classes, for datasets of which these are known.
        aside: lower-case shell patterns of paths inside a class that are left alone on purpose.

    Raises:
        FewShotError: the root is absent or holds no class.
    """

    name: str
    layout: ClassVar[str]
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {}
    aside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: Path | str | None = None, name: str | None = None) -> None:
        self.root = self._checked_root(root)
        self.name = name or self.name
        self._class_folders = self._find_classes()
        self.classes = tuple(self._class_folders)
        self._listings: dict[str, _Listing] = {}
        self._digests: dict[str, str] = {}

    @abstractmethod
    def _find_classes(self) -> dict[str, Path]:
        """The folder of every class; FewShotError when the root holds none."""

    @abstractmethod
    def _train(self, folder: Path, class_name: str) -> Iterable[Sample]:
        """The normal samples that a support may be drawn from, in any order."""

    @abstractmethod
    def _test(self, folder: Path, class_name: str) -> Iterable[Sample]:
        """Normal and anomalous samples, in any order."""

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
        samples = self.train(class_name) + self.test(class_name)
        used = {path for s in samples for path in (s.path, s.mask_path) if path}
        folder = self._class_folders[class_name]
        idle = {
            self._relative(file)
            for file in folder.rglob("*")
            if is_image(file) and not self._is_aside(file.relative_to(folder).as_posix())
        }
        strays = {path for path in idle - used if "/." not in path}
        return tuple(sorted(strays, key=natural))

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
        mask = self._marked(self.locate(sample.mask_path), size_hw)
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
            self._digests[sample.path] = self._digest_of(self.locate(sample.path))
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

    def _marked(self, path: Path, size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """What a file of ground truth marks: where any colour is not zero, whatever the code.

        ``size_hw`` is that of the image, for ground truth that is no image itself.
        """
        return read_mask(path)

    def _digest_of(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FewShotError(f"cannot read {path}: {error.strerror}") from error

    def _checked_root(self, root: Path | str | None) -> Path:
        if root is None:
            raise FewShotError(f"dataset {self.name!r} needs its root; give it as {self.name}:ROOT")
        path = Path(root).expanduser()
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise FewShotError(f"the root {path} of dataset {self.name!r} {found}; give a folder")
        return path

    def _listing(self, class_name: str) -> _Listing:
        if class_name not in self._class_folders:
            raise unknown_name(f"class of {self.name}", class_name, self.classes)
        if class_name not in self._listings:
            self._listings[class_name] = self._scan(class_name)
        return self._listings[class_name]

    def _scan(self, class_name: str) -> _Listing:
        folder = self._class_folders[class_name]
        train = sorted(self._train(folder, class_name), key=_sample_order)
        test = sorted(self._test(folder, class_name), key=_sample_order)
        if not train and not test:
            raise FewShotError(f"class folder {folder} holds no images; expected {self.layout}")
        return _Listing(tuple(train), tuple(test))

    def _normal(self, file: Path, class_name: str) -> Sample:
        return Sample(self._relative(file), class_name, is_anomalous=False)

    def _anomaly(self, file: Path, class_name: str, defect: str, mask: Path | None) -> Sample:
        mask_path = self._relative(mask) if mask else None
        return Sample(self._relative(file), class_name, True, mask_path, defect)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _is_aside(self, path: str) -> bool:
        return any(fnmatchcase(path.lower(), pattern) for pattern in self.aside)


def _sample_order(sample: Sample) -> tuple[tuple[str | int, ...], ...]:
    return natural(sample.path)


def _size(size_hw: Iterable[int]) -> str:
    return "x".join(str(side) for side in reversed(tuple(size_hw)))
