"""CFLOW-AD: the likelihood of a normal feature, given where it is.

CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional Normalizing
Flows. Gudovskiy, Ishizaka, Kozuka. WACV 2022. https://arxiv.org/abs/2107.12571, code:
https://github.com/gudovskiy/cflow-ad

On every level, a normalizing flow learns to turn single features into a unit Gaussian, the place of
a feature being its condition. A feature is as anomalous as its likelihood is low. The maps of all
levels are brought to the size of the image and added.

Deviations: a budget in steps of 256 vectors for every level, the last of which is the result, where
the released code keeps the epoch with the highest AUROC on the test images. That code also measures
likelihoods from the highest of the test images; here they are measured from the highest of the
support. Summed are the distances that a Gaussian would have, which tell strong anomalies apart,
where exp(log-likelihood) is 0 for all of them. Channels are standardised over the support, and
noise is added to what is learned from: few images are not the density itself. Two levels of three,
and half as many blocks, learn at a higher rate that falls along a cosine; gradients are clipped and
the map is blurred. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood, position_vectors
from fewshot_ad.parts.level_models import LikelihoodPeak
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import to_vectors, unlikelihood_map
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, MultipleOf, check_parameters
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["CFLOW"]


@dataclass(kw_only=True, eq=False)
class CFLOW(FeatureMethod):
    """A conditional flow per level over single features; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: feature maps that are used.
        flow_blocks: coupling blocks per flow.
        position_dims: width of the position codes, a multiple of 4.
        noise: deviation of the noise in training, in deviations of a channel.
        score: ``distance`` or, as the paper has it, ``likelihood``.
        steps: of training, for every level.
        vectors_per_step: how many features a step sees.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    fusion: ClassVar[Literal["mean", "sum"]] = "sum"
    flow_blocks: int = 4
    position_dims: int = 128
    noise: float = 0.3
    score: Literal["distance", "likelihood"] = "distance"
    steps: int = 300
    vectors_per_step: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    flows_: "list[_PlacedFlow] | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "levels": (1, 2, 3),
        "flow_blocks": 8,
        "noise": 0.0,
        "score": "likelihood",
        "steps": 160_000,  # 200 epochs of 200 images with 1024 positions
        "learning_rate": 2e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self, flow_blocks=COUNT, position_dims=MultipleOf(4), noise=NOT_NEGATIVE)

    def fit(self, support: Support) -> "CFLOW":
        """Train a flow for every level.

        Raises:
            FewShotError: a loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        levels = zip(self.levels, self.features(support.images), strict=True)
        self.flows_ = [self._train(level, maps) for level, maps in levels]
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """What the likelihoods of every position lack, summed over levels."""
        assert self.flows_ is not None
        pairs = zip(self.flows_, self.features(image), strict=True)
        lacking = [flow.peak.lacking(flow.map(maps)) for flow, maps in pairs]
        if self.score == "likelihood":  # the paper's, from the peak of the support
            size = image.shape[-2], image.shape[-1]
            peaks = [0.0] * len(lacking)
            return Judgement([unlikelihood_map([-each for each in lacking], peaks, size)])
        return Judgement([(2 * each.clamp(min=0)).sqrt() for each in lacking])

    def _train(self, level: int, maps: Float[Tensor, "n c h w"]) -> "_PlacedFlow":
        flow = _PlacedFlow(maps, self.flow_blocks, self.position_dims, self.seed * 16 + level)
        budget = budget_of(self, self.vectors_per_step, clip_norm=1.0, warm_up=0.05, cosine=True)
        vectors = to_vectors(flow.scale(maps))

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            some = vectors[rows]
            noise = torch.randn(some.shape, generator=generator).to(some)
            likelihood = flow.log_likelihood(some + self.noise * noise, rows)
            return -functional.logsigmoid(likelihood).mean()

        train_on_support(flow, loss, len(vectors), budget, f"fitting level {level}")
        flow.peak.measure([flow.map(image[None]) for image in maps])
        return flow


class _PlacedFlow(nn.Module):
    """The flow of one level, with the scale of its features and the codes of their places."""

    places: Tensor | None

    def __init__(self, maps: Float[Tensor, "n c h w"], blocks: int, dims: int, seed: int) -> None:
        super().__init__()
        self.grid = maps.shape[2], maps.shape[3]
        self.scale = Standardiser(maps)
        self.flow = ConditionalFlow(maps.shape[1], blocks, dims, seed=seed)
        self.peak = LikelihoodPeak()
        self.register_buffer("places", position_vectors(dims, 1, *self.grid) if dims else None)
        self.to(maps.device)

    def log_likelihood(
        self, vectors: Float[Tensor, "n c"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Per channel, of positions counted over images, then rows, then columns."""
        condition = None if self.places is None else self.places[rows % len(self.places)]
        return log_likelihood(*self.flow(vectors, condition))

    @torch.no_grad()
    def map(self, maps: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 h w"]:
        """Log-likelihood per channel of every position of one image."""
        if maps.shape[2:] != self.grid:
            raise FewShotError(
                f"images give {list(maps.shape[2:])} positions, the support {list(self.grid)}: "
                "CFLOW needs images of the size of the support"
            )
        return log_likelihood(*self.flow.on_grid(self.scale(maps))).view(1, *self.grid)
