import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods.padim import PaDiM
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.flows import draw_rotation


def small(**changes) -> PaDiM:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=48),
        "channels": 7,
    }
    return PaDiM(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def joined(images: Tensor) -> Tensor:
    levels = load_features("random:tiny", (1, 2, 3), device="cpu")(images)
    size = levels[0].shape[2:]
    return torch.cat([functional.interpolate(x, size, mode="bilinear") for x in levels], dim=1)


def distances_by_loop(support: np.ndarray, query: np.ndarray, ridge: float) -> np.ndarray:
    """The paper's estimate at every position: [n c h w] and [c h w] to [h w]."""
    floor = ridge * np.mean([channel.var() for channel in support.swapaxes(0, 1)])
    found = np.empty(query.shape[1:])
    for row, column in np.ndindex(*query.shape[1:]):
        samples = support[:, :, row, column]
        covariance = np.cov(samples.T, ddof=0) + floor * np.eye(samples.shape[1])
        away = query[:, row, column] - samples.mean(axis=0)
        found[row, column] = np.sqrt(away @ np.linalg.inv(covariance) @ away)
    return found


@pytest.mark.parametrize("reduction", ["random", "orthogonal"])
def test_the_papers_form_position_by_position(images: Tensor, reduction: str) -> None:
    method = small(reduction=reduction, seed=5, blur=1.5, **PaDiM.PAPER)
    found = method.fit(Support("noise", images[:4])).predict(images[4:])
    features = joined(images).double()
    generator = torch.Generator().manual_seed(5)
    if reduction == "random":
        features = features[:, torch.randperm(288, generator=generator)[:7]]
    else:
        rotation = draw_rotation(288, generator).double()
        features = (rotation @ features.flatten(2)).unflatten(2, features.shape[2:])[:, :7]
    values = features.numpy()
    for query, ours in zip(values[4:], found.anomaly_map, strict=True):
        grid = torch.from_numpy(distances_by_loop(values[:4], query, 0.01))
        large = functional.interpolate(grid[None, None], (48, 48), mode="bilinear")
        expected = gaussian_filter(large[0, 0].numpy(), 1.5)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_all_channels_where_there_are_no_more_than_asked_for(images: Tensor) -> None:
    support = Support("noise", images[:2])
    every = small(channels=None).fit(support).predict(images).image_score
    assert torch.equal(small(channels=288).fit(support).predict(images).image_score, every)
    assert not torch.equal(small(channels=287).fit(support).predict(images).image_score, every)


def test_the_seed_chooses_the_channels(images: Tensor) -> None:
    support = Support("noise", images[:2])
    scores = [small(seed=s).fit(support).predict(images).image_score for s in (1, 1, 2)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_images_of_another_size_are_refused(images: Tensor) -> None:
    method = small().fit(Support("noise", images[:1]))
    words = r"images of \[32, 32\] have \[8, 8\] positions, the support had \[12, 12\]"
    with pytest.raises(FewShotError, match=words):
        method.predict(images[:, :, :32, :32])
