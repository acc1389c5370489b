"""DRAEM: two networks learn from made-up anomalies, one to undo them, the other to find them.

DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection.
Zavrtanik, Kristan, Skocaj. ICCV 2021. https://arxiv.org/abs/2108.07610,
code: https://github.com/VitjanZ/DRAEM

Textures shine through random blobs on normal images. An autoencoder learns to rebuild the image as
it was before. A U-Net sees the image beside what was rebuilt of it and learns to mark the blobs;
what it marks on a real image is anomalous.

The labels are made up, so that few images go far; with one or two, the autoencoder rebuilds from
memory and real differences between normals are marked as well. Deviations: 64 px instead of 256,
narrow networks with groups normalised, and a few hundred steps; textures are drawn, or are pieces
of the support in disorder, where the paper downloads a dataset (``texture_dir`` takes any); one
logit for the paper's two classes, which is the same function; the Dice loss beside the focal one,
without which few steps mark next to nothing; a learning rate that does not fall; copies are moved
and turned a little, where the paper turns some by up to 90 degrees; gradients are clipped. The
score is the highest mean over a square, as in the paper, of side 21 at 256 px. ``PAPER`` holds the
paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Support
from fewshot_ad.parts.image_losses import dice_loss, dissimilarity, focal_loss
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.parameters import NOT_NEGATIVE, SHARE, check_parameters
from fewshot_ad.parts.synthesis import paint_textures
from fewshot_ad.parts.textures import TextureKind, load_textures
from fewshot_ad.parts.unet import UNet

__all__ = ["DRAEM"]

SQUARE = 21 / 256  # side over that of the image


@dataclass(kw_only=True, eq=False)
class DRAEM(ImageMethod):
    """Rebuilding and marking made-up anomalies; see the module for the paper.

    Attributes:
        textures: ``drawn``, pieces of the ``support``, or either: ``mixed``.
        texture_dir: folder with images that are used as textures instead.
        clean: share of the images that stay without anomaly.
        ssim_weight: of structural dissimilarity in rebuilding (lambda).
        focal_gamma: how little pixels count that are sure and right.
        dice_weight: of the Dice loss in marking; the paper has none.
    """

    textures: TextureKind = "mixed"
    texture_dir: str | None = None
    clean: float = 0.5
    ssim_weight: float = 1.0
    focal_gamma: float = 2.0
    dice_weight: float = 1.0
    width: int = 8
    steps: int = 400
    learning_rate: float = 3e-3
    blur: float = 0.0
    networks_: "_Networks | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "width": 64,
        "steps": 17_500,  # 700 epochs of 200 images
        "learning_rate": 1e-4,
        "dice_weight": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            clean=SHARE,
            ssim_weight=NOT_NEGATIVE,
            focal_gamma=NOT_NEGATIVE,
            dice_weight=NOT_NEGATIVE,
            **self.ALLOWED,
        )

    def fit(self, support: Support) -> "DRAEM":
        """Learn to undo and to mark made-up anomalies of the support.

        Raises:
            FewShotError: the texture folder cannot be used, or the loss is no longer finite; says
                at which step.
        """
        colours = self.seen(support)
        textures = load_textures(self.textures, colours, self.texture_dir)
        paint = partial(paint_textures, textures=textures, clean=self.clean)
        networks = _Networks(self.width, self.seed, colours.mean(dim=(0, 2, 3))).to(colours)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            painted, masks = paint(images, generator)
            rebuilt, logits = networks(painted)
            of_structure = dissimilarity(rebuilt, images).mean()
            rebuilding = (rebuilt - images).square().mean() + self.ssim_weight * of_structure
            marking = focal_loss(logits, masks, self.focal_gamma)
            return rebuilding + marking + self.dice_weight * dice_loss(logits, masks)

        self.train(networks, colours, loss, "fitting DRAEM")
        self.networks_ = networks
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Chance of every pixel to be anomalous, and the highest mean over a square."""
        assert self.networks_ is not None
        _, logits = self.networks_(self.colours(image))
        chances = logits.sigmoid()
        side = max(1, round(SQUARE * self.inner_size) // 2 * 2 + 1)
        means = functional.avg_pool2d(chances[:, None], side, 1, side // 2)
        return Judgement([chances], means.amax())


class _Networks(nn.Module):
    """What rebuilds, and what marks."""

    def __init__(self, width: int, seed: int, colour: Float[Tensor, " 3"]) -> None:
        super().__init__()
        self.rebuild = UNet(3, 3, width=width, skips=False, seed=2 * seed, start=colour)
        self.mark = UNet(6, 1, width=width, seed=2 * seed + 1)

    def forward(
        self, images: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b s s"]]:
        """The image rebuilt, and logits of its pixels."""
        rebuilt = self.rebuild(images)
        return rebuilt, self.mark(torch.cat([rebuilt, images], dim=1))[:, 0]
