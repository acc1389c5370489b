"""Codes of all patches of an image at once, of 32 and of 64 pixels (Patch-SVDD).

Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation. Yi, Yoon. ACCV 2020.
https://arxiv.org/abs/2006.16067
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.seeding import seeded_weights

STRIDE = 4
SIDES = (32, 64)
LEAKING = 0.1
CLASSIFIER_WIDTH = 128
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

_KERNELS = (4, 3, 3, 3, 3, 2, 1, 1)  # with the strides below, one code sees 32 pixels
_STRIDES = (2, 1, 2, 1, 1, 1, 1, 1)
_WIDTHS = (1, 2, 4, 4, 2, 2, 2)


class PatchEncoder(nn.Module):
    """Eight convolutions over 32 pixels, and two more over the codes of four such patches.

    No layer pads, so that a code depends on nothing but its patch, wherever that stands.

    Args:
        dims: of a code.
        width: channels of the first layer.
        seed: of the first weights.
    """

    def __init__(self, dims: int, width: int, seed: int) -> None:
        super().__init__()
        widths = (3, *(width * factor for factor in _WIDTHS), dims)
        with seeded_weights(seed):
            layers: list[nn.Module] = []
            for place, shape in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
                layers += [nn.Conv2d(widths[place], widths[place + 1], *shape), _leaking()]
            self.small = nn.Sequential(*layers[:-1], nn.Tanh())
            apart = SIDES[0] // STRIDE  # of the four patches, in codes
            self.large = nn.Sequential(
                nn.Conv2d(dims, 2 * dims, 2, dilation=apart),
                _leaking(),
                nn.Conv2d(2 * dims, dims, 1),
                nn.Tanh(),
            )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b d _ _"]]:
        """Codes of small and of large patches, one every 4 pixels, from the first row on."""
        small = self.small(images)
        return [small, self.large(small)]


class PositionClassifier(nn.Sequential):
    """From the difference of two codes to where the second patch lies, one of ``DIRECTIONS``."""

    def __init__(self, dims: int, seed: int) -> None:
        with seeded_weights(seed):
            super().__init__(
                nn.Linear(dims, CLASSIFIER_WIDTH),
                _leaking(),
                nn.Linear(CLASSIFIER_WIDTH, CLASSIFIER_WIDTH),
                _leaking(),
                nn.Linear(CLASSIFIER_WIDTH, len(DIRECTIONS)),
            )


def draw_pairs(
    codes: Float[Tensor, "b d h w"], offsets: Int[Tensor, "k 2"], generator: torch.Generator
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    """Codes at random places of random images, and those that lie the offsets away.

    Args:
        codes: to draw from.
        offsets: rows and columns; as far as the image reaches.
        generator: of the places.
    """
    last = torch.tensor(codes.shape[2:]) - 1
    offsets = offsets.clamp(-last, last)
    first, beyond = (-offsets).clamp(min=0), last + 1 - offsets.clamp(min=0)
    share = torch.rand(offsets.shape, generator=generator)
    here = first + (share * (beyond - first)).long()
    image = torch.randint(len(codes), (len(offsets),), generator=generator)
    there = here + offsets
    rows = codes.permute(0, 2, 3, 1)
    return rows[image, here[:, 0], here[:, 1]], rows[image, there[:, 0], there[:, 1]]


def spread(
    values: Float[Tensor, "h w"], side: int, stride: int, size: tuple[int, int]
) -> Float[Tensor, "H W"]:
    """Pixels from patches: the mean over all patches that show a pixel.

    Args:
        values: of patches.
        side: of a patch in pixels.
        stride: between patches in pixels.
        size: height and width of the image; pixels that no patch shows are as their neighbours.
    """
    rows, columns = values.shape
    covered = (rows - 1) * stride + side, (columns - 1) * stride + side
    both = torch.stack([values, torch.ones_like(values)])
    shown = both.view(2, 1, rows * columns).expand(-1, side**2, -1)
    total, count = functional.fold(shown, covered, side, stride=stride)[:, 0]
    rest = 0, size[1] - covered[1], 0, size[0] - covered[0]
    return functional.pad((total / count)[None], rest, mode="replicate")[0]


def _leaking() -> nn.Module:
    return nn.LeakyReLU(LEAKING)
