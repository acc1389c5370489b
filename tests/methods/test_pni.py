import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods.pni import PNI
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.memory_bank import greedy_coreset
from fewshot_ad.parts.patches import extract_patches

QUICK = {"hidden": 16, "layers": 1, "steps": 20, "batch_size": 32, "channels": 8, "window": 3}


def small(**changes) -> PNI:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return PNI(**(settings | {"neighbourhood": 1, "window": 3} | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def rows_of(images: Tensor) -> np.ndarray:
    """[image, row, column, channel] on a grid of 6 x 6."""
    maps = extract_patches(load_features("random:tiny", (2, 3), device="cpu"), images)
    return maps.permute(0, 2, 3, 1).numpy()


def by_loop(support: np.ndarray, image: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Nearest support patch whose word occurs often enough within one cell."""
    flat = support.reshape(-1, support.shape[-1])
    word = np.linalg.norm(flat[:, None] - words[None], axis=-1).argmin(axis=1)
    word_map = word.reshape(support.shape[:3])
    found = np.empty((6, 6))
    for row, column in np.ndindex(6, 6):
        square = word_map[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        share = np.bincount(square.ravel(), minlength=len(words)) / square.size
        permitted = np.flatnonzero(share > 0.5 / len(words))
        rows = flat[np.isin(word, permitted)]
        found[row, column] = np.linalg.norm(rows - image[row, column], axis=1).min()
    return found


@pytest.mark.parametrize("words", [4, 2048])
def test_it_is_the_nearest_patch_among_those_that_are_normal_here(
    images: Tensor, words: int
) -> None:
    method = small(words=words, blur=1.5).fit(Support("noise", images[:3]))
    found = method.predict(images[3:])
    support = rows_of(images[:3])
    flat = torch.from_numpy(support.reshape(-1, support.shape[-1]))
    chosen = greedy_coreset(flat, words, 0).numpy()
    for ours, image in zip(found.anomaly_map, rows_of(images[3:]), strict=True):
        grid = torch.from_numpy(by_loop(support, image, chosen))[None, None]
        large = functional.interpolate(grid, (48, 48), mode="bilinear")[0, 0]
        np.testing.assert_allclose(ours, gaussian_filter(large.numpy(), 1.5), rtol=1e-4)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_a_normal_patch_in_a_wrong_place_is_anomalous() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, :32] = 2.0
    moved = image.flip(2)
    method = small(window=1, blur=0.0).fit(Support("two halves", image))
    assert not method.predict(image).anomaly_map.any()
    assert method.predict(moved).image_score > 0
    anywhere = small(window=2 * 8 + 1, blur=0.0).fit(Support("two halves", image))
    assert anywhere.predict(moved).image_score < method.predict(moved).image_score


def test_with_enough_images_the_neighbours_have_a_say(images: Tensor) -> None:
    support, query = Support("noise", images[:4]), images[4:]
    alone = small(words=4, network_shots=5, blur=0.0, **QUICK).fit(support)
    both = small(words=4, network_shots=4, blur=0.0, **QUICK).fit(support)
    assert alone.model_ is not None
    assert alone.model_.surroundings is None
    assert both.model_ is not None
    assert both.model_.surroundings is not None
    patches = both._patches(query)
    logits = both.model_.surroundings.logits(both._narrow(patches))
    permitted = (logits / 2).softmax(dim=1) > 0.5 / 4
    rows = patches[0].flatten(1).T.contiguous()
    (by_neighbours,) = both.model_.bank.nearest_permitted(rows, permitted)
    grid = by_neighbours.view(1, 1, 6, 6)
    large = functional.interpolate(grid, (48, 48), mode="bilinear")[:, 0]
    expected = (alone.predict(query).anomaly_map + large) / 2
    torch.testing.assert_close(both.predict(query).anomaly_map, expected)


@pytest.mark.parametrize("shots", [1, 3])
def test_constant_images_and_one_pixel_features_are_no_trouble(shots: int) -> None:
    flat = torch.ones(shots, 3, 8, 8)
    method = small(network_shots=3, coreset_above=1, **QUICK).fit(Support("flat", flat))
    found = method.predict(torch.cat([flat[:1], torch.zeros(1, 3, 8, 8)]))
    assert found.anomaly_map.isfinite().all()
    assert not found.anomaly_map[0].any()
    assert found.anomaly_map[1].any()


def test_images_of_another_size_are_refused(images: Tensor) -> None:
    method = small().fit(Support("noise", images))
    with pytest.raises(FewShotError, match=r"grid of \[4, 4\] and the support had \[6, 6\]: PNI"):
        method.predict(images[:, :, :32, :32])
