import torch

from fewshot_ad.parts.moving import moved
from fewshot_ad.parts.rotations import rotate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_spot_lands_where_shift_and_turn_bring_it() -> None:
    images = torch.zeros(40, 1, 33, 33)
    images[:, :, 14:19, 14:19] = 1
    weights = moved(images, seeded(), 0.1, 0.0)[:, 0]
    rows = (weights.sum(dim=2) * torch.arange(33)).sum(dim=1) / weights.sum(dim=(1, 2))
    offsets = rows - 16
    assert offsets.abs().max() <= 3.3 + 1e-3
    assert offsets.max() > 2
    assert offsets.min() < -2


def test_without_a_shift_the_centre_stays() -> None:
    image = torch.rand(1, 3, 9, 9, generator=seeded())
    found = moved(image.expand(8, 3, 9, 9), seeded(1), 0.0, 180.0)
    torch.testing.assert_close(found[:, :, 4, 4], image[:, :, 4, 4].expand(8, 3))
    angle = 180.0 * (2 * torch.rand(3, 8, generator=seeded(1)) - 1)[0, 0]
    expected = rotate(image, float(angle))  # mirrors at other places, so only the middle agrees
    torch.testing.assert_close(found[:1, :, 2:7, 2:7], expected[:, :, 2:7, 2:7], atol=1e-4, rtol=0)


def test_no_motion_changes_nothing_and_seeds_repeat() -> None:
    images = torch.rand(2, 3, 8, 6, generator=seeded())
    kept = images.clone()
    assert moved(images, seeded(), 0.0, 0.0) is images
    one, other = moved(images, seeded(1), 0.1, 9.0), moved(images, seeded(1), 0.1, 9.0)
    assert torch.equal(one, other)
    assert not torch.equal(one, images)
    assert torch.equal(images, kept)
