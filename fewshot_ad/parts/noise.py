"""Smooth random fields: Perlin's and simplex noise, whole fields at once and from a generator.

An image synthesizer. Perlin. SIGGRAPH 1985. https://doi.org/10.1145/325334.325247
Gradients lie evenly on the circle and are drawn for every field, where the originals have a few
fixed directions and a table: no direction is favoured, and no seed of a library is needed.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

SKEW, UNSKEW = (math.sqrt(3) - 1) / 2, (3 - math.sqrt(3)) / 6
SIMPLEX_PEAK = 0.01008020  # highest sum that unit gradients can give anywhere in a triangle


def perlin_noise(
    size: tuple[int, int],
    cells: tuple[int, int],
    generator: torch.Generator,
    turn: float = 0.0,
) -> Float[Tensor, "h w"]:
    """One field in [-1, 1].

    Args:
        size: height and width in pixels.
        cells: of the lattice along each side of the image.
        generator: of the gradients.
        turn: of the lattice about the centre of the image, in degrees.
    """
    rows, columns = _turned(size, turn)
    reach = [math.ceil(number * math.sqrt(0.5)) + 1 for number in cells]
    y, x = rows * cells[0] + reach[0], columns * cells[1] + reach[1]
    angles = _angles((2 * reach[0] + 1, 2 * reach[1] + 1), generator)
    top, left = y.long(), x.long()
    down, right = y - top, x - left
    upper, lower = (
        torch.lerp(
            _slope(angles[top + below, left], down - below, right),
            _slope(angles[top + below, left + 1], down - below, right - 1),
            _fade(right),
        )
        for below in (0, 1)
    )
    return math.sqrt(2) * torch.lerp(upper, lower, _fade(down))


def simplex_noise(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    frequency: float = 2**-6,
    octaves: int = 6,
    persistence: float = 0.8,
) -> Float[Tensor, "n h w"]:
    """Sums of octaves of two-dimensional simplex noise, each of which is in [-1, 1].

    Args:
        count: fields, each with gradients and a place of its own.
        size: height and width in pixels.
        generator: of the gradients and of where the lattice begins.
        frequency: of the first octave, in cells per pixel (nu); every octave doubles it.
        octaves: how many (N).
        persistence: amplitude of an octave over that of the one before (gamma).
    """
    total = torch.zeros(count, *size)
    for octave in range(octaves):
        fields = _simplex_octave(count, size, frequency * 2**octave, generator)
        total += persistence**octave * fields
    return total


def standardised(fields: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Every field with mean 0 and deviation 1: what a step of Gaussian diffusion takes for noise.

    A field without any variation becomes 0.
    """
    centred = fields - fields.mean(dim=(1, 2), keepdim=True)
    deviation = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return centred / deviation.clamp(min=torch.finfo(fields.dtype).tiny)


def _turned(size: tuple[int, int], turn: float) -> tuple[Tensor, Tensor]:
    """Centres of the pixels in sides of the image, from its centre, after a turn."""
    axes = [(torch.arange(side) + 0.5) / side - 0.5 for side in size]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return cosine * rows - sine * columns, sine * rows + cosine * columns


def _simplex_octave(
    count: int, size: tuple[int, int], frequency: float, generator: torch.Generator
) -> Float[Tensor, "n h w"]:
    begin = torch.rand(count, 2, 1, 1, generator=generator)
    rows = torch.arange(size[0]).view(-1, 1) * frequency + begin[:, 0]
    columns = torch.arange(size[1]) * frequency + begin[:, 1]
    skew = SKEW * (rows + columns)
    top, left = (rows + skew).floor().long(), (columns + skew).floor().long()
    angles = _angles((count, int(top.max()) + 2, int(left.max()) + 2), generator)
    unskew = UNSKEW * (top + left)
    down, right = rows - (top - unskew), columns - (left - unskew)
    goes_down = (down > right).long()  # which of the two triangles of the skewed cell
    total = torch.zeros(count, *size)
    for steps_down, steps_right in ((0, 0), (goes_down, 1 - goes_down), (1, 1)):
        corner = UNSKEW * (steps_down + steps_right)
        total += _corner(
            _at(angles, top + steps_down, left + steps_right),
            down - steps_down + corner,
            right - steps_right + corner,
        )
    return total / SIMPLEX_PEAK


def _at(
    lattice: Float[Tensor, "n r c"], rows: Int[Tensor, "n h w"], columns: Int[Tensor, "n h w"]
) -> Float[Tensor, "n h w"]:
    return lattice[torch.arange(len(lattice)).view(-1, 1, 1), rows, columns]


def _corner(angles: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """What a corner of a triangle adds: nothing from half a cell's area on."""
    near = (0.5 - down.square() - right.square()).clamp(min=0)
    return near**4 * _slope(angles, down, right)


def _slope(angles: Tensor, down: Tensor, right: Tensor) -> Tensor:
    return angles.sin() * down + angles.cos() * right


def _fade(share: Tensor) -> Tensor:
    """Perlin's polynomial of 2002, whose second derivatives vanish at the lattice."""
    return share**3 * (share * (share * 6 - 15) + 10)


def _angles(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * math.pi * torch.rand(shape, generator=generator)
