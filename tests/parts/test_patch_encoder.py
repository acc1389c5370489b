import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.patch_encoder import (
    DIRECTIONS,
    PatchEncoder,
    PositionClassifier,
    draw_pairs,
    spread,
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_a_code_is_that_of_its_patch_alone() -> None:
    encoder, images = PatchEncoder(dims=6, width=2, seed=1), random(2, 3, 80, 72)
    small, large = encoder(images)
    assert small.shape == (2, 6, 13, 11)
    assert large.shape == (2, 6, 5, 3)
    for row, column in ((0, 0), (12, 10), (5, 7)):
        patch = images[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
        torch.testing.assert_close(
            encoder(torch.nn.functional.pad(patch, (0, 32, 0, 32)))[0][..., 0, 0],
            small[..., row, column],
        )
    for row, column in ((0, 0), (4, 2)):
        patch = images[:, :, 4 * row : 4 * row + 64, 4 * column : 4 * column + 64]
        torch.testing.assert_close(encoder(patch)[1][..., 0, 0], large[..., row, column])


@torch.no_grad()
def test_every_pixel_of_a_patch_counts_and_none_beyond() -> None:
    encoder, image = PatchEncoder(dims=6, width=2, seed=1), random(1, 3, 64, 64)
    code = encoder(image)[0][..., 1, 1]  # of rows and columns 4 to 35
    for pixel, counts in ((3, False), (4, True), (35, True), (36, False)):
        changed = image.clone()
        changed[..., pixel, pixel] += 10
        assert (not torch.equal(encoder(changed)[0][..., 1, 1], code)) == counts


def test_a_large_code_is_made_of_four_small_ones() -> None:
    encoder, image = PatchEncoder(dims=4, width=2, seed=1), random(1, 3, 64, 64)
    small, large = encoder(image)
    first, _, second, _ = encoder.large
    corners = small[0, :, ::8, ::8]
    total = first.bias + torch.einsum("ocij,cij->o", first.weight, corners)
    hidden = torch.where(total > 0, total, 0.1 * total)
    expected = torch.tanh(second.bias + second.weight[:, :, 0, 0] @ hidden)
    torch.testing.assert_close(large[0, :, 0, 0], expected)


def test_weights_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (PatchEncoder(4, 2, seed).small[0] for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    first, second = PositionClassifier(4, 1), PositionClassifier(4, 1)
    assert torch.equal(first[0].weight, second[0].weight)
    assert first(random(5, 4)).shape == (5, len(DIRECTIONS))
    assert torch.equal(state, torch.get_rng_state())


def numbered(count: int, height: int, width: int) -> Tensor:
    """Codes that say which image, row and column they are of."""
    places = torch.meshgrid(*(torch.arange(n) for n in (count, height, width)), indexing="ij")
    return torch.stack(places, dim=1).float()


@pytest.mark.parametrize("offset", [(2, -3), (-2, 0), (0, 0), (40, -40)])
def test_pairs_lie_the_offset_apart_in_one_image(offset: tuple[int, int]) -> None:
    offsets = torch.tensor([offset]).expand(300, 2)
    here, there = draw_pairs(numbered(2, 5, 6), offsets, torch.Generator().manual_seed(1))
    expected = [int(np.clip(o, -s, s)) for o, s in zip(offset, (4, 5), strict=True)]
    assert torch.equal(here[:, 0], there[:, 0])
    assert (there[:, 1:] - here[:, 1:]).unique(dim=0).tolist() == [expected]
    seen = {tuple(place) for place in here.int().tolist()}
    room = [size - abs(o) for size, o in zip((5, 6), expected, strict=True)]
    assert len(seen) == 2 * room[0] * room[1]  # every place where both fit, in both images


def test_pixels_are_the_mean_over_their_patches() -> None:
    values, side, stride, size = random(3, 2), 6, 4, (15, 12)
    total, count = np.zeros(size), np.zeros(size)
    for row in range(3):
        for column in range(2):
            place = np.s_[stride * row : stride * row + side, 4 * column : 4 * column + side]
            total[place] += float(values[row, column])
            count[place] += 1
    expected = np.divide(total, count, where=count > 0, out=np.zeros(size))
    expected[14] = expected[13]  # pixels that no patch shows
    expected[:, 10:] = expected[:, 9:10]
    found = spread(values, side, stride, size)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
