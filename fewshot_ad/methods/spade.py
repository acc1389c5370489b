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
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, check_parameters
from fewshot_ad.parts.residuals import shared_matcher
from fewshot_ad.parts.search import nearest
from fewshot_ad.parts.support import check_support

__all__ = ["SPADE"]


@dataclass(kw_only=True, eq=False)
class SPADE(FeatureMethod):
    """Retrieval of like images and correspondence with them; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: which feature maps are matched; the last is pooled for retrieval.
        n_neighbors: K, how many support images are retrieved; with fewer, all of them are.
        scored_by: an image's score is the maximum of its ``map``, or, as in the paper, the mean
            distance to the images of the ``retrieval``.
    """

    track: ClassVar[Track] = "training_free"
    PAPER: ClassVar[Mapping[str, Any]] = {"scored_by": "retrieval"}
    levels: tuple[int, ...] = (1, 2, 3)
    n_neighbors: int = 50
    scored_by: Literal["map", "retrieval"] = "map"
    support_: list[Float[Tensor, "n _ _ _"]] | None = field(default=None, init=False, repr=False)
    gallery_: Float[Tensor, "n c"] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, n_neighbors=COUNT)

    def fit(self, support: Support) -> "SPADE":
        """Remember the features of the support."""
        check_support(support, self.min_shots)
        self.support_ = self.features(support.images)
        self.gallery_ = torch.cat([_pool(maps[None]) for maps in self.support_[-1]])
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distances to the nearest positions of the nearest support images (eq. 2)."""
        assert self.support_ is not None
        assert self.gallery_ is not None
        query = self.features(image)
        distance, rows = self._retrieve(query[-1], self.gallery_)
        all_are_near = len(rows) == len(self.gallery_)
        maps = [
            shared_matcher(one, many if all_are_near else many[rows])[0]  # known as it stands
            for one, many in zip(query, self.support_, strict=True)
        ]
        return Judgement(maps, distance if self.scored_by == "retrieval" else None)

    def _retrieve(
        self, query: Float[Tensor, "1 c h w"], gallery: Float[Tensor, "n c"]
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """Mean distance to the K nearest support images (eq. 1), and which these are, in order."""
        distance, rows = nearest(_pool(query), gallery, min(self.n_neighbors, len(gallery)))
        return distance.mean(), rows[0].sort().values


def _pool(maps: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c"]:
    return maps.mean(dim=(2, 3))
