"""Made-up anomalies on normal images, with their masks: what a few normals are compared with.

Colours are from 0 to 1 throughout (``parts.colours``). Everything is drawn from the generator given
on the CPU, image after image; images are not changed in place.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.parts.noise import perlin_noise
from fewshot_ad.parts.textures import TextureSource

BOX_SHARE = (0.02, 0.15)  # of the area of an image, CutPaste
BOX_ASPECT = 3.3
SCAR_WIDTH, SCAR_LENGTH = (2 / 256, 16 / 256), (10 / 256, 25 / 256)  # of the side of an image
SCAR_TURN = 45.0
FINEST_CELL = 4  # of Perlin's noise, in pixels
JITTER = 0.1  # brightness and contrast of what is pasted


class Synthetic(NamedTuple):
    """Images with made-up anomalies.

    Attributes:
        images: as painted over.
        masks: where; all false for an image that was left clean.
    """

    images: Float[Tensor, "b 3 h w"]
    masks: Bool[Tensor, "b h w"]


Synthesis = Callable[[Float[Tensor, "b 3 h w"], torch.Generator], Synthetic]
"""Makes up anomalies on images."""


def perlin_masks(
    count: int, size: tuple[int, int], generator: torch.Generator, *, finest: int = 5
) -> Bool[Tensor, "n h w"]:
    """Blobs of all sizes: where Perlin's noise, turned at will, exceeds one half (DRAEM).

    A mask can be empty.

    Args:
        count: of masks.
        size: height and width in pixels.
        generator: of the masks.
        finest: power of 2 of the most cells along a side.
    """
    masks = torch.zeros(count, *size, dtype=torch.bool)
    for mask in masks:
        rows, columns = (2 ** _integer(0, finest + 1, generator) for _ in range(2))
        turn = _uniform(-90, 90, generator)
        mask.copy_(perlin_noise(size, (rows, columns), generator, turn) > 0.5)
    return masks


def blend(
    images: Float[Tensor, "b 3 h w"],
    textures: Float[Tensor, "b 3 h w"],
    masks: Bool[Tensor, "b h w"],
    opacity: Float[Tensor, " b"],
) -> Float[Tensor, "b 3 h w"]:
    """Textures over the images inside of the masks (DRAEM, eq. 1, its opacity 1 - beta)."""
    weight = masks[:, None].to(images) * opacity.view(-1, 1, 1, 1).to(images)
    return torch.lerp(images, textures.to(images), weight)


def paint_textures(
    images: Float[Tensor, "b 3 h w"],
    generator: torch.Generator,
    *,
    textures: TextureSource,
    clean: float = 0.5,
    opacity: tuple[float, float] = (0.2, 1.0),
    finest: int | None = None,
) -> Synthetic:
    """DRAEM's anomalies: textures shine through blobs of Perlin's noise.

    DRAEM - A Discriminatively Trained Reconstruction Embedding for Surface Anomaly Detection.
    Zavrtanik, Kristan, Skocaj. ICCV 2021. https://arxiv.org/abs/2108.07610

    Args:
        images: normal ones.
        generator: of all that is drawn.
        textures: where looks come from.
        clean: share of the images that are left as they are.
        opacity: least and most.
        finest: as in :func:`perlin_masks`; None for 5, or less where cells had less than 4 px.
    """
    size = images.shape[-2], images.shape[-1]
    chosen = torch.rand(len(images), generator=generator) >= clean
    count, there = int(chosen.sum()), chosen.to(images.device)
    if finest is None:
        finest = min(5, max(1, min(size) // FINEST_CELL).bit_length() - 1)
    blobs = perlin_masks(count, size, generator, finest=finest).to(images.device)
    low, high = opacity
    opacities = torch.rand(count, generator=generator) * (high - low) + low
    painted, masks = images.clone(), torch.zeros_like(images[:, 0], dtype=torch.bool)
    masks[there] = blobs
    painted[there] = blend(images[there], textures(count, generator), blobs, opacities)
    return Synthetic(painted, masks)


def cut_paste(images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Synthetic:
    """A box of every image, a little lighter or darker, pasted elsewhere in it.

    CutPaste: Self-Supervised Learning for Anomaly Detection and Localization. Li, Sohn, Yoon,
    Pfister. CVPR 2021. https://arxiv.org/abs/2104.04015
    """
    return _each(images, generator, _paste_box)


def cut_paste_scar(images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Synthetic:
    """A thin strip of every image, up to 45 degrees from upright, pasted elsewhere (CutPaste)."""
    return _each(images, generator, _paste_scar)


def confetti(
    images: Float[Tensor, "b 3 h w"],
    generator: torch.Generator,
    *,
    most: int = 8,
    share: tuple[float, float] = (0.03, 0.15),
) -> Synthetic:
    """Up to ``most`` plain boxes of any colour at any angle over every image (FCDD).

    Explainable Deep One-Class Classification. Liznerski, Ruff, Vandermeulen, Franks, Kloft,
    Mueller. ICLR 2021. https://arxiv.org/abs/2007.01760

    Args:
        images: normal ones.
        generator: of all that is drawn.
        most: boxes on an image, at least one.
        share: least and longest side of a box over the shorter side of the image.
    """

    def scatter(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = image.shape[1], image.shape[2]
        mask = torch.zeros(size, dtype=torch.bool, device=image.device)
        for _ in range(_integer(1, most + 1, generator)):
            tall, wide = (_uniform(*share, generator) * min(size) for _ in range(2))
            centre = _integer(0, size[0], generator), _integer(0, size[1], generator)
            box = _turned_box(size, centre, (tall, wide), _uniform(0, 180, generator))
            colour = torch.rand(3, 1, 1, generator=generator).to(image)
            image = torch.where(box.to(image.device), colour, image)
            mask |= box.to(image.device)
        return image, mask

    return _each(images, generator, scatter)


def _each(
    images: Tensor,
    generator: torch.Generator,
    paint: Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]],
) -> Synthetic:
    masks = torch.zeros((len(images), *images.shape[-2:]), dtype=torch.bool, device=images.device)
    painted = images.clone()
    for index, image in enumerate(images):
        painted[index], masks[index] = paint(image, generator)
    return Synthetic(painted, masks)


def _paste_box(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = image.shape[1:]
    area = _uniform(*BOX_SHARE, generator) * height * width
    aspect = BOX_ASPECT ** _uniform(-1, 1, generator)
    tall = min(height, max(1, round(math.sqrt(area * aspect))))
    wide = min(width, max(1, round(math.sqrt(area / aspect))))
    piece = _jittered(_cut(image, tall, wide, generator), generator)
    return _paste(image, piece, torch.ones(tall, wide, dtype=torch.bool), generator)


def _paste_scar(image: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = image.shape[1:]
    tall = _uniform(*SCAR_LENGTH, generator) * height
    wide = _uniform(*SCAR_WIDTH, generator) * width
    turn = _uniform(-SCAR_TURN, SCAR_TURN, generator)
    side = min(height, width, math.ceil(math.hypot(tall, wide)))
    middle = (side - 1) / 2
    inside = _turned_box((side, side), (middle, middle), (max(1.0, tall), max(1.0, wide)), turn)
    piece = _jittered(_cut(image, side, side, generator), generator)
    return _paste(image, piece, inside, generator)


def _cut(image: Tensor, tall: int, wide: int, generator: torch.Generator) -> Tensor:
    top, left = _corner(image, tall, wide, generator)
    return image[:, top : top + tall, left : left + wide]


def _paste(
    image: Tensor, piece: Tensor, inside: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The image with the piece, and where that changed a colour."""
    tall, wide = piece.shape[1:]
    top, left = _corner(image, tall, wide, generator)
    painted = image.clone()
    place = painted[:, top : top + tall, left : left + wide]
    place.copy_(torch.where(inside.to(image.device), piece, place))
    return painted, (painted != image).any(dim=0)


def _corner(image: Tensor, tall: int, wide: int, generator: torch.Generator) -> tuple[int, int]:
    height, width = image.shape[1:]
    return _integer(0, height - tall + 1, generator), _integer(0, width - wide + 1, generator)


def _jittered(piece: Tensor, generator: torch.Generator) -> Tensor:
    contrast, brightness = (_uniform(1 - JITTER, 1 + JITTER, generator) for _ in range(2))
    mean = piece.mean()
    return ((piece - mean) * contrast + mean * brightness).clamp(0, 1)


def _turned_box(
    size: tuple[int, int], centre: tuple[float, float], sides: tuple[float, float], turn: float
) -> Bool[Tensor, "h w"]:
    """Pixels of a box with those sides, height first, turned by so many degrees."""
    down = torch.arange(size[0]).view(-1, 1) - centre[0]
    right = torch.arange(size[1]) - centre[1]
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    along, across = cosine * down - sine * right, sine * down + cosine * right
    return (along.abs() <= sides[0] / 2) & (across.abs() <= sides[1] / 2)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(least: int, beyond: int, generator: torch.Generator) -> int:
    return int(torch.randint(least, beyond, (), generator=generator))
