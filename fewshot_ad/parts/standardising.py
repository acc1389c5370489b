"""Channels with mean 0 and deviation 1 over the support, so that none drowns the others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_DEVIATION = 1e-3


class Standardiser(nn.Module):
    """Subtracts each channel's mean over the support and divides by its deviation.

    What is learned of the result starts near a unit Gaussian, whatever the backbone. A channel that
    hardly varies in the support is divided by a thousandth of the usual deviation, so that noise in
    it does not count as an anomaly.

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
