import math

import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.cosine_rebuilding import (
    LevelRebuilder,
    check_blocks,
    top_share_score,
    whole_map_loss,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def levels() -> list[Tensor]:
    return [noise(2, 3, 4, 4), 5 * noise(2, 6, 2, 2, seed=1)]


def test_targets_are_levels_of_usual_value_1_on_the_coarsest_grid(levels: list[Tensor]) -> None:
    targets = LevelRebuilder(levels, 8).targets(levels)
    assert targets[0].shape == (2, 3, 2, 2)
    usual = math.sqrt(sum(value**2 for value in levels[0].flatten().tolist()) / 96)
    cell = levels[0][1, 2, :2, 2:].flatten().tolist()
    assert float(targets[0][1, 2, 0, 1]) == pytest.approx(sum(cell) / 4 / usual, abs=1e-5)


def test_before_it_has_learned_the_mean_of_the_support_is_rebuilt(levels: list[Tensor]) -> None:
    rebuilder = LevelRebuilder(levels, 8)
    rebuilt = rebuilder.rebuilt([noise(2, 4, 8)] * 2, (2, 2))
    for target, maps in zip(rebuilder.targets(levels), rebuilt, strict=True):
        for channel in range(target.shape[1]):
            mean = float(target[:, channel].mean())
            assert maps[:, channel].flatten().tolist() == pytest.approx([mean] * 8, abs=1e-6)


def test_features_that_are_all_0_divide_nothing_by_0() -> None:
    zeros = [torch.zeros(1, 2, 2, 2)]
    assert torch.equal(LevelRebuilder(zeros, 4).targets(zeros)[0], zeros[0])


def test_a_fixed_join_that_is_wide_enough_keeps_all_angles(levels: list[Tensor]) -> None:
    rebuilder = LevelRebuilder(levels, 9, frozen=True)
    targets = rebuilder.targets(levels)
    tokens = rebuilder.tokens(targets)
    joined = torch.cat(targets, dim=1).flatten(2).mT
    torch.testing.assert_close(tokens @ tokens.mT, joined @ joined.mT)
    assert not rebuilder.join.weight.requires_grad


def test_the_deepest_level_is_rebuilt_from_the_first_blocks(levels: list[Tensor]) -> None:
    rebuilder = LevelRebuilder(levels, 8)
    for head in rebuilder.heads:
        torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(7))
    outputs = [noise(2, 4, 8, seed=n) for n in range(5)]
    shallow, deep = rebuilder.rebuilt(outputs, (2, 2))
    expected = rebuilder.heads[1]((outputs[0] + outputs[1] + outputs[2]) / 3)
    torch.testing.assert_close(deep[1, :, 1, 0], expected[1, 2])
    expected = rebuilder.heads[0]((outputs[3] + outputs[4]) / 2)
    torch.testing.assert_close(shallow[0, :, 0, 1], expected[0, 1])


def test_weights_change_the_gradient_of_a_position_and_not_the_loss(levels: list[Tensor]) -> None:
    rebuilt = [noise(*maps.shape, seed=5).requires_grad_() for maps in levels]
    gradients, losses = [], []
    for weight in (1.0, 0.1):

        def weigh(distance: Tensor, weight: float = weight) -> Tensor:
            weights = torch.ones_like(distance)
            weights[:, 0, 0] = weight
            return weights

        loss = whole_map_loss(levels, rebuilt, weigh)
        losses.append(float(loss.detach()))
        gradients.append(torch.autograd.grad(loss, rebuilt)[0])
    cosines = [
        float(torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm()))
        for target, maps in zip(levels, rebuilt, strict=True)
        for a, b in zip(target, maps.detach(), strict=True)
    ]
    assert losses == pytest.approx([1 - sum(cosines) / 4] * 2, abs=1e-5)
    torch.testing.assert_close(gradients[1][:, :, 0, 0], 0.1 * gradients[0][:, :, 0, 0])
    torch.testing.assert_close(gradients[1][:, :, 1:], gradients[0][:, :, 1:])


def test_an_image_scores_the_mean_of_its_highest_pixels() -> None:
    maps = torch.zeros(1, 10, 10)
    maps[0, 3, 3], maps[0, 7, 2], maps[0, 5, 5] = 3.0, 2.0, 1.0
    assert float(top_share_score([maps], (10, 10), 0.0, 0.02)) == 2.5
    assert float(top_share_score([maps], (10, 10), 0.0, 1e-6)) == 3.0


def test_fewer_blocks_than_levels_are_refused() -> None:
    check_blocks(3, (2, 3))
    with pytest.raises(FewShotError, match="blocks is 1 and there are 2 levels: expected as many"):
        check_blocks(1, (2, 3))
