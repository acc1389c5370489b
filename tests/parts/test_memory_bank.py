import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.memory_bank import greedy_coreset


@pytest.fixture
def bank() -> Tensor:
    return torch.randn(120, 9, generator=torch.Generator().manual_seed(5))


def greedy_by_loop(bank: Tensor, first: int, size: int) -> list[int]:
    rows, chosen = bank.double().numpy(), [first]
    while len(chosen) < size:
        gaps = [min(np.linalg.norm(row - rows[one]) for one in chosen) for row in rows]
        chosen.append(int(np.argmax(gaps)))
    return sorted(chosen)


def test_it_is_greedy_k_centre(bank: Tensor) -> None:
    start = greedy_coreset(bank, 1, seed=3)
    first = int((bank == start).all(dim=1).nonzero())
    expected = greedy_by_loop(bank, first, 15)
    assert torch.equal(greedy_coreset(bank, 15, seed=3), bank[expected])


def test_a_wide_bank_is_covered_through_its_projection() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(12, 400, generator=generator)
    bank = (centres[:, None] + torch.randn(12, 10, 400, generator=generator)).flatten(0, 1)
    kept = greedy_coreset(bank, 12)
    clusters = torch.cdist(kept, centres).argmin(dim=1)
    assert sorted(clusters.tolist()) == list(range(12))


@pytest.mark.parametrize(("size", "kept"), [(-1, 1), (0, 1), (1, 1), (120, 120), (500, 120)])
def test_it_keeps_one_at_least_and_no_row_twice(bank: Tensor, size: int, kept: int) -> None:
    found = greedy_coreset(bank, size)
    assert len(found) == len(found.unique(dim=0)) == kept


def test_equal_rows_are_counted_as_rows() -> None:
    assert torch.equal(greedy_coreset(torch.ones(6, 3), 4), torch.ones(4, 3))


def test_the_seed_draws_the_first_row(bank: Tensor) -> None:
    starts = {tuple(greedy_coreset(bank, 1, seed)[0].tolist()) for seed in range(8)}
    assert len(starts) > 1
    assert torch.equal(greedy_coreset(bank, 9, seed=4), greedy_coreset(bank, 9, seed=4))
