from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import residuals
from fewshot_ad.parts.passing import passing_once
from fewshot_ad.parts.products import Blocks, ProductIndex
from fewshot_ad.parts.residuals import NestedMatcher, match, match_distribution, residual, take


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residuals, "BLOCKS", Blocks(queries=7, rows=11))


def nearest_by_loop(query: Tensor, bank: Tensor, metric: str) -> tuple[float, int]:
    q, rows = query.double().numpy(), bank.double().numpy()
    if metric == "euclidean":
        distances = [np.linalg.norm(q - row) for row in rows]
    else:
        distances = [1 - q @ row / np.linalg.norm(q) / np.linalg.norm(row) for row in rows]
    return min(distances), int(np.argmin(distances))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_match_is_the_nearest_row(generator: torch.Generator, metric: str) -> None:
    queries, bank = (torch.randn(n, 5, generator=generator) for n in (30, 40))
    distance, index = match(queries, bank, metric)
    for query, ours, row in zip(queries, distance, index, strict=True):
        theirs, expected = nearest_by_loop(query, bank, metric)
        assert int(row) == expected
        assert float(ours) == pytest.approx(theirs, abs=1e-6)


def test_first_of_equal_rows_wins(generator: torch.Generator) -> None:
    once = torch.rand(50, 19, generator=generator)
    bank = once[torch.randint(50, (400,), generator=generator)]
    _, index = match(once, bank)
    for number, row in enumerate(index.tolist()):
        same = (bank == once[number]).all(dim=1)
        if same.any():
            assert row == int(same.nonzero()[0])


def test_repeated_rows_of_one_length_are_told_apart() -> None:
    once = torch.tensor(list(permutations([0.0, 1.0, 2.0, 3.0])))
    distance, index = match(once.repeat(2, 1), once.repeat_interleave(3, dim=0).repeat(2, 1))
    assert not distance.any()
    assert index.tolist() == list(range(0, 3 * 24, 3)) * 2


def test_rounding_does_not_choose(generator: torch.Generator) -> None:
    far_out = 1000 + 1e-3 * torch.rand(60, 8, generator=generator)
    distance, index = match(far_out[:20], far_out[20:])
    expected = (far_out[:20, None] - far_out[None, 20:]).square().sum(dim=2).sqrt()
    assert torch.equal(distance, expected.min(dim=1).values)
    assert torch.equal(expected[torch.arange(20), index], distance)


def test_nothing_depends_on_company_or_blocks(
    generator: torch.Generator, request: pytest.FixtureRequest
) -> None:
    queries, bank = (torch.rand(n, 33, generator=generator) for n in (40, 90))
    together = match(queries, bank)
    request.getfixturevalue("small_blocks")
    alone = [match(query[None], bank) for query in queries]
    for whole, single in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(single))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nothing_depends_on_the_layout_in_memory(generator: torch.Generator, metric: str) -> None:
    queries, bank = (torch.rand(n, 13, generator=generator) for n in (40, 90))
    strided = match(queries.T.contiguous().T, bank.T.contiguous().T, metric)
    for ours, theirs in zip(strided, match(queries, bank, metric), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("small_blocks")
def test_constant_features_match_the_first_row() -> None:
    distance, index = match(torch.ones(50, 3), torch.ones(100, 3))
    assert not distance.any()
    assert not index.any()


@pytest.mark.usefixtures("small_blocks")
def test_the_whole_distance_matrix_never_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, product = [], torch.addmm

    def recorded(*arguments: Tensor, **options: float) -> Tensor:
        result = product(*arguments, **options)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(torch, "addmm", recorded)
    match(torch.rand(50, 3), torch.rand(100, 3))
    assert max(sizes) == 7 * 11


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_features_that_are_no_numbers_are_refused(broken: float, metric: str) -> None:
    sound, sick = torch.rand(4, 3), torch.rand(4, 3)
    sick[2, 1] = broken
    with pytest.raises(FewShotError, match="NaN or infinite"):
        match(sick, sound, metric)
    with pytest.raises(FewShotError, match="NaN or infinite"):
        match(sound, sick, metric)


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(FewShotError, match="at least one support image"):
        match(torch.rand(4, 3), torch.rand(0, 3))
    with pytest.raises(FewShotError, match="at least one support image"):
        NestedMatcher()(torch.rand(1, 3, 2, 2), torch.rand(0, 3, 2, 2))


def test_residual_forms() -> None:
    queries, matched = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])
    assert residual(queries, matched).tolist() == [-2, -3]
    assert residual(queries, matched, "squared").tolist() == [4, 9]


def test_take_counts_images_then_rows_then_columns(generator: torch.Generator) -> None:
    support = torch.rand(3, 4, 2, 5, generator=generator)
    index = torch.tensor([[[17, 0], [29, 10]]])  # 17 = image 1, row 1, column 2
    taken = take(support, index)
    assert torch.equal(taken[0, :, 0, 0], support[1, :, 1, 2])
    assert torch.equal(taken[0, :, 1, 0], support[2, :, 1, 4])
    assert torch.equal(taken[0, :, 1, 1], support[1, :, 0, 0])


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_distribution_matching_by_ranks(generator: torch.Generator, keep: float) -> None:
    maps, codes = (torch.rand(2, 3, 4, 5, generator=generator) for _ in range(2))
    ours = match_distribution(maps, codes, keep)
    for image in range(2):
        for channel in range(3):
            values, ranked = (
                maps[image, channel].flatten(),
                codes[image, channel].flatten().sort()[0],
            )
            rank = [int((values < value).sum()) for value in values]
            theirs = keep * values + (1 - keep) * ranked[rank]
            torch.testing.assert_close(ours[image, channel].flatten(), theirs)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nested_shots_equal_one_bank(generator: torch.Generator, metric: str) -> None:
    queries = torch.rand(3, 6, 4, 5, generator=generator)
    support = torch.rand(4, 6, 3, 4, generator=generator)
    support[2] = support[0]
    matcher = NestedMatcher()
    for shots in (1, 2, 4, 2):
        distance, index = matcher(queries, support[:shots], metric)
        rows, bank = (
            maps.permute(0, 2, 3, 1).reshape(-1, 6) for maps in (queries, support[:shots])
        )
        expected = match(rows, bank, metric)
        assert torch.equal(distance.flatten(), expected[0])
        assert torch.equal(index.flatten(), expected[1])
    assert matcher.searches == 3 * 3  # of four support images one is a copy


def test_nested_matcher_forgets_the_least_recently_used() -> None:
    queries, support = torch.rand(1, 2, 3, 3), torch.rand(3, 2, 3, 3)
    matcher = NestedMatcher(byte_limit=2 * 9 * 8)
    first = matcher(queries, support)
    assert matcher.searches == 3
    matcher(queries, support[1:])
    assert matcher.searches == 3
    again = matcher(queries, support)
    assert matcher.searches > 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("index_limit", [1, 2**20])
def test_images_that_pass_once_get_the_same_bits_and_are_forgotten(
    generator: torch.Generator, metric: str, index_limit: int
) -> None:
    queries, support = (torch.rand(3, 6, 4, 5, generator=generator) for _ in range(2))
    support[2] = support[0]
    remembering, passing = NestedMatcher(), NestedMatcher(index_limit=index_limit)
    expected = remembering(queries, support, metric)
    with passing_once():
        found = passing(queries, [support[:1], support[1:]], metric)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    is_searched_whole = index_limit > support.nbytes
    assert passing.searches == (3 if is_searched_whole else 3 * 2)
    passing(queries, support, metric)
    assert (passing.searches > 3 * 2) == is_searched_whole


def test_nested_matcher_gives_an_image_alone_the_bits_of_a_batch() -> None:
    queries, support = torch.rand(4, 9, 8, 8), torch.rand(2, 9, 8, 8)
    together = NestedMatcher()(queries, support)
    for number in range(4):
        alone = NestedMatcher()(queries[number : number + 1], support)
        assert torch.equal(alone[0][0], together[0][number])
        assert torch.equal(alone[1][0], together[1][number])


def test_nested_matcher_does_not_hand_out_its_memory() -> None:
    queries, support = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    matcher = NestedMatcher()
    distance, index = matcher(queries, support)
    kept = distance.clone()
    distance.zero_()
    index.zero_()
    assert torch.equal(matcher(queries, support)[0], kept)


def test_nested_matcher_makes_a_support_image_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(bank: Tensor, blocks: Blocks | None) -> ProductIndex:
        made.append(len(bank))
        return ProductIndex(bank, blocks)

    monkeypatch.setattr(residuals, "ProductIndex", counted)
    support, matcher = torch.rand(3, 2, 3, 3), NestedMatcher()
    for _ in range(4):
        matcher(torch.rand(2, 2, 3, 3), support)
    assert matcher.searches == 4 * 2 * 3
    assert made == [9] * 3
    forgetful = NestedMatcher(index_limit=1)
    forgetful(torch.rand(2, 2, 3, 3), support)
    assert made == [9] * 9


@pytest.mark.parametrize("is_frozen", [False, True])
def test_nested_matcher_sees_that_a_support_was_changed(is_frozen: bool) -> None:
    queries, matcher = torch.rand(1, 2, 3, 3), NestedMatcher()
    with torch.inference_mode(is_frozen):
        support = torch.rand(2, 2, 3, 3)
        before, _ = matcher(queries, support)
        support[1] = queries[0]
        after, index = matcher(queries, support)
    assert before.any()
    assert not after.any()
    assert (index >= 9).all()


def test_nested_matcher_forgets_the_digests_of_tensors_that_are_gone() -> None:
    matcher = NestedMatcher()
    queries, support = torch.randn(2, 1, 3, 4, 4)
    matcher(queries, support)
    known = matcher._digested
    assert len(known) == 2
    del queries
    assert len(known) == 1
    del support
    assert not known


def test_nested_matcher_sees_that_a_query_was_changed() -> None:
    matcher = NestedMatcher()
    queries, support = torch.randn(2, 1, 3, 4, 4)
    before, _ = matcher(queries, support)
    queries += 1
    after, _ = matcher(queries, support)
    assert not torch.equal(before, after)
    assert torch.equal(after, residuals.match_maps(queries, support)[0])
