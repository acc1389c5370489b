import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.embedding import Embedding, average_neighbourhood


@pytest.fixture
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (3, 12, 5, 6), (3, 20, 3, 3)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def average_by_loop(maps: Tensor, side: int) -> Tensor:
    averaged, reach = torch.empty_like(maps), side // 2
    for row in range(maps.shape[2]):
        for column in range(maps.shape[3]):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            averaged[:, :, row, column] = maps[:, :, rows, columns].sum(dim=(2, 3)) / side**2
    return averaged


@pytest.mark.parametrize("side", [1, 3, 5])
def test_neighbourhood_is_the_mean_over_a_square_with_zeros_beyond_the_border(
    maps: list[Tensor], side: int
) -> None:
    torch.testing.assert_close(average_neighbourhood(maps[0], side), average_by_loop(maps[0], side))


def test_every_level_is_averaged_and_brought_to_unit_length(maps: list[Tensor]) -> None:
    embedded = Embedding(neighbourhood=3, unit_length=True)(maps)
    for ours, level in zip(embedded, maps, strict=True):
        averaged = average_by_loop(level, 3)
        for image, row, column in ((0, 0, 0), (1, 2, 1), (2, 1, 2)):
            vector = averaged[image, :, row, column]
            torch.testing.assert_close(ours[image, :, row, column], vector / vector.norm())


def test_by_default_nothing_happens(maps: list[Tensor]) -> None:
    assert all(torch.equal(*pair) for pair in zip(Embedding()(maps), maps, strict=True))


def test_projection_is_orthonormal_and_nearly_keeps_angles() -> None:
    vectors = torch.randn(40, 512, generator=torch.Generator().manual_seed(2))
    (narrow,) = Embedding(channels=256)([vectors.T[None, :, :, None].contiguous()])
    projected = narrow[0, :, :, 0].T
    cosines, before = (
        (rows / rows.norm(dim=1, keepdim=True)) @ (rows / rows.norm(dim=1, keepdim=True)).T
        for rows in (projected, vectors)
    )
    assert projected.shape == (40, 256)
    assert (cosines - before).abs().max() < 0.2
    identity = torch.eye(12)[None, :, :, None]  # its columns show the projection itself
    (matrix,) = Embedding(channels=7)([identity])
    rows = matrix[0, :, :, 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(7), atol=1e-6, rtol=0)


def test_projection_is_fixed_and_another_one_on_every_level(maps: list[Tensor]) -> None:
    first, second = Embedding(channels=4)([maps[0], maps[0]])
    again, _ = Embedding(channels=4)([maps[0], maps[1]])
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("channels", [None, 4, 12, 99])
def test_widths_are_those_that_come_out(maps: list[Tensor], channels: int | None) -> None:
    embedding = Embedding(channels=channels)
    assert embedding.widths((12, 20)) == tuple(level.shape[1] for level in embedding(maps))


@pytest.mark.parametrize("embedding", [Embedding(3, 5, True), Embedding(1, 12), Embedding(5)])
def test_an_image_has_the_same_bits_alone_and_in_a_batch(
    maps: list[Tensor], embedding: Embedding
) -> None:
    together = embedding(maps)
    for image in range(3):
        alone = embedding([level[image : image + 1] for level in maps])
        for ours, level in zip(alone, together, strict=True):
            assert torch.equal(ours[0], level[image])
