"""Training on the support alone: a budget in steps that means the same at one shot and at all.

Papers count epochs and drop the last batch where it is not full, so that few images train for no
step at all. Here every row of an epoch is in one of its batches, and epochs go on until the budget
is spent. The last step is the result; nothing is selected.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.training import progress_bar, step_generator

Loss = Callable[[Int[Tensor, " k"], torch.Generator], Float[Tensor, ""]]
"""Of some rows of what is learned from, with the randomness of the step."""


@dataclass(frozen=True, kw_only=True)
class SupportBudget:
    """How much is trained and how fast, by Adam.

    Attributes:
        steps: of the optimiser.
        batch_size: rows per step at most.
        learning_rate: at its highest.
        weight_decay, betas, eps: of Adam.
        clip_norm: longest gradient, over all weights together; None for any.
        warm_up: share of the steps in which the learning rate rises.
        cosine: whether it falls to nothing along half a cosine.
        seed: of the batches and of the randomness of every step.

    Raises:
        FewShotError: the first step of Adam, which is longer, would be no number of float32.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = None
    warm_up: float = 0.0
    cosine: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        most = torch.finfo(torch.float32).max * (1 - self.betas[0])
        if not self.learning_rate <= most:
            rate = self.learning_rate
            raise FewShotError(f"learning_rate is {rate}: expected {most:.1e} or less")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / max(1.0, self.warm_up * self.steps))
        falling = (1 + math.cos(math.pi * step / self.steps)) / 2 if self.cosine else 1.0
        return self.learning_rate * rising * falling


@runtime_checkable
class Trained(Protocol):
    """A method whose fields hold a budget; ``weight_decay`` may be among them."""

    steps: int
    learning_rate: float
    seed: int


def budget_of(
    method: Trained,
    batch_size: int,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    clip_norm: float | None = None,
    warm_up: float = 0.0,
    cosine: bool = False,
) -> SupportBudget:
    """The budget that the fields of a method hold; the rest as in ``SupportBudget``."""
    return SupportBudget(
        steps=method.steps,
        batch_size=batch_size,
        learning_rate=method.learning_rate,
        weight_decay=getattr(method, "weight_decay", 0.0),
        betas=betas,
        eps=eps,
        clip_norm=clip_norm,
        warm_up=warm_up,
        cosine=cosine,
        seed=method.seed,
    )


def train_on_support(
    network: nn.Module, loss: Loss, count: int, budget: SupportBudget, label: str = "fitting"
) -> None:
    """Spend the budget on a network, in place, and leave it frozen in eval mode.

    Args:
        network: what learns; it is in train mode meanwhile.
        loss: of some of the rows, all different; rows and generator are on the CPU.
        count: rows there are, at least one.
        budget: steps, batches and Adam.
        label: what the progress bar says.

    Raises:
        FewShotError: loss or gradient is no longer finite; says at which step.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    adam = torch.optim.Adam(
        weights, betas=budget.betas, eps=budget.eps, weight_decay=budget.weight_decay
    )
    batches = endless_batches(count, budget.batch_size, budget.seed)
    network.train()
    with progress_bar() as bar:
        for step in bar.track(range(budget.steps), description=label):
            adam.param_groups[0]["lr"] = budget.rate_at(step)
            adam.zero_grad()
            found = loss(next(batches), step_generator(budget.seed, step))
            found.backward()
            norm = nn.utils.clip_grad_norm_(weights, budget.clip_norm or math.inf)
            _check_finite(found, norm, step, budget)
            adam.step()
    adam.zero_grad()
    network.eval().requires_grad_(requires_grad=False)


def endless_batches(count: int, batch_size: int, seed: int) -> Iterator[Int[Tensor, " k"]]:
    """Row numbers, shuffled anew for every epoch.

    The batches of an epoch differ in size by one at most: none is dropped, none is a lonely rest.
    """
    generator = step_generator(seed, -1)  # no step has it
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order.tensor_split(math.ceil(count / batch_size))


def _check_finite(loss: Tensor, norm: Tensor, step: int, budget: SupportBudget) -> None:
    if loss.isfinite() and norm.isfinite():
        return
    raise FewShotError(
        f"the loss is {loss.item():.4g} and its gradient {norm.item():.4g} long at step {step} "
        f"with learning_rate {budget.learning_rate}: choose a smaller one"
    )
