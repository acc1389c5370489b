"""SimpleNet: what a discriminator does not take for normal, having learned from noise alone.

SimpleNet: A Simple Network for Image Anomaly Detection and Localization. Liu, Zhou, Xu, Wang. CVPR
2023. https://arxiv.org/abs/2303.15140, code: https://github.com/DonaldRR/SimpleNet

A linear layer adapts frozen features to the target class. Gaussian noise makes anomalous features
of normal ones, and a small network learns to tell the two apart. A position is as anomalous as it
looks made-up.

Deviations: features are standardised over the support and the noise is counted in their deviations,
where the paper's 0.015 suits one backbone; the adapter starts as the identity and learns as fast as
the discriminator; a budget in steps of positions, all images together, and the last step counts,
where the released code keeps the best epoch on the test images; the image score is the maximum of
the blurred map. One or two images are soon known by heart, so that the budget is short; nothing
else degrades. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.parameters import COUNT, POSITIVE, Odd, check_parameters
from fewshot_ad.parts.patch_discriminator import PatchDiscriminator
from fewshot_ad.parts.patches import extract_patches
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["SimpleNet"]


@dataclass(kw_only=True, eq=False)
class SimpleNet(FeatureMethod):
    """Discriminator of noise; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: which feature maps are joined, the first gives the grid.
        neighbourhood: side of the square over which features are averaged.
        hidden: width of the discriminator.
        noise: deviation of the noise, in deviations of a channel over the support.
        margin: a logit beyond it, on the right side, is right enough.
        steps: of training.
        vectors_per_step: how many positions a step sees.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    recipe: ClassVar[int] = 2
    neighbourhood: int = 3
    hidden: int = 256
    noise: float = 0.25
    margin: float = 0.5
    steps: int = 200
    vectors_per_step: int = 1024
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    scale_: Standardiser | None = field(default=None, init=False, repr=False)
    network_: PatchDiscriminator | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "hidden": 1024,
        "steps": 4000,  # 40 x 4 epochs of 25 batches
        "vectors_per_step": 10_368,  # 8 images of 36x36 positions
    }

    def __post_init__(self) -> None:
        check_parameters(self, neighbourhood=Odd(), hidden=COUNT, noise=POSITIVE, margin=POSITIVE)

    def fit(self, support: Support) -> "SimpleNet":
        """Learn to tell the patches of the support from noisy ones.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        maps = self._patches(support.images)
        scale = Standardiser(maps)
        vectors = to_vectors(scale(maps))
        network = PatchDiscriminator(vectors.shape[1], self.hidden, self.seed).to(vectors)
        self._train(network, vectors)
        self.scale_, self.network_ = scale, network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """How little every position looks normal."""
        assert self.scale_ is not None
        assert self.network_ is not None
        maps = self.scale_(self._patches(image))
        anomaly = -self.network_(to_vectors(maps))
        return Judgement([anomaly.view(1, *maps.shape[-2:])])

    def _patches(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        return extract_patches(self.features, images, self.neighbourhood)

    def _train(self, network: PatchDiscriminator, vectors: Float[Tensor, "n c"]) -> None:
        budget = budget_of(self, self.vectors_per_step)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            normal = network.adapter(vectors[rows])
            noise = self.noise * torch.randn(normal.shape, generator=generator)
            logits = network.judge(torch.cat([normal, normal + noise.to(normal)]))
            return hinge_loss(logits[: len(rows)], logits[len(rows) :], self.margin)

        train_on_support(network, loss, len(vectors), budget, "fitting the discriminator")


def hinge_loss(
    normal: Float[Tensor, " n"], noisy: Float[Tensor, " n"], margin: float
) -> Float[Tensor, ""]:
    """What logits of normal patches lack to the margin, and noisy ones to minus it (eq. 6)."""
    return (margin - normal).relu().mean() + (margin + noisy).relu().mean()
