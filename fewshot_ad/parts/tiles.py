"""Overlapping square tiles of images that are no squares, or too large for a network.

As the reimplementation mala-lab/WinCLIP cuts non-square images: neighbours are 0.8 of a side apart,
the last one ends with the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import FewShotError


@dataclass(frozen=True)
class Tiling:
    """Where tiles of ``side`` pixels lie in images of ``size`` (height, width).

    Attributes:
        overlap: least share of a tile that its neighbour shows too.
    """

    size: tuple[int, int]
    side: int
    overlap: float = 0.2

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every tile, row by row.

        Raises:
            FewShotError: the image is smaller than a tile.
        """
        if self.side > min(self.size):
            raise FewShotError(
                f"images are {self.size[0]}x{self.size[1]}, smaller than tiles of {self.side}: "
                "give larger images or a smaller tile"
            )
        rows, columns = (self._starts(length) for length in self.size)
        return [(top, left) for top in rows for left in columns]

    def cut(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c s s"]]:
        """One batch per tile, in the order of ``corners``."""
        side = self.side
        return [images[:, :, y : y + side, x : x + side].contiguous() for y, x in self.corners]

    def join(self, maps: Sequence[Float[Tensor, "b s s"]]) -> Float[Tensor, "b h w"]:
        """Maps of the tiles as one map of the image; the mean where several overlap."""
        total = torch.zeros(len(maps[0]), *self.size, device=maps[0].device)
        count = torch.zeros(self.size, device=maps[0].device)
        for (y, x), values in zip(self.corners, maps, strict=True):
            total[:, y : y + self.side, x : x + self.side] += values
            count[y : y + self.side, x : x + self.side] += 1
        return total / count

    def _starts(self, length: int) -> list[int]:
        step = max(1, math.floor(self.side * (1 - self.overlap)))
        return [*range(0, length - self.side, step), length - self.side]
