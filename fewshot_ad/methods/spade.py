"""SPADE: find the normal images that look like this one, then compare position with position.

Sub-Image Anomaly Detection with Deep Pyramid Correspondences. Cohen, Hoshen. arXiv 2020.
https://arxiv.org/abs/2005.02357

The K support images whose pooled features are nearest to the query's are retrieved; an image is as
anomalous as they are far (eq. 1). A position is as anomalous as the nearest feature of any position
in those K images is far (eq. 2). Features of several levels take part, so that the correspondence
knows both context and detail.

Deviations: every level is matched on its own grid and the maps are averaged, in place of one joined
vector on the finest grid, as most implementations do; an image is scored by the maximum of its map,
since a pooled distance says little with few support images, unless ``scored_by`` asks for it; K is
N where there are fewer than K images. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Method, NotFittedError, Prediction, Support, Track
from fewshot_ad.parts.feature_cache import FeatureCache, load_features
from fewshot_ad.parts.maps import fuse, gaussian_blur, image_score, no_prediction
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.residuals import shared_matcher
from fewshot_ad.parts.search import nearest
from fewshot_ad.parts.support import check_support

__all__ = ["SPADE"]


@dataclass(kw_only=True, eq=False)
class SPADE(Method):
    """Retrieval of like images and correspondence with them; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        weights_dir: folder with weights of timm backbones.
        levels: which feature maps are matched; the last is pooled for retrieval.
        n_neighbors: K, how many support images are retrieved; with fewer, all of them are.
        scored_by: an image's score is the maximum of its ``map``, or, as in the paper, the mean
            distance to the images of the ``retrieval``.
        blur: sigma of the Gaussian over the map, in pixels.
    """

    track: ClassVar[Track] = "training_free"
    PAPER: ClassVar[Mapping[str, Any]] = {"scored_by": "retrieval"}
    backbone: str = "tiny"
    weights_dir: str | None = None
    levels: tuple[int, ...] = (1, 2, 3)
    n_neighbors: int = 50
    scored_by: Literal["map", "retrieval"] = "map"
    blur: float = 4.0
    support_: list[Float[Tensor, "n _ _ _"]] | None = field(default=None, init=False, repr=False)
    gallery_: Float[Tensor, "n c"] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, n_neighbors=COUNT, blur=NOT_NEGATIVE)

    def fit(self, support: Support) -> "SPADE":
        """Remember the features of the support."""
        check_support(support, self.min_shots)
        self.support_ = self._features(support.images)
        self.gallery_ = torch.cat([_pool(maps[None]) for maps in self.support_[-1]])
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Distances to the nearest positions of the nearest support images."""
        if self.support_ is None or self.gallery_ is None:
            raise NotFittedError("SPADE has no support yet: call fit(support) first")
        if not len(images):
            return no_prediction(images)
        levels = self._features(images)
        size = images.shape[-2], images.shape[-1]
        maps, scores = [], []
        for index in range(len(images)):
            query = [level[index : index + 1] for level in levels]
            distance, rows = self._retrieve(query[-1], self.gallery_)
            matched = [
                shared_matcher(one, many[rows])[0]
                for one, many in zip(query, self.support_, strict=True)
            ]
            maps.append(gaussian_blur(fuse(matched, size), self.blur))
            scores.append(distance)
        anomaly_map = torch.cat(maps).cpu()
        by_map = self.scored_by == "map"
        return Prediction(
            image_score(anomaly_map) if by_map else torch.stack(scores).cpu(), anomaly_map
        )

    @property
    def weights_digest(self) -> str:
        """Digest of the backbone's weights."""
        return self._features.backbone.digest

    @property
    def _features(self) -> FeatureCache:
        folder = None if self.weights_dir is None else Path(self.weights_dir)
        return load_features(self.backbone, self.levels, weights_dir=folder, device=self.device)

    def _retrieve(
        self, query: Float[Tensor, "1 c h w"], gallery: Float[Tensor, "n c"]
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """Mean distance to the K nearest support images (eq. 1), and which these are, in order."""
        distance, rows = nearest(_pool(query), gallery, min(self.n_neighbors, len(gallery)))
        return distance.mean(), rows[0].sort().values


def _pool(maps: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c"]:
    return maps.mean(dim=(2, 3))
