"""``tiny``, the embedded backbone: a small network distilled from a large one on drawn images.

It exists so that everything runs with nothing downloaded; ``experiments/distil_tiny.py`` made its
weights and ``docs/tiny.md`` says how good it is. Each level imitates the principal components of
one teacher level, scaled to unit total variance, so that distances mean the same on all three
levels.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STEM_WIDTH = 24
WIDTHS = (32, 96, 192)
BLOCKS = (1, 1, 2)
CHANNELS = (32, 96, 160)
STRIDES = (4, 8, 16)
WEIGHTS = Path(__file__).with_name("tiny.safetensors")


class ConvNorm(nn.Sequential):
    """A convolution and its batch norm; ``fold`` makes one convolution of the two."""

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def fold(self) -> None:
        """Move the batch norm into the convolution, for good; the network must be in eval mode."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride)
        self.second = ConvNorm(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, size=1, stride=stride)

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Maps to maps of the outputs' width, smaller by the stride."""
        return torch.relu(self.shortcut(maps) + self.second(torch.relu(self.first(maps))))


class Tiny(nn.Module):
    """Three levels of 32, 96 and 160 channels; 0.4 billion multiply-adds at 224 px."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(3, STEM_WIDTH, stride=2),
            nn.ReLU(),
            ConvNorm(STEM_WIDTH, WIDTHS[0], stride=2),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList()
        inputs = WIDTHS[0]
        for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            stage = nn.Sequential(ResidualBlock(inputs, width, stride=2 if level else 1))
            stage.extend(ResidualBlock(width, width) for _ in range(blocks - 1))
            self.stages.append(stage)
            inputs = width
        self.heads = nn.ModuleList(
            nn.Conv2d(width, channels, 1) for width, channels in zip(WIDTHS, CHANNELS, strict=True)
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Normalised images (ImageNet mean and std) to the maps of the three levels."""
        maps, levels = self.stem(images), []
        for stage, head in zip(self.stages, self.heads, strict=True):
            maps = stage(maps)
            levels.append(head(maps))
        return levels

    def fold(self) -> "Tiny":
        """Fold every batch norm, as the stored weights are; returns ``self`` in eval mode."""
        self.eval()
        for part in list(self.modules()):
            if isinstance(part, ConvNorm):
                part.fold()
        return self


def load_tiny(weights: Path = WEIGHTS) -> Tiny:
    """Build the network with its embedded weights, folded, float32, in eval mode."""
    network = Tiny().fold()
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return network
