"""The one door to every feature extractor: ``load_backbone(name)``.

=========================== =====================================================================
``tiny``                    the embedded one: nothing to download
``resnet18.tv_in1k``        a timm network with maps at strides 4, 8, 16; the tag says which weights
``resnet18``                the same by a short name, where a tag is pinned for it
``vit_tiny_patch16_224``    a vision transformer of timm: level k ends the k-th quarter of its depth
``random:resnet18``         weights drawn by a fixed seed: for tests, and the floor of comparisons
``package.module:factory``  a user's own: a callable without arguments that returns a module
``path/to/file.py:factory`` mapping [b 3 h w] to a list of maps [b c h w]; level k is the k-th map
``bf16:NAME``               any of these in bfloat16; ``openvino:NAME``: see ``parts.precision``
=========================== =====================================================================

Nothing is ever downloaded here; ``fewshot-ad weights fetch NAME`` does that.
"""

import hashlib
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.precision import quickened, split_precision
from fewshot_ad.parts.published_weights import PINNED
from fewshot_ad.parts.tiny import Tiny, load_tiny
from fewshot_ad.parts.user_networks import load_user_network
from fewshot_ad.parts.weight_catalog import published_weights

RANDOM_PREFIX = "random:"
RANDOM_SEED = 0
PROBE_SIZE = 224
ACCELERATOR_CHUNK = 16
OWN_LICENCE = "as this package"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network: images in, one map per level out, at strides 4, 8, 16 for levels 1, 2, 3.

    Attributes:
        name: what was loaded, with its tag.
        levels: which levels ``__call__`` returns, rising.
        channels: of each level.
        strides: of each level, in pixels.
        digest: of the weights and their precision; equal digests mean equal features.
        source: where the weights came from, in words.
        licence: of the weights, where it is known.
    """

    name: str
    levels: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    digest: str
    source: str
    licence: str
    device: str
    network: nn.Module = field(repr=False)
    maps: tuple[int, ...] = field(repr=False)  # which of the network's outputs the levels are

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Extract the maps of normalised images, in float32.

        The network always sees chunks of one shape (single images on a CPU), so that the features
        of an image are the same bits alone and in any batch.

        Raises:
            FewShotError: a feature is NaN or infinite.
        """
        size = 1 if self.device == "cpu" else ACCELERATOR_CHUNK
        chunks = [self._run(chunk, size) for chunk in images.split(size)]
        levels = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        if not all(torch.isfinite(level).all() for level in levels):
            raise FewShotError(
                f"{self.name} gave NaN or infinite features: check the images and the weights"
            )
        return levels

    @property
    def parameters(self) -> int:
        """Number of values in the weights that are in use."""
        return sum(value.numel() for value in self.network.parameters())

    def _run(self, chunk: Tensor, size: int) -> list[Tensor]:
        count = len(chunk)
        padded = functional.pad(chunk, (0, 0, 0, 0, 0, 0, 0, size - count))
        maps = self.network(padded.to(self.device, torch.float32))
        return [maps[index][:count].float().contiguous() for index in self.maps]


@dataclass(frozen=True)
class BackboneRow:
    """One line of ``fewshot-ad backbones list``."""

    name: str
    where: str
    licence: str


def load_backbone(
    name: str,
    *,
    levels: tuple[int, ...] = (1, 2, 3),
    weights_dir: Path | None = None,
    device: str = "cpu",
) -> Backbone:
    """Load a backbone by name, frozen and in eval mode.

    Args:
        name: see the table at the top of this file.
        levels: which maps to return, rising, counted from 1.
        weights_dir: searched for weights of timm networks before the places that
            ``parts.weight_catalog`` names.
        device: where it runs; ``auto`` is the GPU where there is one.

    Raises:
        FewShotError: unknown or unpinned name; weights not here, damaged or of another network; a
            factory that does not keep its promise; levels that the network does not have; OpenVINO
            is asked for and not here.
    """
    if not levels or list(levels) != sorted({*levels}) or levels[0] < 1:
        raise FewShotError(
            f"levels are {levels}: expected different numbers from 1 up, rising, as (2, 3)"
        )
    device = chosen_device(device)
    precision, plain = split_precision(name)
    loaded = _load_network(plain, levels, weights_dir)
    network = loaded.network.eval().requires_grad_(requires_grad=False).float().to(device)
    digest = digest_of(network)
    if precision is not None:
        network = quickened(network, precision, device)
        loaded = replace(loaded, name=f"{precision}:{loaded.name}")
        digest = hashlib.sha256(f"{precision} {digest}".encode()).hexdigest()[:16]
    shapes = _probe(network, loaded.name, device)
    if max(loaded.maps) >= len(shapes):
        raise FewShotError(f"{name} has {len(shapes)} levels: levels {levels} were asked for")
    return Backbone(
        name=loaded.name,
        levels=levels,
        channels=tuple(shapes[index][1] for index in loaded.maps),
        strides=tuple(round(PROBE_SIZE / shapes[index][2]) for index in loaded.maps),
        digest=digest,
        source=loaded.source,
        licence=loaded.licence,
        device=device,
        network=network,
        maps=loaded.maps,
    )


def chosen_device(device: str) -> str:
    """The device, or for ``auto`` the GPU where there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def list_backbones(weights_dir: Path | None = None) -> list[BackboneRow]:
    """The embedded backbone and the pinned ones, with where their weights are on this machine."""
    rows = [BackboneRow("tiny", "embedded", OWN_LICENCE)]
    for architecture in PINNED:
        entry = published_weights(architecture)
        found = _timm_networks().locate_weights(architecture, weights_dir)
        if found:
            rows.append(BackboneRow(found.name, str(found.path), found.licence))
        else:
            rows.append(BackboneRow(entry.name, "not here", entry.licence))
    return rows


def digest_of(network: nn.Module) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all weights with their names and shapes."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue  # a counter that some files have and others do not
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class _Loaded:
    name: str
    network: nn.Module
    source: str
    licence: str
    maps: tuple[int, ...]


def _load_network(name: str, levels: tuple[int, ...], weights_dir: Path | None) -> _Loaded:
    by_level = tuple(level - 1 for level in levels)
    if name == "tiny":
        return _Loaded(name, load_tiny(), "embedded", OWN_LICENCE, by_level)
    if name.startswith(RANDOM_PREFIX):
        network = _draw_network(name.removeprefix(RANDOM_PREFIX), levels)
        maps = by_level if isinstance(network, Tiny) else tuple(range(len(levels)))
        return _Loaded(name, network, f"drawn with seed {RANDOM_SEED}", "none", maps)
    if ":" in name:
        return _Loaded(name, load_user_network(name), "your factory", "yours", by_level)
    return _load_timm(name, levels, weights_dir)


def _load_timm(name: str, levels: tuple[int, ...], weights_dir: Path | None) -> _Loaded:
    timm_networks = _timm_networks()
    weights = timm_networks.locate_weights(name, weights_dir)
    if weights is None:
        raise timm_networks.absent_weights(name)
    architecture = timm_networks.known_architecture(name)
    with torch.random.fork_rng(devices=[]):  # building draws weights, though only to be overwritten
        network = timm_networks.build_network(architecture, levels)
    timm_networks.fill_network(network, architecture, weights.path)
    maps = tuple(range(len(levels)))
    return _Loaded(weights.name, network, str(weights.path), weights.licence, maps)


def _draw_network(name: str, levels: tuple[int, ...]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        if name == "tiny":
            return Tiny()
        timm_networks = _timm_networks()
        network = timm_networks.build_network(timm_networks.known_architecture(name), levels)
    for key, value in network.named_parameters():
        if key.endswith("weight") and not value.any():
            nn.init.ones_(value)  # a residual block's last norm starts at zero: only shortcuts
    return network


def _timm_networks() -> ModuleType:
    """Imported when asked for: timm takes seconds, and the embedded network needs none of it."""
    return import_module("fewshot_ad.parts.timm_networks")


@torch.no_grad()
def _probe(network: nn.Module, name: str, device: str) -> list[torch.Size]:
    """The shapes of the maps of one image of noise, once they are what a backbone promises."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    image = torch.randn(1, 3, PROBE_SIZE, PROBE_SIZE, generator=generator)
    try:
        maps = network(image.to(device))
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise FewShotError(f"{name} fails on an image {list(image.shape)}: {found}") from error
    is_list = isinstance(maps, list | tuple) and len(maps) > 0
    if not is_list or not all(isinstance(level, Tensor) for level in maps):
        kind = type(maps).__name__
        raise FewShotError(f"{name} returned a {kind}: expected a list of maps [b c h w]")
    shapes = [level.shape for level in maps]
    if not _is_pyramid(shapes):
        found = ", ".join(str(list(shape)) for shape in shapes)
        raise FewShotError(
            f"{name} maps {list(image.shape)} to {found}: expected [b c h w], the largest first"
        )
    if not all(torch.isfinite(level).all() for level in maps):
        raise FewShotError(f"{name} gave NaN or infinite features for noise: check its weights")
    return shapes


def _is_pyramid(shapes: list[torch.Size]) -> bool:
    """Whether these are square maps of one square image, none larger than the one before it."""
    sides = [shape[-1] for shape in shapes]
    are_maps = all(len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] for shape in shapes)
    return are_maps and sides == sorted(sides, reverse=True)
