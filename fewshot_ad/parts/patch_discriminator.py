"""A small network that tells normal patches from others: an adapter and a discriminator.

SimpleNet (https://arxiv.org/abs/2303.15140) and GLASS (https://arxiv.org/abs/2407.09359) share it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.parts.seeding import seeded_weights

LEAKING = 0.2


class PatchDiscriminator(nn.Module):
    """One linear layer that adapts patches, and two that give each of them a logit.

    The adapter starts as the identity: few steps cannot mend what a random one mixes up.

    Args:
        channels: of a patch.
        hidden: width of the discriminator.
        seed: of the first weights.
    """

    def __init__(self, channels: int, hidden: int, seed: int) -> None:
        super().__init__()
        with seeded_weights(seed):
            self.adapter = nn.Linear(channels, channels)
            self.discriminator = nn.Sequential(
                nn.Linear(channels, hidden),
                nn.BatchNorm1d(hidden),
                nn.LeakyReLU(LEAKING),
                nn.Linear(hidden, 1, bias=False),
            )
        with torch.no_grad():
            self.adapter.weight.copy_(torch.eye(channels))
            self.adapter.bias.zero_()

    def forward(self, patches: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Logit of every patch."""
        return self.judge(self.adapter(patches))

    def judge(self, adapted: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Logit of patches that are adapted already, and may be disturbed since."""
        return self.discriminator(adapted)[:, 0]
