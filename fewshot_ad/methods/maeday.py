"""MAEDAY: what a masked autoencoder of everyday photographs cannot infer from its surroundings.

MAEDAY: MAE for few and zero shot AnomalY-Detection. Schwartz, Arbelle, Karlinsky, Harary,
Scheidegger, Doveh, Giryes. CVIU 241, 2024. https://arxiv.org/abs/2211.14307

A network trained on ImageNet redraws an image of which it sees a random quarter, 32 times; where it
is wrong, the image is anomalous. That takes no example at all. With N normal images, low-rank
matrices beside its attention layers learn to redraw those for a few steps.

The paper names neither the weights nor the details of tuning; they are those on which independent
implementations agree. Deviations: large network by default; masks hang on the content of an image,
not on chance; alpha over rank of the matrices is 1, and crops are squares of a fifth of the area or
more, as in the training of masked autoencoders. No published number was reproduced with it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Method, NotFittedError, Prediction, Support, Track
from fewshot_ad.parts.lora import add_lora
from fewshot_ad.parts.mae import (
    QUARTERS,
    MaskedAutoencoder,
    content_generator,
    load_autoencoder,
    quartered_noise,
    random_noise,
)
from fewshot_ad.parts.maps import image_score, no_prediction
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, SHARE, check_parameters
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.training import step_generator

__all__ = ["MAEDAY"]

BLUR_REACH = 3
QUARTERED_RATIO = 1 - 1 / QUARTERS


class _Inside(NamedTuple):
    """All numbers between two, neither included."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        return self.low < value < self.high

    def __str__(self) -> str:
        return f"more than {self.low} and less than {self.high}"


@dataclass(kw_only=True, eq=False)
class MAEDAY(Method):
    """Error of redrawing an image from a part of it; see the module for the paper.

    Attributes:
        backbone: ``facebook/vit-mae-base``, ``-large`` or ``-huge``, a file or folder of such
            weights, or ``random:tiny``.
        weights_dir: folder with weights.
        masks: how many times an image is redrawn.
        mask_ratio: share of the patches that is hidden.
        quartered: draw masks in fours that show every patch once; the paper's are independent.
        masked_only: judge a pixel by the masks that hide it; the paper judges by all.
        norm_pix: whether the weights are of training on standardised patches; None asks the
            configuration beside them.
        blur: sigma of the Gaussian over the map, in pixels, cut off at 3 pixels.
        steps: of tuning on the support; 0 leaves the network as it is, and training-free.
        learning_rate, momentum, weight_decay: of tuning, by stochastic gradient descent.
        batch: crops per step.
        smallest_crop: share of the area of a support image that a crop has at least.
        rank: width of the low-rank matrices.
    """

    min_shots = 0
    backbone: str = "facebook/vit-mae-large"
    weights_dir: str | None = None
    masks: int = 32
    mask_ratio: float = 0.75
    quartered: bool = False
    masked_only: bool = False
    norm_pix: bool | None = None
    blur: float = 1.4
    steps: int = 50
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 0.05
    batch: int = 32
    smallest_crop: float = 0.2
    rank: int = 32
    autoencoder_: MaskedAutoencoder | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            masks=COUNT,
            mask_ratio=_Inside(0, 1),
            steps=NOT_NEGATIVE,
            momentum=SHARE,
            batch=COUNT,
            smallest_crop=SHARE,
            rank=COUNT,
        )
        if self.quartered and (self.mask_ratio != QUARTERED_RATIO or self.masks % QUARTERS):
            raise FewShotError(
                f"quartered masks with mask_ratio {self.mask_ratio} and {self.masks} masks: "
                f"expected {QUARTERED_RATIO} and a multiple of {QUARTERS}"
            )

    @property
    def track(self) -> Track:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tuned on the target, unless there are no steps to do so."""
        return "target_tuned" if self.steps else "training_free"

    def fit(self, support: Support) -> "MAEDAY":
        """Learn to redraw the support, if there is any.

        Raises:
            FewShotError: the weights are not here, or the loss is no longer finite.
        """
        check_support(support, self.min_shots)
        autoencoder = self._load(support.images.shape[-1])
        if len(support.images) and self.steps:
            self._tune(autoencoder, support.images)
        self.autoencoder_ = autoencoder
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Squared error of the colours, mean over the masks.

        Raises:
            FewShotError: ``fit`` was not called, or the images have another size than its own.
        """
        if self.autoencoder_ is None:
            raise NotFittedError("MAEDAY has no network yet: call fit(support) first, 0 shots will")
        if not len(images):
            return no_prediction(images)
        side = self.autoencoder_.size
        if images.shape[-2:] != (side, side):
            height, width = images.shape[-2:]
            raise FewShotError(
                f"images are {height}x{width} and the network redraws {side}x{side}: MAEDAY needs "
                "images of the size it was fitted for"
            )
        found = [self._error(image[None], self.autoencoder_) for image in images]
        anomaly_map = torch.cat(found).cpu()
        return Prediction(image_score(anomaly_map), anomaly_map)

    @property
    def weights_digest(self) -> str:
        """Digest of the network's weights."""
        return self._load(self.preprocess.size).digest

    def _load(self, size: int) -> MaskedAutoencoder:
        return load_autoencoder(
            self.backbone,
            size=size,
            mask_ratio=self.mask_ratio,
            norm_pix=self.norm_pix,
            weights_dir=None if self.weights_dir is None else Path(self.weights_dir),
            device=self.device,
        )

    def _error(
        self, image: Float[Tensor, "1 3 h w"], autoencoder: MaskedAutoencoder
    ) -> Float[Tensor, "1 h w"]:
        draw = quartered_noise if self.quartered else random_noise
        noise = draw(self.masks, autoencoder.n_patches, content_generator(image, self.seed))
        # the blur of a mean is the mean of the paper's blurred maps
        return _smooth(autoencoder.error_map(image, noise, self.masked_only), self.blur)

    def _tune(self, autoencoder: MaskedAutoencoder, images: Float[Tensor, "n 3 h w"]) -> None:
        learned = add_lora(autoencoder.network, self.rank, self.seed)
        optimiser = torch.optim.SGD(
            learned, self.learning_rate, self.momentum, weight_decay=self.weight_decay
        )
        for step in range(self.steps):
            generator = step_generator(self.seed, step)
            crops = _random_crops(images, self.batch, self.smallest_crop, generator)
            noise = random_noise(self.batch, autoencoder.n_patches, generator)
            loss = autoencoder.loss(crops, noise)
            if not torch.isfinite(loss):
                raise FewShotError(
                    f"the loss of tuning is {loss.item()} at step {step} with learning_rate "
                    f"{self.learning_rate}: choose a smaller one"
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        optimiser.zero_grad()
        autoencoder.network.requires_grad_(requires_grad=False)


def _random_crops(
    images: Float[Tensor, "n 3 h w"], count: int, least: float, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Squares of ``least`` of the area or more, at random places, at the size of the images."""
    size = images.shape[-1]
    areas = torch.rand(count, generator=generator) * (1 - least) + least
    sides = (size * areas.sqrt()).round().long().clamp(min=1).tolist()
    crops = []
    for side in sides:
        index, top, left = (
            int(torch.randint(high, (), generator=generator))
            for high in (len(images), size - side + 1, size - side + 1)
        )
        crop = images[index : index + 1, :, top : top + side, left : left + side]
        crops.append(functional.interpolate(crop, (size, size), mode="bicubic", antialias=True))
    return torch.cat(crops)


def _smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """A Gaussian of 7 pixels across, the border mirrored, as the implementations use."""
    if not sigma:
        return maps
    offsets = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=maps.device)
    heights = (-0.5 * (offsets / sigma) ** 2).exp()
    weights = (heights / heights.sum()).view(1, 1, -1, 1)
    padded = functional.pad(maps[:, None], (BLUR_REACH,) * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, weights), weights.mT)[:, 0]
