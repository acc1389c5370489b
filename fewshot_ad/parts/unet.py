"""A small U-Net, for images and masks.

U-Net: Convolutional Networks for Biomedical Image Segmentation. Ronneberger, Fischer, Brox. MICCAI
2015. https://arxiv.org/abs/1505.04597. Groups are normalised, not batches: an image is then told
the same whatever is beside it, and one image is enough.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.seeding import seeded_weights

MOST_GROUPS = 8
WIDEST = 8  # over the first layer


class UNet(nn.Module):
    """Two convolutions per size on the way down and up, with all sizes handed across.

    Args:
        inputs: channels.
        outputs: channels.
        width: channels of the first layer; every halving doubles them, eight times at most.
        depth: halvings.
        skips: whether the way down is handed across; without, it is an autoencoder.
        seed: of the first weights.
        start: what the outputs begin at; 0 if not given.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 16,
        depth: int = 3,
        skips: bool = True,
        seed: int = 0,
        start: Float[Tensor, " o"] | None = None,
    ) -> None:
        super().__init__()
        widths = [width * min(2**level, WIDEST) for level in range(depth + 1)]
        self.skips = skips
        with seeded_weights(seed):
            self.stem = _block(inputs, widths[0])
            self.down = nn.ModuleList(_block(a, b) for a, b in pairwise(widths))
            self.up = nn.ModuleList(
                _block(b + a if skips else b, a) for a, b in reversed(list(pairwise(widths)))
            )
            self.head = nn.Conv2d(width, outputs, 1)
        if start is not None:
            self.head.bias = nn.Parameter(start.detach().clone())
            nn.init.zeros_(self.head.weight)

    def forward(self, images: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Images of any size with 2 to the depth pixels or more along a side."""
        found = [self.stem(images)]
        for block in self.down:
            found.append(block(functional.max_pool2d(found[-1], 2)))
        maps = found.pop()
        for block in self.up:
            across = found.pop()
            maps = functional.interpolate(maps, across.shape[-2:], mode="bilinear")
            maps = block(torch.cat([maps, across], dim=1) if self.skips else maps)
        return self.head(maps)


def group_normalised(network: nn.Module) -> nn.Module:
    """A network, in place, whose norms of batches have become norms of groups of channels.

    Its weights stay; running means, which few steps do not settle, are gone.
    """
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, _norm(part.num_features))
    return network


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_layer(inputs, outputs), *_layer(outputs, outputs))


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), _norm(outputs), nn.ReLU()


def _norm(channels: int) -> nn.GroupNorm:
    groups = next(n for n in range(MOST_GROUPS, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)
