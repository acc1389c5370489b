"""Weights that the catalogue does not list, as timm and open_clip describe them themselves."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.published_weights import (
    CLIP_FILES,
    HUB_FILES,
    PINNED,
    PublishedWeights,
    release_digest,
)


def of_timm(name: str) -> PublishedWeights | None:
    """The weights of a network of timm, None where timm has no such network.

    Raises:
        FewShotError: the name has no tag and none is pinned for it, or its tag is unknown.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        return None
    full = f"{architecture}.{tag or PINNED.get(architecture, '')}"
    config = get_pretrained_cfg(full) if timm.is_model_pretrained(full) else None
    if config is None or not config.hf_hub_id:
        raise _no_tag(name, architecture, timm.list_pretrained(f"{architecture}.*"))
    with torch.device("meta"):
        network = timm.create_model(architecture)
    url = config.url if isinstance(config.url, str) else ""
    return PublishedWeights(
        name=full,
        family="backbone",
        purpose="a backbone",
        megabytes=_megabytes(network),
        licence=config.license or "not stated",
        repository=config.hf_hub_id,
        files=(config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES,
        url=url,
        sha256=release_digest(url),
    )


def of_open_clip(name: str) -> PublishedWeights | None:
    """The weights of a model of open_clip, None where it has no such model.

    Raises:
        FewShotError: the tag is missing or unknown.
    """
    open_clip = import_module("open_clip")  # takes seconds; timm's names are asked for more often
    architecture, _, tag = name.partition(".")
    if architecture not in open_clip.list_models():
        return None
    if tag not in open_clip.list_pretrained_tags_by_model(architecture):
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise _no_tag(name, architecture, [f"{architecture}.{each}" for each in tags])
    config = open_clip.get_pretrained_cfg(architecture, tag)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    url = config.get("url", "")
    digest = release_digest(url)  # other addresses hold TorchScript, which is code
    megabytes, tensor = _clip_measures(open_clip.get_model_config(architecture))
    return PublishedWeights(
        name=name,
        family="clip",
        purpose="winclip with another CLIP",
        megabytes=megabytes,
        licence="not stated",
        repository=repository,
        files=(file,) if file else CLIP_FILES,
        url=url if digest else "",
        sha256=digest,
        tensor=tensor,
    )


def _clip_measures(
    config: dict[str, Any],
) -> tuple[float | None, tuple[str, tuple[int, ...]] | None]:
    """Size and telling tensor; None for towers of other libraries, which may ask the network."""
    open_clip = import_module("open_clip")
    if "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]:
        return None, None
    if not {*config} <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}:
        return None, None
    with torch.device("meta"):
        network = open_clip.CLIP(**config)
    name = "visual.positional_embedding"
    positions = network.state_dict().get(name)
    return _megabytes(network), None if positions is None else (name, tuple(positions.shape))


def _megabytes(network: torch.nn.Module) -> float:
    """Size of all weights in 10^6 bytes, as float32."""
    return sum(value.numel() for value in network.state_dict().values()) * 4 / 1e6


def _no_tag(name: str, architecture: str, offered: Iterable[str]) -> FewShotError:
    choices = ", ".join(offered) or f"none; {architecture} has no published weights"
    return FewShotError(f"{name!r} does not say which weights: expected one of {choices}")
