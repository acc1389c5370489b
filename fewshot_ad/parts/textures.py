"""Where made-up defects take their looks from; nothing is downloaded.

Textures are drawn here, or are the support images themselves in disorder, or are the images of a
folder of the user's, such as the Describable Textures Dataset that DRAEM and GLASS use.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.image_files import read_header, read_image
from fewshot_ad.images import prepare
from fewshot_ad.parts.noise import perlin_noise

TextureSource = Callable[[int, torch.Generator], Float[Tensor, "n 3 h w"]]
"""Draws that many textures with colours from 0 to 1, all of the size of the support images."""

TextureKind = Literal["mixed", "drawn", "support"]
LEAST_CROP = 0.25  # of the side of a support image
PLAIN_COLOURS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def load_textures(
    kind: TextureKind, images: Float[Tensor, "n 3 h w"], folder: str | None = None
) -> TextureSource:
    """The textures that a method has been told to use.

    Args:
        kind: ``drawn``, pieces of the ``support``, or either one at random: ``mixed``.
        images: of the support, with colours from 0 to 1; gives the size as well.
        folder: with images that are textures, in its subfolders too; then ``kind`` is not asked.

    Raises:
        FewShotError: there is no such folder, it has no file, or one that is no image.
    """
    size = images.shape[-2], images.shape[-1]
    if folder is not None:
        return partial(_read_textures, paths=_texture_files(Path(folder)), size=size)
    drawn = partial(draw_textures, size)
    pieces = partial(disordered_pieces, images.cpu())
    return {"drawn": drawn, "support": pieces, "mixed": _either(drawn, pieces)}[kind]


def draw_textures(
    size: tuple[int, int], count: int, generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """Clouds, waves, cobbles and checks in two colours that shade into each other."""
    drawn = torch.zeros(count, 3, *size)
    for texture in drawn:
        pattern = PATTERNS[_integer(0, len(PATTERNS), generator)](size, generator)
        dark, bright = torch.rand(2, 3, 1, 1, generator=generator)
        texture.copy_(torch.lerp(dark, bright, pattern))
    return drawn


def disordered_pieces(
    images: Float[Tensor, "n 3 h w"], count: int, generator: torch.Generator
) -> Float[Tensor, "m 3 h w"]:
    """Squares of the images, enlarged, turned, mirrored and in other colours."""
    size = images.shape[-2], images.shape[-1]
    pieces = torch.zeros(count, *images.shape[1:])
    for piece in pieces:
        image = images[_integer(0, len(images), generator)]
        least = max(1, math.ceil(LEAST_CROP * min(size)))
        side = _integer(least, min(size) + 1, generator)
        top, left = (_integer(0, whole - side + 1, generator) for whole in size)
        crop = image[:, top : top + side, left : left + side]
        crop = crop.rot90(_integer(0, 4, generator), dims=(1, 2))
        piece.copy_(functional.interpolate(crop[None], size, mode="bilinear")[0])
    return recoloured(pieces, generator)


def recoloured(
    textures: Float[Tensor, "n 3 h w"], generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """Every image with channels in another order, a gamma, a contrast and perhaps as a negative."""
    found = torch.empty_like(textures)
    for texture, result in zip(textures, found, strict=True):
        channels = texture[torch.randperm(3, generator=generator)]
        gamma, contrast, brightness, negative = torch.rand(4, generator=generator).tolist()
        changed = channels**4 ** (gamma - 0.5)
        changed = (changed - 0.5) * (0.5 + contrast) + 0.5 + (brightness - 0.5) / 2
        result.copy_(1 - changed if negative < 0.25 else changed)
    return found.clamp(0, 1)


def _either(one: TextureSource, other: TextureSource) -> TextureSource:
    def draw(count: int, generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
        first = int((torch.rand(count, generator=generator) < 0.5).sum())
        textures = torch.cat([one(first, generator), other(count - first, generator)])
        return textures[torch.randperm(count, generator=generator)]

    return draw


def _texture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FewShotError(f"there is no texture folder {folder}: give one with images in it")
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    if not files:
        raise FewShotError(
            f"the texture folder {folder} has no file: put images in it, or leave it out and "
            "textures are drawn"
        )
    for path in files:
        read_header(path)
    return files


def _read_textures(
    count: int, generator: torch.Generator, paths: list[Path], size: tuple[int, int]
) -> Float[Tensor, "n 3 h w"]:
    side = max(size)
    frame = Preprocess(size=side, geometry="crop", **PLAIN_COLOURS)
    chosen = [paths[_integer(0, len(paths), generator)] for _ in range(count)]
    textures = [prepare(read_image(path), frame)[:, : size[0], : size[1]] for path in chosen]
    return torch.stack(textures) if textures else torch.zeros(0, 3, *size)


def _clouds(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Octaves of Perlin's noise."""
    first = 2 ** _integer(0, 4, generator)
    total = torch.zeros(size)
    for octave in range(3):
        cells = first * 2**octave
        total += perlin_noise(size, (cells, cells), generator) / 2**octave
    return _stretched(total)


def _waves(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Parallel stripes whose edges noise has bent."""
    rows, columns = _places(size)
    angle, count, bend = torch.rand(3, generator=generator).tolist()
    along = math.cos(math.pi * angle) * rows + math.sin(math.pi * angle) * columns
    bent = perlin_noise(size, (2, 2), generator)
    return (0.5 + 0.5 * torch.sin(2 * math.pi * (2 + 14 * count) * along + 6 * bend * bent)).float()


def _cobbles(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Distance to the nearest of some points."""
    centres = torch.rand(_integer(8, 65, generator), 2, generator=generator)
    rows, columns = _places(size)
    down, right = rows[..., None] - centres[:, 0], columns[..., None] - centres[:, 1]
    return _stretched((down.square() + right.square()).amin(dim=-1).sqrt())


def _checks(size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "h w"]:
    """A chessboard with fields of any shape."""
    rows, columns = _places(size)
    fields = [_integer(2, 17, generator) for _ in range(2)]
    return (((rows * fields[0]).floor() + (columns * fields[1]).floor()) % 2).float()


PATTERNS = (_clouds, _waves, _cobbles, _checks)


def _places(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels from 0 to 1."""
    rows, columns = torch.meshgrid(*((torch.arange(s) + 0.5) / s for s in size), indexing="ij")
    return rows, columns


def _stretched(field: Tensor) -> Tensor:
    """From 0 to 1."""
    low, high = field.amin(), field.amax()
    return (field - low) / (high - low).clamp(min=torch.finfo(field.dtype).tiny)


def _integer(least: int, beyond: int, generator: torch.Generator) -> int:
    return int(torch.randint(least, beyond, (), generator=generator))
