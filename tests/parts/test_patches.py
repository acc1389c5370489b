import torch
from torch import Tensor

from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.patches import extract_patches, join_levels


def between(row: float, column: float, maps: Tensor) -> Tensor:
    """Bilinear value of [c h w] at a place counted in cells, clamped to their centres."""
    height, width = maps.shape[1:]
    row, column = min(max(row, 0.0), height - 1.0), min(max(column, 0.0), width - 1.0)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = row - top, column - left
    upper = (1 - along) * maps[:, top, left] + along * maps[:, top, right]
    lower = (1 - along) * maps[:, bottom, left] + along * maps[:, bottom, right]
    return (1 - down) * upper + down * lower


def test_levels_are_joined_on_the_grid_of_the_first() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = (torch.randn(2, c, n, n, generator=generator) for c, n in ((3, 6), (4, 3)))
    joined = join_levels([fine, coarse])
    assert torch.equal(joined[:, :3], fine)
    for row in range(6):
        for column in range(6):
            expected = between((row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5, coarse[1])
            torch.testing.assert_close(joined[1, 3:, row, column], expected)


def test_patches_of_an_image_are_the_same_bits_alone_and_in_a_batch() -> None:
    features = load_features("random:tiny", (2, 3), device="cpu")
    images = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    together = extract_patches(features, images, neighbourhood=3)
    assert together.shape == (3, sum(features.backbone.channels), 5, 5)
    assert torch.equal(extract_patches(features, images[1:2], neighbourhood=3), together[1:2])
