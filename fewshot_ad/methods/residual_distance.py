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

from fewshot_ad.api import Method, NotFittedError, Prediction, Support, Track
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.maps import fuse, gaussian_blur, image_score, no_prediction
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, Odd, check_parameters
from fewshot_ad.parts.residual_stage import ResidualStage, load_stage
from fewshot_ad.parts.support import check_support

__all__ = ["ResidualDistance"]


@dataclass(kw_only=True, eq=False)
class ResidualDistance(Method):
    """Length of the residual to the nearest support position.

    Attributes:
        backbone: name, file or factory of a feature extractor.
        weights_dir: folder with weights of timm backbones.
        levels: feature maps that are used.
        neighbourhood, channels, unit_length: what happens to features before matching, see
            ``parts.embedding.Embedding``.
        blur: sigma of the Gaussian over the map, in pixels.
    """

    track: ClassVar[Track] = "training_free"
    backbone: str = "tiny"
    weights_dir: str | None = None
    levels: tuple[int, ...] = (2, 3)
    neighbourhood: int = 1
    channels: int | None = None
    unit_length: bool = True
    blur: float = 4.0
    support_: list[Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, neighbourhood=Odd(), channels=COUNT, blur=NOT_NEGATIVE)

    def fit(self, support: Support) -> "ResidualDistance":
        """Remember the features of the support."""
        check_support(support, self.min_shots)
        self.support_ = self._stage.embed(support.images)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Distance to the nearest support position, averaged over levels."""
        if self.support_ is None:
            raise NotFittedError("ResidualDistance has no support yet: call fit(support) first")
        if not len(images):
            return no_prediction(images)
        residuals = self._stage.subtract(self._stage.embed(images), self.support_)
        levels = [torch.linalg.vector_norm(maps, dim=1) for maps in residuals]
        size = images.shape[-2], images.shape[-1]
        anomaly_map = gaussian_blur(fuse(levels, size), self.blur).cpu()
        return Prediction(image_score(anomaly_map), anomaly_map)

    @property
    def weights_digest(self) -> str:
        """Digest of the backbone's weights."""
        return self._stage.features.backbone.digest

    @property
    def _stage(self) -> ResidualStage:
        return load_stage(
            self.backbone,
            self.levels,
            Embedding(self.neighbourhood, self.channels, self.unit_length),
            weights_dir=self.weights_dir,
            device=self.device,
        )
