import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import subspacead
from fewshot_ad.methods.subspacead import SubspaceAD
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.rotations import rotate


def small(**changes) -> SubspaceAD:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return SubspaceAD(**(settings | {"rotations": 3, "explained": 0.9} | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def patches_of(images: Tensor, levels: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """[image, row, column, channel] in float64."""
    joined = join_levels(load_features("random:tiny", levels, device="cpu")(images))
    return joined.permute(0, 2, 3, 1).double().numpy()


def test_it_is_what_sticks_out_of_the_components(images: Tensor) -> None:
    method = small(blur=1.5, top_share=0.2).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    turned = torch.cat([rotate(images[:2], angle) for angle in (0, 120, 240)])
    rows = patches_of(turned).reshape(-1, 256)
    _, lengths, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    held = np.cumsum(lengths**2) / np.sum(lengths**2)
    basis = directions[: int(np.argmax(held >= 0.9)) + 1]
    assert method.subspace_ is not None
    assert method.subspace_.dims == len(basis)
    for index, image in enumerate(patches_of(images[2:])):
        away = image - rows.mean(axis=0)
        length = np.linalg.norm(away - away @ basis.T @ basis, axis=-1)
        large = functional.interpolate(
            torch.from_numpy(length)[None, None], (48, 48), mode="bilinear"
        )
        expected = gaussian_filter(large[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(found.anomaly_map[index], expected, rtol=1e-3)
        highest = np.sort(length.ravel())[::-1][: int(0.2 * length.size)]
        assert float(found.image_score[index]) == pytest.approx(highest.mean(), rel=1e-3)


def test_levels_of_a_transformer_may_be_averaged() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    settings = {"backbone": "random:test_vit", "levels": (2, 4), "rotations": 1, "blur": 0.0}
    method = small(merge="mean", **settings).fit(Support("noise", images[:1]))
    levels = load_features("random:test_vit", (2, 4), device="cpu")(images)
    mean = (levels[0] + levels[1]) / 2
    assert method.subspace_ is not None
    torch.testing.assert_close(method.subspace_.mean, mean[0].flatten(1).mean(dim=1))
    assert method.predict(images).image_score.isfinite().all()


def test_levels_that_differ_cannot_be_averaged(images: Tensor) -> None:
    with pytest.raises(FewShotError, match=r"merge is mean and the levels of random:tiny are of"):
        small(merge="mean").fit(Support("noise", images))
    assert small(merge="mean", levels=(3,)).fit(Support("noise", images)).subspace_


def test_of_very_many_patches_a_drawn_part_is_looked_at(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small(explained=0.5).fit(Support("noise", images)).predict(images)
    monkeypatch.setattr(subspacead, "MOST_PATCHES", 300)  # of 432
    method = small(explained=0.5).fit(Support("noise", images))
    part = method.predict(images)
    torch.testing.assert_close(part.anomaly_map, whole.anomaly_map, rtol=0.2, atol=0)
    assert not torch.equal(part.anomaly_map, whole.anomaly_map)
    again = method.variant().fit(Support("noise", images)).predict(images)
    assert torch.equal(again.anomaly_map, part.anomaly_map)
    other = method.variant(seed=1).fit(Support("noise", images)).predict(images)
    assert not torch.equal(other.anomaly_map, part.anomaly_map)


def test_constant_images_and_one_pixel_features_are_no_trouble() -> None:
    flat = torch.ones(1, 3, 8, 8)
    method = small().fit(Support("flat", flat))
    found = method.predict(torch.cat([flat, torch.zeros(1, 3, 8, 8)]))
    assert found.anomaly_map.isfinite().all()
    assert found.image_score[1] > 100 * found.image_score[0]
