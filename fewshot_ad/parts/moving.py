"""Copies of images, moved and turned a little: few images then show more of what is normal."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def moved(
    images: Float[Tensor, "b c h w"], generator: torch.Generator, shift: float, turn: float
) -> Float[Tensor, "b c h w"]:
    """Every image moved and turned about its centre at random, bilinear, borders mirrored.

    Args:
        images: left as they are.
        generator: of the motions, on the CPU.
        shift: farthest along each axis, over the side of the image.
        turn: farthest, in degrees.
    """
    if not shift and not turn:
        return images
    height, width = images.shape[-2:]
    draws = 2 * torch.rand(3, len(images), generator=generator) - 1
    angles = math.radians(turn) * draws[0]
    cosine, sine = angles.cos(), angles.sin()
    right, down = 2 * shift * draws[1], 2 * shift * draws[2]
    rows = (cosine, -sine * height / width, right, sine * width / height, cosine, down)
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
    places = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="reflection", align_corners=False)
