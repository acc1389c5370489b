"""Between the colours that a method is given and those from 0 to 1 in which images are painted."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess


def to_unit(
    images: Float[Tensor, "b 3 h w"], given: Preprocess, size: int | None = None
) -> Float[Tensor, "b 3 h2 w2"]:
    """Colours from 0 to 1.

    Args:
        images: as ``given`` has made them.
        given: whose means and deviations are taken back.
        size: side of the square that the images become; None leaves them as they are.
    """
    mean, std = _scales(images, given)
    colours = images * std + mean
    if size is not None and colours.shape[-2:] != (size, size) and len(colours):
        colours = functional.interpolate(colours, (size, size), mode="bicubic", antialias=True)
    return colours.clamp(0, 1)


def from_unit(colours: Float[Tensor, "b 3 h w"], wanted: Preprocess) -> Float[Tensor, "b 3 h w"]:
    """Colours from 0 to 1 as ``wanted`` makes images of them."""
    mean, std = _scales(colours, wanted)
    return (colours - mean) / std


def _scales(images: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return mean.to(images), std.to(images)
