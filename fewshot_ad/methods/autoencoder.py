"""Autoencoder: what cannot be rebuilt of an image from few numbers.

Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders.
Bergmann, Loewe, Fauser, Sattlegger, Steger. VISAPP 2019. https://arxiv.org/abs/1807.02011

An image is squeezed through a hundred numbers and rebuilt, by a network that has learned that on
normal images alone. What it has never seen it rebuilds badly. The error is the squared difference
or, as the paper proposes, structural dissimilarity (``loss=ssim``, AE-SSIM); with ``vae`` the
numbers are those of a variational autoencoder, drawn around what was encoded while it learns.

The historical floor: from few images it learns little more than their mean, and with one or two a
template. Deviations: whole images at 64 px, where the paper cuts textures into pieces of 128 px and
averages; copies are moved and turned a little; the last layer begins at the mean colour of the
support; gradients are clipped and weights do not decay; the map is blurred. ``PAPER`` holds the
paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import Support
from fewshot_ad.parts.image_coders import SIZES, image_decoder, image_encoder
from fewshot_ad.parts.image_losses import dissimilarity
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.seeding import seeded_weights

__all__ = ["Autoencoder"]


@dataclass(kw_only=True, eq=False)
class Autoencoder(ImageMethod):
    """Error of rebuilding colours; see the module for the paper.

    Attributes:
        loss: ``l2``, or ``ssim``.
        vae: learn a variational autoencoder.
        latent: width of the bottleneck.
        kl_weight: of the divergence of the latents from a unit Gaussian, per number of the image.
    """

    loss: Literal["l2", "ssim"] = "l2"
    vae: bool = False
    latent: int = 100
    kl_weight: float = 1.0
    steps: int = 600
    network_: "_Network | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "loss": "ssim",
        "inner_size": 128,
        "width": 32,
        "steps": 16_000,  # 200 epochs of 10 000 pieces in batches of 128
        "batch_size": 128,
        "learning_rate": 2e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        allowed = self.ALLOWED | {"inner_size": SIZES}
        check_parameters(self, latent=COUNT, kl_weight=NOT_NEGATIVE, **allowed)

    def fit(self, support: Support) -> "Autoencoder":
        """Learn to rebuild the support.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        network = _Network(self, colours.mean(dim=(0, 2, 3))).to(colours)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            mean, log_variance = network.encode(images)
            if not self.vae:
                return self._error(network.decode(mean), images).mean()
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            rebuilt = network.decode(mean + (log_variance / 2).exp() * noise)
            divergence = (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1) / 2
            weight = self.kl_weight / images[0].numel()
            return self._error(rebuilt, images).mean() + weight * divergence.mean()

        self.train(network, colours, loss, "fitting the autoencoder")
        self.network_ = network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Error of rebuilding every pixel."""
        assert self.network_ is not None
        colours = self.colours(image)
        mean, _ = self.network_.encode(colours)
        return Judgement([self._error(self.network_.decode(mean), colours)])

    def _error(self, rebuilt: Colours, images: Colours) -> Float[Tensor, "b s s"]:
        if self.loss == "ssim":
            return dissimilarity(rebuilt, images)
        return (rebuilt - images).square().mean(dim=1)


class _Network(nn.Module):
    """To the bottleneck and back."""

    def __init__(self, method: Autoencoder, colour: Float[Tensor, " 3"]) -> None:
        super().__init__()
        size, width = method.inner_size, method.width
        with seeded_weights(method.seed):
            self.encoder = image_encoder(size, width, 2 * method.latent)
            self.decode = image_decoder(size, width, method.latent, colour)

    def encode(
        self, images: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Means of the latents, and logarithms of their variances, which only a VAE heeds."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance
