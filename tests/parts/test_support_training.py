import math
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.support_training import (
    SupportBudget,
    budget_of,
    endless_batches,
    train_on_support,
)
from fewshot_ad.parts.training import step_generator


def budget(**changes) -> SupportBudget:
    return SupportBudget(**({"steps": 5, "batch_size": 4, "learning_rate": 0.1} | changes))


def line() -> nn.Linear:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.25)
    return layer


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(10, 2, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (4, [4]), (5, [3, 2]), (10, [4, 3, 3])])
def test_every_epoch_shows_every_row_once(count: int, sizes: list[int]) -> None:
    batches = endless_batches(count, 4, seed=3)
    orders = []
    for _ in range(3):
        epoch = list(islice(batches, len(sizes)))
        assert [len(batch) for batch in epoch] == sizes
        orders.append(torch.cat(epoch))
        assert orders[-1].sort().values.tolist() == list(range(count))
    assert count < 5 or not torch.equal(orders[0], orders[1])


def test_steps_follow_adam_by_hand(rows: Tensor) -> None:
    ours, theirs = line(), line()
    chosen = budget(weight_decay=0.1, betas=(0.5, 0.9), eps=1e-4, clip_norm=0.3)
    train_on_support(ours, lambda some, _: ours(rows[some]).square().mean(), len(rows), chosen)
    adam = torch.optim.Adam(theirs.parameters(), 0.1, (0.5, 0.9), 1e-4, 0.1)
    for some in islice(endless_batches(len(rows), 4, 0), 5):
        adam.zero_grad()
        theirs(rows[some]).square().mean().backward()
        length = math.sqrt(sum(float(w.grad.square().sum()) for w in theirs.parameters()))
        for weight in theirs.parameters():
            weight.grad *= min(1.0, 0.3 / length)
        adam.step()
    torch.testing.assert_close(ours.weight, theirs.weight.detach())
    torch.testing.assert_close(ours.bias, theirs.bias.detach())


def test_the_gradient_is_left_whole_without_a_limit(rows: Tensor) -> None:
    """Adam hides the length of gradients; an epsilon far above them shows it."""
    found = []
    for limit in (None, 1e9):
        layer = line()
        course = budget(eps=1e3, learning_rate=100.0, clip_norm=limit)
        train_on_support(layer, lambda some, _, f=layer: f(rows[some]).sum() * 50, 10, course)
        found.append(layer.weight)
    assert torch.equal(found[0], found[1])


def test_randomness_is_that_of_seed_and_step() -> None:
    layer, drawn = line(), []

    def loss(_: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append(float(torch.rand((), generator=generator)))
        return layer.weight.sum()

    train_on_support(layer, loss, 3, budget(seed=6))
    assert drawn == [float(torch.rand((), generator=step_generator(6, step))) for step in range(5)]


def test_the_network_learns_in_train_mode_and_ends_frozen(rows: Tensor) -> None:
    layer = line().eval()

    def loss(some: Tensor, _: torch.Generator) -> Tensor:
        assert layer.training
        return layer(rows[some]).square().mean()

    before = torch.get_rng_state()
    train_on_support(layer, loss, len(rows), budget())
    assert torch.equal(torch.get_rng_state(), before)
    assert not layer.training
    assert not any(weight.requires_grad or weight.grad is not None for weight in layer.parameters())


def test_rates_rise_and_fall() -> None:
    assert [budget().rate_at(step) for step in (0, 4)] == [0.1, 0.1]
    rising = budget(steps=100, warm_up=0.1)
    assert [rising.rate_at(step) for step in (0, 4, 9, 99)] == pytest.approx([0.01, 0.05, 0.1, 0.1])
    falling = budget(steps=100, cosine=True)
    assert [falling.rate_at(step) for step in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0.0])


def test_what_is_not_finite_stops_with_step_and_rate() -> None:
    layer, calls = line(), []

    def loss(some: Tensor, _: torch.Generator) -> Tensor:
        calls.append(some)
        return layer.weight.sum() * (math.nan if len(calls) == 3 else 1.0)

    words = r"the loss is nan .* at step 2 with learning_rate 0.1: choose a smaller one"
    with pytest.raises(FewShotError, match=words):
        train_on_support(layer, loss, 3, budget())


def test_a_gradient_that_is_not_finite_stops_as_well() -> None:
    layer = line()
    with pytest.raises(FewShotError, match="the loss is 0 and its gradient nan long at step 0"):
        train_on_support(layer, lambda *_: (layer.weight * 0).sqrt().sum(), 3, budget())


@pytest.mark.parametrize("rate", [1e38, float("inf"), float("nan")])
def test_a_rate_that_float32_cannot_hold_is_refused(rate: float) -> None:
    with pytest.raises(FewShotError, match=r"learning_rate is .*: expected 3.4e\+37 or less"):
        SupportBudget(steps=1, batch_size=1, learning_rate=rate)


def test_the_budget_of_a_method_is_that_of_its_fields() -> None:
    method = SimpleNamespace(steps=7, learning_rate=0.5, weight_decay=0.1, seed=3)
    expected = SupportBudget(
        steps=7, batch_size=2, learning_rate=0.5, weight_decay=0.1, clip_norm=1.0, seed=3
    )
    assert budget_of(method, 2, clip_norm=1.0) == expected
    del method.weight_decay
    assert budget_of(method, 2).weight_decay == 0.0
