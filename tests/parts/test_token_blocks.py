import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.token_blocks import (
    LinearAttention,
    PositionCode,
    PreNormBlock,
    SelfAttention,
    check_heads,
    dropped,
    neighbours,
    to_maps,
    to_tokens,
)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3))


def test_tokens_run_along_rows_and_come_back() -> None:
    maps = torch.arange(2 * 3 * 2 * 4).float().view(2, 3, 2, 4)
    tokens = to_tokens(maps)
    assert torch.equal(tokens[1, 5], maps[1, :, 1, 1])
    assert torch.equal(to_maps(tokens, (2, 4)), maps)


@pytest.mark.parametrize(
    ("grid", "size", "reach"), [((9, 8), 5, 2), ((4, 4), 7, 1), ((3, 8), 7, 3), ((5, 5), 1, 0)]
)
def test_neighbours_stand_in_a_square_that_leaves_somebody(
    grid: tuple[int, int], size: int, reach: int
) -> None:
    found = neighbours(grid, size)
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    for one, (row, column) in enumerate(places):
        for other, (row2, column2) in enumerate(places):
            near = abs(row - row2) <= reach and abs(column - column2) <= reach
            assert bool(found[one, other]) == near
    assert not found.all(dim=1).any()


@pytest.mark.parametrize(("grid", "size"), [((1, 1), 7), ((4, 4), 0)])
def test_nobody_is_a_neighbour_on_one_cell_or_without_a_square(grid, size: int) -> None:
    assert not neighbours(grid, size).any()


def test_linear_attention_is_the_slow_sum_over_keys(tokens: Tensor) -> None:
    attention = LinearAttention(8, 2)
    inputs = attention.inputs(tokens)
    expected = torch.zeros_like(tokens)
    for image in range(2):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            query, key, value = (inputs[image, :, 8 * n : 8 * n + 8][:, part] for n in range(3))
            for one in range(6):
                weights = [
                    ((nn.functional.elu(query[one]) + 1) * (nn.functional.elu(key[m]) + 1)).sum()
                    for m in range(6)
                ]
                total = torch.stack(weights).sum()
                mean = sum(weight / total * value[m] for m, weight in enumerate(weights))
                expected[image, one, part] = mean
    torch.testing.assert_close(attention(tokens), attention.output(expected))


def test_self_attention_is_a_softmax_of_products(tokens: Tensor) -> None:
    attention = SelfAttention(8, 1)
    inner = attention.heads
    query, key, value = nn.functional.linear(
        tokens, inner.in_proj_weight, inner.in_proj_bias
    ).chunk(3, dim=2)
    expected = inner.out_proj((query @ key.mT / 8**0.5).softmax(dim=2) @ value)
    torch.testing.assert_close(attention(tokens), expected)


def test_a_block_adds_what_both_halves_find_in_normalised_tokens(tokens: Tensor) -> None:
    block = PreNormBlock(8, nn.Linear(8, 8), hidden_ratio=0.5)
    after = tokens + block.attention(nn.functional.layer_norm(tokens, (8,)))
    hidden, _, last = block.feeding
    assert hidden.out_features == 4
    fed = last(nn.functional.gelu(hidden(nn.functional.layer_norm(after, (8,)))))
    torch.testing.assert_close(block(tokens), after + fed)


def test_dropout_keeps_the_mean_and_draws_from_its_generator_alone() -> None:
    tokens, before = torch.ones(1, 500, 20), torch.get_rng_state()
    one, same, other = (dropped(tokens, 0.2, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
    assert set(one.unique().tolist()) == {0.0, 1.25}
    assert float(one.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_positions_of_another_grid_are_between_those_that_were_learned() -> None:
    position = PositionCode(1, (1, 2))
    with torch.no_grad():
        position.code.copy_(torch.tensor([[[[0.0, 4.0]]]]))
    assert position((1, 2)).flatten().tolist() == [0, 4]
    assert position((1, 4)).flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(("width", "heads"), [(12, 8), (0, 1), (8, 0)])
def test_heads_that_cannot_share_the_width_are_refused(width: int, heads: int) -> None:
    with pytest.raises(FewShotError, match=f"width is {width} and heads is {heads}: expected a mu"):
        check_heads(width, heads)
