"""Plain vision transformers (DINOv2, DINOv3 and other networks of timm) as feature extractors.

All blocks have one grid, so a level is a depth: level k is the end of the k-th quarter of the
blocks, as level k of a convolutional network is the end of its k-th stage. The final norm is
applied to every level, as DINOv2's own intermediate layers have it.
"""

from collections.abc import Sequence
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import FewShotError

QUARTERS = 4


def is_plain(strides: Sequence[int]) -> bool:
    """Whether all of these maps of a network have one grid."""
    return len(strides) > 1 and len({*strides}) == 1


class QuarterMaps(nn.Module):
    """Patch tokens at the ends of quarters of a transformer's blocks, as maps [b c h w].

    Images of any size that is a multiple of the patch are taken: positions are interpolated.

    Args:
        architecture: name of a network of timm.
        levels: 1 to 4, rising; blocks after the last are left out.

    Raises:
        FewShotError: there are no such levels, or the network takes images of one size only.
    """

    model: Any  # timm's networks have methods that nn.Module does not declare

    def __init__(self, architecture: str, levels: tuple[int, ...]) -> None:
        super().__init__()
        if max(levels) > QUARTERS:
            raise FewShotError(
                f"{architecture} has levels 1 to {QUARTERS}, the quarters of its blocks; levels "
                f"{levels} were asked for"
            )
        try:
            self.model = timm.create_model(architecture, dynamic_img_size=True)
        except TypeError as error:
            raise FewShotError(
                f"{architecture} takes images of one size only: use another backbone"
            ) from error
        depth = len(self.model.feature_info)
        ends = [depth * level // QUARTERS - 1 for level in levels]
        self.indices = self.model.prune_intermediate_layers(ends, prune_norm=False)
        self.patch = int(self.model.feature_info[0]["reduction"])
        self.architecture = architecture

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """Normalised images to the maps of the levels."""
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise FewShotError(
                f"images are {height} x {width} pixels and the patches of {self.architecture} "
                f"{self.patch}: give a multiple, as --set preprocess.size={16 * self.patch}"
            )
        return self.model.forward_intermediates(
            images, self.indices, norm=True, output_fmt="NCHW", intermediates_only=True
        )
