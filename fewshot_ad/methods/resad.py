"""ResAD: residuals of one class look like residuals of another, so a model of them carries over.

ResAD: A Simple Framework for Class Generalizable Anomaly Detection. Yao, Chen, Gao, Zhai, Zhang.
NeurIPS 2024. https://arxiv.org/abs/2410.20047, code (of ResAD++): https://github.com/xcyao00/ResAD

Each query feature is reduced by its nearest support feature. A constraintor gathers the residuals
of normal features of all classes in one compact region and leaves anomalous ones where they are. A
conditional flow, taught on known classes, gives constrained residuals a likelihood, with a boundary
that anomalies are pushed away from.

Deviations. All levels are trained (the released code never trains the third). The constraintor is
solved for, not trained: see ``parts.least_squares``. The flow learns from constrained residuals
plus noise, since a likelihood is blind to linear maps: without a floor of noise the flow undoes
what the constraintor did, and calls the directions in which normals differ least the most
suspicious. Levels are put on one scale by known normal images, never by the test images. The score
is the root of what a likelihood lacks to the greatest of known normals, which grows like a
distance, where the paper's 1 - exp(log-likelihood) is flat far from the normals. It is mixed with
the plain residual distance, in a share that held-out known classes choose. Masks reach the feature
grid by maximum, so that no small defect is lost. No image is matched with itself. ``PAPER`` holds
the paper's settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.boundary import RunningBoundary, boundary_hinge, quantile_boundary
from fewshot_ad.parts.constraintors import ConstraintorKind, build_constraintor
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood
from fewshot_ad.parts.least_squares import LeastSquaresConstraintor
from fewshot_ad.parts.level_models import (
    LevelModel,
    LikelihoodPeak,
    ResidualScale,
    flow_inputs,
)
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.one_class import abnormal_invariant_loss
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
        constraintor: ``conv`` is the paper's; ``least_squares`` is a convolution at the minimum of
            the paper's loss with squared norms, which takes no training; ``identity`` trains from
            one that changes nothing; ``none``.
        noise: added to what the flow learns from, in units of known normals; 0 as in the paper.
        flow_blocks: coupling blocks of the flow; 0 scores by the length of constrained residuals.
        position_dims: width of the position code that conditions the flow, 0 for none.
        boundary_weight: weight of the boundary-guided loss (lambda in eq. 6).
        boundary_quantile: share of normals that lie below the boundary (beta of BGAD).
        margin: distance between the boundaries of normals and anomalies (tau).
        warm_up: share of the steps before the boundary-guided loss sets in.
        vectors_per_step: positions of each level that the flow sees in a step.
        learning_rate, weight_decay: of Adam.
    """

    recipe: ClassVar[int] = 2
    form: ResidualForm = "signed"
    levels: tuple[int, ...] = (2, 3)
    channels: int | None = 256
    constraintor: ConstraintorKind = "least_squares"
    noise: float = 2.0
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
        "levels": (1, 2, 3),
        "channels": None,
        "unit_length": False,
        "constraintor": "conv",
        "noise": 0.0,
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
            noise=NOT_NEGATIVE,
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

    def prepare(self, normals: Sequence[Tensor], known: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Measure the scale and, where the constraintor has a closed form, solve for it."""
        super().prepare(normals, known)
        if isinstance(self.constraintor, LeastSquaresConstraintor):
            self.constraintor.solve(known, self.method.seed)

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
        seen, places = flow_inputs(constrained.detach(), self.method.position_dims, rows)
        noise = torch.randn(seen.shape, generator=generator).to(seen.device)
        likelihood = log_likelihood(*self.flow(seen + self.method.noise * noise, places))  # eq. 3
        self.flow_adam.step(lambda: self._flow_loss(likelihood, is_anomalous[rows], step))

    def calibrate(self, normals: Sequence[Tensor]) -> None:
        """Take the greatest likelihood of known normals, free of noise, as wholly normal."""
        if self.flow is not None:
            self.peak.measure([self._likelihood(self.flow, maps) for maps in normals])

    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """How far every position is from the likeliest normal residual."""
        if self.flow is None:
            return torch.linalg.vector_norm(self.constraintor(self.scale(residuals)), dim=1)
        lacking = self.peak.lacking(self._likelihood(self.flow, residuals))
        return (2 * lacking.clamp(min=0)).sqrt()

    def _likelihood(
        self, flow: ConditionalFlow, residuals: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b h w"]:
        """Log-likelihood per channel of every position (eq. 3)."""
        constrained = self.constraintor(self.scale(residuals))
        likelihood = log_likelihood(*flow(*flow_inputs(constrained, self.method.position_dims)))
        return likelihood.view(len(residuals), *residuals.shape[-2:])

    def _flow_loss(
        self, likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"], step: int
    ) -> Float[Tensor, ""]:
        """Maximum likelihood of the normals and, after the warm-up, the boundary (eq. 4 to 6)."""
        method = self.method
        loss = masked_mean(-likelihood, ~is_anomalous)
        found = quantile_boundary(likelihood, is_anomalous, method.boundary_quantile)
        boundary = self.boundary.update(found)
        if step < method.warm_up * method.steps:
            return loss
        hinge = boundary_hinge(likelihood, is_anomalous, boundary, method.margin)
        return loss + method.boundary_weight * hinge
