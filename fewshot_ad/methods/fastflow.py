"""FastFlow: the likelihood of a normal feature map, with convolutions inside the flow.

FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows. Yu, Zheng, Wang,
Li, Wu, Zhao, Wu. 2021. https://arxiv.org/abs/2111.07677

On every level, a flow turns whole feature maps into maps of unit Gaussians; its convolutions let a
position be judged by its surroundings. A position is as anomalous as its likelihood is low, the
mean over levels is the map.

There is no official code. Deviations: half as many and much narrower couplings, with noise added to
what they learn from and clipped gradients: at the paper's size they hold millions of weights, which
a few images make certain of anything. Channels are standardised over the support, where others add
a LayerNorm that ties the weights to one size of images. The score keeps the determinant of every
position, which others drop, and is the distance that a Gaussian of that likelihood would have,
measured from the likeliest position of the support. The map is blurred. ``PAPER`` holds the
paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.conv_flows import ConvFlow, log_likelihood_map
from fewshot_ad.parts.level_models import LikelihoodPeak
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, POSITIVE, check_parameters
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["FastFlow"]


@dataclass(kw_only=True, eq=False)
class FastFlow(FeatureMethod):
    """A convolutional flow per level; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's are resnet18,
            wide_resnet50_2 and two vision transformers.
        levels: feature maps that are used.
        flow_blocks: coupling steps per flow.
        alternate: 3x3 and 1x1 convolutions in turn, as the paper has it for wide_resnet50_2; 3x3
            alone else.
        hidden_ratio: width of a coupling's network over that of what it reads.
        noise: deviation of the noise in training, in deviations of a channel.
        score: ``distance`` or, as the paper has it, ``likelihood``.
        steps: of training, all levels at once.
        batch_size: images per step at most.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    flow_blocks: int = 4
    alternate: bool = True
    hidden_ratio: float = 0.25
    noise: float = 0.3
    score: Literal["distance", "likelihood"] = "distance"
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    flows_: "list[_LevelFlow] | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "flow_blocks": 8,
        "hidden_ratio": 1.0,
        "noise": 0.0,
        "score": "likelihood",
        "steps": 3500,  # 500 epochs of 7 batches
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self, flow_blocks=COUNT, hidden_ratio=POSITIVE, noise=NOT_NEGATIVE)

    def fit(self, support: Support) -> "FastFlow":
        """Train the flows of all levels.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        levels = self.features(support.images)
        flows = [self._build(*pair) for pair in zip(self.levels, levels, strict=True)]
        self._train(flows, levels)
        for flow, maps in zip(flows, levels, strict=True):
            flow.peak.measure([log_likelihood_map(*flow(image[None])) for image in maps])
        self.flows_ = flows
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """What the likelihood of every position lacks, the mean over levels."""
        assert self.flows_ is not None
        pairs = zip(self.flows_, self.features(image), strict=True)
        return Judgement([flow.anomaly(maps, self.score) for flow, maps in pairs])

    def _build(self, level: int, maps: Float[Tensor, "n c h w"]) -> "_LevelFlow":
        kernels = (3, 1) if self.alternate else (3,)
        seed = self.seed * 16 + level
        flow = ConvFlow(maps.shape[1], self.flow_blocks, kernels, self.hidden_ratio, seed=seed)
        return _LevelFlow(maps, flow)

    def _train(self, flows: "list[_LevelFlow]", levels: list[Tensor]) -> None:
        budget = budget_of(self, self.batch_size, clip_norm=1.0)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            """Negative log-likelihood per channel, the sum over levels."""
            likelihoods = []
            for flow, maps in zip(flows, levels, strict=True):
                some = maps[rows]
                noise = self.noise * torch.randn(some.shape, generator=generator)
                likelihoods.append(log_likelihood_map(*flow(some, noise.to(some))).mean())
            return -torch.stack(likelihoods).sum()

        train_on_support(nn.ModuleList(flows), loss, len(levels[0]), budget, "fitting the flows")


class _LevelFlow(nn.Module):
    """The flow of one level, with the scale of its features and the peak of its likelihood."""

    def __init__(self, maps: Float[Tensor, "n c h w"], flow: ConvFlow) -> None:
        super().__init__()
        self.scale = Standardiser(maps)
        self.flow = flow
        self.peak = LikelihoodPeak()
        self.to(maps.device)

    def forward(
        self, maps: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"] | float = 0.0
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b h w"]]:
        """Latents, and the log-determinant of every position."""
        return self.flow(self.scale(maps) + noise)

    def anomaly(
        self, maps: Float[Tensor, "1 c h w"], score: Literal["distance", "likelihood"]
    ) -> Float[Tensor, "1 h w"]:
        """Of every position of one image."""
        latents, logdet = self(maps)
        if score == "likelihood":  # up to constants, and as others, without the determinant
            return -(-0.5 * latents.square().mean(dim=1)).exp()
        lacking = self.peak.lacking(log_likelihood_map(latents, logdet))
        return (2 * lacking.clamp(min=0)).sqrt()
