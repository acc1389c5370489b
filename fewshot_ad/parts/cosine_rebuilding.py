"""Rebuilding frozen levels up to their length: what decoders share that are judged by cosines.

Levels are joined to tokens of one width; blocks of a decoder pass the tokens on, and each level is
rebuilt from the mean of its share of the blocks, the deepest level from the first ones.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.maps import fuse, gaussian_blur, image_score
from fewshot_ad.parts.patches import pool_levels
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.token_blocks import Grid, Tokens, to_maps, to_tokens

Levels = Sequence[Float[Tensor, "b _ _ _"]]
Distances = Float[Tensor, "b h w"]
Weigh = Callable[[Distances], Distances]


def check_blocks(blocks: int, levels: Sequence[int]) -> None:
    """Refuse blocks of which levels cannot have equal shares.

    Raises:
        FewShotError: names both numbers.
    """
    if blocks < 1 or blocks % len(levels):
        raise FewShotError(
            f"blocks is {blocks} and there are {len(levels)} levels: expected a multiple, so that "
            "every level has as many blocks"
        )


class LevelRebuilder(nn.Module):
    """What of a decoder does not depend on its blocks.

    Args:
        support: levels of the support, which give channels and scale.
        width: of the tokens.
        frozen: levels are joined by a fixed random projection that keeps angles, as far as the
            width allows; else by one that learns.
    """

    def __init__(self, support: Levels, width: int, frozen: bool = False) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Standardiser(maps) for maps in support)
        channels = [maps.shape[1] for maps in support]
        self.join = nn.Linear(sum(channels), width, bias=False)
        nn.init.orthogonal_(self.join.weight)
        self.join.requires_grad_(requires_grad=not frozen)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in channels)

    def targets(self, levels: Levels) -> list[Tensor]:
        """Standardised levels on the grid of the coarsest: what is rebuilt."""
        scaled = [scale(maps) for scale, maps in zip(self.scales, levels, strict=True)]
        return pool_levels(scaled)

    def tokens(self, targets: Levels) -> Tokens:
        """All levels of a position in one token."""
        return self.join(to_tokens(torch.cat(list(targets), dim=1)))

    def rebuilt(self, outputs: Sequence[Tokens], grid: Grid) -> list[Tensor]:
        """Levels from the outputs of all blocks of a decoder, first to last."""
        share = len(outputs) // len(self.heads)
        levels = []
        for number, head in enumerate(reversed(self.heads)):
            group = torch.stack(list(outputs[number * share : (number + 1) * share])).mean(dim=0)
            levels.append(to_maps(head(group), grid))
        return levels[::-1]


def cosine_distances(targets: Levels, rebuilt: Levels) -> list[Distances]:
    """1 minus the cosine of every position, one map per level."""
    pairs = zip(targets, rebuilt, strict=True)
    return [1 - functional.cosine_similarity(target, maps, dim=1) for target, maps in pairs]


def whole_map_loss(targets: Levels, rebuilt: Levels, weigh: Weigh) -> Float[Tensor, ""]:
    """1 minus the cosine of whole maps, each one vector; the mean over images and levels.

    The value does not know of the weights: they say how much of its gradient a position gets.

    Args:
        targets: as ``LevelRebuilder.targets``.
        rebuilt: of the same shapes.
        weigh: from distances of positions to weights of their gradients.
    """
    losses = []
    distances = cosine_distances(targets, rebuilt)
    for target, maps, distance in zip(targets, rebuilt, distances, strict=True):
        weight = weigh(distance.detach())[:, None]
        steered = maps.detach() + weight * (maps - maps.detach())
        cosine = functional.cosine_similarity(target.flatten(1), steered.flatten(1), dim=1)
        losses.append(1 - cosine.mean())
    return torch.stack(losses).mean()


def top_share_score(
    maps: Sequence[Distances], size: tuple[int, int], blur: float, share: float
) -> Float[Tensor, ""]:
    """Mean of the highest pixels of the finished map of one image.

    Args:
        maps: of all levels.
        size: of the image.
        blur: of the finished map, in pixels.
        share: of the pixels that are taken; one at least.
    """
    finished = gaussian_blur(fuse(maps, size), blur)
    return image_score(finished, max(1, round(share * size[0] * size[1])))[0]
