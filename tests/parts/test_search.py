from typing import get_args

import numpy as np
import pytest
import torch
from every_pair import every_distance
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import coarse_rows, faiss_indices
from fewshot_ad.parts.coarse_rows import CoarseQueries, CoarseRows
from fewshot_ad.parts.products import Blocks, ProductIndex, Queries
from fewshot_ad.parts.search import Engine, nearest


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def nearest_by_loop(queries: Tensor, bank: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.array(
        [[np.linalg.norm(q - b) for b in bank.double().numpy()] for q in queries.double().numpy()]
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_the_nearest_rows_are_those_of_a_loop(generator: torch.Generator, k: int) -> None:
    queries, bank = (torch.randn(n, 5, generator=generator) for n in (30, 40))
    distances, rows = nearest(queries, bank, k)
    expected, order = nearest_by_loop(queries, bank, k)
    assert (rows.numpy() == order).all()
    np.testing.assert_allclose(distances, expected, atol=1e-6)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_blocks_company_and_precision_change_no_bit(
    generator: torch.Generator, k: int, coarse: bool
) -> None:
    queries, bank = (torch.randn(n, 7, generator=generator) for n in (30, 40))
    whole = nearest(queries, bank, k)
    index = ProductIndex(bank, Blocks(queries=7, rows=11), coarse)
    parts = index.search(queries, k)
    alone = [index.search(query[None], k) for query in queries]
    for ours, in_parts, single in zip(whole, parts, zip(*alone, strict=True), strict=True):
        assert torch.equal(ours, in_parts)
        assert torch.equal(ours, torch.cat(single))


@pytest.mark.parametrize("k", [1, 4, 30])
def test_repeated_rows_count_as_often_as_they_are_there(generator: torch.Generator, k: int) -> None:
    once = torch.randint(0, 3, (6, 2), generator=generator).float()
    bank = once[torch.randint(6, (50,), generator=generator)]
    distances, rows = nearest(once, bank, k)
    expected, order = nearest_by_loop(once, bank, k)
    assert (rows.numpy() == order).all()
    np.testing.assert_allclose(distances, expected, atol=1e-6)


def test_constant_features_are_the_first_rows() -> None:
    distances, rows = nearest(torch.ones(9, 3), torch.ones(300, 3), 4)
    assert not distances.any()
    assert (rows == torch.arange(4)).all()


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    with pytest.raises(FewShotError, match="the bank has 5 rows"):
        nearest(torch.rand(2, 3), torch.rand(5, 3), k)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_features_that_are_no_numbers_are_refused(broken: float, k: int) -> None:
    sound, sick = torch.rand(4, 3), torch.rand(4, 3)
    sick[2, 1] = broken
    for queries, bank in ((sick, sound), (sound, sick)):
        with pytest.raises(FewShotError, match="NaN or infinite"):
            nearest(queries, bank, k)


def spread(generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Queries and banks that make rounding matter in different ways."""
    queries, bank = (torch.randn(n, 100, generator=generator) for n in (60, 300))
    sparse = bank * (torch.rand(bank.shape, generator=generator) < 0.05)
    far_out = 1000 + 1e-3 * bank
    lengths = torch.logspace(-3, 3, 300)[:, None]
    return {
        "noise": (queries, bank),
        "rectified and sparse": (sparse[:60] + 0.01, sparse),
        "close together, far from zero": (far_out[:60] + 1e-4 * queries, far_out),
        "of all lengths": (queries * lengths[::5], bank * lengths),
        "one direction": (queries[:, :1] * bank[0], bank[:, :1] * bank[0]),
        "equal but for rounding": (torch.ones(60, 100) + 1e-6 * queries, 1 + 1e-6 * bank),
        "the mean itself": (bank.mean(dim=0).expand(3, -1), bank),
        "very small": (1e-9 * queries, 1e-9 * bank),
        "too small for a product": (1e-18 * queries, 1e-18 * bank),
        "very large": (1e13 * queries, 1e13 * bank),
        "one row": (queries, bank[:1]),
    }


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", [*spread(torch.Generator())])
def test_bfloat16_proposes_and_float32_decides(
    generator: torch.Generator, name: str, k: int
) -> None:
    queries, bank = (rows.contiguous() for rows in spread(generator)[name])
    k = min(k, len(bank))
    expected = every_distance(queries, bank).sort(dim=1, stable=True)
    for coarse in (False, True):
        distances, rows = ProductIndex(bank, Blocks(rows=128), coarse).search(queries, k)
        assert torch.equal(distances, expected.values[:, :k])
        assert torch.equal(rows, expected.indices[:, :k])


def test_bfloat16_lets_a_handful_of_rows_through(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    centres = torch.rand(40, 128, generator=generator).repeat(50, 1)
    bank = centres + 0.1 * torch.randn(centres.shape, generator=generator)
    queries = bank[::20] + 0.05 * torch.randn(100, 128, generator=generator)
    rows, unknown = CoarseRows(bank), torch.full((100, 1), torch.inf)
    rounded = CoarseQueries.of(queries, rows.mean)
    asked = rows.propose(rounded, slice(None), unknown)
    assert asked is not None
    assert len(asked[0]) < 5 * len(queries)
    monkeypatch.setattr(coarse_rows, "CROWDED", 0)
    assert rows.propose(rounded, slice(None), unknown) is None


def test_queries_that_are_ready_have_the_answers_of_plain_ones(generator: torch.Generator) -> None:
    queries = torch.rand(40, 128, generator=generator)[torch.arange(90) % 40]
    ready = Queries(queries)
    assert len(ready.rows) == 40
    for size in (300, 900):
        index = ProductIndex(torch.rand(size, 128, generator=generator))
        for found, expected in zip(index.search(ready, 3), index.search(queries, 3), strict=True):
            assert torch.equal(found, expected)


def test_bad_rows_are_refused_in_whatever_block_they_lie() -> None:
    bank = torch.rand(5000, 3)
    bank[4500] = torch.nan
    with pytest.raises(FewShotError, match="NaN or infinite"):
        nearest(torch.rand(2, 3), bank)


def test_no_queries_have_no_neighbours() -> None:
    for engine in get_args(Engine):
        distances, rows = nearest(torch.rand(0, 3), torch.rand(9, 3), 2, engine)
        assert distances.shape == rows.shape == (0, 2)


def test_a_bank_is_made_ready_once_and_again_when_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    make = ProductIndex.__init__

    def counted(self: ProductIndex, bank: Tensor) -> None:
        made.append(len(bank))
        make(self, bank)

    monkeypatch.setattr(ProductIndex, "__init__", counted)
    bank, other = torch.rand(9, 3), torch.rand(8, 3)
    for _ in range(3):
        nearest(torch.rand(2, 3), bank)
    assert made == [9]
    bank[4] = 7.0
    assert not nearest(torch.full((1, 3), 7.0), bank)[0].any()
    assert made == [9, 9]
    nearest(torch.rand(2, 3), other)
    nearest(torch.rand(2, 3), bank)
    assert made == [9, 9, 8, 9]


def test_a_bank_that_is_frozen_can_be_searched() -> None:
    with torch.inference_mode():
        bank = torch.rand(9, 3)
        assert nearest(bank, bank)[1][:, 0].tolist() == [*range(9)]


@pytest.mark.parametrize("k", [1, 4, 40])
def test_faiss_flat_gives_the_same_answers(generator: torch.Generator, k: int) -> None:
    queries, bank = (torch.randn(n, 6, generator=generator) for n in (300, 60))
    ours, theirs = nearest(queries, bank, k), nearest(queries, bank, k, "faiss_flat")
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize(("engine", "share"), [("faiss_hnsw", 0.97), ("faiss_ivf_pq", 0.9)])
def test_approximate_engines_find_most_with_exact_distances(
    generator: torch.Generator, engine: Engine, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_indices, "SMALL", 100)
    centres = torch.randn(60, 12, generator=generator).repeat(200, 1)
    bank = centres + 0.2 * torch.randn(centres.shape, generator=generator)
    queries = bank[::97] + 0.05
    distances, rows = nearest(queries, bank, 2, engine)
    assert torch.equal(distances, every_distance(queries, bank).gather(1, rows))
    assert (distances[:, 0] <= distances[:, 1]).all()
    assert (rows[:, 0] == nearest(queries, bank)[1][:, 0]).float().mean() >= share


@pytest.mark.parametrize("engine", ["faiss_hnsw", "faiss_ivf_pq"])
def test_small_banks_are_searched_flat(generator: torch.Generator, engine: Engine) -> None:
    queries, bank = (torch.randn(n, 6, generator=generator) for n in (30, 60))
    assert torch.equal(nearest(queries, bank, 3, engine)[1], nearest(queries, bank, 3)[1])


def test_cells_with_too_few_rows_are_no_answer(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_indices, "SMALL", 100)
    monkeypatch.setattr(faiss_indices, "CELLS_PROBED", 0.0)  # one cell
    bank = torch.randn(12_000, 4, generator=generator)
    distances, rows = nearest(bank[:3], bank, 9000, "faiss_ivf_pq")
    assert torch.equal(rows, nearest(bank[:3], bank, 9000)[1])
    assert torch.isfinite(distances).all()
