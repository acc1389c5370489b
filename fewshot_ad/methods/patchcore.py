"""PatchCore: the distance to the nearest normal patch.

Towards Total Recall in Industrial Anomaly Detection. Roth, Pemula, Zepeda, Schoelkopf, Brox,
Gehler. CVPR 2022. https://arxiv.org/abs/2106.08265

Features of two levels, averaged over 3x3 neighbourhoods, are one vector per patch. The vectors of
all support images are the memory bank, thinned to a coreset when it is large. A patch is as
anomalous as its nearest bank vector is far, an image as its most anomalous patch.

Deviations: averaged and concatenated features in place of adaptive pooling to 1024 channels, as
most implementations do; the image score is the maximum of the blurred map and is not re-weighted
(nor in the released code) unless ``n_neighbors`` asks for it; the coreset is skipped below 20,000
patches, where it only loses information. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.memory_bank import greedy_coreset
from fewshot_ad.parts.parameters import COUNT, POSITIVE_SHARE, Odd, check_parameters
from fewshot_ad.parts.patches import extract_patches
from fewshot_ad.parts.residuals import shared_matcher
from fewshot_ad.parts.search import Engine, nearest
from fewshot_ad.parts.support import check_support

__all__ = ["PatchCore"]


@dataclass(kw_only=True, eq=False)
class PatchCore(FeatureMethod):
    """Nearest patch of a memory bank; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: which feature maps are joined, the first gives the grid.
        neighbourhood: side of the square over which features are averaged.
        unit_length: match by angle; the paper matches by Euclidean distance.
        coreset_ratio: share of the bank that is kept.
        coreset_above: banks with fewer patches are kept whole.
        n_neighbors: bank patches around the matched one by which the image score is re-weighted
            (eq. 7; the paper's is 9); 1 is no re-weighting.
        engine: how the bank is searched, see ``parts.search``; all but ``product`` build an index.
    """

    track: ClassVar[Track] = "training_free"
    recipe: ClassVar[int] = 2
    PAPER: ClassVar[Mapping[str, Any]] = {"coreset_above": 1, "n_neighbors": 9}
    neighbourhood: int = 3
    unit_length: bool = False
    coreset_ratio: float = 0.1
    coreset_above: int = 20_000
    n_neighbors: int = 1
    engine: Engine = "product"
    maps_: list[Float[Tensor, "1 d h w"]] | None = field(default=None, init=False, repr=False)
    coreset_: Float[Tensor, "n d"] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            neighbourhood=Odd(),
            coreset_ratio=POSITIVE_SHARE,
            coreset_above=COUNT,
            n_neighbors=COUNT,
        )

    def fit(self, support: Support) -> "PatchCore":
        """Collect the patches of the support; thin them if there are many.

        Raises:
            FewShotError: the bank has fewer patches than ``n_neighbors``.
        """
        check_support(support, self.min_shots)
        maps = [self._patches(image[None]) for image in support.images]
        size = sum(one[0, 0].numel() for one in maps)
        is_large = size > self.coreset_above
        size = max(1, round(self.coreset_ratio * size)) if is_large else size
        if size < self.n_neighbors:
            raise FewShotError(
                f"n_neighbors is {self.n_neighbors} and the bank holds {size} patches: give "
                "fewer neighbours, or more support images"
            )
        self.coreset_ = greedy_coreset(_rows(maps), size, self.seed) if is_large else None
        self.maps_ = None if is_large else maps
        vars(self).pop("bank_", None)  # of an earlier support
        return self

    @cached_property
    def bank_(self) -> Float[Tensor, "n d"]:
        """All patches that are searched; put together only when somebody wants them so."""
        if self.coreset_ is not None:
            return self.coreset_
        self.check_fitted()
        assert self.maps_ is not None
        return _rows(self.maps_)

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distance to the nearest patch of the bank."""
        patches = self._patches(image)
        distance, row = self._search(patches)
        if self.n_neighbors == 1:
            return Judgement([distance])
        score = self._reweighted(patches[0], distance[0], row[0])
        return Judgement([distance], score)

    def _patches(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d h2 w2"]:
        patches = extract_patches(self.features, images, self.neighbourhood)
        return functional.normalize(patches, dim=1) if self.unit_length else patches

    def _search(
        self, patches: Float[Tensor, "1 d h w"]
    ) -> tuple[Float[Tensor, "1 h w"], Int[Tensor, "1 h w"]]:
        """Distance to the nearest bank patch of every position, and which it is."""
        if self.maps_ is not None and self.engine == "product":
            return shared_matcher(patches, self.maps_)  # the next episode shares images
        distance, row = nearest(to_vectors(patches), self.bank_, engine=self.engine)
        grid = 1, *patches.shape[2:]
        return distance.view(grid), row.view(grid)

    def _reweighted(
        self,
        patches: Float[Tensor, "d h w"],
        distance: Float[Tensor, "h w"],
        row: Int[Tensor, "h w"],
    ) -> Float[Tensor, ""]:
        """The greatest distance, less where its match is itself far from other patches (eq. 7)."""
        place = distance.argmax()
        patch, match = patches.flatten(1)[:, place], self.bank_[row.flatten()[place]]
        _, neighbors = nearest(match[None], self.bank_, self.n_neighbors, self.engine)
        gaps = torch.linalg.vector_norm(self.bank_[neighbors[0]] - patch, dim=1)
        greatest = distance.flatten()[place]
        weight = 1 - (greatest - gaps.logsumexp(dim=0)).exp()
        return weight.clamp(min=0) * greatest  # an approximate match may not be the nearest


def _rows(maps: list[Float[Tensor, "1 d h w"]]) -> Float[Tensor, "n d"]:
    """The patches of all images, one below the other."""
    return to_vectors(torch.cat(maps))
