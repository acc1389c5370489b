"""GANomaly: an image is anomalous if what was rebuilt of it is not encoded as the image itself is.

GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training. Akcay, Atapour-Abarghouei,
Breckon. ACCV 2018. https://arxiv.org/abs/1805.06725, code: https://github.com/samet-akcay/ganomaly

An encoder and a decoder rebuild the image, and a second encoder looks at the result. They learn
that colours and codes agree, and that a discriminator, which learns to tell images from rebuilt
ones, finds the same features in both. The image score is the distance of the two codes.

The floor of what adversarial training does: from few images the discriminator soon knows all of
them, and with one or two the codes hardly mean anything. The paper has no map; here it is the
difference of the colours. Deviations: 64 px; no batch is normalised; copies are moved and turned a
little; the last layer begins at the mean colour of the support, and colours are not held in by a
hyperbolic tangent; gradients are clipped; Adam has its usual betas, where the paper's first is 0.5;
scores are not brought between 0 and 1, for which others need the test images. ``PAPER`` holds the
paper's settings.
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
from fewshot_ad.parts.training import Adam

__all__ = ["GANomaly"]


@dataclass(kw_only=True, eq=False)
class GANomaly(ImageMethod):
    """Distance of codes before and after rebuilding; see the module for the paper.

    Attributes:
        latent: numbers of a code.
        adversarial_weight: of the features of the discriminator in the loss (w_adv).
        colour_weight: of the colours (w_con).
        code_weight: of the codes (w_enc).
    """

    latent: int = 100
    adversarial_weight: float = 1.0
    colour_weight: float = 50.0
    code_weight: float = 1.0
    steps: int = 400
    learning_rate: float = 5e-4
    networks_: "_Networks | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 32,
        "width": 64,
        "steps": 15_000,  # 15 epochs of 64 000 images
        "batch_size": 64,
        "learning_rate": 2e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            latent=COUNT,
            adversarial_weight=NOT_NEGATIVE,
            colour_weight=NOT_NEGATIVE,
            code_weight=NOT_NEGATIVE,
            **(self.ALLOWED | {"inner_size": SIZES}),
        )

    def fit(self, support: Support) -> "GANomaly":
        """Learn to rebuild the support and its codes.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        networks = _Networks(self, colours.mean(dim=(0, 2, 3))).to(colours)
        judge = ImageDiscriminator(self.inner_size, self.width, 2 * self.seed + 1).to(colours)
        opponent = Adam(judge, self.learning_rate, 0.0)

        def loss(images: Colours, _: torch.Generator) -> Float[Tensor, ""]:
            rebuilt, code, again = networks(images)
            opponent.step(lambda: real_or_not(judge, images, rebuilt.detach()))
            features = functional.mse_loss(judge.features(rebuilt), judge.features(images))
            return (  # equations 1 to 4
                self.adversarial_weight * features
                + self.colour_weight * (rebuilt - images).abs().mean()
                + self.code_weight * (again - code).square().mean()
            )

        self.train(networks, colours, loss, "fitting GANomaly")
        self.networks_ = networks
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Difference of the colours; the score is that of the codes (eq. 5)."""
        assert self.networks_ is not None
        colours = self.colours(image)
        rebuilt, code, again = self.networks_(colours)
        return Judgement([(rebuilt - colours).abs().mean(dim=1)], (again - code).abs().mean())


class _Networks(nn.Module):
    """Encoder, decoder, and the encoder of what was rebuilt."""

    def __init__(self, method: GANomaly, colour: Float[Tensor, " 3"]) -> None:
        super().__init__()
        size, width, latent = method.inner_size, method.width, method.latent
        with seeded_weights(2 * method.seed):
            self.encoder = image_encoder(size, width, latent)
            self.decoder = image_decoder(size, width, latent, colour)
            self.second = image_encoder(size, width, latent)

    def forward(
        self, images: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """The image rebuilt, its code, and the code of what was rebuilt."""
        code = self.encoder(images)
        rebuilt = self.decoder(code)
        return rebuilt, code, self.second(rebuilt)
