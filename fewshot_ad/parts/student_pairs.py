"""A student of patches and an autoencoder of whole images, which imitate one teacher.

EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies. Batzner, Heckler,
Koenig. WACV 2024. https://arxiv.org/abs/2303.14535
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.level_models import TINY
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.standardising import Standardiser

LOW, HIGH, HIGH_VALUE = 0.9, 0.995, 0.1  # quantiles of normal positions that become 0 and 0.1
JITTER = 0.2
CODE_GRID = 4
AUTOENCODER_WIDTHS = (3, 32, 32, 64, 64, 64)
GREY = (0.299, 0.587, 0.114)

Maps = Float[Tensor, "b c h w"]
Grid = tuple[int, int]


class PatchStudent(nn.Module):
    """Four convolutions without norms, so that a position sees a patch and nothing else.

    Args:
        channels: of the teacher.
        width: of the first convolution.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(2 * width, 2 * channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 H W"], grid: Grid) -> tuple[Maps, Maps]:
        """What it takes for the teacher's features, and for the autoencoder's."""
        met = functional.adaptive_avg_pool2d(self.patches(images), grid)
        parts, wholes = self.head(met).chunk(2, dim=1)
        return parts, wholes


class ImageAutoencoder(nn.Module):
    """From an image through a code without positions to the teacher's features.

    Args:
        channels: of the teacher.
        code: numbers in the code.
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        widths = AUTOENCODER_WIDTHS
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(CODE_GRID), nn.Flatten())
        self.squeeze = nn.Linear(widths[-1] * CODE_GRID**2, code)
        self.open = nn.Linear(code, widths[-1] * CODE_GRID**2)
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[-1], widths[-1], 3, padding=1) for _ in range(3)
        )
        self.head = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 H W"], grid: Grid) -> Maps:
        """The features that the code accounts for."""
        opened = self.open(self.squeeze(self.encoder(images))).relu()
        maps = opened.unflatten(1, (-1, CODE_GRID, CODE_GRID))
        for number, layer in enumerate(self.layers, start=1):  # climbs evenly to the grid
            share = number / len(self.layers)
            sides = [round(CODE_GRID ** (1 - share) * side**share) for side in grid]
            maps = functional.interpolate(maps, sides, mode="bilinear", align_corners=False)
            maps = layer(maps).relu()
        return self.head(maps)


class Pair(nn.Module):
    """Student and autoencoder of one teacher, with its scale and those of their maps.

    Args:
        taught: features of the support by the teacher.
        width: of the student's first convolution.
        code: numbers in the autoencoder's code.
        seed: of the first weights.
    """

    bounds: Tensor

    def __init__(self, taught: Float[Tensor, "n c h w"], width: int, code: int, seed: int) -> None:
        super().__init__()
        self.scale = Standardiser(taught)
        with seeded_weights(seed):
            self.student = PatchStudent(taught.shape[1], width)
            self.autoencoder = ImageAutoencoder(taught.shape[1], code)
        self.register_buffer("bounds", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        self.to(taught.device)

    def forward(
        self, images: Float[Tensor, "b 3 H W"], taught: Maps
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
        """Mean squared difference of student and teacher, and of student and autoencoder."""
        grid = taught.shape[-2], taught.shape[-1]
        parts, wholes = self.student(images, grid)
        rebuilt = self.autoencoder(images, grid)
        return (taught - parts).square().mean(dim=1), (rebuilt - wholes).square().mean(dim=1)

    def measure(self, *maps: Float[Tensor, "n h w"]) -> None:
        """Learn the scales of both maps from what they are on normal images."""
        levels = torch.tensor([LOW, HIGH], device=self.bounds.device)
        self.bounds = torch.stack([each.flatten().quantile(levels) for each in maps])

    def scaled(
        self, parts: Float[Tensor, "b h w"], wholes: Float[Tensor, "b h w"], share: float
    ) -> Float[Tensor, "b h w"]:
        """Mean of both maps on their scales, in which the second has this share."""
        scaled = [
            HIGH_VALUE * (one - low) / (high - low).clamp(min=TINY)
            for one, (low, high) in zip((parts, wholes), self.bounds, strict=True)
        ]
        return (1 - share) * scaled[0] + share * scaled[1]


def hardest(values: Float[Tensor, "b c h w"], share: float) -> Float[Tensor, ""]:
    """Mean of the greatest values, image by image, one at least (L_hard)."""
    flat = values.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean()


def jittered(
    colours: Float[Tensor, "b 3 h w"], generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Every image with its brightness, contrast or saturation changed by up to a fifth.

    Args:
        colours: from 0 to 1.
        generator: of which is changed, and by how much.
    """
    weights = torch.tensor(GREY).to(colours).view(3, 1, 1)
    changed = torch.empty_like(colours)
    for image, result in zip(colours, changed, strict=True):
        grey = (image * weights).sum(dim=0)
        middle = (torch.zeros_like(grey), grey.mean().expand_as(grey), grey)
        kind = int(torch.randint(len(middle), (), generator=generator))
        factor = 1 + JITTER * (2 * float(torch.rand((), generator=generator)) - 1)
        result.copy_(torch.lerp(middle[kind], image, factor))
    return changed.clamp(0, 1)
