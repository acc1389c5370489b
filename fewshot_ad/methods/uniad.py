"""UniAD: a transformer rebuilds features from all but their neighbourhood.

A Unified Model for Multi-class Anomaly Detection. You, Cui, Shen, Yang, Lu, Zheng, Le. NeurIPS
2022. https://arxiv.org/abs/2206.03687, code: https://github.com/zhiyuanyou/UniAD

Features of all levels meet on one coarse grid, and a transformer rebuilds them. Three things keep
it from handing anomalies through: a position attends to no position near it, every layer of the
decoder starts from learned queries of its own, and what is rebuilt from is jittered. A position is
as anomalous as its feature is far from what was rebuilt, an image as its worst 16 x 16 pixels.

The paper's point is one model for all classes of a dataset; here, as in every episode, a model sees
one class. Other deviations: channels are standardised over the support; the quick transformer has
half the width, heads and layers, and its rate falls along a cosine; Adam, no dropout, for which
jitter stands in; positions are interpolated on other grids, and the masked neighbourhood shrinks on
grids that it would fill. Cells of the tiny backbone's grid are 16 pixels wide, and defects smaller
than that drown. With one or two images the positions are learned by heart: an object must stand
where it stood. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.feature_rebuilding import FeatureRebuilder, RebuilderShape
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import upsample_maps
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, Odd, check_parameters
from fewshot_ad.parts.patches import join_coarsely
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.token_blocks import check_heads

__all__ = ["UniAD"]

POOL = 16  # pixels


@dataclass(kw_only=True, eq=False)
class UniAD(FeatureMethod):
    """Rebuilding with neighbours masked; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is EfficientNet-B4.
        levels: feature maps that are joined, the last gives the grid.
        width: of the tokens of the transformer.
        heads: of its attentions, which share the width.
        layers: of the encoder, and of the decoder.
        masked: side of the square about a position that it may not attend to; odd.
        jitter: deviation of the noise over the length of a feature per channel (alpha).
        steps: of training.
        batch_size: images per step at most.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    width: int = 128
    heads: int = 4
    layers: int = 2
    masked: int = 7
    jitter: float = 20.0
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    blur: float = 0.0
    rebuilder_: FeatureRebuilder | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 256,
        "heads": 8,
        "layers": 4,
        "steps": 57_000,  # 1000 epochs of 3629 images
        "batch_size": 64,
        "learning_rate": 1e-4,
    }

    def __post_init__(self) -> None:
        check_parameters(self, layers=COUNT, masked=Odd(), jitter=NOT_NEGATIVE)
        check_heads(self.width, self.heads)

    def fit(self, support: Support) -> "UniAD":
        """Train the transformer.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        maps = join_coarsely(self.features(support.images))
        shape = RebuilderShape(
            width=self.width,
            heads=self.heads,
            layers=self.layers,
            masked=self.masked,
            layer_queries=True,
        )
        rebuilder = FeatureRebuilder(maps, shape, self.seed)
        loss = rebuilder.loss(maps, self.jitter)
        budget = budget_of(self, self.batch_size, clip_norm=0.1, cosine=True)
        train_on_support(rebuilder, loss, len(maps), budget, "UniAD")
        self.rebuilder_ = rebuilder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distances, and the highest mean of 16 x 16 pixels."""
        assert self.rebuilder_ is not None
        maps = self.rebuilder_.error(join_coarsely(self.features(image)))
        size = image.shape[-2], image.shape[-1]
        pooled = functional.avg_pool2d(upsample_maps(maps, size), min(POOL, *size), stride=1)
        return Judgement([maps], pooled.amax())
