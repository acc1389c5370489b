"""Remembers features, so that twenty episodes of a class cost one extraction.

Features are frozen, so they hang on the image and the weights alone. ``load_features`` hands every
method that asks for one backbone the same cache; methods see a callable from images to levels and
nothing else.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.parts.backbones import Backbone, chosen_device, load_backbone
from fewshot_ad.parts.feature_store import (
    FeatureStore,
    extractor_name,
    feature_folder,
    store_limit,
)
from fewshot_ad.parts.passing import is_passing_once
from fewshot_ad.parts.recent import Recent
from fewshot_ad.parts.weight_files import weight_folders

MAX_BYTES = 2**30
MADE_BYTES = 2**29
MISSES_AT_ONCE = 8

Levels = tuple[Tensor, ...]


@dataclass(frozen=True)
class CacheStats:
    """Images answered from memory, computed, held now in bytes, and answered from disk."""

    hits: int
    misses: int
    bytes: int
    read: int = 0


class FeatureCache:
    """A backbone that computes the features of an image once, while they fit under a byte limit.

    The images least recently asked for are forgotten first. A hit returns the bits that were
    computed. Any number of threads may call it; two that miss the same image at the same time both
    compute it. Images that pass once (``parts.passing``) are neither looked for nor kept.

    Attributes:
        store: where features are looked for and kept besides, across runs; None for nowhere.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_bytes: int = MAX_BYTES,
        store: FeatureStore | None = None,
    ) -> None:
        self.backbone = backbone
        self.max_bytes = max_bytes
        self.store = store
        self._held: OrderedDict[bytes, Levels] = OrderedDict()
        self._made = Recent[Tensor](MADE_BYTES, lambda made: made.nbytes)
        self._hits = self._misses = self._bytes = self._read = 0
        self._lock = Lock()

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """The features of every image, one map per level; the caller may change them.

        Raises:
            FewShotError: a feature is NaN or infinite.
        """
        if not len(images) or is_passing_once():
            return self.backbone(images)
        keys = [_key(image) for image in images]
        found = self._take(keys)
        missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
        for start in range(0, len(missing), MISSES_AT_ONCE):
            rows = missing[start : start + MISSES_AT_ONCE]
            found |= self._compute([keys[row] for row in rows], images[rows])
        together = zip(*(found[key] for key in keys), strict=True)
        return [torch.stack(level).to(self.backbone.device) for level in together]

    def made(
        self,
        image: Float[Tensor, "1 3 h w"],
        what: str,
        make: Callable[[list[Float[Tensor, "1 _ _ _"]]], Float[Tensor, "1 c h2 w2"]],
    ) -> Float[Tensor, "1 c h2 w2"]:
        """What is made of the features of an image; the same tensor again, not to be changed.

        Args:
            image: a single one.
            what: name that tells this making from all others.
            make: from one map per level.
        """
        if is_passing_once():
            return make(self(image))
        key = what, _key(image[0])
        with self._lock:
            found = self._made.find(key)
            self._hits += found is not None
        if found is None:
            found = make(self(image))
            with self._lock:
                self._made.keep(key, found)
        return found

    def __deepcopy__(self, memo: object) -> "FeatureCache":
        return self  # a copy of a method goes on sharing what is known

    @property
    def stats(self) -> CacheStats:
        """Counts since the cache was made."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._bytes, self._read)

    def _take(self, keys: list[bytes]) -> dict[bytes, Levels]:
        with self._lock:
            found = {key: self._held[key] for key in keys if key in self._held}
            for key in found:
                self._held.move_to_end(key)
            self._hits += sum(key in found for key in keys)
        read = self._read_back({*keys} - {*found})
        with self._lock:
            self._read += len(read)
            self._misses += len({*keys} - {*found} - {*read})
        return found | read

    def _read_back(self, keys: set[bytes]) -> dict[bytes, Levels]:
        """What another run has left on disk."""
        if self.store is None:
            return {}
        read = {key: levels for key in keys if (levels := self.store.load(key)) is not None}
        for key, levels in read.items():
            self._keep(key, levels)
        return read

    def _compute(self, keys: list[bytes], images: Float[Tensor, "b 3 h w"]) -> dict[bytes, Levels]:
        levels = self.backbone(images)
        found: dict[bytes, Levels] = {}
        for place, key in enumerate(keys):
            found[key] = tuple(level[place].cpu().clone() for level in levels)
            self._keep(key, found[key])
            if self.store is not None:
                self.store.save(key, found[key])
        return found

    def _keep(self, key: bytes, levels: Levels) -> None:
        with self._lock:
            if key in self._held or _size(levels) > self.max_bytes:
                return
            self._held[key] = levels
            self._bytes += _size(levels)
            while self._bytes > self.max_bytes:
                _, oldest = self._held.popitem(last=False)
                self._bytes -= _size(oldest)


def load_features(
    name: str,
    levels: tuple[int, ...] = (1, 2, 3),
    *,
    weights_dir: Path | None = None,
    device: str = "cpu",
) -> FeatureCache:
    """The one cache of this process for a backbone; the arguments are those of ``load_backbone``.

    It keeps features on disk as well while ``FEWSHOT_AD_FEATURE_CACHE`` says how many gigabytes.

    Raises:
        FewShotError: as ``load_backbone``; or that limit is no number.
    """
    with _loading:
        folders = tuple(weight_folders(weights_dir))
        found = _load_once(name, levels, weights_dir, chosen_device(device), folders)
        found.store = _open_once(found.backbone, feature_folder(), store_limit())
        return found


_loading = Lock()


@cache
def _load_once(
    name: str,
    levels: tuple[int, ...],
    weights_dir: Path | None,
    device: str,
    folders: tuple[Path, ...],
) -> FeatureCache:
    """``folders`` only tells calls apart: the environment may name another one by the next."""
    return FeatureCache(load_backbone(name, levels=levels, weights_dir=weights_dir, device=device))


@cache
def _open_once(backbone: Backbone, root: Path, max_bytes: int) -> FeatureStore | None:
    return FeatureStore(root, extractor_name(backbone), max_bytes) if max_bytes else None


def _key(image: Tensor) -> bytes:
    content = image.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{list(content.shape)} {content.dtype}".encode())
    digest.update(content.numpy().data)  # processors have instructions for this one
    return digest.digest()[:20]


def _size(levels: Levels) -> int:
    return sum(level.nbytes for level in levels)
