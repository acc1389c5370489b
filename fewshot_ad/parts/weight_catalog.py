"""Finds published weights on this machine; where they are not, says what to fetch from where.

They are looked for in this order, and what is found first is taken:

1. the folder given as ``--weights-dir``,
2. the folder named by ``FEWSHOT_AD_WEIGHTS``,
3. the cache of the Hugging Face hub (``HF_HOME``, ``HF_HUB_CACHE``),
4. the cache of torch (``TORCH_HOME``).

Nothing is ever downloaded here; ``fewshot-ad weights fetch NAME`` does that.
"""

import os
import re
from importlib import import_module
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants
from torch.hub import get_dir

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.published_weights import (
    CLIP_FILES,
    HUB_FILES,
    PINNED,
    PUBLISHED,
    PublishedWeights,
)
from fewshot_ad.parts.weight_files import (
    FOLDER_VARIABLE,
    SUFFIXES,
    find_weights,
    weight_folders,
)


def require_weights(name: str, weights_dir: Path | None) -> Path:
    """The file of a set of weights on this machine.

    Args:
        name: as ``ViT-B-16-plus-240.laion400m_e31``, ``facebook/vit-mae-base`` or any other name
            that ``published_weights`` takes.
        weights_dir: searched first.

    Raises:
        FewShotError: unknown name, or the weights are not here: what to fetch, from where, how
            large it is and where to put it.
    """
    entry = published_weights(name)
    path = locate_weights(entry, weights_dir)
    if path is None:
        raise missing_weights(entry)
    return path


def published_weights(name: str) -> PublishedWeights:
    """What is known of a set of weights.

    Args:
        name: of the catalogue; a network of timm, with its tag unless one is pinned for it; a
            model of open_clip with its tag; or a repository of the hub, ``owner/name``.

    Raises:
        FewShotError: nothing is called so.
    """
    full = f"{name}.{PINNED[name]}" if name in PINNED else name
    for entry in PUBLISHED:
        if entry.name == full:
            return entry
    if Path(name).suffix in SUFFIXES:
        raise FewShotError(f"there is no file {name}: name one that is here, or published weights")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _of_repository(name)
    return _of_library(name)


def locate_weights(entry: PublishedWeights, weights_dir: Path | None) -> Path | None:
    """Where the weights lie, in the order at the top of this file; None where they do not."""
    return entry.embedded or in_folders(entry, weight_folders(weights_dir)) or in_caches(entry)


def in_folders(entry: PublishedWeights, folders: list[Path]) -> Path | None:
    """The file in the first folder that has it: under our name, its own, or as a repository."""
    architecture, _, tag = entry.file_stem.partition(".")
    for folder in folders:
        found = find_weights([folder], architecture, tag)
        repository = folder / entry.repository.rpartition("/")[2]
        published = [folder / _url_file(entry), *(repository / file for file in entry.files)]
        if path := found or next(filter(Path.is_file, published), None):
            return path
    return None


def in_caches(entry: PublishedWeights) -> Path | None:
    """The file in the cache of the hub, or in that of torch."""
    for file in entry.files:
        cached = hub.try_to_load_from_cache(entry.repository, file)
        if isinstance(cached, str):
            return Path(cached)
    path = torch_cache() / _url_file(entry)
    return path if path.is_file() else None


def search_order(weights_dir: Path | None) -> dict[str, Path | None]:
    """Every place that is searched, in order, by what names it; None where nothing is named.

    Raises:
        FewShotError: a folder of weights is named that is none.
    """
    weight_folders(weights_dir)
    named = os.environ.get(FOLDER_VARIABLE)
    return {
        "--weights-dir": weights_dir,
        f"${FOLDER_VARIABLE}": Path(named) if named else None,
        "Hugging Face cache ($HF_HOME)": Path(constants.HF_HUB_CACHE),
        "torch cache ($TORCH_HOME)": torch_cache(),
    }


def torch_cache() -> Path:
    """The folder where torch keeps weights that were downloaded by their address."""
    return Path(get_dir()) / "checkpoints"


def missing_weights(entry: PublishedWeights) -> FewShotError:
    """The error for absent weights: which, how large, from where, and where to put them."""
    return FewShotError(
        f"{entry.name} is not on this machine: expected {entry.file_name} ({described(entry)}) in "
        f"--weights-dir, ${FOLDER_VARIABLE}, the Hugging Face cache or the torch cache; type "
        f"`fewshot-ad weights fetch {entry.name}`, or fetch it elsewhere and put it there"
    )


def described(entry: PublishedWeights) -> str:
    """Size and source, as ``47 MB, from https://huggingface.co/timm/resnet18.tv_in1k``."""
    size = "size unknown" if entry.megabytes is None else f"{entry.megabytes:.0f} MB"
    return f"{size}, from {entry.source}"


def _url_file(entry: PublishedWeights) -> str:
    return entry.url.rpartition("/")[2]


def _of_repository(name: str) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        family="unknown",
        purpose="yours",
        megabytes=None,
        licence="not stated",
        repository=name,
        files=(*CLIP_FILES, *HUB_FILES),
    )


def _of_library(name: str) -> PublishedWeights:
    libraries = import_module("fewshot_ad.parts.library_weights")  # needs timm and open_clip
    found = libraries.of_timm(name) or libraries.of_open_clip(name)
    if found is None:
        raise unknown_name("set of weights", name, [entry.name for entry in PUBLISHED])
    return found
