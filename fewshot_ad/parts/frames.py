"""Images that were prepared for one method, as another one wants them.

Means, deviations and size change; the geometry is that of the frame they are in.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import LabelledBatch, Preprocess, Support
from fewshot_ad.parts.maps import upsample_maps


def reframe(
    images: Float[Tensor, "b 3 h w"], given: Preprocess, wanted: Preprocess
) -> Float[Tensor, "b 3 h2 w2"]:
    """Images that ``given`` has made, with the means, deviations and size of ``wanted``.

    What has all of them already keeps its bits.
    """
    if (given.mean, given.std) != (wanted.mean, wanted.std):
        mean, std, new_mean, new_std = (
            torch.tensor(values).view(3, 1, 1).to(images)
            for values in (given.mean, given.std, wanted.mean, wanted.std)
        )
        images = (images * std + mean - new_mean) / new_std
    size = wanted.size, wanted.size
    if given.size == wanted.size:
        return images
    if not len(images):
        return images.new_empty(0, 3, *size)
    return functional.interpolate(images, size, mode="bicubic", antialias=True)


def reframe_support(support: Support, given: Preprocess, wanted: Preprocess) -> Support:
    """A support in the frame of another method, masks by nearest neighbour."""
    anomalous = support.anomalous
    if anomalous is not None:
        size = wanted.size, wanted.size
        masks = functional.interpolate(anomalous.masks[:, None].float(), size, mode="nearest-exact")
        images = reframe(anomalous.images, given, wanted)
        anomalous = LabelledBatch(images, masks[:, 0] > 0, anomalous.is_anomalous)
    return Support(support.target_class, reframe(support.images, given, wanted), anomalous)


def fit_maps(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b H W"]:
    """Anomaly maps at ``size`` (height, width), untouched where they have it."""
    return maps if maps.shape[1:] == size else upsample_maps(maps, size)
