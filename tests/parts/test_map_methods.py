from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, NotFittedError, Support, Track
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement, MapMethod


@dataclass(kw_only=True, eq=False)
class Brightness(MapMethod):
    """Two grids of brightness above the support's; the image score is 7 where that is asked for."""

    track: ClassVar[Track] = "training_free"
    sure: bool = False
    mean_: float | None = field(default=None, init=False)
    shown_: int = field(default=0, init=False)

    def fit(self, support: Support) -> "Brightness":
        self.mean_, self.shown_ = float(support.images.mean()), len(support.images)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        assert self.mean_ is not None
        bright = image.mean(dim=1) - self.mean_
        maps = [functional.adaptive_avg_pool2d(bright, side) for side in (4, 2)]
        return Judgement(maps, torch.tensor(7.0) if self.sure else None)


class Summed(Brightness):
    fusion: ClassVar[Literal["mean", "sum"]] = "sum"


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 20, generator=torch.Generator().manual_seed(3))


def fitted(images: Tensor, kind: type[Brightness] = Brightness, **changes) -> Brightness:
    return kind(**changes).fit(Support("part", images[:2]))


@pytest.mark.parametrize(("kind", "weight"), [(Brightness, 0.5), (Summed, 1.0)])
def test_maps_are_brought_together_blurred_and_scored(images, kind, weight) -> None:
    found = fitted(images, kind, blur=1.5).predict(images)
    for image, score, shown in zip(images, found.image_score, found.anomaly_map, strict=True):
        bright = image.mean(dim=0)[None, None] - images[:2].mean()
        large = [
            functional.interpolate(
                functional.adaptive_avg_pool2d(bright, side), (16, 20), mode="bilinear"
            )
            for side in (4, 2)
        ]
        expected = gaussian_filter((weight * sum(large))[0, 0].double().numpy(), 1.5)
        torch.testing.assert_close(shown.double(), torch.from_numpy(expected), atol=1e-6, rtol=0)
        assert score == shown.max()


def test_a_method_may_have_a_score_of_its_own(images: Tensor) -> None:
    assert fitted(images, sure=True).predict(images).image_score.tolist() == [7.0] * 3


def test_nothing_is_known_before_fit_even_of_no_images(images: Tensor) -> None:
    for some in (images, images[:0]):
        with pytest.raises(NotFittedError, match=r"Brightness has seen no support yet: call fit"):
            Brightness().predict(some)


def test_no_images_have_no_scores(images: Tensor) -> None:
    found = fitted(images).predict(images[:0])
    assert found.image_score.shape == (0,)
    assert found.anomaly_map.shape == (0, 16, 20)


def test_gradients_are_not_kept(images: Tensor) -> None:
    assert not fitted(images).predict(images.requires_grad_()).anomaly_map.requires_grad


class OnFeatures(FeatureMethod):
    track: ClassVar[Track] = "training_free"

    def fit(self, support: Support) -> "OnFeatures":
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        return Judgement([maps.mean(dim=1) for maps in self.features(image)])


def test_methods_of_one_backbone_share_its_memory(images: Tensor) -> None:
    one, other = OnFeatures(backbone="random:tiny"), OnFeatures(backbone="random:tiny", seed=3)
    assert one.features is other.features
    assert one.weights_digest == one.features.backbone.digest
    assert [len(maps) for maps in one.features(images)] == [3, 3]


def test_an_unknown_backbone_is_named(tmp_path) -> None:
    with pytest.raises(FewShotError, match="no_such_network"):
        _ = OnFeatures(backbone="no_such_network", weights_dir=str(tmp_path)).weights_digest
