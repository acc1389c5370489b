import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.reading import read_labelled
from fewshot_ad.methods.uniad import UniAD
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> UniAD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64),
        "width": 16,
        "heads": 2,
        "layers": 1,
        "steps": 3,
    }
    return UniAD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    """Four noisy plates."""
    noise = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    return 0.1 * noise + torch.linspace(-1, 1, 64)


def test_map_and_score_are_distances_and_their_highest_mean_of_256_pixels(images: Tensor) -> None:
    method = small().fit(Support("plate", images[:2]))
    found = method.predict(images[2:])
    extract = load_features("random:tiny", (1, 2, 3), device="cpu")
    assert method.rebuilder_ is not None
    pairs = zip(images[2:], found.anomaly_map, found.image_score, strict=True)
    for image, ours, score in pairs:
        levels = extract(image[None])
        joined = torch.cat(
            [
                levels[n].unfold(2, s, s).unfold(3, s, s).mean(dim=(4, 5))
                for n, s in ((0, 4), (1, 2))
            ]
            + [levels[2]],
            dim=1,
        )
        scaled = method.rebuilder_.scale(joined)
        with torch.no_grad():
            distance = (method.rebuilder_(scaled) - scaled).square().sum(dim=1).sqrt()
        full = functional.interpolate(distance[None], (64, 64), mode="bilinear")[0, 0]
        torch.testing.assert_close(ours, full, rtol=1e-4, atol=1e-5)
        means = [full[y : y + 16, x : x + 16].mean() for y in range(49) for x in range(49)]
        torch.testing.assert_close(score, torch.stack(means).max(), rtol=1e-4, atol=1e-5)


def test_training_brings_what_is_rebuilt_nearer(images: Tensor) -> None:
    distances = [
        small(steps=steps, jitter=5.0).fit(Support("plate", images)).predict(images).anomaly_map
        for steps in (1, 60)
    ]
    assert distances[1].mean() < 0.9 * distances[0].mean()


def test_a_painted_square_lights_up(images: Tensor) -> None:
    method = small(steps=40).fit(Support("plate", images[:2]))
    defect = images[3:].clone()
    defect[:, :, 16:32, 32:48] = 3.0
    found = method.predict(torch.cat([images[3:], defect]))
    inside = found.anomaly_map[1, 16:32, 32:48].mean()
    assert inside > 1.3 * found.anomaly_map[1, 48:, :16].mean()
    assert found.image_score[1] > 1.2 * found.image_score[0]


@pytest.mark.slow
def test_defects_of_pills_are_found_where_they_are() -> None:
    """Half of them are smaller than a cell of the grid, so that images are hardly told apart."""
    method, dataset = UniAD(device="cpu"), load_dataset("synthetic")
    shown = read_labelled(dataset, dataset.train("pill")[:16], method.preprocess)
    judged = read_labelled(dataset, dataset.test("pill"), method.preprocess)
    maps = method.fit(Support("pill", shown.images)).predict(judged.images).anomaly_map
    assert roc_auc_score(judged.masks.flatten(), maps.flatten()) > 0.9
