from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.image_files import write_image
from fewshot_ad.parts.textures import (
    PATTERNS,
    disordered_pieces,
    draw_textures,
    load_textures,
    recoloured,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 24, 32, generator=seeded(9))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deeper").mkdir()
    for place, red in (("a.png", 51), ("deeper/b.jpg", 204)):
        pixels = np.zeros((40, 30, 3), dtype=np.uint8)
        pixels[..., 0] = red
        write_image(tmp_path / place, pixels)
    (tmp_path / ".hidden").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("kind", ["mixed", "drawn", "support"])
def test_textures_have_the_size_of_the_support_and_its_range(images: Tensor, kind: str) -> None:
    source = load_textures(kind, images)
    found = source(12, seeded(1))
    assert found.shape == (12, 3, 24, 32)
    assert 0 <= found.min() < found.max() <= 1
    assert (found.flatten(1).std(dim=1) > 0.01).all()
    assert torch.equal(found, source(12, seeded(1)))
    assert not torch.equal(found, source(12, seeded(2)))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_goes_from_dark_to_bright(pattern) -> None:
    fields = torch.stack([pattern((20, 16), seeded(seed)) for seed in range(8)])
    assert 0 <= fields.min() < 0.05
    assert 0.95 < fields.max() <= 1


def test_two_colours_shade_into_each_other() -> None:
    for texture in draw_textures((16, 16), 6, seeded()):
        points = texture.flatten(1).T
        centred = points - points.mean(dim=0)
        spread = torch.linalg.svdvals(centred)
        assert spread[1] < 1e-4 * spread[0]  # all colours lie on one line


def test_pieces_hold_colours_of_the_support_and_nothing_else() -> None:
    plain = torch.full((1, 3, 16, 16), 0.5)
    pieces = disordered_pieces(plain, 5, seeded())
    assert (pieces.flatten(1).std(dim=1) < 1e-5).all()
    half = torch.zeros(1, 3, 16, 16)
    half[..., 8:] = 1.0
    assert (disordered_pieces(half, 20, seeded()).flatten(1).std(dim=1) > 0.1).any()


def test_recolouring_leaves_the_given_textures_alone(images: Tensor) -> None:
    kept = images.clone()
    found = recoloured(images, seeded())
    assert torch.equal(images, kept)
    assert 0 <= found.min() < found.max() <= 1
    assert not torch.equal(found, images)


def test_textures_of_a_folder_are_its_images(images: Tensor, folder: Path) -> None:
    found = load_textures("drawn", images, str(folder))(12, seeded())
    assert found.shape == (12, 3, 24, 32)
    reds = {round(float(red), 1) for red in found[:, 0].mean(dim=(1, 2))}
    assert reds == {0.2, 0.8}


def test_no_texture_is_none_at_all(images: Tensor, folder: Path) -> None:
    for source in (load_textures("mixed", images), load_textures("mixed", images, str(folder))):
        assert source(0, seeded()).shape == (0, 3, 24, 32)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no texture folder"),
        ({}, "has no file: put images in it"),
        ({"notes.txt": "wood"}, "notes.txt cannot be read as an image"),
        ({"empty.png": ""}, "empty.png cannot be read as an image: the file is empty"),
    ],
)
def test_a_folder_without_textures_is_refused(
    images: Tensor, tmp_path: Path, content: dict[str, str] | None, words: str
) -> None:
    folder = tmp_path / "textures"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(FewShotError, match=words):
        load_textures("mixed", images, str(folder))
