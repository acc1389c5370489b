"""ResAD: residuals of one class look like residuals of another, so a model of them carries over.

ResAD: A Simple Framework for Class Generalizable Anomaly Detection. Yao, Chen, Gao, Zhai, Zhang.
NeurIPS 2024. https://arxiv.org/abs/2410.20047, code (of ResAD++): https://github.com/xcyao00/ResAD

Each query feature is reduced by its nearest support feature. A constraintor gathers the residuals
of normal features of all classes in one compact region and leaves anomalous ones where they are. A
conditional flow, taught on known classes, gives constrained residuals a likelihood, with a boundary
that anomalies are pushed away from.

Deviations. All levels are trained (the released code never trains the third). The constraintor is
solved for, not trained, and lets 160 channels through at most: see ``parts.least_squares``. The
flow learns from constrained residuals plus noise, since a likelihood is blind to linear maps:
without a floor of noise a flow that trains for long undoes what the constraintor did, and calls the
directions in which normals differ least the most suspicious (docs/resad.md). Levels are put on one
scale by known normal images, never by the test images. The score is the root of what a likelihood
lacks to the greatest of known normals, which grows like a distance, where the paper's
1 - exp(log-likelihood) is flat far from the normals. It is mixed with the plain residual distance,
in a share that held-out known classes choose. Masks reach the feature grid by maximum, so that no
small defect is lost. No image is matched with itself. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.boundary import boundary_hinge
from fewshot_ad.parts.constraintors import ConstraintorKind
from fewshot_ad.parts.flow_levels import FlowLevel
from fewshot_ad.parts.flows import log_likelihood
from fewshot_ad.parts.level_models import LevelModel
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.one_class import abnormal_invariant_loss
from fewshot_ad.parts.residual_learning import ResidualLearner
from fewshot_ad.parts.residual_stage import ResidualForm
from fewshot_ad.parts.violations import masked_mean

__all__ = ["ResAD"]


@dataclass(kw_only=True, eq=False)
class ResAD(ResidualLearner):
    """Feature constraintor and boundary-guided flow on residuals; see the module for the paper."""

    recipe: ClassVar[int] = 2
    form: ResidualForm = "signed"
    constraintor: ConstraintorKind = "least_squares"
    constrained_channels: int | None = 160
    noise: float = 2.0

    PAPER: ClassVar[Mapping[str, Any]] = {
        "levels": (1, 2, 3),
        "channels": None,
        "unit_length": False,
        "constraintor": "conv",
        "constrained_channels": None,
        "noise": 0.0,
        "position_dims": 256,
        "learned_share": 1.0,
        "batch_size": 32,
        "steps": 17_000,  # 100 epochs of 5354 images
        "vectors_per_step": 8192,
        "learning_rate": 1e-5,
        "weight_decay": 5e-4,
    }

    def build_level(self, level: int, channels: int) -> LevelModel:
        """Constraintor and flow of one level."""
        return ResADLevel(self, level, channels)


class ResADLevel(FlowLevel):
    """Losses and score of one level (section 3)."""

    def learn(
        self,
        residuals: Float[Tensor, "b c h w"],
        cells: Bool[Tensor, "b h w"],
        step: int,
        generator: torch.Generator,
    ) -> None:
        """A step of the constraintor, then one of the flow, without a gradient between (app. E)."""
        residuals = self.scale(residuals)
        constrained = self.constraintor(residuals)
        vectors, is_anomalous = to_vectors(constrained), cells.flatten()
        self.constraintor_adam.step(
            lambda: abnormal_invariant_loss(vectors, to_vectors(residuals), is_anomalous)  # eq. 2
        )
        rows = self.draw_rows(len(vectors), generator)
        likelihood = log_likelihood(*self.noisy_latents(constrained, rows, generator))  # eq. 3
        self.flow_adam.step(lambda: self._flow_loss(likelihood, is_anomalous[rows], step))

    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """How far every position is from the likeliest normal residual."""
        lacking = self.peak.lacking(log_likelihood(*self.latents(residuals)))
        distance = (2 * lacking.clamp(min=0)).sqrt()
        return distance.unflatten(0, (-1, *residuals.shape[-2:]))

    def _flow_loss(
        self, likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"], step: int
    ) -> Float[Tensor, ""]:
        """Maximum likelihood of the normals and, after the warm-up, the boundary (eq. 4 to 6)."""
        loss = masked_mean(-likelihood, ~is_anomalous)
        boundary = self.follow_boundary(likelihood, is_anomalous)
        if self.is_warming_up(step):
            return loss
        hinge = boundary_hinge(likelihood, is_anomalous, boundary, self.method.margin)
        return loss + self.method.boundary_weight * hinge
