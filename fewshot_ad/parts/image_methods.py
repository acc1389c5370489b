"""What methods have in common that learn from the colours of images and need no backbone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.backbones import chosen_device
from fewshot_ad.parts.colours import to_unit
from fewshot_ad.parts.map_methods import MapMethod
from fewshot_ad.parts.moving import moved
from fewshot_ad.parts.parameters import SHARE, Between
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

Colours = Float[Tensor, "b 3 s s"]
ImageLoss = Callable[[Colours, torch.Generator], Float[Tensor, ""]]
"""Of some support images, moved a little, with the randomness of the step."""

LEAST_SIZE = 16


@dataclass(kw_only=True, eq=False)
class ImageMethod(MapMethod):
    """A method that learns from colours from 0 to 1, at a size of its own.

    Attributes:
        inner_size: side in pixels to which images are squeezed before all else; maps are brought
            back to the size of the images.
        width: channels of the first layer.
        steps: of training.
        batch_size: images per step; copies where the support has fewer.
        learning_rate: of Adam.
        shift: how far a copy is moved at most, over the side of the image.
        turn: by how many degrees a copy is turned at most.
    """

    track: ClassVar[Track] = "target_tuned"
    inner_size: int = 64
    width: int = 16
    steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-3
    shift: float = 0.05
    turn: float = 5.0

    ALLOWED: ClassVar = {
        "inner_size": Between(LEAST_SIZE),
        "shift": SHARE,
        "turn": Between(0, 180),
    }
    """What the fields above may hold, where it is not the usual."""

    def colours(self, images: Float[Tensor, "b 3 h w"]) -> Colours:
        """Images as the method sees them, where it runs."""
        there = images.to(chosen_device(self.device))
        return to_unit(there, self.preprocess, self.inner_size)

    def seen(self, support: Support) -> Colours:
        """The support as the method sees it.

        Raises:
            FewShotError: there are too few images, or one is not finite.
        """
        check_support(support, self.min_shots)
        return self.colours(support.images)

    def train(self, network: nn.Module, colours: Colours, loss: ImageLoss, label: str) -> None:
        """Spend the budget on a network, in place; batches hold moved copies of the support.

        Raises:
            FewShotError: loss or gradient is no longer finite.
        """
        budget = budget_of(self, self.batch_size, clip_norm=1.0)
        repeats = -(-self.batch_size // len(colours))  # so that few images fill a batch

        def batch_loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            batch = moved(colours[rows % len(colours)], generator, self.shift, self.turn)
            return loss(batch, generator)

        train_on_support(network, batch_loss, len(colours) * repeats, budget, label)
