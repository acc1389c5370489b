import numpy as np
import pytest
import torch
from listening import catch_trainings
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import differnet
from fewshot_ad.methods.differnet import DifferNet, spread_angles
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.rotations import rotate

SIZE = 48


def small(**changes) -> DifferNet:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=SIZE),
        "support_views": 8,
        "views": 3,
        "flow_blocks": 2,
        "steps": 5,
        "batch_size": 4,
    }
    return DifferNet(**(settings | changes))


def noise(n: int, seed: int = 8) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def pyramid(image: Tensor, divisors: tuple[int, ...]) -> list[Tensor]:
    """The last level of the backbone at each size, [d h w]."""
    extract = load_features("random:tiny", (3,), device="cpu")
    maps = []
    for divisor in divisors:
        side = SIZE // divisor
        shown = functional.interpolate(image[None], (side, side), mode="bilinear", antialias=True)
        maps.append(extract(shown)[0][0])
    return maps


def test_the_score_is_the_mean_squared_latent_over_the_views() -> None:
    method = small(rotation=90.0, divisors=(1, 3)).fit(Support("noise", noise(2)))
    image = noise(1, seed=5)[0]
    assert method.model_ is not None
    squares = []
    for angle in (-60.0, 0.0, 60.0):
        maps = pyramid(rotate(image[None], angle)[0], (1, 3))
        vector = torch.cat([each.flatten(1).mean(dim=1) for each in maps])
        mean, scale, flow = method.model_
        latents, _ = flow(((vector - mean) / scale)[None])
        squares.append(latents.square().mean().item())
    found = method.predict(image[None])
    assert found.image_score.item() == pytest.approx(np.mean(squares), rel=1e-4)


def test_the_map_holds_the_slope_of_the_score_times_what_is_unusual() -> None:
    method = small(rotation=0.0, views=1, divisors=(1, 2), blur=1.5)
    method = method.fit(Support("noise", noise(2)))
    image = noise(1, seed=5)[0]
    assert method.model_ is not None
    mean, scale, flow = method.model_
    maps = pyramid(image, (1, 2))
    vector = torch.cat([each.flatten(1).mean(dim=1) for each in maps]).double()

    def score(features: Tensor) -> float:
        latents, _ = flow(((features.float() - mean) / scale)[None])
        return float(latents.double().square().mean())

    step = 1e-2 * float(scale)
    moved = torch.eye(len(vector)).double() * step
    slope = torch.tensor([(score(vector + m) - score(vector - m)) / (2 * step) for m in moved])
    expected, start = np.zeros((SIZE, SIZE)), 0
    for each in maps:
        here = slice(start, start + len(each))
        unusual = each.double() - mean[here, None, None].double()
        parts = (slope[here, None, None].double() * unusual).sum(dim=0)
        large = functional.interpolate(parts[None, None], (SIZE, SIZE), mode="bilinear")
        expected += large[0, 0].numpy()
        start += len(each)
    found = method.predict(image[None]).anomaly_map[0].numpy()
    np.testing.assert_allclose(found, gaussian_filter(expected, 1.5), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("count", "reach", "expected"),
    [(1, 180.0, [0.0]), (3, 180.0, [-120.0, 0.0, 120.0]), (2, 10.0, [-5.0, 5.0])],
)
def test_angles_are_evenly_spread(count: int, reach: float, expected: list[float]) -> None:
    assert spread_angles(count, reach) == expected


def test_what_was_learned_is_likelier_than_what_was_not() -> None:
    method = small(steps=80, rotation=0.0, views=1).fit(Support("noise", noise(2)))
    seen, unseen = (method.predict(images).image_score for images in (noise(2), noise(2) * 2))
    assert seen.max() < unseen.min()


def test_every_support_image_is_seen_even_where_there_are_few_views() -> None:
    one, other = noise(3), noise(3)
    other[2] = noise(1, seed=4)[0]
    found = [
        small(support_views=1).fit(Support("noise", images)).predict(noise(1, seed=5)).image_score
        for images in (one, other)
    ]
    assert not torch.equal(*found)


def test_the_settings_of_the_paper_train() -> None:
    quick = {"support_views": 4, "views": 2, "steps": 2, "batch_size": 2}
    method = small().variant(**DifferNet.PAPER).variant(**quick)
    found = method.fit(Support("noise", noise(1))).predict(noise(1, seed=5))
    assert found.anomaly_map.isfinite().all()


@pytest.mark.parametrize("wrong", [(), (0,), (1, -2)])
def test_divisors_are_counts(wrong: tuple[int, ...]) -> None:
    with pytest.raises(FewShotError, match="divisors are"):
        small(divisors=wrong)


def test_the_loss_is_the_negative_likelihood_per_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = catch_trainings(monkeypatch, differnet)
    method = small(rotation=0.0, support_views=2, divisors=(1, 3)).fit(Support("noise", noise(2)))
    _, loss, _ = caught[0]
    assert method.model_ is not None
    mean, scale, flow = method.model_
    terms = []
    for image in noise(2):
        maps = pyramid(image, (1, 3))
        vector = (torch.cat([each.flatten(1).mean(dim=1) for each in maps]) - mean) / scale
        jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], vector)
        latents = flow(vector[None])[0][0]
        gaussian = latents.square().sum() / 2 + len(vector) * np.log(2 * np.pi) / 2
        terms.append(float(gaussian - torch.linalg.slogdet(jacobian).logabsdet) / len(vector))
    found = loss(torch.arange(2), torch.Generator())
    assert float(found.detach()) == pytest.approx(np.mean(terms), rel=1e-3)
