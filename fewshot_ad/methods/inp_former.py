"""INP-Former: an image is rebuilt from a few prototypes of its own normal patches.

Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly Detection. Luo,
Cao, Yao, Zhang, Lou, Cheng, Shen, Yu. CVPR 2025. https://arxiv.org/abs/2503.02424,
code: https://github.com/luow23/INP-Former

Most of an anomalous image is normal. Six learned tokens look at its features and become its
prototypes, each a mixture of what is normal in it. The decoder attends to prototypes alone, without
the shortcut around its attention, so that it can say no more than they hold. Hard positions teach
more than easy ones, and every feature is drawn to have a prototype near it. The score is one minus
the cosine of features, an image's the mean of its highest hundredth of pixels.

The paper trains one model for all classes of a dataset, its few-shot form too, which sees every
class's shots; here a model sees one class. Any backbone serves: a group is a level, levels meet on
the coarsest grid and are joined by a fixed random projection, which training cannot make blind, and
a linear head, which begins at the mean of the support, gives each its own width. Other deviations:
the quick decoder is narrow, with three blocks for eight, and hard positions count in proportion to
their distance, not to its third power, by which few steps follow fewer positions; Adam with a
cosine to nothing in place of StableAdamW; no turned or shifted copies of the support. Cells of the
tiny backbone's grid are 16 pixels wide, and defects smaller than that drown. With one or two images
few mixtures are seen, and new but normal parts of an object are rebuilt badly. ``PAPER`` holds the
paper's settings, for which ``backbone`` is to be a DINOv2 ViT-B/14 and ``levels`` its quarters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.cosine_rebuilding import (
    Distances,
    LevelRebuilder,
    check_blocks,
    top_share_score,
    whole_map_loss,
)
from fewshot_ad.parts.cosines import Levels, cosine_distances
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, POSITIVE_SHARE, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.token_blocks import FeedForward, Tokens, check_heads

__all__ = ["INPFormer"]

Prototypes = Float[Tensor, "b m d"]


@dataclass(kw_only=True, eq=False)
class INPFormer(FeatureMethod):
    """Rebuilding from an image's own prototypes; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is a DINOv2 ViT-B/14
            with registers.
        levels: feature maps that are rebuilt, the last gives the grid.
        prototypes: of an image.
        width: of the tokens.
        heads: of all attentions, which share the width.
        blocks: of the decoder, at least one for every level.
        hardness: power to which a position's distance over the mean weighs its gradient (gamma).
        coherence_weight: weight of the loss that draws prototypes to features (lambda).
        steps: of training.
        batch_size: images per step at most.
        learning_rate, weight_decay: of Adam.
        top_share: share of the pixels whose mean is the score of an image.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    prototypes: int = 6
    width: int = 128
    heads: int = 8
    blocks: int = 3
    hardness: float = 1.0
    coherence_weight: float = 0.2
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    top_share: float = 0.01
    network_: "_Network | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 768,
        "heads": 12,
        "blocks": 8,
        "hardness": 3.0,
        "steps": 45_000,  # 200 epochs of 3629 images
        "batch_size": 16,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            prototypes=COUNT,
            hardness=NOT_NEGATIVE,
            coherence_weight=NOT_NEGATIVE,
            top_share=POSITIVE_SHARE,
        )
        check_heads(self.width, self.heads)
        check_blocks(self.blocks, self.levels)

    def fit(self, support: Support) -> "INPFormer":
        """Train extractor and decoder.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        levels = self.features(support.images)
        with seeded_weights(self.seed):
            network = _Network(levels, self.width, self.heads, self.blocks, self.prototypes)
        network.to(levels[0])
        targets = network.targets(levels)

        def loss(rows: Int[Tensor, " k"], _: torch.Generator) -> Float[Tensor, ""]:
            some = [maps[rows] for maps in targets]
            rebuilt, coherence = network(some)
            mined = whole_map_loss(some, rebuilt, lambda d: hardened(d, self.hardness))
            return mined + self.coherence_weight * coherence

        budget = budget_of(self, self.batch_size, clip_norm=0.1, warm_up=0.01, cosine=True)
        train_on_support(network, loss, len(support.images), budget, "INP-Former")
        self.network_ = network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Cosine distances of all levels, and the mean of the highest pixels."""
        assert self.network_ is not None
        targets = self.network_.targets(self.features(image))
        maps = cosine_distances(targets, self.network_(targets)[0])
        size = image.shape[-2], image.shape[-1]
        return Judgement(maps, top_share_score(maps, size, self.blur, self.top_share))


def hardened(distance: Distances, power: float) -> Distances:
    """Weights of gradients of soft mining: distances over their mean in the batch, to a power."""
    return (distance / distance.mean().clamp(min=torch.finfo(distance.dtype).eps)) ** power


def incoherence(tokens: Tokens, prototypes: Prototypes) -> Float[Tensor, ""]:
    """Mean distance, 1 minus the cosine, of tokens to the prototype that is most like them."""
    pairs = functional.normalize(tokens, dim=2) @ functional.normalize(prototypes, dim=2).mT
    return (1 - pairs.amax(dim=2)).mean()


class _Network(LevelRebuilder):
    """Extractor of prototypes, bottleneck, and blocks that attend to prototypes alone."""

    def __init__(
        self, support: Levels, width: int, heads: int, blocks: int, prototypes: int
    ) -> None:
        super().__init__(support, width, frozen=True)
        self.queries = nn.Parameter(0.02 * torch.randn(1, prototypes, width))
        self.extract = nn.MultiheadAttention(width, heads, batch_first=True)
        self.before_refining, self.refine = nn.LayerNorm(width), FeedForward(width)
        self.bottleneck = FeedForward(width)
        self.blocks = nn.ModuleList(_PrototypeBlock(width, heads) for _ in range(blocks))

    def forward(self, targets: Levels) -> tuple[list[Tensor], Float[Tensor, ""]]:
        """Rebuilt levels, and how badly the prototypes stand for the features."""
        grid = targets[0].shape[-2], targets[0].shape[-1]
        seen = self.tokens(targets)
        prototypes = self._prototypes(seen)
        tokens, outputs = self.bottleneck(seen), []
        for block in self.blocks:
            tokens = block(tokens, prototypes)
            outputs.append(tokens)
        return self.rebuilt(outputs, grid), incoherence(seen, prototypes)

    def _prototypes(self, tokens: Tokens) -> Prototypes:
        queries = self.queries.expand(len(tokens), -1, -1)
        prototypes = queries + self.extract(queries, tokens, tokens, need_weights=False)[0]
        return prototypes + self.refine(self.before_refining(prototypes))


class _PrototypeBlock(nn.Module):
    """What is like a prototype takes from it; what is like none is left with nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_heads = heads
        self.before_attention, self.before_feeding = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.memory = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.output, self.feeding = nn.Linear(width, width), FeedForward(width)

    def forward(self, tokens: Tokens, prototypes: Prototypes) -> Tokens:
        """Mixtures of prototypes, without a shortcut for the tokens themselves."""
        queries = self.query(self.before_attention(tokens)).unflatten(2, (self.n_heads, -1))
        keys, values = self.memory(prototypes).unflatten(2, (2, self.n_heads, -1)).unbind(2)
        likeness = torch.einsum("bnhd,bmhd->bhnm", queries, keys) / queries.shape[3] ** 0.5
        mixed = torch.einsum("bhnm,bmhd->bnhd", likeness.relu(), values).flatten(2)
        found = self.output(mixed)
        return found + self.feeding(self.before_feeding(found))
