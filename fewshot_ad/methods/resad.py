"""ResAD: residuals of one class look like residuals of another, so a model of them carries over.

ResAD: A Simple Framework for Class Generalizable Anomaly Detection. Yao, Chen, Gao, Zhai, Zhang.
NeurIPS 2024. https://arxiv.org/abs/2410.20047, code (of ResAD++): https://github.com/xcyao00/ResAD

Each query feature is reduced by its nearest support feature. A constraintor gathers the residuals
of normal features of all classes in one compact region and leaves anomalous ones where they are. A
conditional flow, taught on known classes, gives constrained residuals a likelihood, with a boundary
that anomalies are pushed away from.

Deviations. All levels are trained (the released code never trains the third). Levels are put on one
scale by known normal images, never by the test images. The score is the root of what a likelihood
lacks to the greatest of known normals, which grows like a distance, where the paper's 1 -
exp(log-likelihood) is flat far from the normals. It is mixed with the plain residual distance, in a
share that held-out known classes choose. Masks reach the feature grid by maximum, so that no small
defect is lost. No image is matched with itself. The defaults are small and quick, chosen among
near-ties on few known classes and not shown to beat the plain distance; ``PAPER`` holds the
paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.boundary import RunningBoundary, boundary_hinge, quantile_boundary
from fewshot_ad.parts.constraintors import ConstraintorKind, build_constraintor
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood
from fewshot_ad.parts.level_models import (
    LevelModel,
    LikelihoodPeak,
    ResidualScale,
    flow_inputs,
)
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.one_class import abnormal_invariant_loss, spread
from fewshot_ad.parts.parameters import (
    COUNT,
    NOT_NEGATIVE,
    SHARE,
    Between,
    MultipleOf,
    check_parameters,
)
from fewshot_ad.parts.residual_learning import ResidualLearner
from fewshot_ad.parts.residual_stage import ResidualForm
from fewshot_ad.parts.training import Adam
from fewshot_ad.parts.violations import masked_mean

__all__ = ["ResAD"]


@dataclass(kw_only=True, eq=False)
class ResAD(ResidualLearner):
    """Feature constraintor and boundary-guided flow on residuals; see the module for the paper.

    Attributes (besides those of ``ResidualLearner``):
        form: residuals of the paper are signed; ours are squared, without proof that it helps.
        constraintor: ``conv`` is the paper's, ``identity`` starts by changing nothing, ``none``.
        flow_blocks: coupling blocks of the flow; 0 scores by the spread of constrained residuals.
        position_dims: width of the position code that conditions the flow, 0 for none.
        boundary_weight: weight of the boundary-guided loss (lambda in eq. 6).
        boundary_quantile: share of normals that lie below the boundary (beta of BGAD).
        margin: distance between the boundaries of normals and anomalies (tau).
        warm_up: share of the steps before the boundary-guided loss sets in.
        vectors_per_step: positions of each level that the flow sees in a step.
        learning_rate, weight_decay: of Adam.
    """

    recipe: ClassVar[int] = 1
    form: ResidualForm = "squared"
    levels: tuple[int, ...] = (2, 3)
    channels: int | None = 256
    constraintor: ConstraintorKind = "identity"
    flow_blocks: int = 8
    position_dims: int = 0
    boundary_weight: float = 1.0
    boundary_quantile: float = 0.05
    margin: float = 0.1
    warm_up: float = 0.1
    vectors_per_step: int = 2048
    learning_rate: float = 3e-4
    weight_decay: float = 0.0

    PAPER: ClassVar[Mapping[str, Any]] = {
        "form": "signed",
        "levels": (1, 2, 3),
        "channels": None,
        "unit_length": False,
        "constraintor": "conv",
        "position_dims": 256,
        "learned_share": 1.0,
        "batch_size": 32,
        "steps": 17_000,  # 100 epochs of 5354 images
        "vectors_per_step": 8192,
        "learning_rate": 1e-5,
        "weight_decay": 5e-4,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_parameters(
            self,
            flow_blocks=NOT_NEGATIVE,
            position_dims=MultipleOf(4),
            boundary_quantile=Between(0, 0.99),
            warm_up=SHARE,
            vectors_per_step=COUNT,
        )

    def build_level(self, level: int, channels: int) -> LevelModel:
        """Constraintor and flow of one level."""
        return ResADLevel(self, level, channels)


class ResADLevel(LevelModel):
    """One level: residual -> constraintor -> flow -> likelihood (section 3)."""

    def __init__(self, method: ResAD, level: int, channels: int) -> None:
        super().__init__()
        seed = method.seed * 16 + level
        self.method = method
        self.scale = ResidualScale()
        self.constraintor = build_constraintor(method.constraintor, channels, seed)
        blocks, dims = method.flow_blocks, method.position_dims
        self.flow = ConditionalFlow(channels, blocks, dims, seed=seed) if blocks else None
        self.boundary = RunningBoundary()
        self.peak = LikelihoodPeak()
        rate, decay = method.learning_rate, method.weight_decay
        self.constraintor_adam = Adam(self.constraintor, rate, decay)
        self.flow_adam = Adam(self.flow, rate, decay)

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
        if self.flow is None:
            return
        rows = torch.randperm(len(vectors), generator=generator)[: self.method.vectors_per_step]
        likelihood = self._likelihood(self.flow, constrained.detach(), rows)
        self.flow_adam.step(lambda: self._flow_loss(likelihood, is_anomalous[rows], step))

    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """How far every position is from the likeliest normal residual."""
        constrained = self.constraintor(self.scale(residuals))
        shape = (len(residuals), *residuals.shape[-2:])
        if self.flow is None:
            return spread(to_vectors(constrained)).view(shape)
        lacking = self.peak.lacking(self._likelihood(self.flow, constrained))
        return (2 * lacking.clamp(min=0)).sqrt().view(shape)

    def _likelihood(
        self,
        flow: ConditionalFlow,
        constrained: Float[Tensor, "b c h w"],
        rows: Tensor | None = None,
    ) -> Float[Tensor, " n"]:
        """Log-likelihood per channel of all positions, or of some rows of them (eq. 3)."""
        vectors, places = flow_inputs(constrained, self.method.position_dims, rows)
        return log_likelihood(*flow(vectors, places))

    def _flow_loss(
        self, likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"], step: int
    ) -> Float[Tensor, ""]:
        """Maximum likelihood of the normals and, after the warm-up, the boundary (eq. 4 to 6)."""
        method = self.method
        loss = masked_mean(-likelihood, ~is_anomalous)
        self.peak.update(likelihood, is_anomalous)
        found = quantile_boundary(likelihood, is_anomalous, method.boundary_quantile)
        boundary = self.boundary.update(found)
        if step < method.warm_up * method.steps:
            return loss
        hinge = boundary_hinge(likelihood, is_anomalous, boundary, method.margin)
        return loss + method.boundary_weight * hinge
