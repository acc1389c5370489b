"""Low-rank adaptation: frozen layers get a product of two thin matrices added.

LoRA: Low-Rank Adaptation of Large Language Models. Hu et al. ICLR 2022.
https://arxiv.org/abs/2106.09685
"""

from importlib import import_module

from torch import nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.seeding import seeded_weights


def add_lora(
    network: nn.Module, rank: int, seed: int, layers: str = ".attention."
) -> list[nn.Parameter]:
    """Put thin matrices beside linear layers, in place; at first they change nothing.

    The scale (alpha over rank) is 1.

    Args:
        network: whose own weights are frozen.
        rank: width of the thin matrices.
        seed: of their first values.
        layers: what the names of the layers hold.

    Returns:
        The new parameters, the only ones that learn.

    Raises:
        FewShotError: no linear layer has such a name.
    """
    linear = [name for name, each in network.named_modules() if isinstance(each, nn.Linear)]
    chosen = [name for name in linear if layers in f".{name}."]
    if not chosen:
        raise FewShotError(f"the network has no linear layer called *{layers}*: nothing to adapt")
    peft = import_module("peft")  # takes seconds
    with seeded_weights(seed):
        peft.inject_adapter_in_model(
            peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=chosen), network
        )
    return [value for value in network.parameters() if value.requires_grad]
