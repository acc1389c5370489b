import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.words import sort_into_words, words_around


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(90, 6, generator=torch.Generator().manual_seed(5))


def test_a_row_belongs_to_the_nearest_word_and_words_are_rows(rows: Tensor) -> None:
    bank = sort_into_words(rows, 12, seed=3)
    assert len(bank.words) == 12
    gaps = np.linalg.norm(rows.numpy()[:, None] - bank.words.numpy()[None], axis=-1)
    assert bank.word_of_row.tolist() == gaps.argmin(axis=1).tolist()
    assert (gaps.min(axis=0) == 0).all()
    assert torch.equal(bank.words_of(rows[:5]), bank.word_of_row[:5])


@pytest.mark.parametrize("words", [1, 90, 500])
def test_every_word_has_a_row(rows: Tensor, words: int) -> None:
    bank = sort_into_words(torch.cat([rows, rows]), words, seed=0)
    assert len(bank.words) == min(words, 90)
    assert bank.word_of_row.unique().tolist() == list(range(len(bank.words)))


def test_equal_rows_are_one_word() -> None:
    bank = sort_into_words(torch.ones(7, 4), 5, seed=0)
    assert (len(bank.words), len(bank.rows)) == (1, 7)


def test_only_rows_of_permitted_words_are_near(rows: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    bank = sort_into_words(rows, 10, seed=0)
    queries = torch.randn(300, 6, generator=generator)
    is_permitted = torch.rand(300, 10, generator=generator) > 0.7
    is_permitted[:, 4] = True
    (found,) = bank.nearest_permitted(queries, is_permitted)
    for query, permitted, distance in zip(queries, is_permitted, found, strict=True):
        gaps = [
            float((row - query).norm())
            for row, word in zip(rows, bank.word_of_row, strict=True)
            if permitted[word]
        ]
        assert float(distance) == pytest.approx(min(gaps), rel=1e-5)


def test_a_row_is_at_distance_zero_of_itself(rows: Tensor) -> None:
    bank = sort_into_words(rows, 10, seed=0)
    everything = torch.ones(90, 10, dtype=torch.bool)
    (found,) = bank.nearest_permitted(rows, everything)
    assert not found.any()


def test_several_permissions_are_answered_as_one_by_one(rows: Tensor) -> None:
    bank = sort_into_words(rows, 10, seed=0)
    permissions = [torch.ones(90, 10, dtype=torch.bool), torch.eye(10, dtype=torch.bool)[:9]]
    permissions[1] = permissions[1].repeat_interleave(10, dim=0)
    together = bank.nearest_permitted(rows, *permissions)
    assert (together[0] <= together[1]).all()
    assert (together[0] < together[1]).any()
    for found, each in zip(together, permissions, strict=True):
        assert torch.equal(found, bank.nearest_permitted(rows, each)[0])


def test_shares_are_counted_in_squares_that_end_at_the_border() -> None:
    words = torch.randint(4, (3, 5, 6), generator=torch.Generator().manual_seed(0))
    found = words_around(words, 4, 3).view(5, 6, 4)
    for row, column in np.ndindex(5, 6):
        square = words[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        expected = [float((square == word).float().mean()) for word in range(4)]
        assert found[row, column].tolist() == pytest.approx(expected)
