"""WinCLIP and WinCLIP+: defects by what they are called, and by what the support does not show.

WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation. Jeong, Zou, Kim, Zhang,
Ravichandran, Dabeer. CVPR 2023. https://arxiv.org/abs/2303.14814

Sentences about a flawless and about a damaged object become two text prototypes; an image or a
window is as anomalous as CLIP finds it nearer to the second. Windows of 2x2 and 3x3 patches see
only their own tokens, and what they say is averaged harmonically per patch and over scales. With a
support (WinCLIP+), the distance to the nearest support embedding of the same scale joins in.

Official code was not released. Where reimplementations differ we take the harmonic mean of
*anomaly* probabilities, a temperature of 0.07, sentences of unit length before their mean, and
patches from the last block. The map is the mean of text and reference in place of their sum, which
ranks alike. Images of another shape are tiled where ``tile`` says so.
"""

from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import (
    FewShotError,
    Method,
    NotFittedError,
    Prediction,
    Preprocess,
    Support,
    Track,
)
from fewshot_ad.parts.clip import MEAN, STD, Clip, PromptNorm, class_prototypes, load_clip
from fewshot_ad.parts.maps import no_prediction, upsample_maps
from fewshot_ad.parts.parameters import COUNT, Between, check_parameters
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.tiles import Tiling
from fewshot_ad.parts.windows import (
    WindowPool,
    anomaly_probability,
    reference_map,
    window_map,
)
from fewshot_ad.prompts import PromptSet, load_prompts

__all__ = ["WinClip"]


@dataclass(kw_only=True, eq=False)
class WinClip(Method):
    """Text and windows, joined by the support where there is one; see the module for the paper.

    For a study of prompts, embeddings are remembered: ``with_prototypes`` is a fitted copy that
    reads other sentences, and no image is embedded again.

    Attributes:
        backbone: a vision transformer of open_clip by name, file or folder, see ``parts.clip``.
        weights_dir: folder with weights.
        prompts: name or path of a prompt set.
        class_name: what sentences call the target class; None for the words of the prompt set.
        prompt_norm: ``each`` sentence to unit length before the ``mean`` over them, or only after.
        temperature: of the softmax over the two prototypes.
        windows: sides of the windows, in patches.
        image_scale: the whole image counts as one scale more of the map.
        window_pool: what stands for a window: its class token, or the mean of its patches.
        patch_block: the block whose output is compared with the support, negative from the end.
        normed_patches: put the last layer norm over that output.
        resize_positions: take images of another size than the weights were trained at.
        tile: side of square tiles, in pixels; None takes images whole, which must be square then.
        tile_overlap: least share of a tile that its neighbour shows too.
    """

    track: ClassVar[Track] = "training_free"
    min_shots: ClassVar[int] = 0
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(240, "squash", MEAN, STD))
    backbone: str = "ViT-B-16-plus-240.laion400m_e32"
    weights_dir: str | None = None
    prompts: str = "winclip"
    class_name: str | None = None
    prompt_norm: PromptNorm = "each"
    temperature: float = 0.07
    windows: tuple[int, ...] = (2, 3)
    image_scale: bool = True
    window_pool: WindowPool = "class_token"
    patch_block: int = -1
    normed_patches: bool = False
    resize_positions: bool = False
    tile: int | None = None
    tile_overlap: float = 0.2
    prototypes_: Float[Tensor, "2 d"] | None = field(default=None, init=False, repr=False)
    references_: list[list[Tensor]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, temperature=Between(1e-4), tile=COUNT, tile_overlap=Between(0, 0.9))
        if not self.windows or min(self.windows) < 1:
            raise FewShotError(f"windows are {self.windows}: expected sides in patches, as (2, 3)")

    def fit(self, support: Support) -> "WinClip":
        """Read the sentences of the class, and embed the support where there is one."""
        check_support(support, self.min_shots)
        prototypes = self.embed_prompts(load_prompts(self.prompts), support.target_class)
        tiles = self._tiling(support.images).cut(support.images) if len(support.images) else []
        self.references_ = [self._embed(images)[1:] for images in tiles]
        self.prototypes_ = prototypes
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Nearness to the damaged prototype, and distance from the support."""
        if self.prototypes_ is None:
            raise NotFittedError("WinClip has no prototypes yet: call fit(support) first")
        if not len(images):
            return no_prediction(images)
        tiling = self._tiling(images)
        tiles = tiling.cut(images)
        if self.references_ and len(self.references_) != len(tiles):
            raise FewShotError(
                f"images make {len(tiles)} tiles, the support made {len(self.references_)}: "
                "give images of one size"
            )
        judged = [
            self._judge(self._embed(tile), references)
            for tile, references in zip(tiles, self.references_ or repeat(None), strict=False)
        ]
        scores, grid_maps = zip(*judged, strict=True)
        maps = [upsample_maps(each, (tiling.side, tiling.side)) for each in grid_maps]
        return Prediction(torch.stack(scores).mean(dim=0).cpu(), tiling.join(maps).cpu())

    def embed_prompts(self, prompts: PromptSet, target_class: str) -> Float[Tensor, "2 d"]:
        """The prototypes of a prompt set for a class; each sentence is embedded once."""
        normal, anomalous = prompts.sentences(target_class, self.class_name)
        embed = self._clip(self.tile or self.preprocess.size).embed_sentences
        return class_prototypes(embed(normal), embed(anomalous), self.prompt_norm)

    def with_prototypes(self, prototypes: Float[Tensor, "2 d"]) -> "WinClip":
        """A fitted copy that reads other sentences and shares the references."""
        copy = replace(self)
        copy.prototypes_, copy.references_ = prototypes, self.references_
        return copy

    @property
    def weights_digest(self) -> str:
        """Digest of the weights of both towers."""
        return self._clip(self.tile or self.preprocess.size).digest

    def _clip(self, side: int) -> Clip:
        clip = load_clip(
            self.backbone,
            side,
            resize_positions=self.resize_positions,
            weights_dir=None if self.weights_dir is None else Path(self.weights_dir),
            device=self.device,
        )
        clip.check_normalisation(self.preprocess.mean, self.preprocess.std)
        return clip

    def _tiling(self, images: Float[Tensor, "b 3 h w"]) -> Tiling:
        height, width = images.shape[-2:]
        if self.tile is None and height != width:
            raise FewShotError(
                f"images are {height}x{width}: expected squares, or a tile size, as tile=240"
            )
        return Tiling((height, width), self.tile or width, self.tile_overlap)

    def _embed(self, images: Float[Tensor, "b 3 s s"]) -> list[Float[Tensor, "b d h w"]]:
        """Image, windows per side, patches."""
        clip = self._clip(images.shape[-1])
        recipe = self.windows, self.window_pool, self.patch_block, self.normed_patches
        return clip.features(*recipe)(images)

    def _judge(
        self, levels: list[Tensor], references: list[Tensor] | None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b h w"]]:
        """Scores, and maps on the grid; image by image, so that none hangs on its neighbours."""
        each = zip(*(level.split(1) for level in levels), strict=True)
        scores, maps = zip(*(self._judge_one([*one], references) for one in each), strict=True)
        return torch.cat(scores), torch.cat(maps)

    def _judge_one(
        self, levels: list[Tensor], references: list[Tensor] | None
    ) -> tuple[Float[Tensor, " 1"], Float[Tensor, "1 h w"]]:
        image, *windows, patches = levels
        assert self.prototypes_ is not None
        prototypes = self.prototypes_.to(image.device)
        score = anomaly_probability(image, prototypes, self.temperature)[:, 0, 0]
        as_scale = score if self.image_scale else None
        grid_map = window_map(windows, self.windows, prototypes, self.temperature, as_scale)
        if references is not None:
            visual = reference_map([*windows, patches], references, (*self.windows, 1))
            score = (score + visual.amax(dim=(1, 2))) / 2
            grid_map = (grid_map + visual) / 2
        return score, grid_map
