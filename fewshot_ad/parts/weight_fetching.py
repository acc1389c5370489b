"""Downloads weights: the one place of the package that uses the network, and only when asked."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.published_weights import PublishedWeights
from fewshot_ad.parts.weight_catalog import described, published_weights, torch_cache
from fewshot_ad.parts.weight_checks import check_digest

OFFLINE_VARIABLES = ("FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE")
YES = {"1", "on", "true", "yes"}
ANSWER_SECONDS = 5.0


def is_offline() -> bool:
    """Whether ``--offline`` or an environment variable forbids the network."""
    return any(os.environ.get(name, "").lower() in YES for name in OFFLINE_VARIABLES)


def fetch_weights(name: str, weights_dir: Path | None) -> Path:
    """Download weights into the cache they belong to, and copy them to ``weights_dir`` if given.

    Raises:
        FewShotError: no such weights, the network is forbidden, there is no answer within seconds,
            the file is not the published one, or the folder cannot be written.
    """
    entry = published_weights(name)
    if entry.embedded:
        return entry.embedded
    if is_offline():
        raise FewShotError(
            f"{entry.name} ({described(entry)}) is not fetched, since --offline or one of "
            f"{', '.join(f'${name}' for name in OFFLINE_VARIABLES)} forbids it; {_by_hand(entry)}"
        )
    cached = _from_hub(entry) if entry.repository else _from_url(entry)
    check_digest(entry, cached)
    if weights_dir is None:
        return cached
    return _copied(cached, weights_dir / f"{entry.file_stem}{cached.suffix}")


def _from_hub(entry: PublishedWeights) -> Path:
    for file in entry.files:
        url = hub.hf_hub_url(entry.repository, file)
        try:
            hub.get_hf_file_metadata(url, timeout=ANSWER_SECONDS)  # a download retries for long
            return Path(hub.hf_hub_download(entry.repository, file, etag_timeout=ANSWER_SECONDS))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the kind depends on which client the hub's library has
            _raise_no_answer(entry, url, error)
    raise FewShotError(f"{entry.source} has none of {', '.join(entry.files)}: look there by hand")


def _from_url(entry: PublishedWeights) -> Path:
    path = torch_cache() / entry.url.rpartition("/")[2]
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(entry.url, timeout=ANSWER_SECONDS) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        check_digest(entry, part, path.suffix)
        part.replace(path)
    except OSError as error:
        _raise_no_answer(entry, entry.url, error)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _raise_no_answer(entry: PublishedWeights, url: str, error: Exception) -> NoReturn:
    raise FewShotError(
        f"cannot download {entry.name} ({described(entry)}): {type(error).__name__} at {url}; "
        f"{_by_hand(entry)}"
    ) from error


def _by_hand(entry: PublishedWeights) -> str:
    return f"fetch it elsewhere, save it as {entry.file_name} and name its folder as --weights-dir"


def _copied(source: Path, target: Path) -> Path:
    part = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise FewShotError(
            f"cannot write {target} ({error.strerror}): name a folder you may write to"
        ) from error
    return target
