"""SubspaceAD: normal patches lie in a subspace; what sticks out of it is anomalous.

SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling. Lendering, Akdag,
Bondarev. CVPR 2026. https://arxiv.org/abs/2602.23013, code:
https://github.com/CLendering/SubspaceAD

Patches of the support images, turned by many angles, have a mean and principal components, of which
so many are kept as hold 99 % of the variance. A patch is as anomalous as its residual is long: what
of it the components cannot express. An image is as anomalous as its one per cent of most anomalous
patches.

Deviations: the paper takes the mean over seven middle and late blocks of DINOv2's giant
transformer; here any backbone is taken, its levels joined on the grid of the first, or averaged
where they are alike (``merge``), and levels of a transformer are quarters of its depth after the
final norm. Angles are spread evenly. Components are found from a drawn part of the patches where
there are very many. ``PAPER`` holds the paper's settings as near as that allows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import FewShotError, Preprocess, Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import image_score, to_vectors
from fewshot_ad.parts.parameters import COUNT, POSITIVE_SHARE, check_parameters
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.rotations import rotated_copies
from fewshot_ad.parts.subspace import Subspace, fit_subspace
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.training import step_generator

__all__ = ["SubspaceAD"]

MOST_PATCHES = 200_000  # more hold no news of the directions, only memory


@dataclass(kw_only=True, eq=False)
class SubspaceAD(FeatureMethod):
    """Length of what normal components cannot express; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is DINOv2's giant.
        levels: feature maps, as in the paper; of a transformer, quarters of its depth.
        merge: ``join`` levels on the grid of the first, or take their ``mean``, as the paper does.
        rotations: at how many angles every support image is shown; 1 shows it as it is.
        explained: share of the variance that the components hold.
        top_share: share of most anomalous patches whose mean is the image score.
    """

    track: ClassVar[Track] = "training_free"
    PAPER: ClassVar[Mapping[str, Any]] = {
        "backbone": "vit_giant_patch14_reg4_dinov2.lvd142m",
        "merge": "mean",
        "preprocess": Preprocess(size=672),
    }
    merge: Literal["join", "mean"] = "join"
    rotations: int = 30
    explained: float = 0.99
    top_share: float = 0.01
    subspace_: Subspace | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, rotations=COUNT, explained=POSITIVE_SHARE, top_share=POSITIVE_SHARE)

    def fit(self, support: Support) -> "SubspaceAD":
        """Find the mean and the components of the patches of the turned support."""
        check_support(support, self.min_shots)
        copies = rotated_copies(support.images, self.rotations)
        rows = [
            self._drawn(self._vectors(copy[None]), number, MOST_PATCHES // len(copies))
            for number, copy in enumerate(copies)
        ]
        self.subspace_ = fit_subspace(torch.cat(rows), self.explained)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Length of every patch's residual."""
        assert self.subspace_ is not None
        patches = self._patches(image)
        residual = self.subspace_.residual(to_vectors(patches))
        lengths = torch.linalg.vector_norm(residual, dim=1).view(1, *patches.shape[2:])
        top = max(1, int(self.top_share * lengths.numel()))
        return Judgement([lengths], image_score(lengths, top)[0])

    def _patches(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 d h2 w2"]:
        levels = self.features(image)
        if self.merge == "join":
            return join_levels(levels)
        shapes = [tuple(level.shape[1:]) for level in levels]
        if len({*shapes}) > 1:
            raise FewShotError(
                f"merge is mean and the levels of {self.backbone} are of shapes {shapes}: give "
                "one level, a transformer, or --set merge=join"
            )
        return torch.stack(levels).mean(dim=0)

    def _vectors(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "n d"]:
        return to_vectors(self._patches(image))

    def _drawn(self, vectors: Float[Tensor, "n d"], number: int, most: int) -> Float[Tensor, "m d"]:
        """At most so many rows, in order; which ones hangs on the seed and the image's number."""
        if len(vectors) <= most:
            return vectors
        order = torch.randperm(len(vectors), generator=step_generator(self.seed, number))
        return vectors[order[: max(1, most)].sort().values.to(vectors.device)]
