import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.products import Blocks, ProductIndex
from fewshot_ad.parts.search import nearest


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
    index = ProductIndex(bank, Blocks(queries=7, rows=11, pairs=64), coarse)
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
