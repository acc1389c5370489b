"""AnoViT: the image, rebuilt from the patch tokens of a transformer.

AnoViT: Unsupervised Anomaly Detection and Localization with Vision Transformer-based
Encoder-Decoder. Lee, Kang. IEEE Access 2022. https://arxiv.org/abs/2203.10808

All patch tokens of a vision transformer stay where their patches are, as a map that knows of the
whole image everywhere. Transposed convolutions rebuild the image from it. A pixel is as anomalous
as its colour is far from what was rebuilt.

Deviations: any backbone serves, and none of its weights learns; the tiny one is no transformer, and
sees less of the image from one place. The image is rebuilt at a small size of its own, by as many
doublings of the grid as come nearest to it, and at that size compared. Half as wide; no batch norm,
which few images would mislead; standardised features; the rate falls along a cosine; the map is
blurred. Weak at few shots by nature: frozen tokens tell of colours they never met, so that defects
are rebuilt as well, and with one or two images the decoder learns those by heart. ``PAPER`` holds
the paper's settings, for which ``backbone`` is to be a ViT-B/16 and images 384 px large; its budget
is not known to us and stays the quick one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.colours import to_unit
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.parameters import Between, check_parameters
from fewshot_ad.parts.patches import join_coarsely
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["AnoViT"]

LEAST_SIZE = 16
LEAST_WIDTH = 8


@dataclass(kw_only=True, eq=False)
class AnoViT(FeatureMethod):
    """An image decoder on frozen tokens; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is ViT-B/16.
        levels: feature maps that are joined, the last gives the grid.
        inner_size: side in pixels of the image that is rebuilt.
        width: channels of the first layer of the decoder; every doubling has half as many.
        steps: of training.
        batch_size: images per step at most.
        learning_rate: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (3,)
    inner_size: int = 112
    width: int = 64
    steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-3
    decoder_: "_Decoder | None" = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 384,
        "width": 128,
        "learning_rate": 2e-4,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self, inner_size=Between(LEAST_SIZE))

    def fit(self, support: Support) -> "AnoViT":
        """Train the decoder.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        maps = join_coarsely(self.features(support.images))
        colours = self._colours(support.images, maps)
        with seeded_weights(self.seed):
            decoder = _Decoder(maps, self.width, self.inner_size).to(maps)
        budget = budget_of(self, self.batch_size, clip_norm=1.0, cosine=True)

        def loss(rows: Int[Tensor, " k"], _: Generator) -> Float[Tensor, ""]:
            return functional.mse_loss(decoder(maps[rows]), colours[rows])

        train_on_support(decoder, loss, len(maps), budget, "AnoViT")
        self.decoder_ = decoder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Squared error of every pixel, the mean over colours."""
        assert self.decoder_ is not None
        maps = join_coarsely(self.features(image))
        error = self.decoder_(maps) - self._colours(image, maps)
        return Judgement([error.square().mean(dim=1)])

    def _colours(
        self, images: Float[Tensor, "b 3 h w"], maps: Float[Tensor, "b c h2 w2"]
    ) -> Float[Tensor, "b 3 s s"]:
        """What is to be rebuilt, where the maps are."""
        return to_unit(images.to(maps), self.preprocess, self.inner_size)


class _Decoder(nn.Module):
    """Transposed convolutions, each of which doubles the grid."""

    def __init__(self, support: Float[Tensor, "n c h w"], width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.scale = Standardiser(support)
        doublings = max(0, round(math.log2(size / max(support.shape[-2:]))))
        widths = [max(LEAST_WIDTH, width // 2**number) for number in range(doublings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(support.shape[1], widths[0], 1), nn.ReLU()]
        for number in range(doublings):
            layers += [nn.ConvTranspose2d(widths[number], widths[number + 1], 4, 2, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """Colours, not held between 0 and 1."""
        drawn = self.layers(self.scale(maps))
        return functional.interpolate(
            drawn, (self.size, self.size), mode="bilinear", align_corners=False
        )
