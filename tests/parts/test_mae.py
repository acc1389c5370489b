from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.mae import (
    MaskedAutoencoder,
    content_generator,
    load_autoencoder,
    quartered_noise,
    random_noise,
)

SIZE, PATCH, SIDE = 48, 8, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loaded(**changes) -> MaskedAutoencoder:
    return load_autoencoder("random:tiny", size=SIZE, **changes)


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=generator(5))


def squares(values: Tensor) -> list[list[Tensor]]:
    """[row][column] of patches [..., 8, 8]."""
    rows = [slice(PATCH * each, PATCH * (each + 1)) for each in range(SIDE)]
    return [[values[..., row, column] for column in rows] for row in rows]


def error_by_loop(
    autoencoder: MaskedAutoencoder, image: Tensor, noise: Tensor, masked_only: bool
) -> Tensor:
    """Mask by mask, patch by patch; transformers assembles the pixels."""
    total, count = torch.zeros(SIZE, SIZE), torch.zeros(SIZE, SIZE)
    is_norm_pix = autoencoder.config.norm_pix_loss
    for each in noise:
        drawn, mask = autoencoder.redraw(image, each[None])
        pixels = autoencoder.network.unpatchify(drawn, (SIZE, SIZE))[0]
        for row in range(SIDE):
            for column in range(SIDE):
                if masked_only and not mask[0, SIDE * row + column]:
                    continue
                target = squares(image[0])[row][column].clone()
                if is_norm_pix:
                    target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                error = (squares(pixels)[row][column] - target).square().sum(dim=0)
                square = squares(total)[row][column]
                square += error.mean() if is_norm_pix else error
                squares(count)[row][column].add_(1)
    return total / count.clamp(min=1)


@pytest.mark.parametrize("masked_only", [False, True])
@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_error_is_that_of_a_slow_loop(image: Tensor, masked_only: bool, norm_pix: bool) -> None:
    autoencoder = loaded(norm_pix=norm_pix)
    noise = random_noise(10, SIDE**2, generator())
    found = autoencoder.error_map(image, noise, masked_only)[0]
    expected = error_by_loop(autoencoder, image, noise, masked_only)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pixel_that_is_never_hidden_has_no_masked_error(image: Tensor) -> None:
    noise = torch.arange(SIDE**2).float()[None]
    found = loaded().error_map(image, noise, masked_only=True)
    rows_seen = SIDE**2 // 4 // SIDE * PATCH
    assert not found[0, :rows_seen].any()
    assert found[0, 2 * PATCH :].all()


class Copying(nn.Module):
    """Draws what it is shown, wherever it is masked."""

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.twin, self.config = twin, twin.config

    def forward(self, images: Tensor, noise: Tensor) -> SimpleNamespace:
        mask = (noise.argsort(dim=1).argsort(dim=1) >= noise.shape[1] // 4).float()
        return SimpleNamespace(logits=self.twin.patchify(images), mask=mask)


@pytest.mark.parametrize("masked_only", [False, True])
def test_who_copies_the_image_makes_no_error(image: Tensor, masked_only: bool) -> None:
    twin = loaded()
    copying = MaskedAutoencoder("copying", SIZE, "", "cpu", Copying(twin.network))
    noise = random_noise(32, SIDE**2, generator())
    assert not copying.error_map(image, noise, masked_only).any()
    assert twin.error_map(image, noise, masked_only).any()


def test_the_patches_of_least_noise_are_seen(image: Tensor) -> None:
    autoencoder = loaded(mask_ratio=0.5)
    noise = random_noise(3, SIDE**2, generator())
    _, mask = autoencoder.redraw(image.expand(3, -1, -1, -1), noise)
    assert autoencoder.n_visible == SIDE**2 // 2
    assert torch.equal(mask.bool(), noise >= noise.sort(dim=1).values[:, [autoencoder.n_visible]])


def test_random_noise_is_an_order_without_ties() -> None:
    noise = random_noise(20, 196, generator())
    assert all(row.unique().numel() == 196 for row in noise)
    assert torch.equal(noise, random_noise(20, 196, generator()))
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("n_patches", [196, 256, 36])
def test_four_quartered_masks_show_every_patch_once(n_patches: int) -> None:
    noise = quartered_noise(8, n_patches, generator())
    visible = noise.argsort(dim=1)[:, : n_patches // 4]
    for four in visible.reshape(2, -1):
        assert torch.equal(four.sort().values, torch.arange(n_patches))
    assert all(row.unique().numel() == n_patches for row in noise)
    assert not torch.equal(visible[0], visible[4])


def test_what_cannot_be_quartered_is_refused() -> None:
    with pytest.raises(FewShotError, match="49 patches cannot be cut into four equal parts"):
        quartered_noise(4, 49, generator())


def test_the_generator_hangs_on_content_and_seed(image: Tensor) -> None:
    first = content_generator(image, 0).initial_seed()
    assert content_generator(image.clone(), 0).initial_seed() == first
    assert content_generator(image.flip(3), 0).initial_seed() != first
    assert content_generator(image, 1).initial_seed() != first


def test_a_copy_shares_weights_and_nothing_else() -> None:
    one = loaded(mask_ratio=0.5)
    other = one.copy(mask_ratio=0.75)
    assert (one.config.mask_ratio, other.config.mask_ratio) == (0.5, 0.75)
    assert one.network is not other.network
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)
    assert loaded().digest == one.digest


def test_too_large_a_ratio_leaves_nothing_to_see() -> None:
    with pytest.raises(FewShotError, match=r"mask_ratio 0.99 leaves none of 36 patches visible"):
        loaded(mask_ratio=0.99)
