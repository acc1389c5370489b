"""Patches: one vector per position, made of the features of several levels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.embedding import average_neighbourhood
from fewshot_ad.parts.feature_cache import FeatureCache

Levels = list[Float[Tensor, "b _ _ _"]]


def extract_patches(
    features: FeatureCache, images: Float[Tensor, "b 3 h w"], neighbourhood: int = 1
) -> Float[Tensor, "b d h2 w2"]:
    """Patches of images: features, averaged over a square of that side, joined over levels.

    One image at a time, so that an image has the same bits alone and in a batch. Those of a single
    image are remembered: not to be changed. A patch lies in one piece, as searches want it.
    """

    def join(levels: Levels) -> Float[Tensor, "1 d h2 w2"]:
        joined = join_levels([average_neighbourhood(maps, neighbourhood) for maps in levels])
        return joined.contiguous(memory_format=torch.channels_last)

    patches = [features.made(image[None], f"patches {neighbourhood}", join) for image in images]
    return patches[0] if len(patches) == 1 else torch.cat(patches)


def join_levels(levels: Levels) -> Float[Tensor, "b d h w"]:
    """All levels on the grid of the first, resized bilinearly, one below the other."""
    first, *others = levels
    size = first.shape[-2], first.shape[-1]
    resized = [
        functional.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in others
    ]
    return torch.cat([first, *resized], dim=1)


def pool_levels(levels: Levels) -> Levels:
    """All levels on the grid of the last: the mean over each of its cells."""
    size = levels[-1].shape[-2], levels[-1].shape[-1]
    return [functional.adaptive_avg_pool2d(maps, size) for maps in levels]


def join_coarsely(levels: Levels) -> Float[Tensor, "b d h w"]:
    """All levels on the grid of the last, one below the other."""
    return torch.cat(pool_levels(levels), dim=1)
