"""From backbone features to the vectors that are matched: averaged, narrowed, of unit length."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.flows import draw_rotation

Levels = list[Float[Tensor, "b _ _ _"]]


@dataclass(frozen=True)
class Embedding:
    """What happens to the features of every level before matching; nothing of it is learned.

    Attributes:
        neighbourhood: side of the square over which features are averaged, odd (PatchCore: 3).
        channels: at most so many, by a fixed random projection that keeps angles; None for all.
        unit_length: divide each vector by its norm, so that Euclidean and cosine matching agree and
            strong and weak activations weigh alike.
    """

    neighbourhood: int = 1
    channels: int | None = None
    unit_length: bool = False

    def __call__(self, levels: Levels) -> Levels:
        """Embed every level on its own, at its own resolution."""
        return [self._embed(number, maps) for number, maps in enumerate(levels)]

    def widths(self, channels: tuple[int, ...]) -> tuple[int, ...]:
        """Channels that come out when ``channels`` go in."""
        return tuple(min(width, self.channels or width) for width in channels)

    def projection(self, level: int, width: int) -> Float[Tensor, "d c"] | None:
        """What narrows ``width`` channels of a level, counted from 0; None if nothing does."""
        if self.channels is None or self.channels >= width:
            return None
        return _projection(width, self.channels, level)

    def _embed(self, level: int, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        maps = average_neighbourhood(maps, self.neighbourhood)
        rows = self.projection(level, maps.shape[1])
        if rows is not None:
            # One image at a time, so that an image has the same bits alone and in a batch.
            rows = rows.to(maps.device)
            maps = torch.stack(
                [(rows @ image.flatten(1)).unflatten(1, image.shape[1:]) for image in maps]
            )
        return functional.normalize(maps, dim=1) if self.unit_length else maps


def average_neighbourhood(maps: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c h w"]:
    """Mean over a square of odd ``side`` around each position; beyond the border lie zeros.

    So it is in the released code of PatchCore and of those that build on it. Vectors at the border
    are shorter for it, and so are distances between them: a mean over what there is raises false
    alarms there.
    """
    return maps if side == 1 else functional.avg_pool2d(maps, side, 1, side // 2)


@cache
def _projection(inputs: int, outputs: int, level: int) -> Float[Tensor, "d c"]:
    """Orthonormal rows of a random rotation, the same for every method and run."""
    generator = torch.Generator().manual_seed(inputs * 16 + level)
    return draw_rotation(inputs, generator)[:outputs]
