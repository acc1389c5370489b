"""OCR-GAN: an image is rebuilt from its coarse and its fine half, which help each other.

Omni-frequency Channel-selection Representations for Unsupervised Anomaly Detection. Liang, Zhang,
Zhao, Wu, Liu, Pan. IEEE TIP 2023. https://arxiv.org/abs/2203.00259,
code: https://github.com/zhangzjn/OCR-GAN

A Gaussian pyramid parts an image into what survives halving it, and the rest. Either half has an
encoder and a decoder of its own; between them, every channel is weighed between both halves. A
discriminator learns to tell normal images from rebuilt ones and from made-up anomalies; how much
its features differ between an image and what was rebuilt of it is the image score.

From few images the discriminator soon knows all of them; with one or two it adds noise to an
autoencoder. The paper has no map; here it is the difference of the colours. Deviations: 64 px and
shallow networks without skips or normalised batches; halving takes means of 2x2 pixels, and the
fine half keeps its sign, where the released code cuts off what is negative; made-up anomalies are
pasted boxes; copies are moved and turned a little; gradients are clipped; Adam has its usual betas,
where the paper's first is 0.5; the last step counts, where the released code keeps the epoch that
is best on the test images and scales scores by them. ``PAPER`` holds the paper's settings but for
its budget, which is not known to us and stays the quick one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Support
from fewshot_ad.parts.discriminator import ImageDiscriminator, real_or_not
from fewshot_ad.parts.image_coders import SIZES, image_decoder, image_encoder
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.synthesis import cut_paste
from fewshot_ad.parts.training import Adam

__all__ = ["OCRGAN"]


@dataclass(kw_only=True, eq=False)
class OCRGAN(ImageMethod):
    """Rebuilding by frequencies, judged by a discriminator; see the module for the paper.

    Attributes:
        latent: numbers that either half is squeezed through.
        adversarial_weight: of deceiving the discriminator in the loss.
        colour_weight: of the colours.
        feature_weight: of the features of the discriminator.
    """

    latent: int = 100
    adversarial_weight: float = 1.0
    colour_weight: float = 50.0
    feature_weight: float = 1.0
    steps: int = 300
    learning_rate: float = 5e-4
    generator_: "_Generator | None" = field(default=None, init=False, repr=False)
    discriminator_: ImageDiscriminator | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "width": 64,
        "batch_size": 32,
        "learning_rate": 2e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            latent=COUNT,
            adversarial_weight=NOT_NEGATIVE,
            colour_weight=NOT_NEGATIVE,
            feature_weight=NOT_NEGATIVE,
            **(self.ALLOWED | {"inner_size": SIZES}),
        )

    def fit(self, support: Support) -> "OCRGAN":
        """Learn to rebuild the support.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        network = _Generator(self, colours.mean(dim=(0, 2, 3))).to(colours)
        judge = ImageDiscriminator(self.inner_size, self.width, 2 * self.seed + 1).to(colours)
        opponent = Adam(judge, self.learning_rate, 0.0)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            rebuilt = network(images)
            made = torch.cat([rebuilt.detach(), cut_paste(images, generator).images])
            opponent.step(lambda: real_or_not(judge, images, made))
            features = functional.mse_loss(judge.features(rebuilt), judge.features(images))
            return (
                self.adversarial_weight * functional.softplus(-judge(rebuilt)).mean()
                + self.colour_weight * (rebuilt - images).abs().mean()
                + self.feature_weight * features
            )

        self.train(network, colours, loss, "fitting OCR-GAN")
        self.generator_ = network
        self.discriminator_ = judge.eval().requires_grad_(requires_grad=False)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Difference of the colours; the score is that of the discriminator's features."""
        assert self.generator_ is not None
        assert self.discriminator_ is not None
        colours = self.colours(image)
        rebuilt = self.generator_(colours)
        gap = self.discriminator_.features(rebuilt) - self.discriminator_.features(colours)
        return Judgement([(rebuilt - colours).abs().mean(dim=1)], gap.square().mean())


def part_frequencies(
    images: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """What survives halving an image, and the rest; their sum is the image."""
    half = functional.avg_pool2d(images, 2, ceil_mode=True)
    low = functional.interpolate(half, images.shape[-2:], mode="bilinear")
    return low, images - low


class _Generator(nn.Module):
    """Two autoencoders whose codes are weighed against each other."""

    def __init__(self, method: OCRGAN, colour: Float[Tensor, " 3"]) -> None:
        super().__init__()
        size, width, latent = method.inner_size, method.width, method.latent
        halves = (colour, torch.zeros_like(colour))
        with seeded_weights(2 * method.seed):
            self.encoders = nn.ModuleList(image_encoder(size, width, latent) for _ in halves)
            self.choice = nn.Linear(latent, 2 * latent)
            self.decoders = nn.ModuleList(image_decoder(size, width, latent, c) for c in halves)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """The sum of both rebuilt halves."""
        pairs = zip(self.encoders, part_frequencies(images), strict=True)
        codes = torch.stack([encoder(half) for encoder, half in pairs])
        share = self.choice(codes.sum(dim=0)).view(len(images), 2, -1).softmax(dim=1)
        mixed = 2 * share.transpose(0, 1) * codes  # channel selection: what either half is told
        halves = [decoder(code) for decoder, code in zip(self.decoders, mixed, strict=True)]
        return torch.stack(halves).sum(dim=0)
