"""Images of noise, alone, over a shade, and as known classes: small and quick to learn from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fewshot_ad.api import LabelledBatch, Preprocess

SIZE = 32


class Noisy:
    """Three classes of noise; anomalies have a bright square. Four images of each kind."""

    names = ("noise/a", "noise/b", "noise/c")
    digests = frozenset({"d0", "d1"})

    def __init__(self, kinds: tuple[bool, ...] = (False, True)) -> None:
        self.kinds = kinds

    def digest_of(self, name: str) -> str:
        return f"{name} {self.kinds}"

    def normals(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        yield self.batch(name, 0, [False])

    def labelled(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        yield self.batch(name, 1, [*self.kinds])

    def batch(self, name: str, split: int, kinds: list[bool]) -> LabelledBatch:
        seed = 10 * self.names.index(name) + split
        labels = torch.tensor(kinds).repeat(4)
        images = noise(len(labels), seed)
        masks = torch.zeros(len(labels), SIZE, SIZE, dtype=torch.bool)
        masks[labels, 4:14, 6:16] = True
        return LabelledBatch(images + 3 * masks[:, None], masks, labels)


def noise(count: int, seed: int = 99) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def noisy_ramps(count: int, size: int = 64, seed: int = 8) -> Tensor:
    """Images that shade from left to right under a little noise."""
    shape = count, 3, size, size
    pictures = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return pictures + torch.linspace(-1, 1, size)
