"""EfficientAD: a student and an autoencoder beside a teacher, for parts and for the whole.

EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies. Batzner, Heckler,
Koenig. WACV 2024. https://arxiv.org/abs/2303.14535

A student of few convolutions imitates a teacher on normal images, learns from its worst values
alone, and is to say nothing of images of other things. An autoencoder imitates the teacher through
a short code, and the student imitates the autoencoder too. Where student and teacher differ a part
is abnormal, where student and autoencoder differ the arrangement of normal parts.

Deviations. The teacher is the backbone itself, standardised over the support; the paper's is a
small network distilled from a large one on ImageNet, which is a download and days of training.
So this is no faster than its backbone. In place of ImageNet, drawn textures and disordered pieces
of the support are what the student says nothing of (``texture_dir`` takes any). Networks are
narrower, halve the image by strides, and meet the teacher on its grid. For a short budget the
student learns from the worst tenth of all values, not the worst thousandth; colours are changed
once per view; gradients are clipped; the learning rate does not fall. Maps are scaled by quantiles
over every tenth support image, which is not learned from; with fewer than 8 images over new copies
of all of them, which look too normal, so that the balance of the two maps degrades. A short budget
leaves the autoencoder ignorant: its map alone told nothing on a drawn class, so that by default it
has a tenth of the sum and not a half, chosen after that look. The map is blurred. ``PAPER`` holds
the paper's settings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.calibration import altered_copies
from fewshot_ad.parts.colours import from_unit, to_unit
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, POSITIVE_SHARE, SHARE, check_parameters
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.student_pairs import Pair, hardest, jittered
from fewshot_ad.parts.students import support_views
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.textures import TextureKind, load_textures
from fewshot_ad.parts.training import step_generator

__all__ = ["EfficientAD"]

LEAST_TO_HOLD_OUT, HELD_OUT = 8, 10
COPIES = 8
PREPARATION = -3  # no step of training has this generator


@dataclass(kw_only=True, eq=False)
class EfficientAD(FeatureMethod):
    """Student, autoencoder and teacher; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor: the teacher.
        levels: feature maps that are taught, joined on the grid of the first.
        width: channels of the student's first layer, doubled after it.
        code: numbers that the autoencoder squeezes an image into.
        hard_share: share of the values, the worst ones, that the student learns from.
        whole_share: of the autoencoder's map in the sum of the two.
        support_views: the support and altered copies of it, so many at least.
        textures: what other things are: ``drawn``, pieces of the ``support``, or either: ``mixed``.
        texture_dir: folder with images of other things instead; the paper's is ImageNet.
        texture_views: how many of them.
        steps, batch_size: of training; a batch is of views.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (2,)
    width: int = 32
    code: int = 64
    hard_share: float = 0.1
    whole_share: float = 0.1
    support_views: int = 32
    textures: TextureKind = "mixed"
    texture_dir: str | None = None
    texture_views: int = 32
    steps: int = 200
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    pair_: Pair | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 128,
        "hard_share": 0.001,
        "whole_share": 0.5,
        "support_views": 1,
        "texture_views": 1000,
        "steps": 70_000,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            code=COUNT,
            hard_share=POSITIVE_SHARE,
            whole_share=SHARE,
            texture_views=COUNT,
        )

    def fit(self, support: Support) -> "EfficientAD":
        """Train student and autoencoder, and learn the scales of their maps.

        Raises:
            FewShotError: the texture folder cannot be used, or the loss is no longer finite; says
                at which step.
        """
        check_support(support, self.min_shots)
        generator = step_generator(self.seed, PREPARATION)
        learned, kept = self._split(support.images, generator)
        views = support_views(learned, self.support_views, self.seed)
        colours = to_unit(views, self.preprocess)
        source = load_textures(self.textures, colours, self.texture_dir)
        textures = source(self.texture_views, generator)
        others = from_unit(textures, self.preprocess).to(self.features.backbone.device)
        changed = from_unit(jittered(colours, generator), self.preprocess)
        pair = Pair(self._joined(views), self.width, self.code, self.seed)
        self._train(pair, views, changed, others)
        pair.measure(*self._differences(pair, kept))
        self.pair_ = pair
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Sum of the two maps, each scaled to what normal images have of it."""
        assert self.pair_ is not None
        return Judgement(
            [self.pair_.scaled(*self._differences(self.pair_, image), self.whole_share)]
        )

    def _joined(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        return join_levels(self.features(images))

    def _train(self, pair: Pair, views: Tensor, changed: Tensor, others: Tensor) -> None:
        taught, arranged = (pair.scale(self._joined(images)) for images in (views, changed))
        views, changed = views.to(taught), changed.to(taught)
        grid = taught.shape[-2], taught.shape[-1]

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            """L_ST with its penalty, L_AE and L_STAE (sections 3.2 and 3.3)."""
            strange = others[torch.randint(len(others), rows.shape, generator=generator)]
            parts, _ = pair.student(views[rows], grid)
            silent, _ = pair.student(strange, grid)
            _, wholes = pair.student(changed[rows], grid)
            rebuilt = pair.autoencoder(changed[rows], grid)
            return (
                hardest((parts - taught[rows]).square(), self.hard_share)
                + silent.square().mean()
                + (rebuilt - arranged[rows]).square().mean()
                + (wholes - rebuilt).square().mean()
            )

        train_on_support(
            pair, loss, len(views), budget_of(self, self.batch_size, clip_norm=1.0), "EfficientAD"
        )

    def _differences(self, pair: Pair, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        taught = pair.scale(self._joined(images))
        return pair(images.to(taught), taught)

    def _split(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is learned from, and what the scales are measured on."""
        if len(images) >= LEAST_TO_HOLD_OUT:
            is_kept = torch.arange(len(images)) % HELD_OUT == HELD_OUT // 2
            return images[~is_kept], images[is_kept]
        return images, altered_copies(images, math.ceil(COPIES / len(images)), generator)
