"""What normal surroundings promise: a network tells the word of a patch from its neighbours (PNI).

PNI: Industrial Anomaly Detection using Position and Neighborhood Information. Bae, Lee, Kim. ICCV
2023. https://arxiv.org/abs/2211.12634
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.support_training import SupportBudget, train_on_support


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a network of surroundings.

    Attributes:
        window: side of the square whose rim and inside, but for the centre, are looked at; odd.
        hidden: width of the hidden layers.
        layers: how many of them there are.
    """

    window: int
    hidden: int
    layers: int


class Surroundings(nn.Module):
    """From the neighbours of a position to one logit per word.

    Features are centred and scaled by ``mean`` and ``scale``, so that 0, which lies beyond the
    border, is an ordinary feature.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, shape: Shape, words: int, mean: Float[Tensor, " c"], scale: Float[Tensor, ""]
    ) -> None:
        super().__init__()
        self.window = shape.window
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        width, layers = (shape.window**2 - 1) * len(mean), []
        for _ in range(shape.layers):
            layers += [nn.Linear(width, shape.hidden), nn.LayerNorm(shape.hidden), nn.ReLU()]
            width = shape.hidden
        self.network = nn.Sequential(*layers, nn.Linear(width, words))

    def forward(
        self, padded: Float[Tensor, "n h w c"], rows: Int[Tensor, " k"]
    ) -> Float[Tensor, "k words"]:
        """Logits of the positions ``rows``, which count over images, rows and columns.

        Args:
            padded: what :meth:`pad` returns.
            rows: without the padding.
        """
        rim = self.window - 1
        height, width = padded.shape[1] - rim, padded.shape[2] - rim
        image = rows // (height * width)
        row, column = rows % (height * width) // width, rows % width
        steps = torch.arange(self.window**2, device=rows.device)
        steps = steps[steps != self.window**2 // 2]  # all but the position itself
        down, along = steps // self.window, steps % self.window
        around = padded[image[:, None], row[:, None] + down, column[:, None] + along]
        return self.network(around.flatten(1))

    def pad(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h2 w2 c"]:
        """Scaled features, channels last, with a border as wide as the window reaches."""
        scaled = (maps.permute(0, 2, 3, 1) - self.mean) / self.scale
        reach = self.window // 2
        return functional.pad(scaled, (0, 0, reach, reach, reach, reach))

    @torch.no_grad()
    def logits(self, image: Float[Tensor, "1 c h w"]) -> Float[Tensor, "hw words"]:
        """Of every position of one image."""
        padded = self.pad(image)
        return self(padded, torch.arange(image[0, 0].numel(), device=image.device))


def learn_surroundings(
    maps: Float[Tensor, "n c h w"],
    words: Int[Tensor, " nhw"],
    shape: Shape,
    budget: SupportBudget,
) -> Surroundings:
    """A network that has learned, by cross-entropy, the word of every support position.

    Raises:
        FewShotError: training diverges.
    """
    mean = maps.mean(dim=(0, 2, 3))
    scale = (maps - mean[:, None, None]).square().mean().sqrt().clamp(min=1e-6)
    with seeded_weights(budget.seed):
        network = Surroundings(shape, int(words.max()) + 1, mean, scale)
    network.to(maps.device)
    padded = network.pad(maps)

    def loss(rows: Tensor, _: torch.Generator) -> Tensor:
        rows = rows.to(maps.device)
        return functional.cross_entropy(network(padded, rows), words[rows])

    train_on_support(network, loss, len(words), budget, "learning surroundings")
    return network
