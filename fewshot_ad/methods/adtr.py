"""ADTR: a transformer rebuilds features, starting from a learned query.

ADTR: Anomaly Detection Transformer with Feature Reconstruction. You, Yang, Luo, Cui, Zheng, Le.
ICONIP 2022. https://arxiv.org/abs/2209.01816

Pixels say little of what they show, so features of a frozen network are rebuilt in their place. The
decoder starts from a learned query that knows no image and sees the image by attention alone, which
rebuilds normal features more readily than others. A position is as anomalous as its feature is far
from what was rebuilt.

There is no official code. Only the form for normal images is here, without the losses for labelled
anomalies. Deviations: channels are standardised over the support; the quick transformer has half
the width, heads and layers, and its rate falls along a cosine; Adam, no dropout; positions are
added in every layer and interpolated on other grids; the map is blurred. Cells of the tiny
backbone's grid are 16 pixels wide, and defects smaller than that drown. With one or two images the
query learns them by heart: an object must stand where it stood. ``PAPER`` holds the paper's
settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.feature_rebuilding import FeatureRebuilder, RebuilderShape
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import COUNT, check_parameters
from fewshot_ad.parts.patches import join_coarsely
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.token_blocks import check_heads

__all__ = ["ADTR"]


@dataclass(kw_only=True, eq=False)
class ADTR(FeatureMethod):
    """Rebuilding from a learned query; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is EfficientNet-B4.
        levels: feature maps that are joined, the last gives the grid.
        width: of the tokens of the transformer.
        heads: of its attentions, which share the width.
        layers: of the encoder, and of the decoder.
        steps: of training.
        batch_size: images per step at most.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    width: int = 128
    heads: int = 4
    layers: int = 2
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    rebuilder_: FeatureRebuilder | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 256,
        "heads": 8,
        "layers": 4,
        "steps": 7_500,  # 500 epochs of 15 batches, not checked
        "batch_size": 16,
        "learning_rate": 1e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self, layers=COUNT)
        check_heads(self.width, self.heads)

    def fit(self, support: Support) -> "ADTR":
        """Train the transformer.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        maps = join_coarsely(self.features(support.images))
        shape = RebuilderShape(width=self.width, heads=self.heads, layers=self.layers)
        rebuilder = FeatureRebuilder(maps, shape, self.seed)
        budget = budget_of(self, self.batch_size, clip_norm=1.0, cosine=True)
        train_on_support(rebuilder, rebuilder.loss(maps), len(maps), budget, "ADTR")
        self.rebuilder_ = rebuilder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Euclidean distance of every position to what is rebuilt of it."""
        assert self.rebuilder_ is not None
        return Judgement([self.rebuilder_.error(join_coarsely(self.features(image)))])
