"""Strided convolutions between small images and a few numbers, as autoencoders and GANs have them.

The form of Bergmann et al. (2019, https://arxiv.org/abs/1807.02011) and of DCGAN (Radford et al.,
2016, https://arxiv.org/abs/1511.06434) in what they share. Nothing is normalised over a batch: an
image is then coded alike whatever is beside it. First weights are drawn from the generator in use
(``parts.seeding``).
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

SIZES = (16, 32, 64, 128, 256, 512)
"""Sides of images that can be coded, in pixels."""
SMALLEST = 8  # side of the maps beside the numbers
WIDEST = 4  # over the first layer
SLOPE = 0.2  # of the leaky rectifiers


def image_encoder(size: int, width: int, outputs: int) -> nn.Sequential:
    """From colours to numbers.

    Args:
        size: side of the images, one of ``SIZES``.
        width: channels of the first layer.
        outputs: numbers per image.
    """
    widths = _widths(size, width)
    down = [_down(*pair) for pair in pairwise((3, *widths))]
    return nn.Sequential(*down, nn.Flatten(), nn.Linear(widths[-1] * SMALLEST**2, outputs))


def image_decoder(size: int, width: int, inputs: int, colour: Float[Tensor, " 3"]) -> nn.Sequential:
    """From numbers to colours, not held between 0 and 1.

    Args:
        size: side of the images, one of ``SIZES``.
        width: channels of the last layer but one.
        inputs: numbers per image.
        colour: with which the decoder begins all over.
    """
    widths = _widths(size, width)
    last = nn.ConvTranspose2d(widths[0], 3, 4, 2, 1)
    last.bias = nn.Parameter(colour.detach().clone())
    return nn.Sequential(
        nn.Linear(inputs, widths[-1] * SMALLEST**2),
        nn.Unflatten(1, (widths[-1], SMALLEST, SMALLEST)),
        nn.LeakyReLU(SLOPE),
        *(_up(b, a) for a, b in reversed(list(pairwise(widths)))),
        last,
    )


def _widths(size: int, width: int) -> list[int]:
    halvings = (size // SMALLEST).bit_length() - 1
    return [width * min(2**level, WIDEST) for level in range(halvings)]


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(SLOPE))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(SLOPE))
