"""Whether a file of weights is the published one, whole, and of the architecture it claims."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.published_weights import PUBLISHED, PublishedWeights
from fewshot_ad.parts.weight_catalog import locate_weights, missing_weights, published_weights
from fewshot_ad.parts.weight_files import file_digest, read_weights


@dataclass(frozen=True)
class Verified:
    """A sound file of weights.

    Attributes:
        path: where it lies.
        sha256: of the file.
        is_pinned: whether that digest is known to be the published one; otherwise only the content
            speaks for the file.
    """

    path: Path
    sha256: str
    is_pinned: bool


def verify_weights(name: str, weights_dir: Path | None) -> Verified:
    """Check the file that would be loaded under a name: its digest, its content, its architecture.

    Raises:
        FewShotError: the weights are not here, are other ones, damaged, or of another network.
    """
    entry = published_weights(name)
    path = locate_weights(entry, weights_dir)
    if path is None:
        raise missing_weights(entry)
    if entry.family == "backbone":
        _backbones().load_backbone(entry.name, weights_dir=weights_dir)
    else:
        _check_tensors(entry, path)
    sha256, is_pinned = check_digest(entry, path)
    return Verified(path, sha256, is_pinned)


def check_digest(
    entry: PublishedWeights, path: Path, suffix: str | None = None
) -> tuple[str, bool]:
    """The SHA-256 of a file, and whether one is pinned for such a file of these weights.

    Args:
        entry: what the file should be.
        path: the file.
        suffix: of the published file, where this one has another.

    Raises:
        FewShotError: the file is another one; says which, where the catalogue knows it.
    """
    sha256 = file_digest(path)
    wanted = entry.sha256.get(suffix or path.suffix)
    if any(sha256.startswith(digest) for digest in entry.sha256.values()):
        return sha256, True
    for other in PUBLISHED:
        if any(sha256.startswith(digest) for digest in other.sha256.values()):
            raise FewShotError(f"{path} holds {other.name}, not {entry.name}: rename it")
    if wanted is not None:
        raise FewShotError(
            f"{path} is not {entry.name} as published: its SHA-256 is {sha256[:16]}..., expected "
            f"{wanted[:16]}...; fetch it again from {entry.source or 'the package'}"
        )
    return sha256, False


def _check_tensors(entry: PublishedWeights, path: Path) -> None:
    stored = read_weights(path)
    if entry.tensor is None:
        return
    name, shape = entry.tensor
    found = stored.get(name, stored.get(f"module.{name}"))  # as trainers on several devices save it
    if found is None or tuple(found.shape) != shape:
        what = "nothing of that name" if found is None else list(found.shape)
        raise FewShotError(
            f"{path} is not of {entry.name}: expected {name} {list(shape)}, found {what}"
        )


def _backbones() -> ModuleType:
    """Imported when asked for: it looks weights up in the catalogue itself."""
    return import_module("fewshot_ad.parts.backbones")
