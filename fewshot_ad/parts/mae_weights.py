"""Masked autoencoders of Hugging Face: built from their configuration, filled from a file.

=========================== =====================================================================
``facebook/vit-mae-large``  published weights, as are ``base`` and ``huge``
``path/to/folder``          with a config.json and its weights
``path/to/weights.bin``     its config.json lies beside it, or it is one of the published ones
``random:tiny``             drawn by a fixed seed, for tests, as are ``base``, ``large``, ``huge``
=========================== =====================================================================

Nothing is ever downloaded here.
"""

import json
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.weight_catalog import require_weights
from fewshot_ad.parts.weight_files import read_weights

RANDOM_PREFIX, RANDOM_SEED = "random:", 0
FILES = ("model.safetensors", "pytorch_model.bin")
POSITIONS = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")


def _sizes(width: int, depth: int, heads: int, patch: int = 16) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "patch_size": patch,
    }


PUBLISHED = {
    "facebook/vit-mae-base": _sizes(768, 12, 12),
    "facebook/vit-mae-large": _sizes(1024, 24, 16),
    "facebook/vit-mae-huge": _sizes(1280, 32, 16, patch=14),
}
TINY: dict[str, Any] = _sizes(32, 2, 2, patch=8) | {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
    "initializer_range": 0.2,  # so that so narrow a network answers to what it sees
}
DRAWN: dict[str, dict[str, Any]] = {"tiny": TINY} | {
    name.rpartition("-")[2]: sizes for name, sizes in PUBLISHED.items()
}

RENAMED = {  # from transformers 4, and the published files, to transformers 5
    "vit.encoder.layer.": "vit.layers.",
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
}


@dataclass(frozen=True)
class Origin:
    """A configuration, and the weights that go with it: of a file, or drawn where there is none."""

    name: str
    settings: dict[str, Any] = field(repr=False)
    weights: dict[str, Tensor] | None = field(default=None, repr=False)


def build_network(name: str, size: int, weights_dir: Path | None = None) -> nn.Module:
    """A ``ViTMAEForPreTraining`` for square images of ``size`` pixels.

    Position embeddings of another grid are resized in both directions; transformers would resize
    those of the decoder along one flattened line.

    Raises:
        FewShotError: unknown name; weights not here, damaged or of another network; ``size`` is no
            multiple of the patches.
    """
    origin = _find(name, weights_dir)
    vit_mae = _vit_mae()
    with seeded_weights(RANDOM_SEED):
        network = vit_mae.ViTMAEForPreTraining(_configuration(origin, size))
    if origin.weights is None:
        _set_positions(network)
    else:
        _fill(network, origin.weights, origin.name)
    return network.eval().requires_grad_(requires_grad=False).float()


def _find(name: str, weights_dir: Path | None) -> Origin:
    if name.startswith(RANDOM_PREFIX):
        drawn = name.removeprefix(RANDOM_PREFIX)
        if drawn not in DRAWN:
            raise unknown_name("random masked autoencoder", drawn, DRAWN)
        return Origin(name, DRAWN[drawn])
    path = Path(name)
    if path.is_dir():
        return _of_file(_weights_of(path))
    if path.is_file():
        return _of_file(path)
    if name not in PUBLISHED:
        raise unknown_name("masked autoencoder (nor file or folder)", name, PUBLISHED)
    path = require_weights(name, weights_dir)  # what lies beside it may be of other weights
    return Origin(str(path), PUBLISHED[name], read_weights(path))


def _weights_of(folder: Path) -> Path:
    found = next((folder / file for file in FILES if (folder / file).is_file()), None)
    if found is None:
        raise FewShotError(f"{folder} holds no weights: expected {' or '.join(FILES)} in it")
    return found


def _of_file(path: Path) -> Origin:
    """Weights with the configuration beside them, or that of the published ones of their width."""
    weights = read_weights(path)
    described = path.with_name("config.json")
    if described.is_file():
        return Origin(str(path), _read_configuration(described), weights)
    token = weights.get("vit.embeddings.cls_token", torch.empty(0))
    for settings in PUBLISHED.values():
        if token.shape[-1] == settings["hidden_size"]:
            return Origin(str(path), settings, weights)
    raise FewShotError(
        f"{path} is of none of {', '.join(PUBLISHED)}: put its config.json beside it"
    )


def _read_configuration(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
        kind = settings["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewShotError(f"{path} is no configuration of a network ({error!r})") from error
    if kind != "vit_mae":
        raise FewShotError(f"{path} describes a {kind}: expected a vit_mae with its decoder")
    return settings


def _configuration(origin: Origin, size: int) -> Any:
    """For images of ``size``; attention as PyTorch ships it, so that no environment changes it."""
    settings = {key: value for key, value in origin.settings.items() if key != "model_type"}
    patch = settings.get("patch_size", 16)
    if size % patch or not size:
        raise FewShotError(
            f"images of {size} pixels cannot be cut into patches of {patch}: set preprocess.size "
            f"to a multiple of {patch}"
        )
    vit_mae = _vit_mae()
    try:
        return vit_mae.ViTMAEConfig(**{**settings, "image_size": size})
    except Exception as error:  # transformers checks with exceptions of its own
        reason = " ".join(str(error).split())
        raise FewShotError(f"the configuration of {origin.name} is refused: {reason}") from error


def _fill(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load weights under the names of this or the former release of transformers."""
    wanted: dict[str, Tensor] = network.state_dict()
    stored = {_current(key): value for key, value in weights.items()}
    missing = sorted(key for key in wanted if _current(key) not in stored)
    unknown = sorted(stored.keys() - {_current(key) for key in wanted})
    for what, keys in {"missing": missing, "unknown": unknown}.items():
        if keys:
            raise _other_network(name, f"{len(keys)} are {what}, as {keys[0]}")
    chosen = {key: stored[_current(key)] for key in wanted}
    for key in POSITIONS:
        chosen[key] = resize_positions(chosen[key], wanted[key].shape[1] - 1)
    for key, value in chosen.items():
        if value.shape != wanted[key].shape:
            shapes = f"{key} is {list(value.shape)}, not {list(wanted[key].shape)}"
            raise _other_network(name, shapes)
    network.load_state_dict(chosen)


def _current(key: str) -> str:
    for former, current in RENAMED.items():
        key = key.replace(former, current)
    return key


def _other_network(name: str, reason: str) -> FewShotError:
    return FewShotError(
        f"{name} is not of this masked autoencoder (tensors: {reason}): expected a "
        "ViTMAEForPreTraining of Hugging Face, encoder and decoder"
    )


def resize_positions(positions: Float[Tensor, "1 l d"], n_patches: int) -> Float[Tensor, "1 l2 d"]:
    """Embeddings of a class token and a square grid, bicubic for a grid of ``n_patches``."""
    if positions.shape[1] == n_patches + 1:
        return positions
    token, grid = positions[:, :1], positions[:, 1:]
    before, after = round(grid.shape[1] ** 0.5), round(n_patches**0.5)
    square = grid.unflatten(1, (before, before)).permute(0, 3, 1, 2)
    resized = functional.interpolate(square, (after, after), mode="bicubic")
    return torch.cat([token, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _set_positions(network: nn.Module) -> None:
    """The sines and cosines of the paper, which transformers 5 leaves at zero in drawn networks."""
    state: dict[str, Tensor] = network.state_dict()
    for key in POSITIONS:
        _, length, width = state[key].shape
        state[key].copy_(wave_positions(round((length - 1) ** 0.5), width))


def wave_positions(side: int, width: int) -> Float[Tensor, "1 l d"]:
    """Sine-cosine embeddings of a square grid: the column in the first half, the row in the second.

    Masked Autoencoders Are Scalable Vision Learners. He et al., CVPR 2022, section 3.
    """
    place = torch.arange(side, dtype=torch.float64)
    angles = place[:, None] / 10_000 ** (torch.arange(width // 4) / (width // 4))
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
    grid = torch.cat([columns, rows], dim=2).flatten(0, 1)
    return functional.pad(grid, (0, 0, 1, 0))[None].float()


def _vit_mae() -> ModuleType:
    """Imported when asked for: transformers takes seconds."""
    return import_module("transformers")
