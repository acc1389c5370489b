"""A flow over the features of one class, and a boundary in its likelihood (BGAD)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_ad.parts.boundary import (
    RunningBoundary,
    asymmetric_weights,
    boundary_hinge,
    quantile_boundary,
)
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood
from fewshot_ad.parts.level_models import TINY, LikelihoodPeak, flow_inputs
from fewshot_ad.parts.violations import masked_mean


@dataclass(frozen=True, kw_only=True)
class BoundarySettings:
    """How a flow is built and what it is taught; BGAD explains the fields."""

    flow_blocks: int
    position_dims: int
    vectors_per_step: int
    warm_up_steps: int
    boundary_weight: float
    boundary_quantile: float
    margin: float
    normalizer: float


class BoundaryFlow(nn.Module):
    """Learns the likelihood of normal positions, and to keep known anomalies below a boundary.

    Features are centred per channel and divided by one number, both of the normals. Dividing each
    channel by its own deviation was worse on drawn images.

    Args:
        normals: all features that are normal, for centre and scale.
        settings: of flow and losses.
        seed: of the first weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, normals: Float[Tensor, "n c h w"], settings: BoundarySettings, seed: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.boundary = RunningBoundary()
        self.steps_taken = 0
        self.peak = LikelihoodPeak()
        mean = normals.mean(dim=(0, 2, 3), keepdim=True)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", (normals - mean).square().mean().sqrt().clamp(min=TINY))
        self.flow = ConditionalFlow(
            normals.shape[1], settings.flow_blocks, settings.position_dims, seed=seed
        )
        self.to(normals.device)

    def log_likelihood(
        self, maps: Float[Tensor, "b c h w"], rows: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Per channel, of all positions or of some, counted as by ``parts.maps.to_vectors``."""
        scaled = (maps - self.mean) / self.scale
        if rows is None:
            return log_likelihood(*self.flow.on_grid(scaled))
        return log_likelihood(*self.flow(*flow_inputs(scaled, self.settings.position_dims, rows)))

    def loss(
        self,
        maps: Float[Tensor, "b c h w"],
        cells: Bool[Tensor, "b h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Of one step: the likelihood of normals and, after the warm-up, the boundary.

        Args:
            maps: features of normal and of anomalous images.
            cells: which positions are anomalous.
            generator: draws positions, as many normal as anomalous ones where there are enough.
        """
        settings = self.settings
        self.steps_taken += 1
        is_warm = self.steps_taken > settings.warm_up_steps
        kinds = [~cells.flatten(), cells.flatten()] if is_warm else [~cells.flatten()]
        rows = torch.cat([_some(kind, settings.vectors_per_step, generator) for kind in kinds])
        is_anomalous = cells.flatten()[rows]
        likelihood = self.log_likelihood(maps, rows) / settings.normalizer
        boundary = self.boundary.update(
            quantile_boundary(likelihood, is_anomalous, settings.boundary_quantile)
        )
        if not is_warm:
            return -likelihood.mean()
        weights = asymmetric_weights(likelihood, is_anomalous)
        loss = masked_mean(-weights * likelihood, ~is_anomalous)
        hinge = boundary_hinge(likelihood, is_anomalous, boundary, settings.margin)
        return loss + settings.boundary_weight * hinge

    @torch.no_grad()
    def measure_peak(self, normals: Float[Tensor, "n c h w"]) -> None:
        """Take the greatest log-likelihood of normals as that of what is wholly normal."""
        self.peak.measure([self.log_likelihood(image[None]) for image in normals])

    @torch.no_grad()
    def lacking(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """What the log-likelihood of every position lacks to the greatest of normals."""
        return self.peak.lacking(self.log_likelihood(maps)).view_as(maps[:, 0])


def _some(kind: Bool[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " k"]:
    rows = kind.nonzero()[:, 0]
    order = torch.randperm(len(rows), generator=generator)[:count]
    return rows[order.to(rows.device)]
