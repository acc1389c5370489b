import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor

from fewshot_ad.parts.foreground import find_foreground, stands_free

SQUARE = np.ones((3, 3), dtype=bool)


def scene(rows: slice, columns: slice, gap: float = 8.0) -> Tensor:
    """Patches of an object before a background, 5 channels on a grid of 12 x 12."""
    generator = torch.Generator().manual_seed(2)
    patches = torch.randn(5, 12, 12, generator=generator)
    patches[:, rows, columns] += gap * torch.randn(5, 1, 1, generator=generator).sign()
    return patches


def by_svd(patches: Tensor, threshold: float) -> np.ndarray:
    rows = patches.flatten(1).T.double().numpy()
    rows = rows - rows.mean(axis=0)
    direction = np.linalg.svd(rows)[2][0]
    component = (rows @ direction).reshape(12, 12)
    component *= np.sign(component[2:10, 2:10].mean())
    mask = component > threshold
    if mask[2:10, 2:10].mean() <= 0.35:
        mask = component < -threshold
    dilated = binary_dilation(mask, SQUARE)
    return binary_erosion(binary_dilation(dilated, SQUARE), SQUARE, border_value=1)


@pytest.mark.parametrize("threshold", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_first_component_cut_signed_grown_and_closed(seed: int, threshold: float) -> None:
    patches = torch.randn(5, 12, 12, generator=torch.Generator().manual_seed(seed))
    patches[0] *= 3
    assert np.array_equal(find_foreground(patches, threshold).numpy(), by_svd(patches, threshold))


def test_an_object_in_the_middle_is_in_front_whatever_its_sign() -> None:
    patches = scene(slice(3, 9), slice(3, 9))
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[2:10, 2:10] = True
    assert torch.equal(find_foreground(patches, 0.0), expected)
    assert torch.equal(find_foreground(-patches, 0.0), expected)


def test_constant_patches_have_no_foreground() -> None:
    assert not find_foreground(torch.ones(5, 12, 12), 0.0).any()
    assert find_foreground(torch.ones(5, 1, 1), 0.0).shape == (1, 1)


def test_only_what_fills_the_middle_and_misses_the_border_stands_free() -> None:
    def mask(rows: slice, columns: slice) -> Tensor:
        found = torch.zeros(12, 12, dtype=torch.bool)
        found[rows, columns] = True
        return found

    assert stands_free(mask(slice(2, 10), slice(2, 10)))
    assert not stands_free(mask(slice(5, 7), slice(5, 7)))  # too small
    assert not stands_free(mask(slice(0, 12), slice(3, 9)))  # from border to border
    assert not stands_free(mask(slice(0, 0), slice(0, 0)))
