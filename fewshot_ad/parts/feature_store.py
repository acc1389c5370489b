"""Features on disk: what one run has extracted, no other run extracts again.

One small file per image, below a folder per extractor. A file is written beside its place and then
moved there, so that a kill leaves a whole file or none and any number of processes may share a
folder. A file that is truncated, damaged or of another version counts as absent and is written
again. When the disk is full, or the limit is reached, evaluation goes on.
"""

import hashlib
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import PROBE_SIZE, Backbone
from fewshot_ad.parts.cache_folder import cache_root

FORMAT = "1"
GIGABYTE = 10**9
SHARE_AT_ONCE = 0.1  # of the limit: freed when it is reached, and written before another look
ABANDONED_SECONDS = 3600  # no write takes so long: what is left of it belongs to a killed process
VARIABLE = "FEWSHOT_AD_FEATURE_CACHE"

Levels = tuple[Tensor, ...]


@dataclass(frozen=True)
class StoredFeatures:
    """What is kept of one extractor; bytes on disk, and when it was last written or read."""

    extractor: str
    images: int
    bytes: int
    last_used: float


class FeatureStore:
    """The features of one extractor in a folder, at most ``max_bytes`` of all extractors together.

    The images least recently asked for are deleted first.

    Attributes:
        extractor: name of a folder; equal names promise equal features.
    """

    def __init__(self, root: Path, extractor: str, max_bytes: int) -> None:
        self.root = root
        self.extractor = extractor
        self.max_bytes = max_bytes
        self._is_open = True
        self._unused = 0  # bytes that may be written before the folder is looked at again
        self._lock = Lock()

    def load(self, key: bytes) -> Levels | None:
        """The features of an image by the digest of its content; None if they are not here."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                levels = tuple(file.get_tensor(name).clone() for name in sorted(file.keys()))
                is_sound = file.metadata() == _metadata(levels)
            if not is_sound:
                return None
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return levels

    def save(self, key: bytes, levels: Levels) -> None:
        """Keep the features of an image; that a disk takes no more is told once, in a warning."""
        if not self._is_open:
            return
        tensors = {f"{number:02}": level.contiguous() for number, level in enumerate(levels)}
        content = save(tensors, _metadata(levels))
        try:
            if self._has_room(len(content)):
                _write_whole(self._path(key), content)
        except OSError as error:
            self._is_open = False
            warnings.warn(
                f"features are no longer kept on disk: cannot write to {self.root} "
                f"({error.strerror}); free space, 'fewshot-ad cache clear' or another "
                "FEWSHOT_AD_CACHE would help",
                stacklevel=2,
            )

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.root / self.extractor / name[:2] / f"{name}.safetensors"

    def _has_room(self, size: int) -> bool:
        """Whether ``size`` bytes fit under the limit, once the oldest files have made way."""
        with self._lock:
            if self._unused < size:
                room = self.max_bytes - _make_room(self.root, self.max_bytes, size)
                # Other processes fill the folder too: look again before all of it is used.
                self._unused = min(room, max(size, int(SHARE_AT_ONCE * self.max_bytes)))
            if self._unused < size:
                return False
            self._unused -= size
            return True


def feature_folder() -> Path:
    """Where features are kept."""
    return cache_root() / "features"


def store_limit() -> int:
    """Bytes that features may take on disk: ``FEWSHOT_AD_FEATURE_CACHE`` in gigabytes, else none.

    Raises:
        FewShotError: the variable holds no number, or a negative one.
    """
    text = os.environ.get(VARIABLE) or "0"
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise FewShotError(
            f"{VARIABLE} is '{text}': expected the gigabytes that features may take on disk, as 10"
        )
    return int(limit * GIGABYTE)


def extractor_name(backbone: Backbone) -> str:
    """A name that changes with whatever changes features: weights, code, precision, libraries.

    It holds a digest of the very features of an image of noise.
    """
    generator = torch.Generator().manual_seed(0)
    found = hashlib.blake2b(f"{FORMAT} {backbone.levels}".encode(), digest_size=8)
    for level in backbone(torch.randn(1, 3, PROBE_SIZE, PROBE_SIZE, generator=generator)):
        found.update(level.cpu().numpy().tobytes())
    readable = re.sub(r"\W+", "_", backbone.name.rpartition("/")[2]).strip("_")
    levels = "".join(map(str, backbone.levels))
    return f"{readable}-levels{levels}-{backbone.digest}-{found.hexdigest()}"


def stored_features(root: Path) -> list[StoredFeatures]:
    """What a folder keeps, per extractor."""
    found: list[StoredFeatures] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        files = [stat for path, stat in _files(folder) if path.suffix == ".safetensors"]
        if files:
            sizes, times = zip(*((stat.st_size, stat.st_mtime) for stat in files), strict=True)
            found.append(StoredFeatures(folder.name, len(files), sum(sizes), max(times)))
    return found


def clear_features(root: Path) -> int:
    """Delete what a folder keeps; a run that is using it goes on. Gives the bytes freed."""
    freed = sum(_delete(path, stat.st_size) for path, stat in _files(root))
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):  # a run has written into it again
            Path(folder).rmdir()
    return freed


def _metadata(levels: Levels) -> dict[str, str]:
    """What a file says of itself; a file that says something else is not read."""
    digest = hashlib.blake2b(digest_size=16)
    for level in levels:
        digest.update(f"{list(level.shape)} {level.dtype}".encode())
        digest.update(level.contiguous().numpy().data)
    return {"format": FORMAT, "digest": digest.hexdigest()}


_numbers = count()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}-{next(_numbers)}.part")
    for is_last in (False, True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
            return
        except FileNotFoundError:  # another process has just cleared the folder
            if is_last:
                raise
        finally:
            temporary.unlink(missing_ok=True)


def _make_room(root: Path, max_bytes: int, size: int) -> int:
    """Bytes in use, after the files longest unused have made way for ``size`` more."""
    files = [*_files(root)]
    used = sum(stat.st_size for _, stat in files)
    if used + size <= max_bytes:
        return used
    wanted = max_bytes * (1 - SHARE_AT_ONCE) - size
    for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
        if used <= wanted:
            break
        used -= _delete(path, stat.st_size)
    return used


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of features, and what killed processes left; other processes may delete any of them."""
    names = ((folder, name) for folder, _, names in os.walk(root) for name in names)
    for path in (Path(folder, name) for folder, name in names):
        try:
            stat = path.stat()
        except OSError:
            continue
        is_abandoned = time.time() - stat.st_mtime > ABANDONED_SECONDS
        if path.suffix == ".safetensors" or (path.suffix == ".part" and is_abandoned):
            yield path, stat


def _delete(path: Path, size: int) -> int:
    """The bytes that are free now: none if the file cannot be deleted."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return 0
    return size
