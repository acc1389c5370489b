import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.lora import add_lora


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"query": nn.Linear(6, 6), "value": nn.Linear(6, 4)})
        self.mlp = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention["value"](self.attention["query"](x)) + self.mlp(x)


def block() -> Block:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Block().requires_grad_(requires_grad=False)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_at_first_nothing_changes_and_only_the_thin_matrices_learn(x: Tensor) -> None:
    network = block()
    before, frozen = network(x), len([*network.parameters()])
    learned = add_lora(network, 2, seed=3)
    assert torch.equal(network(x), before)
    assert [list(each.shape) for each in learned] == [[2, 6], [6, 2], [2, 6], [4, 2]]
    assert len([*network.parameters()]) == frozen + len(learned)


def test_a_layer_gets_the_product_of_its_matrices_added(x: Tensor) -> None:
    network, plain = block(), block()
    learned = add_lora(network, 2, seed=3)
    for value in learned:
        value.data.normal_(generator=torch.Generator().manual_seed(4))
    down, up = learned[:2]
    query = plain.attention["query"]
    expected = x @ (query.weight + up @ down).T + query.bias
    torch.testing.assert_close(network.attention["query"](x), expected)
    assert torch.equal(network.mlp(x), plain.mlp(x))


def test_the_seed_says_where_they_start_and_randomness_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (add_lora(block(), 2, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(FewShotError, match="no linear layer called"):
        add_lora(nn.Sequential(nn.Linear(3, 3)), 2, seed=0)
