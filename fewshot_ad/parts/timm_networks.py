"""Networks of timm as feature extractors, their weights pinned by tag, never downloaded unasked.

A bare ``wide_resnet50_2`` means other weights in other releases of timm and torchvision. Published
few-shot numbers hang on which one was used, so a name without a tag is taken only where ``PINNED``
says what it stands for.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import huggingface_hub as hub
import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.weight_files import (
    FOLDER_VARIABLE,
    find_weights,
    read_weights,
    weight_folders,
)

PINNED = {
    "efficientnet_b4": "ra2_in1k",
    "mobilenetv2_100": "ra_in1k",
    "resnet18": "tv_in1k",
    "resnet34": "tv_in1k",
    "resnet50": "tv_in1k",
    "wide_resnet50_2": "racm_in1k",  # what the bare name loaded for ResAD's published numbers
}
HUB_FILE = "model.safetensors"
ANSWER_SECONDS = 5.0


def split_name(name: str) -> tuple[str, str]:
    """The architecture and the tag of a name; a bare name gets the tag pinned for it.

    Raises:
        FewShotError: timm has no such architecture, or the name has no tag and none is pinned.
    """
    architecture = known_architecture(name)
    tag = name.removeprefix(architecture)[1:] or PINNED.get(architecture, "")
    if not tag:
        raise FewShotError(
            f"{name!r} does not say which weights: expected one of {_tagged(architecture)}"
        )
    return architecture, tag


def known_architecture(name: str) -> str:
    """The part of a name before the tag, once timm knows it."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        nearest = get_close_matches(architecture, ["tiny", *timm.list_models()], n=1)
        raise unknown_name("backbone", name, nearest or ["tiny", *PINNED])
    return architecture


def build_network(architecture: str, levels: tuple[int, ...]) -> nn.Module:
    """The architecture up to the last level asked for, with weights drawn by the caller's seed.

    Raises:
        FewShotError: timm has no feature maps of it at the strides of the levels (4, 8, 16 ...).
    """
    strides = [2 ** (level + 1) for level in levels]
    try:
        with torch.device("meta"):
            whole = timm.create_model(architecture, features_only=True)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
        raise FewShotError(
            f"timm cannot take feature maps out of {architecture}: use another backbone"
        ) from error
    offered = whole.feature_info.reduction()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    if not set(strides) <= set(offered):
        raise FewShotError(
            f"{architecture} has maps at strides {offered}; levels {levels} need strides {strides}"
        )
    chosen = tuple(offered.index(stride) for stride in strides)
    return timm.create_model(architecture, features_only=True, out_indices=chosen)


def fill_network(network: nn.Module, architecture: str, path: Path) -> None:
    """Load a file of weights; layers beyond the last level may be in it or not.

    Raises:
        FewShotError: the file cannot be read, or is of another network.
    """
    stored = {_flat(name): value for name, value in read_weights(path).items()}
    wanted: dict[str, Tensor] = network.state_dict()
    with torch.device("meta"):
        known = {_flat(name) for name in timm.create_model(architecture).state_dict()}
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = sorted(name for name in wanted if _flat(name) not in stored and name not in counters)
    unknown = sorted(stored.keys() - known)
    for what, names in {"missing": missing, "unknown": unknown}.items():
        if names:
            raise _other_network(path, architecture, f"{len(names)} are {what}, as {names[0]}")
    chosen = {name: stored.get(_flat(name), value) for name, value in wanted.items()}
    for name, value in chosen.items():
        if value.shape != wanted[name].shape:
            shapes = f"{name} is {list(value.shape)}, not {list(wanted[name].shape)}"
            raise _other_network(path, architecture, shapes)
    network.load_state_dict(chosen)


@dataclass(frozen=True)
class Weights:
    """Weights on this machine, under the name that says most about them."""

    name: str
    path: Path


def locate_weights(name: str, weights_dir: Path | None) -> Weights | None:
    """Find weights in the folders or the hub's cache, offline; None where there are none.

    A bare name stands for its pinned tag; the only file of that architecture in a folder does too,
    whatever its tag, and then the name stays bare.
    """
    architecture, tag = split_name(name)
    folders = weight_folders(weights_dir)
    full = f"{architecture}.{tag}"
    if path := find_weights(folders, architecture, tag):
        return Weights(full, path)
    if name == architecture and (path := find_weights(folders, architecture)):
        return Weights(architecture, path)
    address = hub_address(name)
    cached = hub.try_to_load_from_cache(address, HUB_FILE) if address else None
    return Weights(full, Path(cached)) if isinstance(cached, str) else None


def missing_weights(name: str) -> FewShotError:
    """The error for absent weights: which, how large, from where, and what to type."""
    architecture, tag = split_name(name)
    full = f"{architecture}.{tag}"
    address = hub_address(name)
    if address is None:
        return FewShotError(
            f"{full} names no weights of timm: expected one of {_tagged(architecture)}"
        )
    return FewShotError(
        f"{full} is not on this machine: expected {full}.safetensors "
        f"({megabytes(architecture):.0f} MB, from https://huggingface.co/{address}) in "
        f"--weights-dir, ${FOLDER_VARIABLE} or the Hugging Face cache; type "
        f"`fewshot-ad backbones fetch {full}`, or take --backbone tiny"
    )


def fetch_weights(name: str, weights_dir: Path | None) -> Path:
    """Download weights into the Hugging Face cache, and copy them to ``weights_dir`` if given.

    Raises:
        FewShotError: no such weights, no answer within seconds, or the folder cannot be written.
    """
    architecture, tag = split_name(name)
    full, address = f"{architecture}.{tag}", hub_address(name)
    if address is None:
        raise missing_weights(name)
    url = hub.hf_hub_url(address, HUB_FILE)
    try:
        hub.get_hf_file_metadata(url, timeout=ANSWER_SECONDS)  # the download alone retries for long
        cached = Path(hub.hf_hub_download(address, HUB_FILE, etag_timeout=ANSWER_SECONDS))
    except Exception as error:  # the kind depends on which client the hub's library was built with
        raise FewShotError(
            f"cannot download {full} ({megabytes(architecture):.0f} MB): no answer from {url} "
            f"({type(error).__name__}); fetch it elsewhere, save it as {full}.safetensors and name "
            "its folder as --weights-dir"
        ) from error
    return cached if weights_dir is None else _copied(cached, weights_dir / f"{full}.safetensors")


def hub_address(name: str) -> str | None:
    """Repository of the weights on the Hugging Face hub, as ``timm/resnet18.tv_in1k``."""
    config = _config(name)
    return config.hf_hub_id if config else None


def licence(name: str) -> str:
    """The licence that timm states for the weights."""
    config = _config(name)
    return (config.license if config else None) or "not stated"


def megabytes(architecture: str) -> float:
    """Size of the whole network's weights in 10^6 bytes, as float32."""
    with torch.device("meta"):
        network = timm.create_model(architecture)
    return sum(value.numel() for value in network.state_dict().values()) * 4 / 1e6


def _config(name: str) -> PretrainedCfg | None:
    full = ".".join(split_name(name))
    return get_pretrained_cfg(full) if timm.is_model_pretrained(full) else None


def _tagged(architecture: str) -> str:
    return ", ".join(timm.list_pretrained(f"{architecture}.*"))


def _flat(name: str) -> str:
    """A name as both a whole network and timm's feature extractor around it know it."""
    return name.removeprefix("model.").replace(".", "_")


def _other_network(path: Path, architecture: str, finding: str) -> FewShotError:
    return FewShotError(f"{path} is not of {architecture}: among its tensors {finding}")


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
