"""BGAD: a flow learns normal features, and a few anomalies are pushed beyond its boundary.

Explicit Boundary Guided Semi-Push-Pull Contrastive Learning for Supervised Anomaly Detection. Yao,
Li, Zhang, Sun, Zhang. CVPR 2023. https://arxiv.org/abs/2207.01463,
code: https://github.com/xcyao00/BGAD

A conditional flow per level gives every position a likelihood. The boundary is a low quantile of
the likelihoods of normals, so that it hangs on them alone. Normals below it are pulled up and
anomalies less than a margin below it pushed down; all others are left in peace, so that the few
known anomalies do not bias the rest.

**Supervised**: it learns from labelled anomalies of the target class (``--anomalous-shots``), of
which those without a mask teach nothing. ``supervised=False`` leaves them aside, for the flow
without labels on the very same episodes; its track is target-tuned.

Deviations. The boundary is a running mean, since a quantile of 256 likelihoods is noise. Pushing
without anyone to push counts 0, where the released code gets NaN. The greatest likelihood is that
of the support; in the released code it is that of the test images, so that a score depends on its
neighbours. Features are centred and scaled on the support. Anomalies are not pasted onto normal
images; up to as many anomalous as normal positions are in every step. No background is masked out.
``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.boundary_flow import BoundaryFlow, BoundarySettings
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import mask_to_grid, unlikelihood_map
from fewshot_ad.parts.parameters import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Between,
    MultipleOf,
    check_parameters,
)
from fewshot_ad.parts.support import check_support, masked_anomalies
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["BGAD"]


@dataclass(kw_only=True, eq=False)
class BGAD(FeatureMethod):
    """Conditional flows with a boundary; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is an EfficientNet-B6.
        levels: feature maps that are used, a flow for each.
        supervised: learn from labelled anomalies; without, they are left aside.
        flow_blocks: coupling blocks of a flow.
        position_dims: width of the position code that conditions it, 0 for none.
        steps: of training.
        batch_size: normal images per step, and anomalous ones.
        vectors_per_step: positions of each level per step, of normals and of anomalies.
        learning_rate, weight_decay: of Adam.
        warm_up: share of the steps before the boundary sets in.
        boundary_weight: weight of the boundary loss.
        boundary_quantile: share of normals that lie below the boundary (beta).
        margin: between the boundary and that of anomalies (tau).
        normalizer: divides log-likelihoods per channel, so that the margin has a meaning (alpha_n).
    """

    supervised: bool = True
    flow_blocks: int = 8
    position_dims: int = 128
    steps: int = 100
    batch_size: int = 8
    vectors_per_step: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float = 0.1
    boundary_weight: float = 1.0
    boundary_quantile: float = 0.05
    margin: float = 0.1
    normalizer: float = 10.0
    blur: float = 0.0
    flows_: list[BoundaryFlow] | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "levels": (1, 2, 3),
        "steps": 20_000,  # 25 x 8 epochs of fibres of 256 vectors
        "batch_size": 32,
        "vectors_per_step": 256,
        "learning_rate": 2e-4,
        "warm_up": 0.04,  # the first of 25
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            flow_blocks=COUNT,
            position_dims=MultipleOf(4),
            warm_up=SHARE,
            boundary_weight=NOT_NEGATIVE,
            boundary_quantile=Between(0, 0.99),
            margin=NOT_NEGATIVE,
            normalizer=POSITIVE,
        )

    @property
    def track(self) -> Track:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Supervised, unless anomalies are left aside."""
        return "supervised" if self.supervised else "target_tuned"

    def fit(self, support: Support) -> "BGAD":
        """Train a flow per level.

        Raises:
            FewShotError: no labelled anomaly with a mask was given, or the loss is not finite.
        """
        check_support(support, self.min_shots)
        n_normal = len(support.images)
        images, masks = self._labelled(support)
        levels = self.features(images)
        cells = [mask_to_grid(masks, (m.shape[-2], m.shape[-1])).to(m.device) for m in levels]
        flows = [
            BoundaryFlow(maps[:n_normal], self._settings, self.seed * 16 + number)
            for number, maps in enumerate(levels)
        ]

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            anomalous = torch.randperm(len(images) - n_normal, generator=generator) + n_normal
            rows = torch.cat([rows, anomalous[: self.batch_size]])
            each = zip(flows, levels, cells, strict=True)
            losses = [flow.loss(maps[rows], cell[rows], generator) for flow, maps, cell in each]
            return torch.stack(losses).sum()

        train_on_support(
            nn.ModuleList(flows), loss, n_normal, budget_of(self, self.batch_size), "BGAD"
        )
        for flow, maps in zip(flows, levels, strict=True):
            flow.measure_peak(maps[:n_normal])
        self.flows_ = flows
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """What the likelihoods, relative to the greatest of the support, lack in sum."""
        assert self.flows_ is not None
        pairs = zip(self.flows_, self.features(image), strict=True)
        likelihoods = [-flow.lacking(maps) for flow, maps in pairs]
        size = image.shape[-2], image.shape[-1]
        return Judgement([unlikelihood_map(likelihoods, [0.0] * len(likelihoods), size)])

    @property
    def _settings(self) -> BoundarySettings:
        return BoundarySettings(
            flow_blocks=self.flow_blocks,
            position_dims=self.position_dims,
            vectors_per_step=self.vectors_per_step,
            warm_up_steps=round(self.warm_up * self.steps),
            boundary_weight=self.boundary_weight,
            boundary_quantile=self.boundary_quantile,
            margin=self.margin,
            normalizer=self.normalizer,
        )

    def _labelled(self, support: Support) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n h w"]]:
        """The support and, after it, the anomalies that have a mask; with all masks."""
        nothing = torch.zeros_like(support.images[:, 0], dtype=torch.bool)
        if not self.supervised:
            return support.images, nothing
        given = masked_anomalies(support, "BGAD", "--set supervised=false for the flow alone")
        return torch.cat([support.images, given.images]), torch.cat([nothing, given.masks])
