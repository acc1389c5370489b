"""DFR: what cannot be rebuilt of a normal feature from few numbers.

DFR: Deep Feature Reconstruction for Unsupervised Anomaly Segmentation. Yang, Shi, Qi. 2020.
https://arxiv.org/abs/2012.07122, code: https://github.com/YoungGod/DFR

Features of all levels are joined to one vector per position. An autoencoder squeezes it through as
many numbers as principal components hold nine tenths of its variance, and rebuilds it. A position
is as anomalous as the mean squared error.

By default nothing is trained: principal components are the best linear autoencoder, they are found
at once, and few images do not support more. ``autoencoder`` is the paper's form. Deviations:
channels are standardised over the support, or strong ones drown the others; levels meet on the grid
of the first; a budget in steps of positions, not of images; the map is blurred. ``PAPER`` holds the
paper's settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.parameters import POSITIVE_SHARE, Between, check_parameters
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.subspace import fit_subspace
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["DFR"]

LEAST_BATCH = 4  # what a batch norm sees is never a lonely vector

Residual = Callable[[Float[Tensor, "n c"]], Float[Tensor, "n c"]]
"""What of standardised vectors is not rebuilt."""


@dataclass(kw_only=True, eq=False)
class DFR(FeatureMethod):
    """Error of rebuilding features; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is vgg19.
        levels: which feature maps are joined, the first gives the grid.
        solver: ``pca``, or ``autoencoder`` as in the paper.
        explained: share of the variance held by the principal components, whose number is the
            width of the bottleneck.
        steps: of training the autoencoder.
        vectors_per_step: how many positions a step sees.
        learning_rate: of Adam.
    """

    levels: tuple[int, ...] = (1, 2, 3)
    solver: Literal["pca", "autoencoder"] = "pca"
    explained: float = 0.9
    steps: int = 300
    vectors_per_step: int = 1024
    learning_rate: float = 1e-3
    scales_: list[Standardiser] | None = field(default=None, init=False, repr=False)
    residual_: Residual | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "solver": "autoencoder",
        "steps": 35_000,  # 700 epochs of 200 images
        "vectors_per_step": 16_384,  # 4 images of 64x64 positions
        "learning_rate": 1e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self, explained=POSITIVE_SHARE, vectors_per_step=Between(LEAST_BATCH))

    @property
    def track(self) -> Track:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tuned on the target where an autoencoder is trained."""
        return "training_free" if self.solver == "pca" else "target_tuned"

    def fit(self, support: Support) -> "DFR":
        """Learn to rebuild the features of the support.

        Raises:
            FewShotError: the loss is no longer finite, or an autoencoder is asked for and the
                support has one position.
        """
        check_support(support, self.min_shots)
        levels = self.features(support.images)
        scales = [Standardiser(maps) for maps in levels]
        vectors = to_vectors(_join(levels, scales))
        subspace = fit_subspace(vectors, self.explained)
        pca = self.solver == "pca"
        residual = subspace.residual if pca else self._train(vectors, subspace.dims)
        self.scales_, self.residual_ = scales, residual
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Mean squared error of rebuilding every position."""
        assert self.scales_ is not None
        assert self.residual_ is not None
        return Judgement([self._error(image, self.scales_, self.residual_)])

    def _train(self, vectors: Float[Tensor, "n c"], width: int) -> Residual:
        if len(vectors) < 2:
            raise FewShotError(
                "the support has one position in all, and a batch norm needs two: take solver=pca, "
                "larger images or more of them"
            )
        autoencoder = build_autoencoder(vectors.shape[1], width, self.seed).to(vectors)
        budget = budget_of(self, self.vectors_per_step)

        def loss(rows: Int[Tensor, " k"], _: torch.Generator) -> Float[Tensor, ""]:
            some = vectors[rows]
            return functional.mse_loss(autoencoder(some), some)

        train_on_support(autoencoder, loss, len(vectors), budget, "fitting the autoencoder")
        return lambda given: given - autoencoder(given)

    def _error(
        self, image: Float[Tensor, "1 3 h w"], scales: list[Standardiser], residual: Residual
    ) -> Float[Tensor, "1 h2 w2"]:
        maps = _join(self.features(image), scales)
        squared = residual(to_vectors(maps)).square().mean(dim=1)
        return squared.view(1, *maps.shape[-2:])


def _join(
    levels: list[Float[Tensor, "b _ _ _"]], scales: list[Standardiser]
) -> Float[Tensor, "b c h w"]:
    """Standardised levels on the grid of the first."""
    return join_levels([scale(maps) for scale, maps in zip(scales, levels, strict=True)])


def build_autoencoder(channels: int, width: int, seed: int) -> nn.Sequential:
    """The paper's, over vectors, which is what its 1x1 convolutions see.

    Args:
        channels: of what is rebuilt.
        width: of the bottleneck.
        seed: of the first weights.
    """
    wide, middle = (channels + 2 * width) // 2, 2 * width
    with seeded_weights(seed):
        return nn.Sequential(
            *_hidden(channels, wide),
            *_hidden(wide, middle),
            nn.Linear(middle, width),
            *_hidden(width, middle),
            *_hidden(middle, wide),
            nn.Linear(wide, channels),
        )


def _hidden(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()
