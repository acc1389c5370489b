import torch
from torch import Tensor

from fewshot_ad.parts.support_training import SupportBudget
from fewshot_ad.parts.surroundings import Shape, Surroundings, learn_surroundings

SHAPE = Shape(window=3, hidden=24, layers=1)
BUDGET = SupportBudget(steps=80, batch_size=64, learning_rate=1e-2, seed=1)


def stripes(images: int) -> tuple[Tensor, Tensor]:
    """Diagonal stripes of three kinds: neighbours tell the word, one position alone does not."""
    row, column = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    words = torch.stack([(row + column + shift) % 3 for shift in range(images)])
    maps = torch.nn.functional.one_hot(words, 3).permute(0, 3, 1, 2).float()
    return maps, words


def test_the_position_itself_is_not_looked_at_and_the_border_is_zero() -> None:
    maps = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, scale = torch.tensor([0.5, -1.0]), torch.tensor(2.0)
    network = Surroundings(SHAPE, 3, mean, scale)
    seen: list[Tensor] = []
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows = torch.tensor([0, 7, 39])
    network(network.pad(maps), rows)
    for found, (image, row, column) in zip(seen[0], [(0, 0, 0), (0, 1, 2), (1, 3, 4)], strict=True):
        expected = []
        for down in (-1, 0, 1):
            for along in (-1, 0, 1):
                y, x = row + down, column + along
                inside = 0 <= y < 4 and 0 <= x < 5
                if (down, along) != (0, 0):
                    expected.append(
                        (maps[image, :, y, x] - mean) / scale if inside else torch.zeros(2)
                    )
        torch.testing.assert_close(found, torch.cat(expected))


def test_it_learns_words_from_their_neighbours() -> None:
    maps, words = stripes(3)
    network = learn_surroundings(maps, words.flatten(), SHAPE, BUDGET)
    hidden = maps[:1].clone()
    hidden[0, :, 2, 3] = 9.0  # the position itself says nothing
    logits = network.logits(hidden).view(6, 7, 3)
    assert int(logits[2, 3].argmax()) == int(words[0, 2, 3])
    right = network.logits(maps[1:2]).argmax(dim=1) == words[1].flatten()
    assert right.float().mean() > 0.9


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    maps, words = stripes(2)
    before = torch.get_rng_state()
    one, two = (learn_surroundings(maps, words.flatten(), SHAPE, BUDGET) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.logits(maps[:1]), two.logits(maps[:1]))


def test_constant_features_are_learned_too() -> None:
    maps, words = torch.ones(2, 3, 1, 1), torch.zeros(2, dtype=torch.int64)
    network = learn_surroundings(maps, words, SHAPE, BUDGET)
    assert network.logits(maps[:1]).isfinite().all()
