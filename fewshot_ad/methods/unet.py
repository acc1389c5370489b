"""U-Net: segmentation learned from a few labelled anomalies, or from made-up ones.

U-Net: Convolutional Networks for Biomedical Image Segmentation. Ronneberger, Fischer, Brox. MICCAI
2015. https://arxiv.org/abs/1505.04597

The plain supervised baseline: a network is shown masked anomalies of the target class among its
normal images, and marks what looks like them. It finds defects of the kinds it was shown, and
promises nothing for others. ``labels=synthetic`` shows it made-up anomalies instead, which takes no
label at all and is DRAEM without the rebuilding, so that it stands in DRAEM's track; ``both`` shows
it either.

**Supervised**: it learns from labelled anomalies of the target class (``--anomalous-shots``), of
which those without a mask teach nothing. Encoder and decoder are those of
segmentation_models_pytorch, which has the usual ones ready and tested; its weights are not
downloaded, so that all is learned from the support. With one or two anomalies it knows these by
heart. Deviations from the paper: 64 px; a shallow ResNet as the encoder; groups are normalised, not
batches, which a few steps do not settle; cross-entropy in its focal form, and the Dice loss, since
anomalies are small; copies are moved and turned a little, where the paper bends them; gradients are
clipped. The image score is the mean of the highest hundredth of the pixels. No paper has this
baseline as it stands here: ``PAPER`` is what is usual for networks of its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.image_losses import dice_loss, focal_loss
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.maps import image_score
from fewshot_ad.parts.moving import moved
from fewshot_ad.parts.parameters import NOT_NEGATIVE, POSITIVE_SHARE, Between, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.support import masked_anomalies
from fewshot_ad.parts.synthesis import Synthesis, Synthetic, paint_textures
from fewshot_ad.parts.textures import TextureKind, load_textures
from fewshot_ad.parts.unet import group_normalised

__all__ = ["UNetSegmenter"]


@dataclass(kw_only=True, eq=False)
class UNetSegmenter(ImageMethod):
    """Segmentation from masks; see the module for the paper.

    Attributes:
        labels: what is learned from: ``given`` anomalies, ``synthetic`` ones, or ``both``.
        encoder: a name of segmentation_models_pytorch.
        depth: stages of the encoder.
        dice_weight: of the Dice loss beside the cross-entropy.
        top: share of the highest pixels whose mean is the image score.
        textures: of synthetic anomalies: ``drawn``, pieces of the ``support``, or ``mixed``.
        texture_dir: folder with images that are used as textures instead.
        width: channels of the decoder's last layer; every stage before has twice as many.
        batch_size: normal images per step, and anomalous ones of either kind.
    """

    labels: Literal["given", "synthetic", "both"] = "given"
    encoder: str = "resnet18"
    depth: int = 3
    dice_weight: float = 1.0
    top: float = 0.01
    textures: TextureKind = "mixed"
    texture_dir: str | None = None
    steps: int = 250
    learning_rate: float = 3e-3
    batch_size: int = 4
    blur: float = 0.0
    network_: nn.Module | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "depth": 5,
        "steps": 1000,
        "learning_rate": 1e-3,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            depth=Between(3, 5),
            dice_weight=NOT_NEGATIVE,
            top=POSITIVE_SHARE,
            **(self.ALLOWED | {"inner_size": Between(32)}),
        )

    @property
    def track(self) -> Track:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Supervised, unless given anomalies are left aside."""
        return "target_tuned" if self.labels == "synthetic" else "supervised"

    def fit(self, support: Support) -> "UNetSegmenter":
        """Learn to mark anomalies among the support.

        Raises:
            FewShotError: no labelled anomaly with a mask was given where one is learned from, the
                encoder or the texture folder cannot be used, or the loss is no longer finite.
        """
        colours = self.seen(support)
        sources = self._sources(support, colours)
        network = self._build().to(colours)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            shown = [_clean(images), *(source(images, generator) for source in sources)]
            masks = torch.cat([one.masks for one in shown])
            logits = network(torch.cat([one.images for one in shown]))[:, 0]
            return focal_loss(logits, masks) + self.dice_weight * dice_loss(logits, masks)

        self.train(network, colours, loss, "fitting the U-Net")
        self.network_ = network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Chance of every pixel to be anomalous, and the mean of the highest."""
        assert self.network_ is not None
        chances = self.network_(self.colours(image))[:, 0].sigmoid()
        top = max(1, round(self.top * chances.numel()))
        return Judgement([chances], image_score(chances, top)[0])

    def _sources(self, support: Support, colours: Colours) -> list[Synthesis]:
        """Where anomalies come from."""
        sources: list[Synthesis] = []
        if self.labels != "synthetic":
            sources.append(partial(self._given, labelled=self._labelled(support)))
        if self.labels != "given":
            textures = load_textures(self.textures, colours, self.texture_dir)
            sources.append(partial(paint_textures, textures=textures, clean=0.0))
        return sources

    def _labelled(self, support: Support) -> Float[Tensor, "k 4 s s"]:
        """Colours of the masked anomalies with the mask as the fourth channel."""
        otherwise = "--set labels=synthetic for made-up anomalies"
        given = masked_anomalies(support, "the U-Net", otherwise)
        colours = self.colours(given.images)
        size = self.inner_size, self.inner_size  # a pixel is marked if any in it is
        masks = functional.adaptive_max_pool2d(given.masks[:, None].float(), size)
        return torch.cat([colours, masks.to(colours)], dim=1)

    def _given(
        self, images: Colours, generator: torch.Generator, labelled: Float[Tensor, "k 4 s s"]
    ) -> Synthetic:
        """As many of the labelled anomalies as there are images, moved a little."""
        rows = torch.randint(len(labelled), (len(images),), generator=generator)
        shown = moved(labelled[rows], generator, self.shift, self.turn)
        return Synthetic(shown[:, :3], shown[:, 3] > 0.5)

    def _build(self) -> nn.Module:
        import segmentation_models_pytorch as smp

        widths = [self.width * 2**stage for stage in reversed(range(self.depth))]
        try:
            with seeded_weights(self.seed):
                network = smp.Unet(self.encoder, self.depth, None, decoder_channels=widths)
        except (KeyError, ValueError) as error:
            raise FewShotError(
                f"encoder is {self.encoder!r}: expected a name of segmentation_models_pytorch that "
                f"has {self.depth} stages, such as resnet18"
            ) from error
        return group_normalised(network)


def _clean(images: Colours) -> Synthetic:
    masks: Bool[Tensor, "b s s"] = torch.zeros_like(images[:, 0], dtype=torch.bool)
    return Synthetic(images, masks)
