"""Blocks of transformers over patch tokens: forms of attention, positions, neighbours, dropout.

Tokens are rows of [b n d], one for each position of a grid, row by row.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError

Tokens = Float[Tensor, "b n d"]
Grid = tuple[int, int]


def check_heads(width: int, heads: int) -> None:
    """Refuse heads that cannot share the width of tokens.

    Raises:
        FewShotError: names both numbers.
    """
    if width < 1 or heads < 1 or width % heads:
        raise FewShotError(
            f"width is {width} and heads is {heads}: expected a multiple, so that every head has "
            "an equal part of the width"
        )


def to_tokens(maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b hw d"]:
    """One row per position."""
    return maps.flatten(2).mT


def to_maps(tokens: Float[Tensor, "b hw d"], grid: Grid) -> Float[Tensor, "b d h w"]:
    """What ``to_tokens`` was given, on a grid of that height and width."""
    return tokens.mT.unflatten(2, grid)


def neighbours(grid: Grid, size: int) -> Bool[Tensor, "n n"]:
    """Which positions lie in the square of that side about each position, itself among them.

    On a grid so small that the square about its centre holds it all, the square shrinks until it
    does not: somebody must be left to attend to. With a size of 0 nobody is a neighbour.
    """
    height, width = grid
    reach = min((size + 1) // 2, max(grid) // 2)  # the first distance that is no neighbour's
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    row_gap, column_gap = (rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()
    return torch.maximum(row_gap, column_gap) < reach


def dropped(tokens: Tokens, share: float, generator: torch.Generator) -> Tokens:
    """Dropout that draws from a generator, which is on the CPU."""
    kept = torch.rand(tokens.shape, generator=generator) >= share
    return tokens * kept.to(tokens) / (1 - share)


class PositionCode(nn.Module):
    """A learned vector for every position of a grid; other grids get interpolated ones."""

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        self.code = nn.Parameter(0.02 * torch.randn(1, width, *grid))

    def forward(self, grid: Grid) -> Float[Tensor, "1 n d"]:
        """The code of every position of a grid."""
        code = self.code
        if code.shape[-2:] != grid:
            code = functional.interpolate(code, grid, mode="bilinear", align_corners=False)
        return to_tokens(code)


class FeedForward(nn.Sequential):
    """Two linear layers; the hidden one is wider by a factor."""

    def __init__(self, width: int, hidden_ratio: float = 4.0) -> None:
        hidden = max(1, round(width * hidden_ratio))
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class SelfAttention(nn.Module):
    """Softmax attention of tokens to one another, in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens: Tokens) -> Tokens:
        """Means of the tokens, weighted by likeness."""
        return self.heads(tokens, tokens, tokens, need_weights=False)[0]


class LinearAttention(nn.Module):
    """Attention whose weights are products of positive features of query and key (elu + 1).

    Sums over the keys are taken once for all queries (Katharopoulos et al., ICML 2020): attention
    is spread wide and cannot single out one token.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tokens) -> Tokens:
        """Means of the tokens."""
        parts = self.inputs(tokens).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = functional.elu(parts[0]) + 1, functional.elu(parts[1]) + 1, parts[2]
        weight = queries @ keys.sum(dim=2)[..., None]
        found = queries @ (keys.mT @ values) / weight
        return self.output(found.transpose(1, 2).flatten(2))


class PreNormBlock(nn.Module):
    """A transformer block as in ViT: both halves read normalised tokens and add to them."""

    def __init__(self, width: int, attention: nn.Module, hidden_ratio: float = 4.0) -> None:
        super().__init__()
        self.before_attention, self.before_feeding = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feeding = attention, FeedForward(width, hidden_ratio)

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens to tokens."""
        tokens = tokens + self.attention(self.before_attention(tokens))
        return tokens + self.feeding(self.before_feeding(tokens))
