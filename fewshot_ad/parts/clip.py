"""The door to CLIP: ``load_clip(name)``, sentences in, images in, embeddings out.

Text embeddings are computed once per sentence and image embeddings once per image, whoever asks, so
that a study of many prompts costs one evaluation and some products of matrices:

    >>> clip = load_clip("ViT-B-16-plus-240.laion400m_e32", 240)
    >>> prototypes = class_prototypes(*map(clip.embed_sentences, prompts.sentences("screw")))
    >>> image, small, middle, patches = clip.features()(images)      # remembered: FeatureCache
    >>> p = anomaly_probability(image, prototypes, 0.07)             # parts.windows
    >>> window_map([small, middle], (2, 3), prototypes, 0.07, p[:, 0, 0])

=================================== ==============================================================
``ViT-B-16-plus-240.laion400m_e32`` a model of open_clip and the tag of its weights
``path/to/ViT-B-16.mine.pt``        a file that is called after its architecture
``path/to/folder``                  ``open_clip_config.json`` and the model, as on the hub
``random:tiny``, ``random:NAME``    weights drawn by a fixed seed, at any size
=================================== ==============================================================
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from threading import Lock
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import Backbone, chosen_device, digest_of
from fewshot_ad.parts.feature_cache import FeatureCache
from fewshot_ad.parts.weight_files import weight_folders
from fewshot_ad.parts.windows import WindowPool, WindowTower

PromptNorm = Literal["each", "mean"]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

SENTENCES_AT_ONCE = 32


class Clip:
    """Both towers of a CLIP, frozen, for square images of one size.

    Attributes:
        name: what was loaded.
        digest: of all weights.
        image_size, patch_size: in pixels.
        mean, std: of the channels at training; None where nobody says.
    """

    def __init__(self, name: str, network: nn.Module, device: str = "cpu") -> None:
        self.name = name
        self.network: Any = network.to(device)
        self.device = device
        self.digest = digest_of(network)
        self.image_size: int = self.network.visual.image_size[0]
        self.patch_size: int = self.network.visual.patch_size[0]
        self.mean: tuple[float, ...] | None = None
        self.std: tuple[float, ...] | None = None
        self._sentences: dict[str, Tensor] = {}
        self._features: dict[tuple[Any, ...], FeatureCache] = {}
        self._lock = Lock()

    @torch.no_grad()
    def embed_sentences(self, sentences: Sequence[str]) -> Float[Tensor, "n d"]:
        """Text embeddings, not of unit length; each sentence is computed once, on the CPU after.

        Raises:
            FewShotError: a sentence has more tokens than the context.
        """
        new = [each for each in dict.fromkeys(sentences) if each not in self._sentences]
        self.check_sentences(new)
        for start in range(0, len(new), SENTENCES_AT_ONCE):
            chunk = new[start : start + SENTENCES_AT_ONCE]
            padded = [*chunk, *[""] * (SENTENCES_AT_ONCE - len(chunk))]  # one shape: the same bits
            tokens = _networks().tokenize(padded, self.context)
            found = self.network.encode_text(tokens.to(self.device)).float().cpu()
            self._sentences.update(zip(chunk, found, strict=False))
        return torch.stack([self._sentences[each] for each in sentences])

    def check_sentences(self, sentences: Sequence[str]) -> None:
        """Refuse sentences that would be cut off.

        Raises:
            FewShotError: names the first and its number of tokens.
        """
        for sentence in sentences:
            if (count := count_tokens(sentence)) > self.context:
                raise FewShotError(
                    f"{shorten(sentence, 60)!r} has {count} tokens, {self.name} reads "
                    f"{self.context}: shorten it"
                )

    def check_normalisation(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Refuse images that were normalised in another way than those of the training.

        Raises:
            FewShotError: says what is expected.
        """
        for name, given, trained in (("mean", mean, self.mean), ("std", std, self.std)):
            if trained is None or np.allclose(given, trained, atol=1e-3):
                continue
            raise FewShotError(
                f"{self.name} was trained with a {name} of {_listed(trained)}, images come with "
                f"{_listed(given)}: type --set preprocess.{name}={_listed(trained)}"
            )

    @property
    def context(self) -> int:
        """Tokens that the text tower reads, begin and end included."""
        return self.network.context_length

    def features(
        self,
        sides: tuple[int, ...] = (2, 3),
        pool: WindowPool = "class_token",
        patch_block: int = -1,
        normed_patches: bool = False,
    ) -> FeatureCache:
        """What remembers image, window and patch embeddings; see ``parts.windows.WindowTower``.

        Raises:
            FewShotError: a window is larger than the image, or there is no such block.
        """
        key = (sides, pool, patch_block, normed_patches)
        with self._lock:
            if key not in self._features:
                tower = WindowTower(self.network.visual, *key)
                self._features[key] = FeatureCache(self._as_backbone(tower, len(sides)))
            return self._features[key]

    def _as_backbone(self, tower: WindowTower, n_sides: int) -> Backbone:
        visual, levels = self.network.visual, tuple(range(1, n_sides + 3))
        width = visual.conv1.out_channels
        return Backbone(
            name=self.name,
            levels=levels,
            channels=(*[visual.output_dim] * (n_sides + 1), width),
            strides=(self.image_size, *[self.patch_size] * (n_sides + 1)),
            digest=self.digest,
            source=self.name,
            licence="not stated",
            device=self.device,
            network=tower,
            maps=tuple(range(len(levels))),
        )


def load_clip(
    name: str,
    image_size: int,
    *,
    resize_positions: bool = False,
    weights_dir: Path | None = None,
    device: str = "cpu",
) -> Clip:
    """The one copy in this process of a CLIP by name; nothing is ever downloaded.

    Args:
        name: see the table at the top of this file.
        image_size: side of the images, in pixels.
        resize_positions: take a size that the weights were not trained at.
        weights_dir: searched first for weights.
        device: where it runs; ``auto`` is the GPU where there is one.

    Raises:
        FewShotError: unknown name, weights that are not here or of another network, a size that the
            network does not take.
    """
    with _loading:
        folders = tuple(weight_folders(weights_dir))
        return _load_once(name, image_size, resize_positions, weights_dir, device, folders)


_loading = Lock()


@cache
def _load_once(
    name: str,
    image_size: int,
    resize_positions: bool,
    weights_dir: Path | None,
    device: str,
    folders: tuple[Path, ...],
) -> Clip:
    """``folders`` only tells calls apart: the environment may name another one by the next."""
    networks = _networks()
    source = networks.find_source(name, weights_dir)
    network = networks.build(source, image_size, resize_positions)
    clip = Clip(source.name, network, chosen_device(device))
    clip.mean, clip.std = source.mean, source.std
    return clip


def class_prototypes(
    normal: Float[Tensor, "n d"], anomalous: Float[Tensor, "m d"], norm: PromptNorm = "each"
) -> Float[Tensor, "2 d"]:
    """One embedding for normal and one for anomalous, of unit length (the prompt ensemble).

    Args:
        normal: embeddings of the normal sentences of a class.
        anomalous: of the anomalous ones.
        norm: ``each`` brings every sentence to unit length before the mean, ``mean`` does not.
    """
    sides = (normal, anomalous)
    if norm == "each":
        sides = tuple(functional.normalize(side, dim=1) for side in sides)
    return functional.normalize(torch.stack([side.mean(dim=0) for side in sides]), dim=1)


def count_tokens(sentence: str) -> int:
    """Tokens of a sentence with begin and end, for open_clip's own tokenizer; needs no weights."""
    return _networks().count_tokens(sentence)


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


def _networks() -> ModuleType:
    """Imported when asked for: open_clip takes seconds."""
    return import_module("fewshot_ad.parts.clip_networks")
