import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.residual_stage import ResidualStage
from fewshot_ad.parts.residuals import Metric


def stage(metric: Metric = "euclidean", form="signed", embedding=None) -> ResidualStage:
    features = load_features("strangers:network", (1, 3))
    return ResidualStage(features, embedding or Embedding(), metric, form)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def residual_by_loop(query: Tensor, supports: Tensor, metric: str) -> Tensor:
    bank = [vector for image in supports for vector in image.flatten(1).T.double().numpy()]
    found = torch.empty_like(query)
    for place in np.ndindex(*query.shape[1:]):
        vector = query[(slice(None), *place)].double().numpy()
        unit = 1.0 if metric == "euclidean" else np.linalg.norm(vector)
        gaps = [
            np.linalg.norm(
                vector / unit - row / (1.0 if metric == "euclidean" else np.linalg.norm(row))
            )
            for row in bank
        ]
        found[(slice(None), *place)] = torch.from_numpy(vector - bank[int(np.argmin(gaps))])
    return found


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_position_loses_its_nearest_support_position(images: Tensor, metric: Metric) -> None:
    plain, squared = stage(metric), stage(metric, form="squared")
    queries, supports = plain.embed(images[:2]), plain.embed(images[2:])
    ours = plain.subtract(queries, supports)
    for level, maps in enumerate(ours):
        for image in range(2):
            expected = residual_by_loop(queries[level][image], supports[level], metric)
            torch.testing.assert_close(maps[image], expected)
    for one, other in zip(squared.subtract(queries, supports), ours, strict=True):
        assert torch.equal(one, other.square())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_remembered_and_forgotten_matches_are_the_same(images: Tensor, metric: Metric) -> None:
    here = stage(metric)
    queries, supports = here.embed(images[:2]), here.embed(images[2:])
    pairs = zip(
        here.subtract(queries, supports), here.subtract_once(queries, supports), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_features_are_embedded(images: Tensor) -> None:
    embedding = Embedding(3, 4, True)
    here = stage(embedding=embedding)
    expected = embedding(stage().embed(images))
    assert all(torch.equal(*pair) for pair in zip(here.embed(images), expected, strict=True))
    assert here.widths == tuple(maps.shape[1] for maps in expected) == (4, 4)
