"""Turned copies of images: few support images then show an object in many orientations."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def rotated_copies(images: Float[Tensor, "n 3 h w"], count: int) -> Float[Tensor, "m 3 h w"]:
    """Every image at ``count`` angles, spread evenly over a full turn, the image itself first.

    Copies of an image stand together and hang on that image alone, so that nested supports have
    nested copies.
    """
    angles = [360 * number / count for number in range(count)]
    copies = [rotate(image[None], angle) for image in images for angle in angles]
    return torch.cat(copies) if copies else images


def rotate(images: Float[Tensor, "n c h w"], degrees: float) -> Float[Tensor, "n c h w"]:
    """Turn counterclockwise about the centre, bilinear; corners are filled by reflection.

    An angle of 0 gives the very same values.
    """
    if degrees % 360 == 0:
        return images
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    height, width = (side - 1 for side in images.shape[-2:])
    turn = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    theta = images.new_tensor(turn).expand(len(images), 2, 3)
    places = functional.affine_grid(theta, list(images.shape), align_corners=True)
    return functional.grid_sample(images, places, padding_mode="reflection", align_corners=True)
