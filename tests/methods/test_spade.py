import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods.spade import SPADE
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> SPADE:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return SPADE(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    """Noise of different strength: pooled features tell the images apart."""
    noise = torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(8))
    return noise * torch.linspace(0.5, 3.0, 6)[:, None, None, None]


def by_loop(images: Tensor, k: int, blur: float) -> tuple[np.ndarray, float]:
    """Map of the last image and its distance to its ``k`` nearest among the others."""
    levels = [
        level.permute(0, 2, 3, 1).double().numpy()
        for level in load_features("random:tiny", (1, 2, 3), device="cpu")(images)
    ]
    pooled = levels[-1].mean(axis=(1, 2))
    far = np.linalg.norm(pooled[:-1] - pooled[-1], axis=1)
    near = np.argsort(far)[:k]
    total = torch.zeros(48, 48, dtype=torch.float64)
    for level in levels:
        bank = level[near].reshape(-1, level.shape[-1])
        grid = [[min(np.linalg.norm(bank - v, axis=1)) for v in row] for row in level[-1]]
        total += functional.interpolate(
            torch.tensor(np.array(grid))[None, None], (48, 48), mode="bilinear"
        )[0, 0]
    return gaussian_filter(total.numpy() / 3, blur), float(far[near].mean())


@pytest.mark.parametrize("k", [1, 3, 50])
def test_it_is_retrieval_and_then_correspondence(images: Tensor, k: int) -> None:
    method = small(n_neighbors=k, blur=1.5).fit(Support("noise", images[:5]))
    found = method.predict(images[5:])
    expected, distance = by_loop(images, k, 1.5)
    np.testing.assert_allclose(found.anomaly_map[0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))
    retrieval = method.variant(scored_by="retrieval").fit(Support("noise", images[:5]))
    assert float(retrieval.predict(images[5:]).image_score) == pytest.approx(distance, rel=1e-4)


def test_fewer_images_are_retrieved_than_there_are(images: Tensor) -> None:
    support, query = Support("noise", images[:5]), images[5:]
    one, all_of_them = (
        small(n_neighbors=k, blur=0.0).fit(support).predict(query).anomaly_map for k in (1, 50)
    )
    assert (one >= all_of_them).all()
    assert (one > all_of_them).any()


def test_constant_images_and_one_pixel_features_are_no_trouble() -> None:
    flat = torch.ones(2, 3, 16, 16)
    found = (
        small().fit(Support("flat", flat)).predict(torch.cat([flat[:1], torch.zeros(1, 3, 16, 16)]))
    )
    assert found.anomaly_map.isfinite().all()
    assert not found.anomaly_map[0].any()
    assert found.anomaly_map[1].any()
