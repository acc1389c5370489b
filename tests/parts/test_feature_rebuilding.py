import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.feature_rebuilding import FeatureRebuilder, RebuilderShape
from fewshot_ad.parts.patches import join_coarsely
from fewshot_ad.parts.token_blocks import neighbours, to_tokens

PLAIN = RebuilderShape(width=8, heads=1, layers=2)
MASKED = RebuilderShape(width=8, heads=1, layers=2, masked=3, layer_queries=True)


@pytest.fixture
def maps() -> Tensor:
    return 3 + torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(2))


def attended(attention, queries: Tensor, keys: Tensor, values: Tensor, mask) -> Tensor:
    """One head of attention, written out."""
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    query, key, value = (
        functional.linear(given, *pair)
        for given, *pair in zip((queries, keys, values), weights, biases, strict=True)
    )
    likeness = query @ key.mT / query.shape[2] ** 0.5
    if mask is not None:
        likeness = likeness.masked_fill(mask, -torch.inf)
    return attention.out_proj(likeness.softmax(dim=2) @ value)


def layer_by_hand(layer, tokens: Tensor, memories: list[Tensor], position: Tensor, mask) -> Tensor:
    for attention, norm, memory in zip(layer.attentions, layer.norms, memories, strict=True):
        found = attended(attention, tokens + position, memory + position, memory, mask)
        tokens = norm(tokens + found)
    return layer.last_norm(tokens + layer.feeding(tokens))


@pytest.mark.parametrize("shape", [PLAIN, MASKED], ids=["adtr", "uniad"])
def test_layers_look_where_the_papers_say(maps: Tensor, shape: RebuilderShape) -> None:
    network = FeatureRebuilder(maps, shape, seed=1)
    mask = neighbours((4, 4), 3) if shape.masked else None
    position = network.position((4, 4))
    encoded = network.narrow(to_tokens(maps))
    for layer in network.encoder:
        encoded = layer_by_hand(layer, encoded, [encoded], position, mask)
    queries = [query((4, 4)).expand(2, -1, -1) for query in network.queries]
    first, second = network.decoder
    if shape.layer_queries:
        tokens = layer_by_hand(first, queries[0], [encoded, encoded], position, mask)
        tokens = layer_by_hand(second, queries[1], [encoded, tokens], position, mask)
    else:
        tokens = layer_by_hand(first, queries[0], [queries[0], encoded], position, mask)
        tokens = layer_by_hand(second, tokens, [tokens, encoded], position, mask)
    expected = network.widen(tokens).mT.unflatten(2, (4, 4))
    torch.testing.assert_close(network(maps), expected)


def test_error_is_the_distance_to_what_was_rebuilt(maps: Tensor) -> None:
    network = FeatureRebuilder(maps, PLAIN, seed=1)
    scaled = network.scale(maps)
    difference = network(scaled)[1, :, 2, 3] - scaled[1, :, 2, 3]
    expected = float(difference.detach().square().sum().sqrt())
    assert float(network.error(maps).detach()[1, 2, 3]) == pytest.approx(expected, rel=1e-5)


def test_jitter_is_noise_in_proportion_to_the_length_of_a_feature(maps: Tensor) -> None:
    network = FeatureRebuilder(maps, PLAIN, seed=1)
    rows, scaled = torch.tensor([1]), network.scale(maps)[1:]
    noise = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(4))
    length = scaled.square().sum(dim=1, keepdim=True).sqrt()
    expected = (network(scaled + 20 * length / 5 * noise) - scaled).square().mean()
    found = network.loss(maps, 20.0)(rows, torch.Generator().manual_seed(4))
    torch.testing.assert_close(found, expected)
    plain = network.loss(maps)(rows, torch.Generator())
    torch.testing.assert_close(plain, (network(scaled) - scaled).square().mean())


def test_levels_are_joined_on_the_coarsest_grid() -> None:
    levels = [torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 2, 2, 2)]
    found = join_coarsely(levels)
    assert found[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert found.shape == (1, 3, 2, 2)


def test_other_grids_are_rebuilt_too(maps: Tensor) -> None:
    network = FeatureRebuilder(maps, MASKED, seed=1)
    assert network.error(maps[:, :, :3, :2]).shape == (2, 3, 2)
