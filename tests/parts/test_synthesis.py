import math
from functools import partial

import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.noise import perlin_noise
from fewshot_ad.parts.synthesis import (
    Synthesis,
    blend,
    confetti,
    cut_paste,
    cut_paste_scar,
    paint_textures,
    perlin_masks,
)
from fewshot_ad.parts.textures import load_textures


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 48, 64, generator=seeded(9))


def syntheses(images: Tensor) -> dict[str, Synthesis]:
    textures = load_textures("mixed", images)
    return {
        "textures": partial(paint_textures, textures=textures, clean=0.25),
        "box": cut_paste,
        "scar": cut_paste_scar,
        "confetti": confetti,
    }


@pytest.mark.parametrize("name", ["textures", "box", "scar", "confetti"])
def test_only_what_the_mask_marks_is_changed(images: Tensor, name: str) -> None:
    paint, kept = syntheses(images)[name], images.clone()
    changed = 0
    for seed in range(6):
        painted, masks = paint(images, seeded(seed))
        inside = masks[:, None].expand_as(images)
        assert torch.equal(painted[~inside], images[~inside])
        assert 0 <= painted.min() <= painted.max() <= 1
        assert torch.equal(painted, paint(images, seeded(seed)).images)
        changed += int((painted != images).any(dim=1).sum())
        assert (painted != images).any(dim=1).sum() >= 0.9 * masks.sum()
    assert changed > 0
    assert torch.equal(images, kept)
    assert not torch.equal(paint(images, seeded(1)).images, paint(images, seeded(2)).images)


def test_masks_are_where_turned_noise_exceeds_one_half() -> None:
    generator = seeded(4)
    expected = []
    for _ in range(3):
        rows, columns = (2 ** int(torch.randint(0, 4, (), generator=generator)) for _ in "rc")
        turn = -90 + 180 * float(torch.rand((), generator=generator))
        expected.append(perlin_noise((20, 24), (rows, columns), generator, turn) > 0.5)
    assert torch.equal(perlin_masks(3, (20, 24), seeded(4), finest=3), torch.stack(expected))


def test_blending_is_the_papers_sum() -> None:
    image, texture = torch.rand(2, 1, 3, 5, 5, generator=seeded())
    mask = torch.rand(1, 5, 5, generator=seeded()) < 0.5
    beta = 0.3
    weight = mask[:, None].float()
    expected = (1 - weight) * image + (1 - beta) * weight * texture + beta * weight * image
    found = blend(image, texture, mask, torch.tensor([1 - beta]))
    torch.testing.assert_close(found, expected)


def test_about_the_asked_share_stays_clean() -> None:
    images = torch.rand(400, 3, 16, 16, generator=seeded())
    textures = partial(torch.zeros, 3, 16, 16)

    def plain(count: int, generator: torch.Generator) -> Tensor:
        return textures().expand(count, 3, 16, 16)

    for share in (0.0, 0.7, 1.0):
        masks = paint_textures(images, seeded(1), textures=plain, clean=share, finest=3).masks
        empty = 1 - float(masks.flatten(1).any(dim=1).float().mean())
        assert share - 0.08 < empty < share + 0.2  # noise that never exceeds one half adds some
    assert not masks.any()


def test_boxes_have_the_papers_area_and_come_from_the_image() -> None:
    ramp = torch.arange(64 * 64).view(1, 1, 64, 64) / 64**2
    images = ramp.expand(30, 3, 64, 64).contiguous()
    _, masks = cut_paste(images, seeded())
    areas = masks.float().mean(dim=(1, 2))
    assert areas.min() > 0.015
    assert areas.max() < 0.16
    for mask in masks:
        rows, columns = mask.any(dim=1).sum(), mask.any(dim=0).sum()
        assert mask.sum() >= 0.9 * rows * columns
        assert 1 / 4 < rows / columns < 4


def test_scars_are_small(images: Tensor) -> None:
    _, masks = cut_paste_scar(images, seeded())
    assert masks.any()
    for mask in masks:
        places = mask.nonzero()
        extent = (places.amax(dim=0) - places.amin(dim=0)).float().norm() if len(places) else 0
        assert extent <= math.hypot(64 * 25 / 256, 64 * 16 / 256) + 3


def test_confetti_are_plain_boxes(images: Tensor) -> None:
    painted, masks = confetti(images, seeded(), most=1, share=(0.3, 0.3))
    for image, mask in zip(painted, masks, strict=True):
        assert len(image[:, mask].unique(dim=1).T) == 1
        assert 0 < mask.sum() <= (0.3 * 48 + 2) ** 2


@pytest.mark.parametrize("name", ["textures", "box", "scar", "confetti"])
@pytest.mark.parametrize("size", [(1, 1), (2, 9)])
def test_tiny_images_and_none_are_painted_too(name: str, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=seeded())
    paint = syntheses(images)[name]
    assert paint(images, seeded()).images.shape == images.shape
    assert paint(images[:0], seeded()).masks.shape == (0, *size)
