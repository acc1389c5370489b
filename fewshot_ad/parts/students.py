"""Students: networks that learn on normal images what a frozen backbone says of them.

On a defect they say something else, and the cosine distance to the backbone's features tells it. A
student reads the image, a decoder the features. Both fit any backbone: they hang on its channels
and strides alone, and are resized where grids do not match. Norms are over groups of channels of
one image, so that a single image is enough to train on.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import RANDOM_PREFIX, RANDOM_SEED, Backbone, load_backbone
from fewshot_ad.parts.calibration import altered_copies
from fewshot_ad.parts.cosines import Levels
from fewshot_ad.parts.precision import split_precision
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.training import step_generator

NORM_GROUPS = 8
STEM_STRIDE = 4
VIEWS_GENERATOR = -2  # no step of training has it


def support_views(
    images: Float[Tensor, "n 3 h w"], least: int, seed: int
) -> Float[Tensor, "m 3 h w"]:
    """The images, then slightly altered copies of all of them until there are ``least``.

    Few images alone would be learned by heart. The copies hang on the seed, not on the method, so
    that methods share their features.
    """
    rounds = math.ceil(least / len(images)) - 1
    if rounds < 1:
        return images
    copies = altered_copies(images, rounds, step_generator(seed, VIEWS_GENERATOR))
    return torch.cat([images, copies])


def resized(maps: Float[Tensor, "b c h w"], size: torch.Size) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear, and nothing at all where maps have this size."""
    if maps.shape[-2:] == size:
        return maps
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as divide the channels, 8 at most."""
    return nn.GroupNorm(math.gcd(channels, NORM_GROUPS), channels)


def conv_layer(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution, norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, group_norm(outputs), nn.ReLU())


class ResidualLayer(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_layer(inputs, outputs, stride)
        conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Sequential(conv, group_norm(outputs))
        plain = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Maps of the outputs' channels, smaller by the stride."""
        return torch.relu(self.shortcut(maps) + self.second(self.first(maps)))


class Student(nn.Module):
    """A small network from images to the levels of a backbone.

    Args:
        backbone: whose channels and strides it matches.
        width: channels at the first level, doubled at each further one.
        seed: of its first weights.
    """

    def __init__(self, backbone: Backbone, width: int, seed: int) -> None:
        super().__init__()
        with seeded_weights(seed):
            self.stem = nn.Sequential(conv_layer(3, width, 2), conv_layer(width, width, 2))
            self.stages, self.heads = nn.ModuleList(), nn.ModuleList()
            inputs, reached = width, STEM_STRIDE
            for level, target in enumerate(backbone.strides):
                outputs = width * 2**level
                halvings = max(0, int(math.log2(target / reached)))
                pools = [nn.MaxPool2d(2) for _ in range(halvings)]
                self.stages.append(nn.Sequential(*pools, ResidualLayer(inputs, outputs)))
                self.heads.append(nn.Conv2d(outputs, backbone.channels[level], 1))
                inputs, reached = outputs, reached * 2**halvings

    def forward(
        self, images: Float[Tensor, "b 3 h w"], taught: Levels
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of all levels, on the grids of those that are taught."""
        maps, levels = self.stem(images), []
        for stage, head, like in zip(self.stages, self.heads, taught, strict=True):
            maps = stage(maps)
            levels.append(resized(head(maps), like.shape[-2:]))
        return levels


class RedrawnCopy(nn.Module):
    """A network of a backbone's architecture with new first weights.

    Args:
        name: of the backbone; one of the user's own cannot be redrawn, since nothing says how.
        levels: which of its maps are returned.
        seed: of its first weights.

    Raises:
        FewShotError: the backbone is the user's own.
    """

    def __init__(self, name: str, levels: tuple[int, ...], seed: int) -> None:
        super().__init__()
        architecture = split_precision(name)[1].removeprefix(RANDOM_PREFIX)
        if ":" in architecture:
            raise FewShotError(
                f"{name} is a network of your own, of which no new weights can be drawn: choose "
                "student=compact"
            )
        backbone = load_backbone(RANDOM_PREFIX + architecture, levels=levels)
        self.network, self.maps = backbone.network.requires_grad_(requires_grad=True), backbone.maps
        with seeded_weights(seed + RANDOM_SEED + 1):  # or a random backbone would be its own copy
            for module in self.network.modules():
                if isinstance(reset := getattr(module, "reset_parameters", None), Callable):
                    reset()

    def forward(
        self, images: Float[Tensor, "b 3 h w"], taught: Levels
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of all levels, which have the grids of those that are taught."""
        found = self.network(images)
        return [found[index] for index in self.maps]


class Decoder(nn.Module):
    """All levels of a backbone through one narrow bottleneck, and out of it again (RD4AD, fig. 3).

    The levels meet on the grid of the deepest and go through a residual layer to half of it. From
    there the decoder climbs back, level by level.

    Args:
        backbone: whose channels and strides it matches.
        width: channels at the first level, doubled at each further one and in the bottleneck.
        seed: of its first weights.
    """

    def __init__(self, backbone: Backbone, width: int, seed: int) -> None:
        super().__init__()
        channels, strides = backbone.channels, backbone.strides
        widths = [width * 2**level for level in range(len(channels) + 1)]
        with seeded_weights(seed):
            self.entries = nn.ModuleList(
                _descent(channels[level], widths[level:-1], strides[level:])
                for level in range(len(channels))
            )
            self.bottleneck = ResidualLayer(len(channels) * widths[-2], widths[-1], stride=2)
            self.climbs = nn.ModuleList(
                ResidualLayer(widths[level + 1], widths[level]) for level in range(len(channels))
            )
            self.heads = nn.ModuleList(
                nn.Conv2d(widths[level], channels[level], 1) for level in range(len(channels))
            )

    def forward(self, levels: Levels) -> list[Float[Tensor, "b _ _ _"]]:
        """What the bottleneck lets through of every level, shallowest first, each on its grid."""
        deepest = levels[-1].shape[-2:]
        pairs = zip(self.entries, levels, strict=True)
        met = torch.cat([resized(entry(maps), deepest) for entry, maps in pairs], dim=1)
        maps, rebuilt = self.bottleneck(met), []
        for level in reversed(range(len(levels))):
            maps = self.climbs[level](resized(maps, levels[level].shape[-2:]))
            rebuilt.insert(0, self.heads[level](maps))
        return rebuilt


@torch.no_grad()
def start_from_means(network: Student | Decoder, taught: Levels) -> None:
    """Let a network say of every position the mean of what it will be taught, in place.

    The first steps of training would do just that, and short budgets have none to lose.
    """
    for head, maps in zip(network.heads, taught, strict=True):
        weight, bias = head.parameters()
        weight.zero_()
        bias.copy_(maps.mean(dim=(0, 2, 3)))


def _descent(inputs: int, widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """From one level to the deepest, a layer for each level on the way."""
    layers = [conv_layer(inputs, widths[0], size=1)]
    for level in range(1, len(widths)):
        stride = 2 if strides[level] > strides[level - 1] else 1
        layers.append(conv_layer(widths[level - 1], widths[level], stride))
    return nn.Sequential(*layers)
