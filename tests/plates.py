"""Small shaded plates, and the same with a square on them: an obvious defect at a known place."""

import torch
from torch import Tensor

from fewshot_ad.api import LabelledBatch, Preprocess, Support
from fewshot_ad.parts.colours import from_unit

SIZE = 32
PLAIN = Preprocess(size=SIZE)
SQUARE = (slice(18, 26), slice(6, 14))


def plates(count: int, seed: int = 0) -> Tensor:
    """Colours from 0 to 1 that shade from left to right, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    shade = torch.linspace(0.3, 0.6, SIZE).expand(count, 3, SIZE, SIZE)
    bright = 0.05 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = 0.02 * torch.randn(shade.shape, generator=generator)
    return (shade + bright + noise).clamp(0, 1)


def with_square(colours: Tensor) -> Tensor:
    """The same with a square in strong colours."""
    rows, columns = SQUARE
    painted = colours.clone()
    painted[..., rows, columns] = torch.tensor([0.95, 0.05, 0.1]).view(3, 1, 1)
    return painted


def as_images(colours: Tensor) -> Tensor:
    """Colours as methods are given them."""
    return from_unit(colours, PLAIN)


def plate_support(shots: int, anomalous: int = 0) -> Support:
    """Normal plates and, if asked for, some with a masked square."""
    masks = torch.zeros(anomalous, SIZE, SIZE, dtype=torch.bool)
    masks[:, SQUARE[0], SQUARE[1]] = True
    images = as_images(with_square(plates(anomalous, 50)))
    labelled = LabelledBatch(images, masks, torch.ones(anomalous, dtype=torch.bool))
    return Support("plate", as_images(plates(shots)), labelled if anomalous else None)
