"""Channels with mean 0 and deviation 1 over the support, so that none drowns the others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_DEVIATION = 0.3


class Standardiser(nn.Module):
    """Subtracts each channel's mean over the support and divides by its deviation.

    What is learned of the result starts near a unit Gaussian, whatever the backbone. Few images do
    not show all that a channel can do: one that hardly varies in them is divided by three tenths of
    the usual deviation, or its first stir in another normal image would drown all others.

    Args:
        maps: features of the support.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, maps: Float[Tensor, "n c h w"]) -> None:
        super().__init__()
        found, mean = torch.var_mean(maps.double(), dim=(0, 2, 3), correction=0, keepdim=True)
        usual = found.mean().sqrt()
        usual = torch.where(usual > 0, usual, 1.0)
        deviation = found.sqrt().maximum(LEAST_DEVIATION * usual)
        self.register_buffer("mean", mean.to(maps))
        self.register_buffer("deviation", deviation.to(maps))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Standardised maps."""
        return (maps - self.mean) / self.deviation
