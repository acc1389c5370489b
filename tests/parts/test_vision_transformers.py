from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import load_backbone

SMALL = "test_vit"  # the smallest vision transformer of timm: 6 blocks, patches of 16
IMAGES = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def whole() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(SMALL).eval()


@torch.no_grad()
def blocks_by_hand(whole: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps after every block, normed as the network's output is."""
    tokens = whole.norm_pre(whole._pos_embed(whole.patch_embed(images)))
    prefix, found = whole.num_prefix_tokens, []
    for block in whole.blocks:
        tokens = block(tokens)
        found.append(whole.norm(tokens)[:, prefix:].transpose(1, 2).unflatten(2, (10, 10)))
    return found


def test_levels_are_the_ends_of_quarters_of_the_depth(whole: nn.Module, tmp_path: Path) -> None:
    save_file(whole.state_dict(), tmp_path / f"{SMALL}.mine.safetensors")
    backbone = load_backbone(f"{SMALL}.mine", levels=(1, 2, 3, 4), weights_dir=tmp_path)
    assert backbone.strides == (16, 16, 16, 16)
    every = blocks_by_hand(whole, IMAGES)
    for maps, block in zip(backbone(IMAGES), (0, 2, 3, 5), strict=True):
        torch.testing.assert_close(maps, every[block], atol=1e-5, rtol=1e-4)
    last = load_backbone(f"{SMALL}.mine", levels=(4,), weights_dir=tmp_path)(IMAGES)
    torch.testing.assert_close(last[0], every[5], atol=1e-5, rtol=1e-4)


def test_images_of_other_sizes_are_taken_in_whole_patches() -> None:
    backbone = load_backbone(f"random:{SMALL}", levels=(2, 4))
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[2:]) for level in maps] == [(4, 6), (4, 6)]
    with pytest.raises(FewShotError, match=r"100 x 96 pixels and the patches of test_vit 16: give"):
        backbone(torch.zeros(1, 3, 100, 96))


def test_an_image_alone_has_the_features_it_has_in_any_batch() -> None:
    backbone = load_backbone(f"random:{SMALL}", levels=(4,))
    assert torch.equal(backbone(IMAGES)[0][1:2], backbone(IMAGES[1:2])[0])


@pytest.mark.parametrize(
    ("name", "levels", "line"),
    [
        (SMALL, (4, 5), r"levels 1 to 4, the quarters of its blocks; levels \(4, 5\) were asked"),
        ("beit_base_patch16_224", (1,), "takes images of one size only: use another backbone"),
    ],
)
def test_what_it_cannot_give_is_refused(name: str, levels: tuple[int, ...], line: str) -> None:
    with torch.device("meta"), pytest.raises(FewShotError, match=line):
        load_backbone(f"random:{name}", levels=levels)
