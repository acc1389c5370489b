"""Dinomaly: a decoder with a noisy bottleneck and attention that cannot focus.

Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection. Guo, Lu, Zhang,
Chen, Li, Liao. CVPR 2025. https://arxiv.org/abs/2405.14325,
code: https://github.com/guojiajeremy/Dinomaly

A transformer rebuilds the features of a frozen one. Dropout between the two asks for repair, not
for copying; linear attention spreads wide and hands no position through; whole groups of layers are
compared in place of layer by layer, and positions that are rebuilt well already hardly teach. The
score is one minus the cosine of features, an image's the mean of its highest hundredth of pixels.

The paper's point is one model for all classes of a dataset on DINOv2; here a model sees one class,
and any backbone serves. So a group is a level, levels meet on the coarsest grid and are joined by a
learned projection, and a linear head, which begins at the mean of the support, gives each its own
width. Other deviations: the quick decoder is narrow, with three blocks for eight; Adam with a
cosine to nothing in place of StableAdamW; and images are as large as the episode has them. Cells of
the tiny backbone's grid are 16 pixels wide, and defects smaller than that drown. With one or two
images the decoder learns them by heart, and dropout alone generalises.
``PAPER`` holds the paper's settings, for which ``backbone`` is to be a DINOv2 ViT-B/14 and
``levels`` its quarters.
"""

from collections.abc import Iterator, Mapping
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
from fewshot_ad.parts.parameters import POSITIVE_SHARE, SHARE, Between, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.token_blocks import LinearAttention, PreNormBlock, check_heads, dropped

__all__ = ["Dinomaly"]

EASY_WEIGHT = 0.1
HIDDEN_RATIO = 4


@dataclass(kw_only=True, eq=False)
class Dinomaly(FeatureMethod):
    """A loosely taught decoder; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is a DINOv2 ViT-B/14
            with registers.
        levels: feature maps that are rebuilt, the last gives the grid.
        width: of the tokens of the decoder.
        heads: of its attentions, which share the width.
        blocks: of the decoder, at least one for every level.
        dropout: share of the bottleneck's values that are dropped.
        easy_share: share of the positions, those rebuilt best, of whose gradient a tenth is left.
        ramp: share of the steps in which the easy share rises from 0.
        steps: of training.
        batch_size: images per step at most.
        learning_rate, weight_decay: of Adam.
        top_share: share of the pixels whose mean is the score of an image.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    width: int = 128
    heads: int = 8
    blocks: int = 3
    dropout: float = 0.2
    easy_share: float = 0.9
    ramp: float = 0.1
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    top_share: float = 0.01
    decoder_: "_Decoder | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 768,
        "heads": 12,
        "blocks": 8,
        "steps": 10_000,
        "batch_size": 16,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            dropout=Between(0, 0.99),
            easy_share=SHARE,
            ramp=SHARE,
            top_share=POSITIVE_SHARE,
        )
        check_heads(self.width, self.heads)
        check_blocks(self.blocks, self.levels)

    def fit(self, support: Support) -> "Dinomaly":
        """Train the decoder.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        levels = self.features(support.images)
        with seeded_weights(self.seed):
            decoder = _Decoder(levels, self.width, self.heads, self.blocks)
        decoder.to(levels[0])
        targets, shares = decoder.targets(levels), self._easy_shares()

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            some, share = [maps[rows] for maps in targets], next(shares)
            rebuilt = decoder(some, self.dropout, generator)
            return whole_map_loss(some, rebuilt, lambda distance: loosened(distance, share))

        budget = budget_of(self, self.batch_size, clip_norm=0.1, warm_up=0.01, cosine=True)
        train_on_support(decoder, loss, len(support.images), budget, "Dinomaly")
        self.decoder_ = decoder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Cosine distances of all levels, and the mean of the highest pixels."""
        assert self.decoder_ is not None
        targets = self.decoder_.targets(self.features(image))
        maps = cosine_distances(targets, self.decoder_(targets))
        size = image.shape[-2], image.shape[-1]
        return Judgement(maps, top_share_score(maps, size, self.blur, self.top_share))

    def _easy_shares(self) -> Iterator[float]:
        """The share of easy positions at every step."""
        rising = max(1.0, self.ramp * self.steps)
        return (self.easy_share * min(1.0, step / rising) for step in range(self.steps))


def loosened(distance: Distances, share: float) -> Distances:
    """Weights of gradients: a tenth for the best rebuilt positions of the batch, 1 for the rest.

    Args:
        distance: of every position to what was rebuilt of it.
        share: of the positions that count as rebuilt well; the worst one never does.
    """
    hardest = max(1, int(distance.numel() * (1 - share)))
    least = distance.flatten().topk(hardest).values[-1]
    return torch.where(distance < least, EASY_WEIGHT, 1.0)


class _Decoder(LevelRebuilder):
    """Bottleneck and blocks of linear attention."""

    def __init__(self, support: Levels, width: int, heads: int, blocks: int) -> None:
        super().__init__(support, width)
        self.into = nn.Linear(width, HIDDEN_RATIO * width)
        self.out = nn.Linear(HIDDEN_RATIO * width, width)
        self.blocks = nn.ModuleList(
            PreNormBlock(width, LinearAttention(width, heads)) for _ in range(blocks)
        )

    def forward(
        self, targets: Levels, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Rebuilt levels; without a generator nothing is dropped."""
        grid = targets[0].shape[-2], targets[0].shape[-1]
        hidden = functional.gelu(self.into(self.tokens(targets)))
        if generator is not None:
            hidden = dropped(hidden, dropout, generator)
        tokens = self.out(hidden)
        if generator is not None:
            tokens = dropped(tokens, dropout, generator)
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens)
        return self.rebuilt(outputs, grid)
