"""PatchCore: the distance to the nearest normal patch.

Towards Total Recall in Industrial Anomaly Detection. Roth, Pemula, Zepeda, Schoelkopf, Brox,
Gehler. CVPR 2022. https://arxiv.org/abs/2106.08265

Features of two levels, averaged over 3x3 neighbourhoods, are one vector per patch. The vectors of
all support images are the memory bank, thinned to a coreset when it is large. A patch is as
anomalous as its nearest bank vector is far, an image as its most anomalous patch.

Deviations: averaged and concatenated features in place of adaptive pooling to 1024 channels, as
most implementations do; no re-weighting of the image score (nor in the released code); the coreset
is skipped below 20,000 patches, where it only loses information.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Method, NotFittedError, Prediction, Support, Track
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.feature_cache import FeatureCache, load_features
from fewshot_ad.parts.maps import (
    gaussian_blur,
    image_score,
    no_prediction,
    to_vectors,
    upsample_maps,
)
from fewshot_ad.parts.memory_bank import greedy_coreset
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, SHARE, Odd, check_parameters
from fewshot_ad.parts.residuals import match
from fewshot_ad.parts.support import check_support

__all__ = ["PatchCore"]


@dataclass(kw_only=True, eq=False)
class PatchCore(Method):
    """Nearest patch of a memory bank; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        weights_dir: folder with weights of timm backbones.
        levels: which feature maps are joined, the first gives the grid.
        neighbourhood: side of the square over which features are averaged.
        unit_length: match by angle; the paper matches by Euclidean distance.
        coreset_ratio: share of the bank that is kept.
        coreset_above: banks with fewer patches are kept whole.
        blur: sigma of the Gaussian over the map, in pixels.
    """

    track: ClassVar[Track] = "training_free"
    backbone: str = "tiny"
    weights_dir: str | None = None
    levels: tuple[int, ...] = (2, 3)
    neighbourhood: int = 3
    unit_length: bool = False
    coreset_ratio: float = 0.1
    coreset_above: int = 20_000
    blur: float = 4.0
    bank_: Float[Tensor, "n d"] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self, neighbourhood=Odd(), coreset_ratio=SHARE, coreset_above=COUNT, blur=NOT_NEGATIVE
        )

    def fit(self, support: Support) -> "PatchCore":
        """Collect the patches of the support."""
        check_support(support, self.min_shots)
        bank = torch.cat([to_vectors(self._patches(image[None])) for image in support.images])
        if len(bank) > self.coreset_above:
            bank = greedy_coreset(bank, round(self.coreset_ratio * len(bank)), self.seed)
        self.bank_ = bank
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Distance to the nearest patch of the bank."""
        if self.bank_ is None:
            raise NotFittedError("PatchCore has no memory bank yet: call fit(support) first")
        if not len(images):
            return no_prediction(images)
        maps = torch.cat([self._distances(image[None], self.bank_) for image in images])
        size = images.shape[-2], images.shape[-1]
        anomaly_map = gaussian_blur(upsample_maps(maps, size), self.blur).cpu()
        return Prediction(image_score(anomaly_map), anomaly_map)

    @property
    def weights_digest(self) -> str:
        """Digest of the backbone's weights."""
        return self._features.backbone.digest

    @property
    def _features(self) -> FeatureCache:
        folder = None if self.weights_dir is None else Path(self.weights_dir)
        return load_features(self.backbone, self.levels, weights_dir=folder, device=self.device)

    def _patches(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d h2 w2"]:
        first, *others = Embedding(self.neighbourhood)(self._features(images))
        size = first.shape[-2], first.shape[-1]
        resized = [_resize(maps, size) for maps in others]
        patches = torch.cat([first, *resized], dim=1)
        return functional.normalize(patches, dim=1) if self.unit_length else patches

    def _distances(
        self, image: Float[Tensor, "1 3 h w"], bank: Float[Tensor, "n d"]
    ) -> Float[Tensor, "1 h2 w2"]:
        patches = self._patches(image)
        distance, _ = match(to_vectors(patches), bank)
        return distance.view(1, *patches.shape[-2:])


def _resize(maps: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c H W"]:
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)
