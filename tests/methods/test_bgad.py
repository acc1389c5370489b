from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, LabelledBatch, Preprocess, Support
from fewshot_ad.methods.bgad import BGAD
from fewshot_ad.parts.feature_cache import load_features

SIZE = 48


def small(**changes) -> BGAD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "flow_blocks": 2,
        "steps": 6,
        "position_dims": 8,
    }
    return BGAD(**(settings | changes))


def noise(n: int, seed: int = 8) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def anomalies(n: int = 2) -> LabelledBatch:
    """Noise with a bright square, which the mask shows."""
    images, masks = noise(n, seed=9), torch.zeros(n, SIZE, SIZE, dtype=torch.bool)
    masks[:, 8:24, 16:32] = True
    return LabelledBatch(images + 4 * masks[:, None], masks, torch.ones(n, dtype=torch.bool))


@pytest.fixture
def support() -> Support:
    return Support("noise", noise(3), anomalies())


def test_the_map_is_what_the_likelihoods_lack_to_those_of_the_support(support: Support) -> None:
    method, images = small().fit(support), noise(2, seed=5)
    levels = load_features("random:tiny", (2, 3), device="cpu")
    assert method.flows_ is not None
    expected = torch.zeros(2, SIZE, SIZE)
    for flow, maps, normals in zip(
        method.flows_, levels(images), levels(support.images), strict=True
    ):
        peak = flow.log_likelihood(normals).max()
        likelihood = (flow.log_likelihood(maps) - peak).exp().view(2, 1, *maps.shape[2:])
        lacking = 1 - functional.interpolate(likelihood, (SIZE, SIZE), mode="bilinear")
        expected += lacking[:, 0].detach()
    found = method.predict(images)
    torch.testing.assert_close(found.anomaly_map, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.image_score, found.anomaly_map.amax(dim=(1, 2)))


def test_known_anomalies_are_pushed_away(support: Support) -> None:
    taught, untaught = (
        small(steps=40, learning_rate=3e-3, supervised=supervised).fit(support)
        for supervised in (True, False)
    )
    shown = anomalies(4)
    there, here = (method.predict(shown.images) for method in (taught, untaught))
    rise = there.anomaly_map - here.anomaly_map
    assert rise[shown.masks].mean() > rise[~shown.masks].mean() + 0.1


def test_labels_set_aside_change_nothing_and_the_track_says_so(support: Support) -> None:
    assert small().track == "supervised"
    method = small(supervised=False)
    assert method.track == "target_tuned"
    images = noise(1, seed=5)
    blind = method.fit(replace(support, anomalous=None)).predict(images)
    shown = method.variant().fit(support).predict(images)
    assert torch.equal(blind.anomaly_map, shown.anomaly_map)


def test_without_labels_it_says_what_to_do(support: Support) -> None:
    for given in (None, replace(anomalies(), masks=torch.zeros(2, SIZE, SIZE, dtype=torch.bool))):
        with pytest.raises(FewShotError, match=r"--anomalous-shots 1 .*supervised=false"):
            small().fit(replace(support, anomalous=given))


def test_an_anomaly_without_a_mask_teaches_nothing(support: Support) -> None:
    given = anomalies(3)
    given.masks[1] = False
    masked = LabelledBatch(given.images[::2], given.masks[::2], given.is_anomalous[::2])
    images = noise(1, seed=5)
    found, expected = (
        small().fit(replace(support, anomalous=one)).predict(images).anomaly_map
        for one in (given, masked)
    )
    assert torch.equal(found, expected)


def test_the_settings_of_the_paper_train(support: Support) -> None:
    method = small().variant(**BGAD.PAPER).variant(steps=2, batch_size=2)
    assert method.fit(support).predict(noise(1, seed=5)).anomaly_map.isfinite().all()
