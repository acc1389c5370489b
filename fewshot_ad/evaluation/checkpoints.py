"""Meta-trained methods on disk, found again by what went into them: nothing trains twice."""

import hashlib
import json
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fewshot_ad.api import FewShotError, KnownClasses, MetaTrained
from fewshot_ad.evaluation.identity import known_digest, method_identity, method_name
from fewshot_ad.evaluation.locks import exclusive
from fewshot_ad.evaluation.results import without_place
from fewshot_ad.parts.cache_folder import cache_root

M = TypeVar("M", bound=MetaTrained)

# What reading a file of another kind, or half a file, can raise below a method's own checks.
UNREADABLE = (FewShotError, OSError, ValueError, KeyError, TypeError, RuntimeError)


def cache_folder() -> Path:
    """Where checkpoints are kept."""
    return cache_root() / "checkpoints"


def cached_checkpoints() -> list[Path]:
    """The checkpoints in the cache, and the states of trainings that were interrupted."""
    kinds = (".safetensors", ".partial")
    return sorted(path for path in cache_folder().glob("*") if path.suffix in kinds)


def clear_checkpoints() -> int:
    """Delete them; gives the bytes freed. Locks stay: a training may hold one.

    Raises:
        FewShotError: one cannot be deleted.
    """
    freed = 0
    for path in cached_checkpoints():
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            raise FewShotError(f"cannot delete {path}: {error.strerror}") from error
        freed += size
    return freed


def checkpoint_key(method: MetaTrained, known: KnownClasses) -> str:
    """Short digest of all that meta-training depends on: method, parameters, weights, images."""
    identity = method_identity(method)
    identity["params"] = without_place(identity["params"], identity["weights_digest"])
    content = {**identity, "known": known_digest(known)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def trained(
    method: M, known: KnownClasses, *, cache_dir: Path | None = None, out: Path | None = None
) -> tuple[M, bool]:
    """A copy of the method, meta-trained on the known classes, and whether it came from the cache.

    A kill loses at most the steps since the method last wrote its partial state, which lies beside
    the checkpoint and is taken up by the next run. Of two processes that want the same checkpoint
    one trains and the other waits. A corrupted file in the cache is replaced, with a warning.

    Args:
        method: the configuration; left as it is.
        known: what to learn from.
        cache_dir: folder of the cache; by default ``cache_folder()``.
        out: where to write the checkpoint besides.

    Raises:
        FewShotError: the cache or ``out`` cannot be written.
    """
    path = (cache_dir or cache_folder()) / _file_name(method, known)
    with _held(path.with_suffix(".lock")):
        ready = _from_cache(method, path)
        was_cached = ready is not None
        if ready is None:
            ready = _meta_train(method, known, path)
    if out is not None:
        save_checkpoint(ready, out)
    return ready, was_cached


def load_checkpoint(method: M, path: Path) -> M:
    """A copy of the method with the meta-trained state of a file that the user named.

    Raises:
        FewShotError: no such file, not a checkpoint, or one of another method or configuration.
    """
    if not path.is_file():
        raise FewShotError(
            f"no checkpoint at {path}; make one with 'fewshot-ad train --out {path}'."
        )
    fresh = replace(method)
    try:
        fresh.load(path)
    except FewShotError:
        raise
    except UNREADABLE as error:
        raise FewShotError(
            f"{path} is not a readable checkpoint of {method_name(method)} "
            f"({' '.join(str(error).split())}); train it again with 'fewshot-ad train'."
        ) from error
    return fresh


def save_checkpoint(method: MetaTrained, path: Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        FewShotError: the folder cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        method.save(temporary)
        temporary.replace(path)
    except OSError as error:
        raise FewShotError(
            f"cannot write the checkpoint {path}: {error.strerror}; choose a writable place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Generator[None]:
    """Hold a lock file, made on the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise FewShotError(
            f"cannot write to the cache {path.parent}: {error.strerror}; set FEWSHOT_AD_CACHE to a "
            "writable folder."
        ) from error
    with file, exclusive(file.fileno()):
        yield


def _file_name(method: MetaTrained, known: KnownClasses) -> str:
    readable = method_name(method).rpartition(":")[2].lower()
    return f"{readable}-{checkpoint_key(method, known)}.safetensors"


def _from_cache(method: M, path: Path) -> M | None:
    if not path.exists():
        return None
    try:
        return load_checkpoint(method, path)
    except FewShotError as error:
        warnings.warn(
            f"the cached checkpoint {path} is unusable, training again replaces it ({error})",
            stacklevel=3,
        )
        return None


def _meta_train(method: M, known: KnownClasses, path: Path) -> M:
    partial = path.with_suffix(".partial")
    ready = replace(method)
    ready.meta_train(known, resume=partial)
    save_checkpoint(ready, path)
    partial.unlink(missing_ok=True)
    return ready
