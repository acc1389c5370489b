import numpy as np
import pytest
import torch
from torch import nn

from fewshot_ad.parts.seeding import seeded_weights


def global_states() -> tuple[torch.Tensor, np.ndarray]:
    return torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002


def test_same_seed_same_weights_whatever_came_before() -> None:
    with seeded_weights(3):
        first = nn.Linear(4, 4)
    torch.rand(5)
    with seeded_weights(3):
        again = nn.Linear(4, 4)
    assert torch.equal(first.weight, again.weight)


def test_global_generators_come_out_as_they_went_in() -> None:
    before = global_states()

    def broken_constructor() -> None:
        nn.Linear(4, 4)
        np.random.permutation(5)  # noqa: NPY002
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), seeded_weights(3):
        broken_constructor()
    after = global_states()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
