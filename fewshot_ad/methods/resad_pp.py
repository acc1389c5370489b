"""ResAD++: ResAD with squared residuals, a shell for normals, and a second Gaussian for anomalies.

ResAD++: Towards Class Agnostic Anomaly Detection via Residual Feature Learning. Yao, Gao, Chen,
Zhang, Zhang. IJCV 2026. https://arxiv.org/abs/2509.23741, code: https://github.com/xcyao00/ResAD

Residuals of cosine-matched features are squared, so that a constraintor that ends in a ReLU can
leave anomalies as they are. A log-barrier contracts normals from both sides onto a thin shell and
keeps anomalies beyond it. The flow learns two Gaussians, normal at 0 and abnormal at 1, with a
focal loss and a smooth boundary; at test time residuals are pulled towards a codebook of normal
ones.

Written from the released code; the paper's tables could not be checked. Deviations: all levels are
trained; the radius of the shell is a low quantile, not the minimum, of a batch; the running
boundary is corrected for its start at 0; unused codes are revived; the flow learns from constrained
residuals plus noise (see ``methods.resad``); the likelihood that counts as 1 is the maximum over
known normals, where the code takes the maximum over all test images.
The defaults are small and quick, chosen among near-ties on few known classes and not shown to beat
the plain distance; ``PAPER`` holds the released settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.boundary import abnormal_focal_loss, boundary_barrier, likelihood_loss
from fewshot_ad.parts.codebook import Codebook
from fewshot_ad.parts.flow_levels import FlowLevel, Latents
from fewshot_ad.parts.flows import abnormal_probability, log_likelihood
from fewshot_ad.parts.level_models import LevelModel
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.one_class import bidirectional_contraction, contraction_radius
from fewshot_ad.parts.parameters import COUNT, SHARE, check_parameters
from fewshot_ad.parts.residual_learning import ResidualLearner
from fewshot_ad.parts.residual_stage import ResidualForm
from fewshot_ad.parts.residuals import Metric, match_distribution
from fewshot_ad.parts.training import Adam

__all__ = ["ResADPlusPlus"]


@dataclass(kw_only=True, eq=False)
class ResADPlusPlus(ResidualLearner):
    """Log-barrier contraction, codebook and two-sided flow; see the module for the paper.

    Attributes (besides those of ``ResidualLearner``):
        codes: entries of the codebook.
        keep: share of a residual that stays when it is pulled towards the codebook; 1 for no pull.
    """

    recipe: ClassVar[int] = 2
    metric: Metric = "cosine"
    form: ResidualForm = "squared"
    flow_blocks: int = 10
    codes: int = 256
    keep: float = 1.0

    PAPER: ClassVar[Mapping[str, Any]] = {
        "levels": (1, 2, 3),
        "channels": None,
        "unit_length": False,
        "constraintor": "conv",
        "noise": 0.0,
        "position_dims": 256,
        "codes": 1536,
        "keep": 0.4,
        "learned_share": 1.0,
        "batch_size": 32,
        "steps": 17_000,  # 100 epochs of 5354 images
        "vectors_per_step": 8192,
        "learning_rate": 1e-5,
        "weight_decay": 5e-4,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parameters(self, codes=COUNT, keep=SHARE)

    def build_level(self, level: int, channels: int) -> LevelModel:
        """Codebook, constraintor and flow of one level."""
        return ResADPlusPlusLevel(self, level, channels)


class ResADPlusPlusLevel(FlowLevel):
    """Losses and score of one level, with a codebook before the constraintor."""

    method: ResADPlusPlus

    def __init__(self, method: ResADPlusPlus, level: int, channels: int) -> None:
        super().__init__(method, level, channels)
        self.codebook = Codebook(channels, method.codes, method.seed * 16 + level)
        self.codebook_adam = Adam(self.codebook, method.learning_rate, method.weight_decay)

    def learn(
        self,
        residuals: Float[Tensor, "b c h w"],
        cells: Bool[Tensor, "b h w"],
        step: int,
        generator: torch.Generator,
    ) -> None:
        """A step each of codebook, constraintor and flow; no gradient passes between them."""
        residuals, is_anomalous = self.scale(residuals), cells.flatten()
        before = to_vectors(residuals)
        rows = self.draw_rows(len(before), generator)
        if self.method.keep < 1:
            self._learn_codes(before[rows][~is_anomalous[rows]], generator)
        constrained = self.constraintor(residuals)
        vectors = to_vectors(constrained)
        radius = contraction_radius(vectors.detach(), is_anomalous)
        self.constraintor_adam.step(
            lambda: bidirectional_contraction(vectors, before, is_anomalous, radius)
        )
        latents = self.noisy_latents(constrained, rows, generator)
        self.flow_adam.step(lambda: self._flow_loss(latents, is_anomalous[rows], step))

    def constrain(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Residuals pulled towards normal ones, then constrained."""
        residuals = self.scale(residuals)
        if self.method.keep < 1:
            residuals = match_distribution(residuals, self.codebook(residuals), self.method.keep)
        return self.constraintor(residuals)

    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Mean of how unlikely a position is as normal and how likely as abnormal."""
        latents, logdet = self.latents(residuals)
        unlikely = 1 - (-self.peak.lacking(log_likelihood(latents, logdet))).exp()
        score = (unlikely + abnormal_probability(latents)) / 2
        return score.unflatten(0, (-1, *residuals.shape[-2:]))

    def _learn_codes(self, normals: Float[Tensor, "n c"], generator: torch.Generator) -> None:
        self.codebook_adam.step(lambda: self.codebook.loss(normals))
        self.codebook.revive(normals, generator)

    def _flow_loss(
        self, latents: Latents, is_anomalous: Bool[Tensor, " n"], step: int
    ) -> Float[Tensor, ""]:
        """Both likelihoods, focal loss and smooth boundary.

        During the warm-up, and without anomalies, the likelihood of normals alone.
        """
        normal = log_likelihood(*latents)
        boundary = self.follow_boundary(normal, is_anomalous)
        likely = likelihood_loss(normal[~is_anomalous], "softplus")
        if self.is_warming_up(step) or not is_anomalous.any():
            return likely
        abnormal = log_likelihood(*latents, centre=1.0)
        likely = likely + likelihood_loss(abnormal[is_anomalous], "softplus")
        focal = abnormal_focal_loss(abnormal_probability(latents[0]), is_anomalous)
        barrier = boundary_barrier(normal, is_anomalous, boundary, self.method.margin)
        return likely + focal + self.method.boundary_weight * barrier
