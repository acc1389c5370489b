"""RD4AD: a decoder rebuilds a backbone's features from a code too narrow for anything abnormal.

Anomaly Detection via Reverse Distillation from One-Class Embedding. Deng, Li. CVPR 2022.
https://arxiv.org/abs/2201.10703, code: https://github.com/hq-deng/RD4AD

All levels of a frozen backbone are joined and squeezed through a small code, and a decoder climbs
from there back to every level. On normal images it learns to point the way that the features point.
What is abnormal does not fit through the code, and the decoder's features point elsewhere.

Deviations. The decoder is narrow, has one residual layer per level whatever the backbone, resizes
where the paper has transposed convolutions, and has norms over the channels of one image. It starts
at the mean features of the support, which the first steps would only find again. Altered copies of
the support are learned from besides; gradients are clipped. Maps are resized without aligned
corners. One image is soon known with all its copies; with few, the decoder is wrong about normal
variation that it never saw. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.cosines import Cosine, cosine_distances, cosine_loss
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import check_parameters
from fewshot_ad.parts.students import Decoder, start_from_means, support_views
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["RD4AD"]


@dataclass(kw_only=True, eq=False)
class RD4AD(FeatureMethod):
    """Reverse distillation; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: feature maps that are rebuilt.
        width: channels of the decoder at the first level, doubled at each further one.
        cosine: in training of every ``position``, as the paper writes it, or of the ``whole_map``
            as one long vector, as the released code has it.
        support_views: the support and altered copies of it, so many at least.
        steps, batch_size: of training; a batch is of views.
        learning_rate: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    fusion: ClassVar[Literal["mean", "sum"]] = "sum"
    levels: tuple[int, ...] = (1, 2, 3)
    width: int = 16
    cosine: Cosine = "position"
    support_views: int = 32
    steps: int = 250
    batch_size: int = 4
    learning_rate: float = 2e-3
    decoder_: Decoder | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 256,
        "cosine": "whole_map",
        "support_views": 1,
        "steps": 2800,  # 200 epochs of 14 batches
        "batch_size": 16,
        "learning_rate": 5e-3,
    }

    def __post_init__(self) -> None:
        check_parameters(self)

    def fit(self, support: Support) -> "RD4AD":
        """Train the bottleneck and the decoder.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        levels = self.features(support_views(support.images, self.support_views, self.seed))
        backbone = self.features.backbone
        decoder = Decoder(backbone, self.width, self.seed)
        decoder.to(levels[0].device)
        start_from_means(decoder, levels)

        def loss(rows: Int[Tensor, " k"], _: torch.Generator) -> Float[Tensor, ""]:
            some = [maps[rows] for maps in levels]
            return cosine_loss(some, decoder(some), self.cosine)

        budget = budget_of(self, self.batch_size, betas=(0.5, 0.999), clip_norm=1.0)
        train_on_support(decoder, loss, len(levels[0]), budget, "RD4AD")
        self.decoder_ = decoder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """How far what is rebuilt of every level points away from it."""
        assert self.decoder_ is not None
        levels = self.features(image)
        return Judgement(cosine_distances(levels, self.decoder_(levels)))
