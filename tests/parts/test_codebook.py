import pytest
import torch

from fewshot_ad.parts.codebook import Codebook


def test_lookup_is_the_nearest_entry() -> None:
    codebook = Codebook(3, entries=5, seed=1)
    maps = 0.2 * torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    found = codebook(maps)
    entries = codebook.embedding.weight.detach()
    for image in range(2):
        for row in range(4):
            for column in range(2):
                vector = maps[image, :, row, column]
                nearest = min(entries, key=lambda entry, v=vector: float((entry - v).norm()))
                assert torch.equal(found[image, :, row, column], nearest)


def test_loss_has_the_released_value_and_a_quarter_of_its_gradient() -> None:
    codebook = Codebook(2, entries=1)
    torch.nn.init.zeros_(codebook.embedding.weight)
    vectors = torch.tensor([[1.0, 0.0], [3.0, 2.0]], requires_grad=True)
    loss = codebook.loss(vectors)
    loss.backward()
    assert loss.item() == pytest.approx(1.25 * (1 + 9 + 4) / 4)
    assert vectors.grad is None
    assert codebook.embedding.weight.grad is not None
    # 0.25 * d/de mean((e - v)^2) at e = 0
    assert codebook.embedding.weight.grad.tolist() == [pytest.approx([-0.5, -0.25])]


def test_no_vectors_no_loss() -> None:
    codebook = Codebook(2, entries=3)
    loss = codebook.loss(torch.zeros(0, 2))
    loss.backward()
    assert loss.item() == 0
    assert codebook.revive(torch.zeros(0, 2), torch.Generator()) == 0


def test_revival_moves_dead_entries_onto_vectors() -> None:
    codebook = Codebook(2, entries=8)
    vectors = 5 + torch.rand(50, 2, generator=torch.Generator().manual_seed(2))
    used = set(codebook.nearest(vectors).tolist())
    before = codebook.embedding.weight.detach().clone()
    moved = codebook.revive(vectors, torch.Generator().manual_seed(0))
    assert moved == 8 - len(used)
    for number, entry in enumerate(codebook.embedding.weight.detach()):
        if number in used:
            assert torch.equal(entry, before[number])
        else:
            assert (vectors == entry).all(dim=1).any()


def test_first_entries_are_small_and_seeded() -> None:
    first, again = Codebook(4, seed=7), Codebook(4, seed=7)
    weight = first.embedding.weight
    assert weight.shape == (1536, 4)
    assert weight.abs().max() <= 1 / 1536
    assert torch.equal(weight, again.embedding.weight)
    assert not torch.equal(weight, Codebook(4, seed=8).embedding.weight)
