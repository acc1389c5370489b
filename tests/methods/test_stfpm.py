import numpy as np
import pytest
import torch
from by_hand import enlarged
from listening import hear_losses
from noisy import noise
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import stfpm
from fewshot_ad.methods.stfpm import STFPM
from fewshot_ad.parts.feature_cache import load_features

LEVELS = (1, 2)


def small(**changes) -> STFPM:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "levels": LEVELS,
        "width": 8,
        "steps": 5,
        "support_views": 4,
    }
    return STFPM(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step."""
    return hear_losses(monkeypatch, stfpm)


def disagreements(method: STFPM, image: Tensor) -> list[np.ndarray]:
    """Half the squared distance of the two unit vectors of every position, with loops."""
    assert method.student_ is not None
    taught = load_features("random:tiny", LEVELS, device="cpu")(image[None])
    with torch.no_grad():
        learned = method.student_(image[None], taught)
    maps = []
    for one, other in zip(taught, learned, strict=True):
        a, b = one[0].double().numpy(), other[0].double().numpy()
        grid = np.empty(a.shape[1:])
        for row, column in np.ndindex(*grid.shape):
            u, v = a[:, row, column], b[:, row, column]
            unit = u / np.linalg.norm(u) - v / np.linalg.norm(v)
            grid[row, column] = unit @ unit / 2
        maps.append(grid)
    return maps


@pytest.mark.parametrize("student", ["compact", "copy"])
def test_the_map_is_the_root_of_the_product_over_levels(images: Tensor, student: str) -> None:
    method = small(blur=1.5, student=student).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    product = np.ones((32, 32))
    for grid in disagreements(method, images[2]):
        product *= enlarged(grid, (32, 32))
    expected = gaussian_filter(np.sqrt(product), 1.5)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-5)
    assert found.image_score[0] == found.anomaly_map.max()


def test_the_first_loss_is_that_of_the_mean_features(images: Tensor, heard: list[float]) -> None:
    """All images are in the first batch, and the student says the mean of every position."""
    small(steps=1, support_views=1).fit(Support("noise", images))
    total = 0.0
    for maps in load_features("random:tiny", LEVELS, device="cpu")(images):
        mean = maps.mean(dim=(0, 2, 3)).view(1, -1, 1, 1)
        gap = functional.normalize(maps, dim=1) - functional.normalize(mean, dim=1)
        total += float(gap.square().sum(dim=1).mean()) / 2
    assert heard == [pytest.approx(total, rel=1e-4)]


def test_a_level_without_disagreement_does_not_silence_the_other(images: Tensor) -> None:
    method = small(blur=0.0).fit(Support("noise", images[:1]))
    student = method.student_
    assert student is not None
    taught = load_features("random:tiny", LEVELS, device="cpu")(images[1:2])

    class Half(torch.nn.Module):
        def forward(self, shown: Tensor, _: object) -> list[Tensor]:
            return [taught[0], student(shown, taught)[1]]

    method.student_ = Half()
    assert method.predict(images[1:2]).anomaly_map.min() > 0


def test_a_network_of_the_users_own_has_no_copy(images: Tensor) -> None:
    with pytest.raises(FewShotError, match="choose student=compact"):
        small(backbone="fewshot_ad.parts.tiny:Tiny", student="copy").fit(
            Support("noise", images[:1])
        )
