import torch

from fewshot_ad.api import Preprocess
from fewshot_ad.parts.colours import from_unit, to_unit


def test_colours_come_out_as_they_went_in() -> None:
    preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    colours = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    images = from_unit(colours, preprocess)
    torch.testing.assert_close(images[:, 2] * 0.1 + 0.6, colours[:, 2])
    torch.testing.assert_close(to_unit(images, preprocess), colours)


def test_shrunk_colours_stay_between_0_and_1() -> None:
    preprocess = Preprocess()
    checks = (torch.arange(12).view(-1, 1) // 3 + torch.arange(12) // 3) % 2
    images = from_unit(checks.float().expand(1, 3, 12, 12), preprocess)
    found = to_unit(images, preprocess, 7)
    assert found.shape == (1, 3, 7, 7)
    assert 0 <= found.min() < found.max() <= 1
    assert to_unit(images[:0], preprocess, 7).shape[0] == 0
