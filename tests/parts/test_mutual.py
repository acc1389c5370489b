from typing import Any

import pytest
import torch
from every_pair import every_distance
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.mutual import MutualRows
from fewshot_ad.parts.pairs import paired_distances
from fewshot_ad.parts.products import Blocks

WIDTH = 100


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def images_of(generator: torch.Generator) -> dict[str, list[Tensor]]:
    """Three images, of different size, that make rounding matter in different ways."""
    noise = [torch.randn(count, WIDTH, generator=generator) for count in (40, 60, 25)]
    return {
        "noise": noise,
        "rectified": [rows.relu() for rows in noise],
        "close together, far from zero": [1000 + 1e-3 * rows for rows in noise],
        "of all lengths": [rows * torch.logspace(-3, 3, len(rows))[:, None] for rows in noise],
        "repeated": [rows[torch.arange(len(rows)) % 7] for rows in noise],
        "constant": [torch.ones_like(rows) for rows in noise],
        "very small": [1e-18 * rows for rows in noise],
        "very large": [1e13 * rows for rows in noise],
        "one row": [rows[:1] for rows in noise],
    }


@pytest.mark.parametrize("blocks", [None, Blocks(queries=16, rows=24)])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", [*images_of(torch.Generator())])
def test_either_image_finds_the_nearest_of_the_other(
    generator: torch.Generator, name: str, coarse: bool, blocks: Blocks | None
) -> None:
    images = images_of(generator)[name]
    ready = MutualRows(images, blocks, coarse)
    for one, other in ((0, 1), (1, 2), (2, 0), (1, 1)):
        every = every_distance(images[one], images[other])
        here, there = ready.nearest(one, other)
        assert torch.equal(here, every.amin(dim=1))
        assert torch.equal(there, every.amin(dim=0))


def test_bfloat16_lets_a_handful_of_rows_through(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(generator)["rectified"]
    seen: list[int] = []

    def counted(queries: Tensor, rows: Tensor, *pairs: Any) -> Tensor:
        seen.append(len(pairs[0]))
        return paired_distances(queries, rows, *pairs)

    monkeypatch.setattr("fewshot_ad.parts.mutual.paired_distances", counted)
    MutualRows(images, coarse=True).nearest(0, 1)
    assert seen[0] < 5 * (40 + 60)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_features_that_are_no_numbers_are_refused(broken: float) -> None:
    sick = torch.rand(4, 3)
    sick[2, 1] = broken
    with pytest.raises(FewShotError, match="NaN or infinite"):
        MutualRows([torch.rand(4, 3), sick])
