"""Plain residual distance: how far each position is from its nearest support position.

The stage of ResAD that learns nothing, as a yardstick of all that is learned on top of it.
ResAD: A Simple Framework for Class Generalizable Anomaly Detection. Yao, Chen, Gao, Zhai, Zhang.
NeurIPS 2024, section 3.2. https://arxiv.org/abs/2410.20047

Features of every level are matched with the support at their own resolution; the anomaly of a
position is the length of its residual, averaged over levels.

Not a method of the paper: features are brought to unit length first, so that all levels weigh
alike.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, Odd, check_parameters
from fewshot_ad.parts.residual_stage import ResidualStage
from fewshot_ad.parts.support import check_support

__all__ = ["ResidualDistance"]


@dataclass(kw_only=True, eq=False)
class ResidualDistance(FeatureMethod):
    """Length of the residual to the nearest support position.

    Attributes:
        neighbourhood, channels, unit_length: what happens to features before matching, see
            ``parts.embedding.Embedding``.
    """

    track: ClassVar[Track] = "training_free"
    neighbourhood: int = 1
    channels: int | None = None
    unit_length: bool = True
    support_: list[Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, neighbourhood=Odd(), channels=COUNT)

    def fit(self, support: Support) -> "ResidualDistance":
        """Remember the features of the support."""
        check_support(support, self.min_shots)
        self.support_ = self._stage.embed(support.images)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distance to the nearest support position, of every level."""
        assert self.support_ is not None
        stage = self._stage
        residuals = stage.subtract(stage.embed(image), self.support_)
        return Judgement([torch.linalg.vector_norm(maps, dim=1) for maps in residuals])

    @property
    def _stage(self) -> ResidualStage:
        embedding = Embedding(self.neighbourhood, self.channels, self.unit_length)
        return ResidualStage(self.features, embedding)
