import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.anomalydino import AnomalyDINO
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.foreground import find_foreground
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.rotations import rotate


def small(**changes) -> AnomalyDINO:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return AnomalyDINO(**(settings | {"rotations": 3, "mask": "never"} | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def unit_patches(images: Tensor, levels: tuple[int, ...]) -> np.ndarray:
    """[image, row, column, channel] in float64, of unit length."""
    patches = join_levels(load_features("random:tiny", levels, device="cpu")(images))
    rows = patches.permute(0, 2, 3, 1).double().numpy()
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("levels", [(2, 3), (1,)])
def test_it_is_one_minus_the_greatest_cosine(images: Tensor, levels: tuple[int, ...]) -> None:
    method = small(levels=levels, blur=1.5, top_share=0.2).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    turned = torch.cat([rotate(images[:2], angle) for angle in (0, 120, 240)])
    bank = unit_patches(turned, levels)
    bank = bank.reshape(-1, bank.shape[-1])
    for index, image in enumerate(unit_patches(images[2:], levels)):
        distance = (1 - image @ bank.T).min(axis=-1)
        large = functional.interpolate(
            torch.from_numpy(distance)[None, None], (48, 48), mode="bilinear"
        )
        expected = gaussian_filter(large[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(found.anomaly_map[index], expected, rtol=1e-3, atol=1e-6)
        highest = np.sort(distance.ravel())[::-1][: int(0.2 * distance.size)]
        assert float(found.image_score[index]) == pytest.approx(highest.mean(), rel=1e-4)


def test_the_background_is_not_anomalous_at_all(images: Tensor) -> None:
    support, query = Support("noise", images[3:]), images[:2]
    settings = {"mask_threshold": 0.1, "blur": 0.0, "top_share": 1.0}
    masked = small(mask="always", **settings).fit(support).predict(query)
    whole = small(**settings).fit(support).predict(query)
    patches = join_levels(load_features("random:tiny", (2, 3), device="cpu")(query))
    for index, each in enumerate(patches):
        mask = find_foreground(each, 0.1)
        assert 0 < mask.sum() < mask.numel()
        ours, theirs = (found.anomaly_map[index, 4::8, 4::8] for found in (masked, whole))
        alone = mask & ~_touches(~mask)
        assert torch.equal(ours[alone], theirs[alone])
        assert not ours[~mask & ~_touches(mask)].any()
        assert masked.image_score[index] < whole.image_score[index]


def _touches(mask: Tensor) -> Tensor:
    return functional.max_pool2d(mask[None, None].float(), 3, 1, 1)[0, 0] > 0


def test_an_image_without_foreground_is_looked_at_all_over(images: Tensor) -> None:
    support = Support("noise", images[:1])
    masked = small(mask="always", mask_threshold=1e6).fit(support).predict(images[1:])
    whole = small().fit(support).predict(images[1:])
    assert torch.equal(masked.anomaly_map, whole.anomaly_map)


def test_masks_are_used_where_every_support_image_shows_a_free_object() -> None:
    texture = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(8))
    line = torch.linspace(-1, 1, 160)
    disc = torch.where(line[:, None].hypot(line) < 0.5, 1.5, -1.0).expand(1, 3, 160, 160)
    for images, is_free in ((disc, True), (texture, False), (torch.cat([disc, texture]), False)):
        method = small(backbone="tiny", mask="auto", rotations=1)
        assert method.fit(Support("made up", images)).is_masked_ is is_free


def test_a_transformer_gives_the_patches() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    method = small(backbone="random:test_vit", levels=(4,)).fit(Support("noise", images[:1]))
    found = method.predict(images)
    assert float(found.image_score[0]) == pytest.approx(0, abs=1e-6)
    assert found.image_score[1] > 0.01


@pytest.mark.parametrize("mask", ["always", "auto", "never"])
def test_constant_images_and_one_pixel_features_are_no_trouble(mask: str) -> None:
    flat = torch.ones(1, 3, 8, 8)
    found = (
        small(mask=mask)
        .fit(Support("flat", flat))
        .predict(torch.cat([flat, torch.zeros(1, 3, 8, 8)]))
    )
    assert found.anomaly_map.isfinite().all()
    assert not found.anomaly_map[0].any()
    assert found.image_score[1] > 0
