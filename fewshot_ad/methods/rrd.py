"""RRD: reverse distillation whose features are first cleaned of made-up noise.

Revisiting Reverse Distillation for Anomaly Detection. Tien, Nguyen, Tran, Huy, Duong, Nguyen,
Truong. CVPR 2023. Code: https://github.com/tientrandinh/Revisiting-Reverse-Distillation, paper:
https://openaccess.thecvf.com/content/CVPR2023/html/Tien_Revisiting_Reverse_Distillation_for_Anomaly_Detection_CVPR_2023_paper.html

As in RD4AD a decoder rebuilds a backbone's features through a narrow code. Before the code, a
projection of every level learns to undo simplex noise in a box of the image, to differ from noisy
features, and to bring the features of different images together. What is rebuilt of a defect is
then its cleaned self.

Deviations, besides those of our RD4AD, whose decoder this shares: the projections are added to what
they project, of which they change nothing but the level at first; one learning rate for two. A
batch and its own shuffle, which the paper brings together, are one set, whose divergence from
itself is always 0; here some positions of an image are brought together with the same of the next.
Noise is drawn once per view. With a single view there is nobody to meet, and that loss is 0.
``PAPER`` holds the paper's settings, one number of epochs for all classes, where the released code
has one for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.backbones import Backbone
from fewshot_ad.parts.cosines import Cosine, cosine_distances, cosine_loss, whole_map_distances
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.noise import simplex_noise
from fewshot_ad.parts.parameters import NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.students import Decoder, conv_layer, start_from_means, support_views
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.training import step_generator
from fewshot_ad.parts.transport import sinkhorn_divergence

__all__ = ["RRD"]

NOISE_GENERATOR = -3  # no step of training has it
LEAST_SIDE, LARGEST_SHARE = 10, 8  # sides of the box, in pixels and as a fraction of the image
NOISE: Mapping[str, Any] = {"frequency": 2**-5, "octaves": 6, "persistence": 0.6}
MARGIN = 0.5
MEETING, DENOISING, CONTRAST = 1 / 1.11, 0.01 / 1.11, 0.1 / 1.11  # weights in the loss
MET_POSITIONS, ROUNDS = 32, 10

Levels = list[Tensor]


class _Networks(nn.Module):
    """A projection of every level, and the decoder behind them."""

    def __init__(self, backbone: Backbone, width: int, seed: int) -> None:
        super().__init__()
        self.decoder = Decoder(backbone, width, seed)
        with seeded_weights(seed + 1):
            self.projections = nn.ModuleList(_projection(count) for count in backbone.channels)

    def project(self, levels: Levels) -> Levels:
        """Cleaned features."""
        pairs = zip(levels, self.projections, strict=True)
        return [maps + projection(maps) for maps, projection in pairs]

    def forward(self, levels: Levels) -> Levels:
        """What is rebuilt of them once they are cleaned."""
        return self.decoder(self.project(levels))


def _projection(channels: int) -> nn.Sequential:
    half, quarter = max(1, channels // 2), max(1, channels // 4)
    last = nn.Conv2d(half, channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(
        conv_layer(channels, half), conv_layer(half, quarter), conv_layer(quarter, half), last
    )


@dataclass(kw_only=True, eq=False)
class RRD(FeatureMethod):
    """Reverse distillation of cleaned features; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: feature maps that are rebuilt.
        width: channels of the decoder at the first level, doubled at each further one.
        cosine: in training of every ``position`` or of the ``whole_map`` as one long vector, as the
            released code of RD4AD has it.
        projection_weight: of the three losses of the projections together.
        noise: amplitude of the simplex noise, in deviations of a colour.
        support_views: the support and altered copies of it, so many at least.
        steps, batch_size: of training; a batch is of views.
        learning_rate: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    fusion: ClassVar[Literal["mean", "sum"]] = "sum"
    levels: tuple[int, ...] = (1, 2, 3)
    width: int = 16
    cosine: Cosine = "position"
    projection_weight: float = 0.2
    noise: float = 0.2
    support_views: int = 32
    steps: int = 150
    batch_size: int = 4
    learning_rate: float = 2e-3
    networks_: _Networks | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "width": 256,
        "cosine": "whole_map",
        "support_views": 1,
        "steps": 1400,  # 100 epochs of 14 batches
        "batch_size": 16,
        "learning_rate": 5e-3,
    }

    def __post_init__(self) -> None:
        check_parameters(self, projection_weight=NOT_NEGATIVE, noise=NOT_NEGATIVE)

    def fit(self, support: Support) -> "RRD":
        """Train projections, bottleneck and decoder.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        views = support_views(support.images, self.support_views, self.seed)
        generator = step_generator(self.seed, NOISE_GENERATOR)
        levels = self.features(views)
        noisy = self.features(noisy_copies(views, self.noise, generator))
        networks = _Networks(self.features.backbone, self.width, self.seed).to(levels[0].device)
        start_from_means(networks.decoder, levels)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            clean, disturbed = ([maps[rows] for maps in each] for each in (levels, noisy))
            cleaned = networks.project(clean)
            distilled = cosine_loss(clean, networks.decoder(cleaned), self.cosine)
            projected = projection_loss(disturbed, cleaned, networks.project(disturbed), generator)
            return distilled + self.projection_weight * projected

        budget = budget_of(self, self.batch_size, betas=(0.5, 0.999), clip_norm=1.0)
        train_on_support(networks, loss, len(views), budget, "RRD")
        self.networks_ = networks
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """How far what is rebuilt of every level points away from it."""
        assert self.networks_ is not None
        levels = self.features(image)
        return Judgement(cosine_distances(levels, self.networks_(levels)))


def noisy_copies(
    images: Float[Tensor, "n 3 h w"], amplitude: float, generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """Every image with simplex noise in a box somewhere."""
    size = images.shape[-2], images.shape[-1]
    copies = images.clone()
    for copy in copies:
        rows, columns = (_span(side, generator) for side in size)
        field = simplex_noise(3, size, generator, **NOISE)
        copy[:, rows, columns] += amplitude * field[:, rows, columns].to(images)
    return copies


def _span(whole: int, generator: torch.Generator) -> slice:
    most = max(1, whole // LARGEST_SHARE)
    least = min(LEAST_SIDE, most)
    side = int(torch.randint(least, most + 1, (), generator=generator))
    first = int(torch.randint(whole - side + 1, (), generator=generator))
    return slice(first, first + side)


def projection_loss(
    noisy: Levels, cleaned: Levels, projected: Levels, generator: torch.Generator
) -> Float[Tensor, ""]:
    """What the projections learn from, the sum over levels.

    Args:
        noisy: features of noisy copies, as they are.
        cleaned: projected features of the images.
        projected: projected features of the noisy copies.
        generator: of the positions that meet.
    """
    denoising = cosine_loss(cleaned, projected, "whole_map")
    similar = 1 - torch.stack(whole_map_distances(noisy, cleaned))
    contrast = (similar - MARGIN).clamp(min=0).mean(dim=1).sum()
    meeting = torch.stack([_meeting(maps, generator) for maps in cleaned]).sum()
    return MEETING * meeting + DENOISING * denoising + CONTRAST * contrast


def _meeting(maps: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, ""]:
    """Cost of moving some positions of every image to the same of the next one."""
    vectors = functional.normalize(maps.flatten(2).mT, dim=2)
    chosen = torch.randperm(vectors.shape[1], generator=generator)[:MET_POSITIONS]
    cloud = vectors[:, chosen.to(maps.device)]
    return sinkhorn_divergence(cloud, cloud.roll(1, dims=0), rounds=ROUNDS).mean()
