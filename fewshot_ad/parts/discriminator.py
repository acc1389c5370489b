"""What tells images from rebuilt ones, and whose features say how alike they are."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.image_coders import image_encoder
from fewshot_ad.parts.seeding import seeded_weights


class ImageDiscriminator(nn.Module):
    """Strided convolutions that end in one logit: how real an image looks.

    Args:
        size: side of the images in pixels, as of an image encoder.
        width: channels of the first layer.
        seed: of the first weights.
    """

    def __init__(self, size: int, width: int, seed: int) -> None:
        super().__init__()
        with seeded_weights(seed):
            layers = list(image_encoder(size, width, 1))
        self.body, self.head = nn.Sequential(*layers[:-1]), layers[-1]

    def features(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """What the last layer sees."""
        return self.body(images)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, " b"]:
        """Logits of being real."""
        return self.head(self.body(images))[:, 0]


def real_or_not(
    discriminator: ImageDiscriminator,
    real: Float[Tensor, "b 3 s s"],
    made: Float[Tensor, "m 3 s s"],
) -> Float[Tensor, ""]:
    """Cross-entropy of telling both apart, either kind for one half."""
    of_real = functional.softplus(-discriminator(real)).mean()
    return (of_real + functional.softplus(discriminator(made)).mean()) / 2
