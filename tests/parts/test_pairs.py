import pytest
import torch
from torch import Tensor

from fewshot_ad.parts import pairs
from fewshot_ad.parts.pairs import paired_distances

WIDTHS = [1, 3, 16, 37, 448, 1536]


def drawn(width: int, count: int = 500) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    queries, rows = (torch.randn(n, width, generator=generator) for n in (30, 40))
    asked, found = (torch.randint(n, (count,), generator=generator) for n in (30, 40))
    return queries, rows, asked, found


def in_float64(queries: Tensor, rows: Tensor, asked: Tensor, found: Tensor) -> Tensor:
    return (queries[asked].double() - rows[found].double()).norm(dim=1)


@pytest.mark.parametrize("width", WIDTHS)
def test_distances_are_those_in_float64(width: int) -> None:
    given = drawn(width)
    torch.testing.assert_close(
        paired_distances(*given).double(), in_float64(*given), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_close_rows_far_from_zero_keep_their_digits(width: int) -> None:
    queries, rows, asked, found = drawn(width)
    given = 1000 + 1e-3 * queries, 1000 + 1e-3 * rows, asked, found
    torch.testing.assert_close(
        paired_distances(*given).double(), in_float64(*given), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_company_and_side_change_no_bit(width: int) -> None:
    queries, rows, asked, found = drawn(width)
    together = paired_distances(queries, rows, asked, found)
    alone = [paired_distances(queries, rows, asked[[i]], found[[i]]) for i in range(len(asked))]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together, paired_distances(rows, queries, found, asked))


@pytest.mark.parametrize("at_once", [1, 100, 2**24])
@pytest.mark.parametrize("width", WIDTHS)
def test_what_other_machines_do_is_the_same_up_to_rounding(
    width: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = drawn(width)
    here = paired_distances(*given)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(pairs, "_by_faiss", None)
    monkeypatch.setitem(pairs.AT_ONCE, "cpu", at_once)
    torch.testing.assert_close(paired_distances(*given), here, rtol=1e-6, atol=0)


def test_a_row_is_at_no_distance_from_itself() -> None:
    rows = 1e6 * torch.randn(50, 100)
    places = torch.arange(50)
    assert not paired_distances(rows, rows.clone(), places, places).any()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_no_number_gives_no_number(broken: float) -> None:
    queries, rows, asked, found = drawn(37)
    queries[4, 2] = broken
    assert paired_distances(queries, rows, asked, found).isfinite().equal(asked != 4)


def test_no_pairs_have_no_distances() -> None:
    queries, rows, asked, found = drawn(37, count=0)
    assert paired_distances(queries, rows, asked, found).shape == (0,)
    assert pairs._in_parts(queries, rows, asked, found).shape == (0,)
