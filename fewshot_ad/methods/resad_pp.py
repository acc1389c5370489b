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
boundary is corrected for its start at 0; unused codes are revived; the likelihood that counts as 1
is the running maximum over known normals, where the code takes the maximum over all test images.
The defaults are small and quick, chosen among near-ties on few known classes and not shown to beat
the plain distance; ``PAPER`` holds the released settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.boundary import (
    RunningBoundary,
    abnormal_focal_loss,
    boundary_barrier,
    likelihood_loss,
    quantile_boundary,
)
from fewshot_ad.parts.codebook import Codebook
from fewshot_ad.parts.constraintors import ConstraintorKind, build_constraintor
from fewshot_ad.parts.flows import ConditionalFlow, abnormal_probability, log_likelihood
from fewshot_ad.parts.level_models import (
    LevelModel,
    LikelihoodPeak,
    ResidualScale,
    flow_inputs,
)
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.one_class import bidirectional_contraction, contraction_radius
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
from fewshot_ad.parts.residuals import Metric, match_distribution
from fewshot_ad.parts.training import Adam

__all__ = ["ResADPlusPlus"]


@dataclass(kw_only=True, eq=False)
class ResADPlusPlus(ResidualLearner):
    """Log-barrier contraction, codebook and two-sided flow; see the module for the paper.

    Attributes (besides those of ``ResidualLearner``):
        constraintor: ``conv`` is the released one, ``identity`` starts by changing nothing.
        noise: added to what the flow learns from, in units of known normals; 0 as released.
        flow_blocks: coupling blocks of the flow.
        position_dims: width of the position code that conditions the flow, 0 for none.
        boundary_weight: weight of the boundary loss.
        boundary_quantile: share of normals that lie below the boundary.
        margin: distance between the boundaries of normals and anomalies.
        warm_up: share of the steps that see only the likelihood.
        codes: entries of the codebook.
        keep: share of a residual that stays when it is pulled towards the codebook; 1 for no pull.
        vectors_per_step: positions of each level that flow and codebook see in a step.
        learning_rate, weight_decay: of Adam.
    """

    recipe: ClassVar[int] = 2
    levels: tuple[int, ...] = (2, 3)
    channels: int | None = 256
    metric: Metric = "cosine"
    form: ResidualForm = "squared"
    constraintor: ConstraintorKind = "identity"
    noise: float = 1.0
    flow_blocks: int = 10
    position_dims: int = 0
    boundary_weight: float = 1.0
    boundary_quantile: float = 0.05
    margin: float = 0.1
    warm_up: float = 0.1
    codes: int = 256
    keep: float = 1.0
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
        check_parameters(
            self,
            noise=NOT_NEGATIVE,
            flow_blocks=COUNT,
            codes=COUNT,
            keep=SHARE,
            position_dims=MultipleOf(4),
            boundary_quantile=Between(0, 0.99),
            warm_up=SHARE,
            vectors_per_step=COUNT,
        )

    def build_level(self, level: int, channels: int) -> LevelModel:
        """Codebook, constraintor and flow of one level."""
        return ResADPlusPlusLevel(self, level, channels)


class ResADPlusPlusLevel(LevelModel):
    """One level: squared residual -> codebook -> constraintor -> flow -> two likelihoods."""

    def __init__(self, method: ResADPlusPlus, level: int, channels: int) -> None:
        super().__init__()
        seed = method.seed * 16 + level
        self.method = method
        self.scale = ResidualScale()
        self.codebook = Codebook(channels, method.codes, seed)
        self.constraintor = build_constraintor(method.constraintor, channels, seed)
        self.flow = ConditionalFlow(channels, method.flow_blocks, method.position_dims, seed=seed)
        self.boundary = RunningBoundary()
        self.peak = LikelihoodPeak()
        rate, decay = method.learning_rate, method.weight_decay
        self.codebook_adam = Adam(self.codebook, rate, decay)
        self.constraintor_adam = Adam(self.constraintor, rate, decay)
        self.flow_adam = Adam(self.flow, rate, decay)

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
        rows = torch.randperm(len(before), generator=generator)[: self.method.vectors_per_step]
        if self.method.keep < 1:
            self._learn_codes(before[rows][~is_anomalous[rows]], generator)
        constrained = self.constraintor(residuals)
        vectors = to_vectors(constrained)
        radius = contraction_radius(vectors.detach(), is_anomalous)
        self.constraintor_adam.step(
            lambda: bidirectional_contraction(vectors, before, is_anomalous, radius)
        )
        seen, places = flow_inputs(constrained.detach(), self.method.position_dims, rows)
        noise = torch.randn(seen.shape, generator=generator).to(seen.device)
        latents, logdet = self.flow(seen + self.method.noise * noise, places)
        self.flow_adam.step(lambda: self._flow_loss(latents, logdet, is_anomalous[rows], step))

    def calibrate(self, normals: Sequence[Tensor]) -> None:
        """Take the greatest likelihood of known normals, free of noise, as likelihood 1."""
        self.peak.measure([log_likelihood(*self._latents(maps)) for maps in normals])

    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Mean of how unlikely a position is as normal and how likely as abnormal."""
        latents, logdet = self._latents(residuals)
        unlikely = 1 - (-self.peak.lacking(log_likelihood(latents, logdet))).exp()
        score = (unlikely + abnormal_probability(latents)) / 2
        return score.view(len(residuals), *residuals.shape[-2:])

    def _learn_codes(self, normals: Float[Tensor, "n c"], generator: torch.Generator) -> None:
        self.codebook_adam.step(lambda: self.codebook.loss(normals))
        self.codebook.revive(normals, generator)

    def _latents(
        self, residuals: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, " n"]]:
        """Latent vectors and log-determinants of all positions."""
        residuals = self.scale(residuals)
        if self.method.keep < 1:
            residuals = match_distribution(residuals, self.codebook(residuals), self.method.keep)
        return self.flow(*flow_inputs(self.constraintor(residuals), self.method.position_dims))

    def _flow_loss(
        self,
        latents: Float[Tensor, "n c"],
        logdet: Float[Tensor, " n"],
        is_anomalous: Bool[Tensor, " n"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Both likelihoods, focal loss and smooth boundary.

        During the warm-up, and without anomalies, the likelihood of normals alone.
        """
        normal = log_likelihood(latents, logdet)
        found = quantile_boundary(normal, is_anomalous, self.method.boundary_quantile)
        boundary = self.boundary.update(found)
        likely = likelihood_loss(normal[~is_anomalous], "softplus")
        if step < self.method.warm_up * self.method.steps or not is_anomalous.any():
            return likely
        abnormal = log_likelihood(latents, logdet, centre=1.0)
        likely = likely + likelihood_loss(abnormal[is_anomalous], "softplus")
        focal = abnormal_focal_loss(abnormal_probability(latents), is_anomalous)
        barrier = boundary_barrier(normal, is_anomalous, boundary, self.method.margin)
        return likely + focal + self.method.boundary_weight * barrier
