import numpy as np
import pytest
import torch
from by_hand import turned, turning_map, whole_turns
from listening import catch_trainings
from noisy import noise
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import rrd
from fewshot_ad.methods.rrd import RRD, noisy_copies, projection_loss
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.training import step_generator
from fewshot_ad.parts.transport import sinkhorn_divergence

LEVELS = (1, 2)


def small(**changes) -> RRD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "levels": LEVELS,
        "width": 8,
        "steps": 5,
        "support_views": 4,
    }
    return RRD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def test_the_map_compares_features_with_what_is_rebuilt_of_their_projections(
    images: Tensor,
) -> None:
    method = small(blur=1.5).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    assert method.networks_ is not None
    levels = load_features("random:tiny", LEVELS, device="cpu")(images[2:3])
    with torch.no_grad():
        networks = method.networks_
        cleaned = [m + p(m) for m, p in zip(levels, networks.projections, strict=True)]
        assert not any(torch.equal(a, b) for a, b in zip(levels, cleaned, strict=True))
        rebuilt = networks.decoder(cleaned)
    expected = turning_map(levels, rebuilt, (32, 32), 1.5)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-5)


def test_projections_learn_from_three_losses() -> None:
    """All positions meet, as there are fewer than may."""
    generator = torch.Generator().manual_seed(5)
    noisy, cleaned, projected = torch.randn(3, 2, 5, 3, 3, generator=generator).double() + 2
    found = projection_loss([noisy], [cleaned], [projected], torch.Generator())
    denoising = contrast = 0.0
    for n in (0, 1):
        a, b, c = (each[n].flatten().numpy() for each in (noisy, cleaned, projected))
        denoising += turned(b, c) / 2
        contrast += max(0.0, 1 - turned(a, b) - 0.5) / 2
    unit = cleaned / cleaned.norm(dim=1, keepdim=True)
    one, other = (unit[n].flatten(1).T[None] for n in (0, 1))
    ways = [sinkhorn_divergence(*pair, rounds=10) for pair in ((one, other), (other, one))]
    meeting = float(sum(ways)) / 2
    assert contrast > 0
    expected = (meeting + 0.01 * denoising + 0.1 * contrast) / 1.11
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_an_image_alone_meets_itself() -> None:
    maps = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(5)).double()
    found = projection_loss([-maps], [maps], [maps], torch.Generator())
    assert float(found) == pytest.approx(0.0, abs=1e-9)


def test_noise_is_in_one_box_of_every_image(images: Tensor) -> None:
    whole = functional.interpolate(images, (160, 128))
    given = whole.clone()
    copies = noisy_copies(whole, 0.2, torch.Generator().manual_seed(0))
    assert torch.equal(whole, given)
    boxes = set()
    for changed in (copies != whole).any(dim=1):
        rows, columns = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert 10 <= height <= 20
        assert 10 <= width <= 16
        assert changed.sum() == height * width
        boxes.add((int(rows[0]), int(columns[0])))
    assert len(boxes) == len(images)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (32, 32)])
def test_small_images_have_small_boxes(images: Tensor, size: tuple[int, int]) -> None:
    shown = functional.interpolate(images, size)
    changed = (noisy_copies(shown, 1.0, torch.Generator()) != shown).any(dim=1)
    assert changed.flatten(1).any(dim=1).all()
    assert changed[0].sum() <= max(1, size[0] // 8) * max(1, size[1] // 8)


@pytest.mark.parametrize("views", [1, 3])
def test_a_single_view_and_single_rows_train(images: Tensor, views: int) -> None:
    method = small(support_views=views, batch_size=1).fit(Support("noise", images[:1]))
    assert method.predict(images).image_score.isfinite().all()


def test_the_loss_is_of_what_is_rebuilt_and_of_the_projections(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, rrd)
    losses = []
    for weight in (0.0, 0.3):
        method = small(projection_weight=weight, support_views=1, cosine="whole_map")
        method.fit(Support("noise", images[:2]))
        losses.append(caught[-1].loss(torch.arange(2), torch.Generator().manual_seed(3)).item())
    networks = caught[0].network
    levels = load_features("random:tiny", LEVELS, device="cpu")(images[:2])
    rebuilt = networks.decoder(networks.project(levels))
    assert losses[0] == pytest.approx(sum(whole_turns(levels, rebuilt)), rel=1e-4)
    noisy = noisy_copies(images[:2], 0.2, step_generator(0, rrd.NOISE_GENERATOR))
    disturbed = load_features("random:tiny", LEVELS, device="cpu")(noisy)
    cleaned, projected = networks.project(levels), networks.project(disturbed)
    of_projections = projection_loss(
        disturbed, cleaned, projected, torch.Generator().manual_seed(3)
    )
    assert losses[1] - losses[0] == pytest.approx(0.3 * float(of_projections), rel=1e-3)
