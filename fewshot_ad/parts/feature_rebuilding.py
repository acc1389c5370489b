"""Rebuilding a map of frozen features from itself by a transformer with encoder and decoder.

What the encoder has seen reaches the decoder through attention alone, and the decoder starts from
learned queries: features that the support does not know are rebuilt as others. Layers are those of
DETR, with norms after the sums, and positions added to queries and keys.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support_training import Loss
from fewshot_ad.parts.token_blocks import (
    FeedForward,
    Grid,
    PositionCode,
    Tokens,
    neighbours,
    to_maps,
    to_tokens,
)

Maps = Float[Tensor, "b c h w"]
Mask = Bool[Tensor, "n n"] | None


@dataclass(frozen=True, kw_only=True)
class RebuilderShape:
    """The size and form of the transformer.

    Attributes:
        width: of its tokens.
        heads: of every attention.
        layers: of the encoder, and of the decoder.
        hidden_ratio: width of the hidden layer of what follows attention, over that of tokens.
        masked: side of the square about a position that it may not attend to, 0 for none.
        layer_queries: every layer of the decoder has learned queries of its own, and looks with
            them at the encoding and then at the layer before; without, one set of queries goes
            through all layers, which look at one another and then at the encoding.
    """

    width: int
    heads: int
    layers: int
    hidden_ratio: float = 4.0
    masked: int = 0
    layer_queries: bool = False


class FeatureRebuilder(nn.Module):
    """Standardises features on the support and rebuilds them.

    Args:
        support: features of the support, which give channels, scale and grid.
        shape: of the transformer.
        seed: of the first weights.
    """

    def __init__(self, support: Maps, shape: RebuilderShape, seed: int) -> None:
        super().__init__()
        _, channels, height, width = support.shape
        grid = height, width
        self.shape = shape
        self.scale = Standardiser(support)
        with seeded_weights(seed):
            self.narrow = nn.Linear(channels, shape.width)
            self.widen = nn.Linear(shape.width, channels)
            self.position = PositionCode(shape.width, grid)
            self.encoder = nn.ModuleList(_Layer(shape, 1) for _ in range(shape.layers))
            self.decoder = nn.ModuleList(_Layer(shape, 2) for _ in range(shape.layers))
            n_queries = shape.layers if shape.layer_queries else 1
            self.queries = nn.ModuleList(PositionCode(shape.width, grid) for _ in range(n_queries))
        self.to(support)

    def forward(self, maps: Maps) -> Maps:
        """Standardised features, rebuilt."""
        grid = maps.shape[-2], maps.shape[-1]
        mask = neighbours(grid, self.shape.masked).to(maps.device) if self.shape.masked else None
        tokens, position = self.narrow(to_tokens(maps)), self.position(grid)
        for layer in self.encoder:
            tokens = layer(tokens, [tokens], position, mask)
        return to_maps(self.widen(self._decode(tokens, grid, mask)), grid)

    def error(self, maps: Maps) -> Float[Tensor, "b h w"]:
        """Euclidean distance of every position to what is rebuilt of it."""
        scaled = self.scale(maps)
        return torch.linalg.vector_norm(self(scaled) - scaled, dim=1)

    def loss(self, support: Maps, jitter: float = 0.0) -> Loss:
        """Mean squared error of rebuilding rows of the support.

        Args:
            support: the features to be rebuilt.
            jitter: what is rebuilt from has Gaussian noise of that deviation, times the length of
                the vector of a position over its channels (feature jittering of UniAD).
        """
        targets = self.scale(support)

        def loss(rows: Tensor, generator: torch.Generator) -> Float[Tensor, ""]:
            some = targets[rows]
            if not jitter:
                return functional.mse_loss(self(some), some)
            length = torch.linalg.vector_norm(some, dim=1, keepdim=True) / some.shape[1]
            noise = torch.randn(some.shape, generator=generator).to(some)
            return functional.mse_loss(self(some + jitter * length * noise), some)

        return loss

    def _decode(self, encoded: Tokens, grid: Grid, mask: Mask) -> Tokens:
        position = self.position(grid)
        queries = [query(grid).expand(len(encoded), -1, -1) for query in self.queries]
        tokens = encoded if self.shape.layer_queries else queries[0]
        for number, layer in enumerate(self.decoder):
            if self.shape.layer_queries:
                tokens = layer(queries[number], [encoded, tokens], position, mask)
            else:
                tokens = layer(tokens, [tokens, encoded], position, mask)
        return tokens


class _Layer(nn.Module):
    """Tokens look at some memories, one after the other."""

    def __init__(self, shape: RebuilderShape, memories: int) -> None:
        super().__init__()
        width, heads = shape.width, shape.heads
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(memories)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(memories))
        self.feeding, self.last_norm = FeedForward(width, shape.hidden_ratio), nn.LayerNorm(width)

    def forward(
        self, tokens: Tokens, memories: list[Tensor], position: Tensor, mask: Mask
    ) -> Tokens:
        for attend, norm, memory in zip(self.attentions, self.norms, memories, strict=True):
            keys = memory + position
            found, _ = attend(tokens + position, keys, memory, attn_mask=mask, need_weights=False)
            tokens = norm(tokens + found)
        return self.last_norm(tokens + self.feeding(tokens))
