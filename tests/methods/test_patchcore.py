import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods.patchcore import PatchCore
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.memory_bank import greedy_coreset


def small(**changes) -> PatchCore:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return PatchCore(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def patches_by_loop(images: Tensor, side: int, unit_length: bool) -> np.ndarray:
    """[image, row, column, channel]: sums over squares by their area, the coarser level resized."""
    levels = load_features("random:tiny", (2, 3), device="cpu")(images)
    averaged = []
    for level in levels:
        mean, reach = torch.empty_like(level), side // 2
        for row, column in np.ndindex(*level.shape[2:]):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            mean[:, :, row, column] = level[:, :, rows, columns].sum(dim=(2, 3)) / side**2
        averaged.append(functional.interpolate(mean, levels[0].shape[2:], mode="bilinear"))
    patches = torch.cat(averaged, dim=1).permute(0, 2, 3, 1).double().numpy()
    length = np.linalg.norm(patches, axis=-1, keepdims=True) if unit_length else 1.0
    return patches / length


@pytest.mark.parametrize(("side", "unit_length"), [(3, False), (1, True)])
def test_it_is_the_distance_to_the_nearest_patch(
    images: Tensor, side: int, unit_length: bool
) -> None:
    method = small(neighbourhood=side, unit_length=unit_length, blur=1.5)
    found = method.fit(Support("noise", images[:2])).predict(images[2:])
    patches = patches_by_loop(images, side, unit_length)
    bank = patches[:2].reshape(-1, patches.shape[-1])
    for image, ours in zip(patches[2:], found.anomaly_map, strict=True):
        grid = np.array([[min(np.linalg.norm(bank - p, axis=1)) for p in row] for row in image])
        large = functional.interpolate(
            torch.from_numpy(grid)[None, None], (48, 48), mode="bilinear"
        )
        expected = gaussian_filter(large[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_support_images_are_wholly_normal(images: Tensor) -> None:
    found = small().fit(Support("noise", images[:2])).predict(images[:2])
    assert not found.anomaly_map.any()


def test_only_a_large_bank_is_thinned(images: Tensor) -> None:
    support = Support("noise", images)
    whole = small().fit(support).bank_
    assert whole is not None
    at_limit = small(coreset_above=len(whole), coreset_ratio=0.25).fit(support).bank_
    above = small(coreset_above=len(whole) - 1, coreset_ratio=0.25, seed=3).fit(support).bank_
    assert torch.equal(at_limit, whole)
    assert torch.equal(above, greedy_coreset(whole, len(whole) // 4, seed=3))


def test_the_image_score_is_reweighted_by_the_neighbours_of_the_match(images: Tensor) -> None:
    method = small(n_neighbors=5, blur=0.0).fit(Support("noise", images[:2]))
    found = method.predict(images[2:])
    patches = patches_by_loop(images, 3, False)
    bank = patches[:2].reshape(-1, patches.shape[-1])
    for image, ours in zip(patches[2:], found.image_score, strict=True):
        queries = image.reshape(-1, image.shape[-1])
        distances = np.linalg.norm(queries[:, None] - bank[None], axis=-1)
        worst = distances.min(axis=1).argmax()
        match = distances[worst].argmin()
        around = np.argsort(np.linalg.norm(bank - bank[match], axis=1))[:5]
        weight = 1 - np.exp(distances[worst, match]) / np.exp(distances[worst, around]).sum()
        assert float(ours) == pytest.approx(weight * distances[worst, match], rel=1e-4)


def test_a_thinned_bank_and_a_whole_one_are_searched_alike(images: Tensor) -> None:
    whole = small(n_neighbors=3).fit(Support("noise", images[:2]))
    listed = small(n_neighbors=3, coreset_above=1, coreset_ratio=1.0)
    listed.fit(Support("noise", images[:2]))
    assert listed.maps_ is None
    ours, theirs = listed.predict(images), whole.predict(images)
    assert torch.equal(ours.anomaly_map, theirs.anomaly_map)
    assert torch.equal(ours.image_score, theirs.image_score)


@pytest.mark.parametrize("engine", ["faiss_flat", "faiss_hnsw", "faiss_ivf_pq"])
@pytest.mark.parametrize("n_neighbors", [1, 5])
def test_other_engines_never_find_anything_nearer(
    images: Tensor, engine: str, n_neighbors: int
) -> None:
    support, query = Support("noise", images[:3]), images[3:]
    method = small(n_neighbors=n_neighbors)
    exact = method.fit(support).predict(query)
    found = method.variant(engine=engine).fit(support).predict(query)
    assert (found.anomaly_map >= exact.anomaly_map * (1 - 1e-5)).all()
    assert found.image_score >= 0
    if engine == "faiss_flat":
        torch.testing.assert_close(found.anomaly_map, exact.anomaly_map)
        torch.testing.assert_close(found.image_score, exact.image_score)


@pytest.mark.parametrize("changes", [{}, {"n_neighbors": 9}, {"coreset_above": 1}])
def test_constant_images_and_one_pixel_features_are_no_trouble(changes: dict[str, int]) -> None:
    flat = torch.ones(9, 3, 8, 8)
    method = small(unit_length=True, **changes).fit(Support("flat", flat))
    found = method.predict(torch.cat([flat[:1], torch.zeros(1, 3, 8, 8)]))
    assert found.image_score.isfinite().all()
    assert not found.anomaly_map[0].any()
    assert found.anomaly_map[1].any()


def test_more_neighbours_than_patches_are_refused() -> None:
    with pytest.raises(FewShotError, match="n_neighbors is 9 and the bank holds 2 patches: give"):
        small(n_neighbors=9).fit(Support("small", torch.ones(2, 3, 8, 8)))


def test_the_settings_of_the_paper_are_settings(images: Tensor) -> None:
    method = small(**PatchCore.PAPER).fit(Support("noise", images))
    assert method.bank_ is not None
    assert len(method.bank_) == round(0.1 * 4 * 6 * 6)
    assert method.predict(images).image_score.isfinite().all()
