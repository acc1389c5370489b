"""One level of ResAD and of ResAD++: scale, constraintor, flow, and a boundary in its likelihood.

What the two papers do with these pieces, their losses and scores, is in ``methods``.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_ad.parts.boundary import RunningBoundary, quantile_boundary
from fewshot_ad.parts.constraintors import build_constraintor
from fewshot_ad.parts.data_parallel import in_shares
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood
from fewshot_ad.parts.least_squares import LeastSquaresConstraintor
from fewshot_ad.parts.level_models import (
    LevelModel,
    LikelihoodPeak,
    ResidualScale,
    flow_inputs,
)
from fewshot_ad.parts.residual_learning import ResidualLearner
from fewshot_ad.parts.training import Adam

Latents = tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]
"""Latent vectors and log-determinants."""


class FlowLevel(LevelModel):
    """Residual -> scale -> constraintor -> flow -> likelihood, built as a method's fields say."""

    def __init__(self, method: ResidualLearner, level: int, channels: int) -> None:
        super().__init__()
        seed = method.seed * 16 + level
        self.method = method
        self.scale = ResidualScale()
        kind, width = method.constraintor, method.constrained_channels
        self.constraintor = build_constraintor(kind, channels, seed, width)
        if isinstance(self.constraintor, LeastSquaresConstraintor):
            channels = len(self.constraintor.kernel)
        self.flow = ConditionalFlow(channels, method.flow_blocks, method.position_dims, seed=seed)
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

    def calibrate(self, normals: Sequence[Tensor]) -> None:
        """Take the greatest likelihood of known normals, free of noise, as wholly normal."""
        self.peak.measure([log_likelihood(*self.latents(maps)) for maps in normals])

    def constrain(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """What the flow sees of residuals that are to be scored."""
        return self.constraintor(self.scale(residuals))

    def latents(self, residuals: Float[Tensor, "b c h w"]) -> Latents:
        """Latents of all positions, counted as by ``parts.maps.to_vectors``."""
        return self.flow.on_grid(self.constrain(residuals))

    def draw_rows(self, count: int, generator: torch.Generator) -> Int[Tensor, " k"]:
        """The positions that the flow sees in a step."""
        return torch.randperm(count, generator=generator)[: self.method.vectors_per_step]

    def noisy_latents(
        self, constrained: Float[Tensor, "b d h w"], rows: Tensor, generator: torch.Generator
    ) -> Latents:
        """Latents of some positions, noise added: likelihood is blind to linear maps without it."""
        vectors, places = flow_inputs(constrained.detach(), self.method.position_dims, rows)
        noise = torch.randn(vectors.shape, generator=generator).to(vectors.device)
        return in_shares(self.flow, vectors + self.method.noise * noise, places)

    def follow_boundary(
        self, likelihood: Float[Tensor, " n"], is_anomalous: Bool[Tensor, " n"]
    ) -> float:
        """The running boundary after one more batch."""
        quantile = self.method.boundary_quantile
        return self.boundary.update(quantile_boundary(likelihood, is_anomalous, quantile))

    def is_warming_up(self, step: int) -> bool:
        """Whether only the likelihood is learned as yet."""
        return step < self.method.warm_up * self.method.steps
