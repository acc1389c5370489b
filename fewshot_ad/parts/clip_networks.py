"""CLIP networks of open_clip: their names, how they are built, and how files of weights fill them.

A network is built from open_clip's own configuration and classes and filled here, so that nothing
is fetched and no pickle runs. Only plain vision transformers qualify: dropping tokens needs a class
token, one sequence of patches and no pooling by attention.
"""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Int
from open_clip.model import CLIP, CustomTextCLIP, resize_pos_embed
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.clip import MEAN, STD
from fewshot_ad.parts.weight_catalog import require_weights
from fewshot_ad.parts.weight_files import read_weights

Config = dict[str, Any]

CONFIG_FILE = "open_clip_config.json"
MODEL_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
RANDOM_SEED = 0
TINY: Config = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
_ARGUMENTS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias")
_NOT_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Source:
    """Which network to build, and what to fill it with.

    Attributes:
        name: what results record.
        config: as open_clip writes it.
        path: file of weights; None for weights drawn by a fixed seed.
        mean, std: of the channels, as the weights were trained; None where any will do.
    """

    name: str
    config: Config
    path: Path | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def find_source(name: str, weights_dir: Path | None) -> Source:
    """What a name stands for.

    Args:
        name: ``ARCHITECTURE.TAG`` of open_clip, a file of weights called after its architecture, a
            folder as the Hugging Face hub has it, ``random:tiny`` or ``random:ARCHITECTURE``.
        weights_dir: searched first for weights.

    Raises:
        FewShotError: unknown name, or weights that are not on this machine.
    """
    if name.startswith("random:"):
        return Source(name, _random_config(name.removeprefix("random:")), None)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    return _from_name(name, weights_dir)


def build(source: Source, image_size: int, resize_positions: bool) -> nn.Module:
    """The network for images of a size, with its weights.

    Args:
        source: of :func:`find_source`.
        image_size: side of the square images, in pixels.
        resize_positions: take a size that the weights were not trained at, with position embeddings
            interpolated as open_clip does it.

    Raises:
        FewShotError: the network is no plain vision transformer or does not take the size, or the
            weights are of another network.
    """
    config = deepcopy(source.config)
    check_config(source.name, config)
    _check_size(source, image_size, resize_positions)
    config["vision_cfg"]["image_size"] = image_size
    with torch.random.fork_rng(devices=[]):  # building draws weights, though they will be others
        network = _construct(config)
    if source.path is None:
        draw_weights(network)
    else:
        fill(network, source, resize_positions)
    return network.eval().requires_grad_(requires_grad=False).float()


def check_config(name: str, config: Config) -> None:
    """Refuse what is no vision transformer with a class token, or reads text in another way.

    Raises:
        FewShotError: says what it is instead.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    found = {
        "its image tower comes from timm": vision.get("timm_model_name"),
        "its image tower is a ResNet": isinstance(vision.get("layers"), list | tuple),
        "it pools by attention": vision.get("attentional_pool"),
        "its text tower comes from Hugging Face": text.get("hf_model_name"),
        "its tokens come from Hugging Face": text.get("hf_tokenizer_name"),
    }
    for reason, applies in found.items():
        if applies:
            raise FewShotError(
                f"{name} cannot drop tokens for windows: {reason}; expected a plain vision "
                "transformer of open_clip, as ViT-B-16-plus-240.laion400m_e32"
            )


def fill(network: nn.Module, source: Source, resize_positions: bool) -> None:
    """Load the file of a source; see :func:`build` for the positions.

    Raises:
        FewShotError: the file cannot be read, or is of another network.
    """
    path = source.path
    assert path is not None
    stored = {key.removeprefix("module."): value for key, value in read_weights(path).items()}
    stored = {key: value for key, value in stored.items() if key not in _NOT_WEIGHTS}
    wanted: dict[str, Tensor] = network.state_dict()
    for what, names in {
        "missing": wanted.keys() - stored.keys(),
        "unknown": stored.keys() - wanted.keys(),
    }.items():
        if names:
            raise _another(source, f"{len(names)} tensors are {what}, as {min(names)}")
    if resize_positions:
        resize_pos_embed(stored, network)
    for key, value in stored.items():
        shape = wanted[key].shape
        if value.numel() == shape.numel() == 1:  # scales were once [1] and once []
            stored[key] = value.reshape(shape)
        elif value.shape != shape:
            raise _another(source, f"{key} is {list(value.shape)}, not {list(shape)}")
    network.load_state_dict(stored)


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Weights of a fixed seed, the same whatever open_clip's own initialisation is or was."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for name, values in sorted(network.named_parameters()):
        if name.endswith("bias"):
            values.zero_()
        elif values.ndim > 1 or name.endswith("class_embedding"):
            inputs = values[0].numel() if values.ndim > 1 else len(values)
            values.copy_(torch.randn(values.shape, generator=generator) / inputs**0.5)


def _construct(config: Config) -> nn.Module:
    kind = CustomTextCLIP if config.get("custom_text") else CLIP
    return kind(**{key: config[key] for key in config if key in _ARGUMENTS})


def _another(source: Source, finding: str) -> FewShotError:
    return FewShotError(f"{source.path} is not of {source.name}: {finding}")


def _check_size(source: Source, image_size: int, resize_positions: bool) -> None:
    vision = source.config["vision_cfg"]
    trained, patch = vision["image_size"], vision["patch_size"]
    if image_size % patch:
        raise FewShotError(
            f"{source.name} cuts images in patches of {patch} px, and {image_size} px is no "
            f"multiple: type --set preprocess.size={trained}, or tile={trained} to use tiles"
        )
    if source.path is not None and image_size != trained and not resize_positions:
        raise FewShotError(
            f"{source.name} was trained at {trained} px, images or tiles have {image_size}: type "
            f"--set preprocess.size={trained}, or --set resize_positions=true to go on as it is"
        )


def _random_config(name: str) -> Config:
    return TINY if name == "tiny" else _config(name)


def _config(architecture: str) -> Config:
    config, models = open_clip.get_model_config(architecture), open_clip.list_models()
    if architecture not in models or config is None:
        usual = [name for name in models if name.startswith("ViT-") and "SigLIP" not in name]
        raise unknown_name("model of open_clip", architecture, usual)
    return config


def _from_name(name: str, weights_dir: Path | None) -> Source:
    architecture, _, tag = name.partition(".")
    config, tags = _config(architecture), list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise unknown_name(f"set of weights of {architecture}", tag, tags)
    check_config(name, config)
    return _as_published(name, architecture, tag, require_weights(name, weights_dir))


def _from_file(path: Path) -> Source:
    """Architecture and tag are what the file name starts with, in one of open_clip's spellings."""
    start = _plain(path.name)
    fitting = [name for name in open_clip.list_models() if start.startswith(_plain(name))]
    if not fitting:
        raise FewShotError(
            f"{path} does not say which network it is of: start its name with that of a model "
            f"of open_clip, as ViT-B-16-plus-240.mine{path.suffix}, or give a folder that holds it "
            f"and {CONFIG_FILE}"
        )
    architecture = max(fitting, key=len)
    rest = start.removeprefix(_plain(architecture)).removeprefix(".")
    tags = list_pretrained_tags_by_model(architecture)
    tag = max((tag for tag in tags if rest.startswith(_plain(tag))), key=len, default="")
    if tag:
        return _as_published(path.name, architecture, tag, path)
    return Source(path.name, _config(architecture), path)


def _as_published(name: str, architecture: str, tag: str, path: Path) -> Source:
    """The activation and the normalisation hang on the tag as well, not on the architecture alone.

    open_clip up to 2.26 does not list the activation; weights of OpenAI have the quick one.
    """
    config, published = _config(architecture), get_pretrained_cfg(architecture, tag)
    if published.get("quick_gelu") or tag == "openai":
        config["quick_gelu"] = True
    mean, std = published.get("mean") or MEAN, published.get("std") or STD
    return Source(name, config, path, tuple(mean), tuple(std))


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _from_folder(folder: Path) -> Source:
    try:
        written = json.loads((folder / CONFIG_FILE).read_text())
        config, preprocess = written["model_cfg"], written.get("preprocess_cfg", {})
        if not {"vision_cfg", "text_cfg", "embed_dim"} <= config.keys():
            raise KeyError("model_cfg")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewShotError(
            f"{folder} is no folder of open_clip: expected {CONFIG_FILE} with model_cfg in it, and "
            f"one of {', '.join(MODEL_FILES)}"
        ) from error
    files = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    if not files:
        raise FewShotError(f"{folder} holds no weights: expected one of {', '.join(MODEL_FILES)}")
    mean, std = preprocess.get("mean", MEAN), preprocess.get("std", STD)
    return Source(folder.name, config, files[0], tuple(mean), tuple(std))


def tokenize(sentences: list[str], context: int) -> Int[Tensor, "n context"]:
    """Numbers of the tokens, padded with zeros; what is too long would be cut."""
    return _tokenizer()(sentences, context)


def count_tokens(sentence: str) -> int:
    """Tokens of a sentence, begin and end included."""
    return len(_tokenizer().encode(sentence)) + 2


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()
