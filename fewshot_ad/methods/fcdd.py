"""FCDD: a small map of how far from normal each position is, blown up as far as it has seen.

Explainable Deep One-Class Classification. Liznerski, Ruff, Vandermeulen, Franks, Kloft, Mueller.
ICLR 2021. https://arxiv.org/abs/2007.01760, code: https://github.com/liznerski/fcdd

A few convolutions over frozen features say one number per position. Their loss pulls it to 0 on
normal images and away from 0 on anomalous ones, which are made up. Every position is blown up to
pixels with a Gaussian as wide as the receptive field; nothing else makes the map.

Deviations: anomalies are boxes of the image itself, pasted elsewhere; the paper scatters boxes of
any colour (``confetti``), beside which real defects are faint. A set of images is painted once. The
learning rate does not fall. Masks are known and used, as the paper uses those of real anomalies,
but a region counts by its mean, however small; ``teach="image"`` goes by images alone. Features are
standardised; the level takes the place of the layers that the paper freezes. Gaussians add up to 1
at every pixel, so that borders are not dimmer. The image score is the mean of the highest hundredth
of the map, not of all of it. At one or two shots, what other normal images have besides has never
been called normal and stands out more. ``PAPER`` holds the paper's settings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.colours import from_unit, to_unit
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import image_score
from fewshot_ad.parts.parameters import COUNT, POSITIVE, POSITIVE_SHARE, check_parameters
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.synthesis import Synthetic, confetti, cut_paste
from fewshot_ad.parts.training import step_generator

__all__ = ["FCDD"]

LEAKING = 0.1
LEAST = 1e-9  # keeps the logarithm of nothing finite
PAINTING = -2  # no step of training has this randomness


@dataclass(kw_only=True, eq=False)
class FCDD(FeatureMethod):
    """One-class map of frozen features; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is VGG11.
        levels: which feature maps are joined, the first gives the grid.
        anomalies: ``cut_paste``, boxes of the image itself, or ``confetti``, boxes of one colour.
        teach: what is anomalous of a painted image: each ``pixel`` under paint, or the ``image``.
        painted_views: how many images are painted.
        hidden: channels between the two convolutions.
        sigma: of the Gaussian that makes pixels of positions, in pixels.
        top_share: share of the pixels, the highest, whose mean is the image score.
        steps: of training.
        batch_size: normal images per step at most, and painted ones.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (2,)
    anomalies: Literal["cut_paste", "confetti"] = "cut_paste"
    teach: Literal["pixel", "image"] = "pixel"
    painted_views: int = 64
    hidden: int = 64
    sigma: float = 10.0
    top_share: float = 0.01
    steps: int = 150
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    blur: float = 0.0
    scale_: Standardiser | None = field(default=None, init=False, repr=False)
    head_: nn.Sequential | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "anomalies": "confetti",
        "teach": "image",
        "painted_views": 200,
        "top_share": 1.0,
        "steps": 2600,  # 200 epochs of 200 images
        "batch_size": 16,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            painted_views=COUNT,
            hidden=COUNT,
            sigma=POSITIVE,
            top_share=POSITIVE_SHARE,
        )

    def fit(self, support: Support) -> "FCDD":
        """Learn to tell the support from painted copies of it.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        painted = self._paint(support.images)
        normal = join_levels(self.features(support.images))
        scale = Standardiser(normal)
        anomalous = [join_levels(self.features.backbone(image[None])) for image in painted.images]
        head = build_head(normal.shape[1], self.hidden, self.seed).to(normal)
        self._train(head, scale(normal), scale(torch.cat(anomalous)), painted)
        self.scale_, self.head_ = scale, head
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distance of every position from normal, blown up, and its highest hundredth."""
        assert self.scale_ is not None
        assert self.head_ is not None
        maps = self.scale_(join_levels(self.features(image)))
        size = image.shape[-2], image.shape[-1]
        pixels = blow_up(distances(self.head_(maps)), size, self.sigma)
        return Judgement([pixels], image_score(pixels, math.ceil(self.top_share * pixels.numel())))

    def _paint(self, images: Float[Tensor, "n 3 h w"]) -> Synthetic:
        """Copies of the support with made-up anomalies, of every image nearly as many."""
        generator = step_generator(self.seed, PAINTING)
        copies = images[torch.arange(self.painted_views) % len(images)]
        paint = {"confetti": confetti, "cut_paste": cut_paste}[self.anomalies]
        painted, masks = paint(to_unit(copies, self.preprocess), generator)
        return Synthetic(from_unit(painted, self.preprocess), masks)

    def _train(
        self,
        head: nn.Sequential,
        normal: Float[Tensor, "n c h w"],
        anomalous: Float[Tensor, "m c h w"],
        painted: Synthetic,
    ) -> None:
        budget = budget_of(self, self.batch_size, clip_norm=1.0)
        masks = painted.masks if self.teach == "pixel" else torch.ones_like(painted.masks)
        masks = masks.to(normal.device)
        size = masks.shape[-2], masks.shape[-1]

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            some = torch.randperm(len(anomalous), generator=generator)[: self.batch_size]
            maps = torch.cat([normal[rows], anomalous[some]])
            pixels = blow_up(distances(head(maps)), size, self.sigma)
            clean = masks.new_zeros(len(rows), *size)
            return one_class_loss(pixels, torch.cat([clean, masks[some]]))

        train_on_support(head, loss, len(normal), budget, "fitting FCDD")


def build_head(channels: int, hidden: int, seed: int) -> nn.Sequential:
    """Two convolutions to one number per position, without biases.

    Args:
        channels: of the features.
        hidden: channels in between.
        seed: of the first weights.
    """
    with seeded_weights(seed):
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.LeakyReLU(LEAKING),
            nn.Conv2d(hidden, 1, 1, bias=False),
        )


def distances(numbers: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h w"]:
    """The square near 0, the distance far from it: sqrt(x^2 + 1) - 1 (eq. 2), kept exact near 0."""
    squared = numbers[:, 0].square()
    return squared / ((squared + 1).sqrt() + 1)


def one_class_loss(
    pixels: Float[Tensor, "b h w"], masks: Bool[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Little where nothing is anomalous, much in anomalous regions (eq. 2 and 3), image by image.

    Args:
        pixels: distances from normal.
        masks: what is anomalous.
    """
    total = pixels.new_zeros(())
    for values, mask in zip(pixels, masks, strict=True):
        total = total + torch.where(mask, 0.0, values).mean()
        if mask.any():
            total = total - (LEAST - torch.expm1(-values[mask].mean())).log()
    return total / len(pixels)


def blow_up(
    maps: Float[Tensor, "b h w"], size: tuple[int, int], sigma: float
) -> Float[Tensor, "b H W"]:
    """Pixels as means of positions, weighted by Gaussians around their centres.

    Args:
        maps: values of positions.
        size: height and width in pixels.
        sigma: of the Gaussians, in pixels.
    """
    rows, columns = (_weights(s, n, sigma) for s, n in zip(size, maps.shape[1:], strict=True))
    return rows.to(maps) @ maps @ columns.to(maps).mT


def _weights(pixels: int, positions: int, sigma: float) -> Float[Tensor, "p n"]:
    centres = (torch.arange(positions) + 0.5) * pixels / positions - 0.5
    apart = (torch.arange(pixels)[:, None] - centres) / sigma
    return (-apart.square() / 2).softmax(dim=1)
