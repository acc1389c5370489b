"""Rebuilding frozen levels up to their length: what decoders share that are judged by cosines.

Levels are joined to tokens of one width; blocks of a decoder pass the tokens on, and each level is
rebuilt from the mean of its share of the blocks, the deepest level from the first ones. Before it
has learned anything, a decoder rebuilds the mean feature of the support everywhere.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.cosines import Levels, cosine_distances
from fewshot_ad.parts.maps import finish, image_score
from fewshot_ad.parts.patches import pool_levels
from fewshot_ad.parts.token_blocks import Grid, Tokens, to_maps, to_tokens

Distances = Float[Tensor, "b h w"]
Weigh = Callable[[Distances], Distances]


def check_blocks(blocks: int, levels: Sequence[int]) -> None:
    """Refuse fewer blocks than levels.

    Raises:
        FewShotError: names both numbers.
    """
    if blocks < len(levels):
        raise FewShotError(
            f"blocks is {blocks} and there are {len(levels)} levels: expected as many blocks or "
            "more, since every level is rebuilt from some of its own"
        )


class LevelRebuilder(nn.Module):
    """What of a decoder does not depend on its blocks.

    Args:
        support: levels of the support, which give channels, scale and mean.
        width: of the tokens.
        frozen: levels are joined by a fixed random projection that keeps angles, as far as the
            width allows; else by one that learns.
    """

    scales: Tensor

    def __init__(self, support: Levels, width: int, frozen: bool = False) -> None:
        super().__init__()
        self.register_buffer("scales", torch.stack([_usual_value(maps) for maps in support]))
        channels = [maps.shape[1] for maps in support]
        self.join = nn.Linear(sum(channels), width, bias=False)
        nn.init.orthogonal_(self.join.weight)
        self.join.requires_grad_(requires_grad=not frozen)
        self.heads = nn.ModuleList(
            _head(width, maps.mean(dim=(0, 2, 3))) for maps in self.targets(support)
        )

    def targets(self, levels: Levels) -> list[Tensor]:
        """Levels on the grid of the coarsest, of usual value 1 on the support: what is rebuilt."""
        pairs = zip(levels, self.scales, strict=True)
        return pool_levels([maps / scale for maps, scale in pairs])

    def tokens(self, targets: Levels) -> Tokens:
        """All levels of a position in one token."""
        return self.join(to_tokens(torch.cat(list(targets), dim=1)))

    def rebuilt(self, outputs: Sequence[Tokens], grid: Grid) -> list[Tensor]:
        """Levels from the outputs of all blocks of a decoder, first to last."""
        shares = torch.stack(list(outputs)).tensor_split(len(self.heads))
        pairs = zip(shares, reversed(self.heads), strict=True)
        return [to_maps(head(share.mean(dim=0)), grid) for share, head in pairs][::-1]


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
    finished = finish(maps, size, blur)
    return image_score(finished, max(1, round(share * size[0] * size[1])))[0]


def _usual_value(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Root of the mean square of the channels; 1 for features that are all 0."""
    value = maps.square().mean().sqrt()
    return torch.where(value > 0, value, 1.0)


def _head(width: int, mean: Float[Tensor, " c"]) -> nn.Linear:
    """Tokens to the channels of a level; to their mean, before it has learned."""
    head = nn.Linear(width, len(mean))
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(mean)
    return head
