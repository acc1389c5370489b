"""Networks of timm as feature extractors, their weights pinned by tag, never downloaded unasked.

A bare ``wide_resnet50_2`` means other weights in other releases of timm and torchvision. Published
few-shot numbers hang on which one was used, so a name without a tag is taken only where ``PINNED``
says what it stands for.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.published_weights import PINNED
from fewshot_ad.parts.vision_transformers import QuarterMaps, is_plain
from fewshot_ad.parts.weight_catalog import (
    in_caches,
    in_folders,
    missing_weights,
    published_weights,
)
from fewshot_ad.parts.weight_files import find_weights, read_weights, weight_folders


def known_architecture(name: str) -> str:
    """The part of a name before the tag, once timm knows it."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        nearest = get_close_matches(architecture, ["tiny", *timm.list_models()], n=1)
        raise unknown_name("backbone", name, nearest or ["tiny", *PINNED])
    return architecture


def build_network(architecture: str, levels: tuple[int, ...]) -> nn.Module:
    """The architecture up to the last level asked for, with weights drawn by the caller's seed.

    Levels are strides (4, 8, 16 ...), or depths where all maps of a network have one stride.

    Raises:
        FewShotError: timm has no feature maps of it at the strides of the levels.
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
    if is_plain(offered):
        return QuarterMaps(architecture, levels)
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
    licence: str


def locate_weights(name: str, weights_dir: Path | None) -> Weights | None:
    """Find weights in the folders or the caches, offline; None where there are none.

    A bare name stands for its pinned tag; the only file of that architecture in a folder does too,
    whatever its tag, and then the name stays bare. A file of the user's own may have any tag.

    Raises:
        FewShotError: timm has no such network, or nobody has such weights of it.
    """
    architecture, folders = known_architecture(name), weight_folders(weights_dir)
    tag = name.removeprefix(architecture)[1:]
    own = find_weights(folders, architecture, tag) if tag else None
    try:
        entry = published_weights(name)
    except FewShotError:
        if own is None:
            raise
        return Weights(name, own, "not stated")
    if path := own or in_folders(entry, folders):
        return Weights(entry.name, path, entry.licence)
    if not tag and (path := find_weights(folders, architecture)):
        return Weights(architecture, path, "not stated")
    path = in_caches(entry)
    return Weights(entry.name, path, entry.licence) if path else None


def absent_weights(name: str) -> FewShotError:
    """The error for weights that are not here, with the way out that only a backbone has."""
    return FewShotError(f"{missing_weights(published_weights(name))}; --backbone tiny needs none")


def _flat(name: str) -> str:
    """A name as both a whole network and timm's feature extractor around it know it."""
    return name.removeprefix("model.").replace(".", "_")


def _other_network(path: Path, architecture: str, finding: str) -> FewShotError:
    return FewShotError(f"{path} is not of {architecture}: among its tensors {finding}")
