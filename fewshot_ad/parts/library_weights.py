"""Weights that the catalogue does not list, as timm and open_clip describe them themselves."""

from collections.abc import Iterable
from importlib import import_module

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
    return PublishedWeights(
        name=full,
        family="backbone",
        purpose="a backbone",
        megabytes=_megabytes(network),
        licence=config.license or "not stated",
        repository=config.hf_hub_id,
        files=(config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES,
        url=config.url or "",
        sha256=release_digest(config.url or ""),
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
    return PublishedWeights(
        name=name,
        family="clip",
        purpose="winclip with another CLIP",
        megabytes=_clip_megabytes(architecture),
        licence="not stated",
        repository=repository,
        files=(file,) if file else CLIP_FILES,
        url=url if digest else "",
        sha256=digest,
    )


def _clip_megabytes(architecture: str) -> float | None:
    """None for models with a tower from another library, which may ask the network for it."""
    open_clip = import_module("open_clip")
    config = open_clip.get_model_config(architecture)
    if {"embed_dim", "vision_cfg", "text_cfg"} ^ {*config} - {"quick_gelu"}:
        return None
    if "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]:
        return None
    with torch.device("meta"):
        return _megabytes(open_clip.CLIP(**config))


def _megabytes(network: torch.nn.Module) -> float:
    """Size of all weights in 10^6 bytes, as float32."""
    return sum(value.numel() for value in network.state_dict().values()) * 4 / 1e6


def _no_tag(name: str, architecture: str, offered: Iterable[str]) -> FewShotError:
    choices = ", ".join(offered) or f"none; {architecture} has no published weights"
    return FewShotError(f"{name!r} does not say which weights: expected one of {choices}")
