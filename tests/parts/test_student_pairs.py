import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.student_pairs import (
    ImageAutoencoder,
    Pair,
    PatchStudent,
    hardest,
    jittered,
)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def taught() -> Tensor:
    return torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(3))


def test_the_student_sees_a_patch_and_the_autoencoder_everything(images: Tensor) -> None:
    changed = images[:1].clone()
    changed[:, :, :8, :8] += 1
    student, autoencoder = PatchStudent(6, 8), ImageAutoencoder(6, 4)
    with torch.no_grad():
        parts = [student(shown, (8, 8))[0] for shown in (images[:1], changed)]
        wholes = [autoencoder(shown, (8, 8)) for shown in (images[:1], changed)]
    moved = (parts[0] - parts[1]).abs().sum(dim=1)[0]
    assert moved[0, 0] > 0
    assert moved[4:, 4:].eq(0).all()
    assert ((wholes[0] - wholes[1]).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (1, 1), (28, 28)])
def test_both_meet_the_teacher_on_any_grid(images: Tensor, grid: tuple[int, int]) -> None:
    for maps in (*PatchStudent(6, 8)(images, grid), ImageAutoencoder(6, 4)(images, grid)):
        assert maps.shape == (3, 6, *grid)


def test_maps_are_mean_squares_of_differences(images: Tensor, taught: Tensor) -> None:
    pair = Pair(taught, 8, 4, seed=0).eval()
    with torch.no_grad():
        one, other = pair(images, taught)
        parts, wholes = pair.student(images, (8, 8))
        rebuilt = pair.autoencoder(images, (8, 8))
    for found, a, b in ((one, taught, parts), (other, rebuilt, wholes)):
        for place in ((0, 0, 0), (2, 7, 3)):
            n, y, x = place
            expected = np.mean([(float(a[n, c, y, x] - b[n, c, y, x])) ** 2 for c in range(6)])
            assert float(found[place]) == pytest.approx(expected, rel=1e-4)


def test_quantiles_of_normal_maps_become_0_and_a_tenth(taught: Tensor) -> None:
    pair = Pair(taught, 8, 4, seed=0)
    maps = taught[:, 0].square(), 7 + 3 * taught[:, 1].square()
    pair.measure(*maps)
    low, high = (np.quantile(maps[0].numpy(), level) for level in (0.9, 0.995))
    where = 0.1 * (maps[0].numpy() - low) / (high - low)
    low, high = (np.quantile(maps[1].numpy(), level) for level in (0.9, 0.995))
    where = 0.7 * where + 0.3 * 0.1 * (maps[1].numpy() - low) / (high - low)
    np.testing.assert_allclose(pair.scaled(*maps, 0.3).numpy(), where, rtol=1e-4, atol=1e-5)


def test_maps_without_any_spread_stay_finite(taught: Tensor) -> None:
    pair = Pair(taught, 8, 4, seed=0)
    flat = torch.ones(1, 8, 8)
    pair.measure(flat, flat)
    assert pair.scaled(flat, flat, 0.5).eq(0).all()


@pytest.mark.parametrize(("share", "count"), [(0.1, 38), (1e-6, 1), (1.0, 384)])
def test_the_hardest_values_of_every_image_count(taught: Tensor, share: float, count: int) -> None:
    means = [sorted(each.flatten().tolist())[-count:] for each in taught]
    assert float(hardest(taught, share)) == pytest.approx(np.mean(means), rel=1e-5)


def test_colours_are_changed_in_one_way_by_a_fifth_at_most(images: Tensor) -> None:
    colours = 0.3 + 0.3 * images.repeat(8, 1, 1, 1)
    given = colours.clone()
    found = jittered(colours, torch.Generator().manual_seed(0))
    assert torch.equal(colours, given)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    kinds = set()
    for image, changed in zip(colours, found, strict=True):
        grey = (weights * image).sum(dim=0)
        middles = {
            "brightness": torch.zeros_like(grey),
            "contrast": grey.mean(),
            "saturation": grey,
        }
        for kind, middle in middles.items():
            away = image - middle
            factor = float(((changed - middle) * away).sum() / away.square().sum())
            if torch.allclose(changed, middle + factor * away, atol=1e-5):
                kinds.add(kind)
                assert 0.8 <= factor <= 1.2
                break
        else:
            pytest.fail("an image was changed in another way")
    assert kinds == {"brightness", "contrast", "saturation"}


def test_weights_come_from_the_seed_and_from_nothing_else(taught: Tensor) -> None:
    state = torch.get_rng_state()
    one, same, other = (
        torch.nn.utils.parameters_to_vector(Pair(taught, 8, 4, seed).parameters())
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())
