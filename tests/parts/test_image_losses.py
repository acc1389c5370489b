import math

import numpy as np
import pytest
import torch
from scipy.ndimage import prewitt
from skimage.metrics import structural_similarity
from torch import Tensor

from fewshot_ad.parts.image_losses import (
    GMS_CONSTANT,
    dice_loss,
    dissimilarity,
    focal_loss,
    gradient_dissimilarity,
)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    one, other = torch.rand(2, 2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    return one, (one + other) / 2


def test_dissimilarity_is_that_of_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    for one, other, found in zip(*pair, dissimilarity(*pair), strict=True):
        _, similarity = structural_similarity(
            *(image.double().numpy() for image in (one, other)),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        inside = slice(5, -5)  # borders are mirrored otherwise there
        expected = 1 - similarity.mean(axis=0)[inside, inside]
        np.testing.assert_allclose(found[inside, inside], expected, atol=1e-4)


def halved(grey: np.ndarray) -> np.ndarray:
    rows, columns = (side // 2 for side in grey.shape)
    return grey[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))


def test_gradient_dissimilarity_is_the_papers_at_every_scale(pair: tuple[Tensor, Tensor]) -> None:
    found = gradient_dissimilarity(*pair)
    assert [tuple(maps.shape[1:]) for maps in found] == [(24, 20), (12, 10), (6, 5), (3, 2)]
    for index in range(2):
        grey = [images[index].mean(dim=0).double().numpy() for images in pair]
        for maps in found[:3]:
            a, b = (
                np.hypot(*(prewitt(g, axis, mode="nearest") / 3 for axis in (0, 1))) for g in grey
            )
            expected = 1 - (2 * a * b + GMS_CONSTANT) / (a**2 + b**2 + GMS_CONSTANT)
            np.testing.assert_allclose(maps[index], expected, atol=1e-3)
            grey = [halved(g) for g in grey]


def test_equal_images_are_not_dissimilar(pair: tuple[Tensor, Tensor]) -> None:
    image = pair[0]
    assert dissimilarity(image, image).abs().max() < 1e-4
    assert all(maps.abs().max() < 1e-5 for maps in gradient_dissimilarity(image, image))


def test_scales_end_with_the_last_pixel() -> None:
    images = torch.rand(1, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    shapes = [tuple(maps.shape[1:]) for maps in gradient_dissimilarity(images, 1 - images)]
    assert shapes == [(5, 2), (2, 1)]


def test_plain_images_have_gradients_to_learn_from() -> None:
    images = torch.full((1, 3, 12, 12), 0.5, requires_grad=True)
    sums = [maps.sum() for maps in gradient_dissimilarity(images, torch.rand(1, 3, 12, 12))]
    torch.stack([*sums, dissimilarity(images, torch.zeros(1, 3, 12, 12)).sum()]).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_focal_and_dice_losses_are_those_of_single_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 5, generator=generator)
    masks = torch.rand(2, 4, 5, generator=generator) < 0.3
    focal, overlap, area = [], 0.0, 0.0
    for logit, marked in zip(logits.flatten().tolist(), masks.flatten().tolist(), strict=True):
        chance = 1 / (1 + math.exp(-logit))
        right = chance if marked else 1 - chance
        focal.append(-((1 - right) ** 2) * math.log(right))
        overlap += chance * marked
        area += chance + marked
    assert float(focal_loss(logits, masks)) == pytest.approx(sum(focal) / len(focal), rel=1e-4)
    expected = 1 - (2 * overlap + 1) / (area + 1)
    assert float(dice_loss(logits, masks)) == pytest.approx(expected, rel=1e-4)
