"""Meta-trained methods on disk, found again by what went into them: nothing trains twice."""

import hashlib
import json
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from fewshot_ad.api import FewShotError, KnownClasses, MetaTrained
from fewshot_ad.evaluation.identity import known_digest, method_identity, method_name
from fewshot_ad.evaluation.locks import exclusive
from fewshot_ad.evaluation.results import without_place
from fewshot_ad.parts.cache_folder import cache_root
from fewshot_ad.parts.data_parallel import is_first

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
    method: M,
    known: KnownClasses,
    *,
    cache_dir: Path | None = None,
    out: Path | None = None,
    processes: int = 1,
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
        processes: how many share every batch. As with the device, the checkpoint is the same one to
            all who look for it, though last bits differ; it says how many there were.

    Raises:
        FewShotError: the cache or ``out`` cannot be written; the method or its batch cannot be
            shared by so many; or see ``parts.process_teams.run_together``.
    """
    _check_shareable(method, processes)
    path = (cache_dir or cache_folder()) / _file_name(method, known)
    with _held(path.with_suffix(".lock")):
        ready = _from_cache(method, path)
        was_cached = ready is not None
        if ready is None:
            ready = _meta_train(method, known, path, processes)
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


def _check_shareable(method: MetaTrained, processes: int) -> None:
    if processes == 1:
        return
    if not getattr(method, "shares_batches", False):
        raise FewShotError(
            f"{method_name(method)} does not share its batches among processes; train it with one"
        )
    batch_size = int(getattr(method, "batch_size", processes))
    if batch_size < processes:
        raise FewShotError(
            f"{processes} processes cannot share batches of {batch_size} images; give at most "
            f"{batch_size}, or raise batch_size"
        )


def _meta_train(method: M, known: KnownClasses, path: Path, processes: int) -> M:
    if processes == 1:
        ready = _learned(method, known, path)
    else:
        from fewshot_ad.parts.process_teams import run_together  # an extra

        work = partial(_learned_on, method=method, known=known, path=path)
        run_together(work, processes=processes, device=method.device)
        ready = load_checkpoint(method, path)
    _state_of(path).unlink(missing_ok=True)
    return ready


def _state_of(path: Path) -> Path:
    """Where a training that was interrupted left its state."""
    return path.with_suffix(".partial")


def _learned(method: M, known: KnownClasses, path: Path) -> M:
    """A trained copy, written down by whoever it is for to write."""
    ready = replace(method)
    ready.meta_train(known, resume=_state_of(path))
    if is_first():
        save_checkpoint(ready, path)
    return ready


def _learned_on(device: str, *, method: MetaTrained, known: KnownClasses, path: Path) -> None:
    """In one of several processes, on the device that is its own."""
    _learned(replace(method, device=device), known, path)
