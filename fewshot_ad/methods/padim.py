"""PaDiM: a Gaussian of normal features at every position.

PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization. Defard,
Setkov, Loesch, Audigier. ICPR Workshops 2021. https://arxiv.org/abs/2011.08785

Features of three levels are joined on the grid of the first, and a random part of their channels is
kept. Every position of the grid has a mean and a covariance over the support. A position is as
anomalous as it is far from them by Mahalanobis, an image as its most anomalous position.

Deviations: N images say little of a covariance, and one image nothing, where the paper's estimate
divides by zero. So every covariance is drawn towards the mean of all positions, as far as Ledoit
and Wolf reckon, and the neighbours of a position count as samples of it. The 0.01 that the paper
adds to variances is in units of the mean variance, so that it means the same on every backbone.
Coarser levels are resized bilinearly, where most implementations repeat them.
``PAPER`` holds the paper's settings. Objects must lie alike in all images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.flows import draw_rotation
from fewshot_ad.parts.gaussian import Gaussians, fit_gaussians
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, SHARE, Between, Odd, check_parameters
from fewshot_ad.parts.patches import extract_patches
from fewshot_ad.parts.support import check_support

__all__ = ["PaDiM"]


@dataclass(kw_only=True, eq=False)
class PaDiM(FeatureMethod):
    """Mahalanobis distance at every position; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's are resnet18 and
            wide_resnet50_2.
        levels: which feature maps are joined, the first gives the grid.
        channels: how many are kept, None for all; the paper keeps 100 of resnet18, 550 of
            wide_resnet50_2.
        reduction: ``random`` keeps some channels, ``orthogonal`` mixes all of them at random.
        neighbourhood: side of the square whose positions are samples of the one in its middle.
        shrinkage: share of the mean covariance in every covariance; None estimates it.
        ridge: added to every variance, in units of the mean variance of the channels.
    """

    track: ClassVar[Track] = "training_free"
    levels: tuple[int, ...] = (1, 2, 3)
    channels: int | None = 100
    reduction: Literal["random", "orthogonal"] = "random"
    neighbourhood: int = 3
    shrinkage: float | None = None
    ridge: float = 0.01
    gaussians_: Gaussians | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {"neighbourhood": 1, "shrinkage": 0.0}

    def __post_init__(self) -> None:
        check_parameters(
            self,
            channels=COUNT,
            neighbourhood=Odd(),
            shrinkage=SHARE,
            ridge=Between(1e-9),
        )

    def fit(self, support: Support) -> "PaDiM":
        """Estimate the Gaussians."""
        check_support(support, self.min_shots)
        maps = torch.cat([self._patches(image[None]) for image in support.images])
        self.gaussians_ = fit_gaussians(maps, self.neighbourhood, self.shrinkage, self.ridge)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Mahalanobis distance of every position (eq. 2).

        Raises:
            FewShotError: the image has another size than the support.
        """
        assert self.gaussians_ is not None
        maps = self._patches(image)[0]
        if maps.shape[1:] != self.gaussians_.grid:
            raise FewShotError(
                f"images of {list(image.shape[-2:])} have {list(maps.shape[1:])} positions, the "
                f"support had {list(self.gaussians_.grid)}: PaDiM needs images of the size of the "
                "support"
            )
        return Judgement([self.gaussians_.mahalanobis(maps).float()[None]])

    def _patches(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c h2 w2"]:
        """Some channels of the joined levels, or of a rotation of them, the same for one seed."""
        joined = extract_patches(self.features, image)
        width = joined.shape[1]
        if self.channels is None or self.channels >= width:
            return joined
        generator = torch.Generator().manual_seed(self.seed)
        if self.reduction == "random":
            kept = torch.randperm(width, generator=generator)[: self.channels]
            return joined[:, kept.sort().values]
        rows = draw_rotation(width, generator)[: self.channels].to(joined)
        return torch.einsum("dc,bchw->bdhw", rows, joined)
