"""Finds published weights on this machine, and says what to fetch where they are not.

They are looked for in this order: the folder given as ``--weights-dir``, the folder named by
``FEWSHOT_AD_WEIGHTS``, the cache of the Hugging Face hub (``HF_HOME``), the cache of torch
(``TORCH_HOME``). Nothing is ever downloaded here.
"""

from pathlib import Path

import huggingface_hub as hub
from torch.hub import get_dir as torch_cache

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.published_weights import PUBLISHED, PublishedWeights
from fewshot_ad.parts.weight_files import FOLDER_VARIABLE, SUFFIXES, weight_folders


def require_weights(name: str, weights_dir: Path | None) -> Path:
    """The file of a set of weights on this machine.

    Args:
        name: of the catalogue, as ``ViT-B-16-plus-240.laion400m_e31`` or ``facebook/vit-mae-base``.
        weights_dir: searched first.

    Raises:
        FewShotError: unknown name, or the weights are not here: what to fetch, from where, how
            large it is and where to put it.
    """
    entry = published(name)
    found = locate_published(entry, weights_dir)
    if found is None:
        raise missing(entry)
    return found


def published(name: str) -> PublishedWeights:
    """The entry of a name.

    Raises:
        FewShotError: there is none.
    """
    entries = {entry.name: entry for entry in PUBLISHED}
    if name not in entries:
        raise unknown_name("weights", name, list(entries))
    return entries[name]


def locate_published(entry: PublishedWeights, weights_dir: Path | None) -> Path | None:
    """Where the weights lie, in the order at the top of this file; None where they are not."""
    for folder in weight_folders(weights_dir):
        for path in candidates(entry, folder):
            if path.is_file():
                return path
    for file in entry.files:
        cached = hub.try_to_load_from_cache(entry.repository, file)
        if isinstance(cached, str):
            return Path(cached)
    cached = Path(torch_cache(), "checkpoints", _url_file(entry)) if entry.url else None
    return cached if cached and cached.is_file() else None


def candidates(entry: PublishedWeights, folder: Path) -> list[Path]:
    """The files of a folder that may be these weights: by our name, or as they were published."""
    own = entry.name.rpartition("/")[2]
    paths = [folder / f"{own}{suffix}" for suffix in (*SUFFIXES, ".bin")]
    if entry.url:
        paths.append(folder / _url_file(entry))
    repository = entry.repository.rpartition("/")[2]
    return [*paths, *(folder / repository / file for file in entry.files)]


def missing(entry: PublishedWeights) -> FewShotError:
    """The error for absent weights: which, how large, from where, and where to put them."""
    source = f"https://huggingface.co/{entry.repository}" if entry.repository else entry.url
    own = entry.name.rpartition("/")[2]
    suffix = Path(entry.files[0] if entry.files else entry.url).suffix
    return FewShotError(
        f"{entry.name} is not on this machine: expected {own}{suffix} ({entry.megabytes} MB, from "
        f"{source}) in --weights-dir, ${FOLDER_VARIABLE}, the Hugging Face cache or the torch "
        f"cache; type `fewshot-ad weights fetch {entry.name}`"
    )


def _url_file(entry: PublishedWeights) -> str:
    return entry.url.rpartition("/")[2]
