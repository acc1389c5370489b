from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods.musc import MuSc, mutual_scores, rescored
from fewshot_ad.parts.feature_cache import load_features

NOBODY = Support("noise", torch.zeros(0, 3, 48, 48))


def small(**changes) -> MuSc:
    settings = {"backbone": "random:tiny", "device": "cpu", "preprocess": Preprocess(size=48)}
    return MuSc(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(8))


def averaged_by_loop(level: Tensor, side: int) -> np.ndarray:
    mean, reach = np.empty(level.shape), side // 2
    for row, column in np.ndindex(*level.shape[2:]):
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        mean[:, :, row, column] = level[:, :, rows, columns].double().sum(dim=(2, 3)) / side**2
    return mean


def scored_by_loop(maps: np.ndarray, judged: int, n_lowest: int) -> np.ndarray:
    scores = np.empty((judged, *maps.shape[2:]))
    for image, row, column in np.ndindex(*scores.shape):
        patch = maps[image, :, row, column, None, None]
        said = [
            np.sqrt(((other - patch) ** 2).sum(axis=0)).min()
            for place, other in enumerate(maps)
            if place != image
        ]
        scores[image, row, column] = np.mean(sorted(said)[:n_lowest])
    return scores


def rescored_by_loop(scores: np.ndarray, features: np.ndarray, windows: tuple[int, ...]):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = np.zeros(len(scores))
    for image, k in product(range(len(scores)), windows):
        alike = sorted(range(len(scores)), key=lambda j: (j != image, -unit[image] @ unit[j]))[:k]
        weights = np.array([max(0.0, unit[image] @ unit[j]) for j in alike])
        found[image] += weights @ scores[alike] / weights.sum() / len(windows)
    return found


@pytest.mark.parametrize(("unit_length", "n_support"), [(True, 0), (False, 2)])
def test_it_is_what_other_images_say_in_their_lowest_scores(
    images: Tensor, unit_length: bool, n_support: int
) -> None:
    method = small(unit_length=unit_length, degrees=(1, 3), lowest_share=0.4, windows=(1, 2))
    judged = len(images) - n_support
    found = method.fit(Support("noise", images[judged:])).predict(images[:judged])
    expected, levels = torch.zeros(judged, 48, 48), load_features("random:tiny", (2, 3))(images)
    for level, side in product(levels, (1, 3)):
        maps = averaged_by_loop(level, side)
        if unit_length:
            maps = maps / np.linalg.norm(maps, axis=1, keepdims=True)
        scores = torch.from_numpy(scored_by_loop(maps, judged, 2))[:, None].float()
        expected += functional.interpolate(scores, (48, 48), mode="bilinear")[:, 0] / 4
    np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-4, atol=1e-6)
    alike = levels[-1][:judged].double().mean(dim=(2, 3)).numpy()
    of_images = rescored_by_loop(expected.amax(dim=(1, 2)).numpy(), alike, (1, 2))
    np.testing.assert_allclose(found.image_score, of_images, rtol=1e-4)


def test_what_all_images_show_is_normal_and_what_one_shows_is_not() -> None:
    maps = torch.zeros(5, 2, 3, 3)
    maps[:, 0] = torch.arange(9.0).view(3, 3)
    maps[2, 1, 1, 2] = 7.0
    scores = mutual_scores(maps, judged=5, lowest_share=0.3)
    assert scores[2, 1, 2] == 7.0
    assert scores.count_nonzero() == 1


def test_a_quarter_of_the_images_may_share_a_defect_in_vain() -> None:
    maps = torch.zeros(9, 1, 1, 1)
    maps[:2] = 3.0
    few, many = (mutual_scores(maps, 9, share).flatten().tolist() for share in (0.0, 0.5))
    assert few == [0.0] * 9
    assert many == [3 * 3 / 4] * 2 + [0.0] * 7


def test_the_order_of_the_images_means_nothing(images: Tensor) -> None:
    method = small().fit(NOBODY)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    there, here = method.predict(images), method.predict(images[order])
    assert torch.equal(here.anomaly_map, there.anomaly_map[order])
    torch.testing.assert_close(here.image_score, there.image_score[order])


def test_scores_do_hang_on_the_company(images: Tensor) -> None:
    assert MuSc.track == "batched"
    method = small().fit(NOBODY)
    alone, together = method.predict(images[:2]), method.predict(images)
    assert not torch.equal(alone.anomaly_map, together.anomaly_map[:2])


def test_a_window_of_one_image_leaves_scores_as_they_are() -> None:
    scores = torch.tensor([1.0, 5.0, 2.0])
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert torch.equal(rescored(scores, features, (1,)), scores)


def test_opposite_images_do_not_average_and_wide_windows_end_with_the_images() -> None:
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    scores = torch.tensor([1.0, 5.0, 2.0])
    for windows in ((2,), (3,), (50,)):
        assert rescored(scores, features, windows).tolist() == [3.0, 3.0, 2.0]


def test_a_lone_image_needs_a_support(images: Tensor) -> None:
    with pytest.raises(FewShotError, match="two images or more"):
        small().fit(NOBODY).predict(images[:1])
    found = small().fit(Support("noise", images[1:2])).predict(images[:1])
    assert found.image_score > 0


def test_a_lone_judge_is_the_nearest_neighbour(images: Tensor) -> None:
    method = small().fit(Support("noise", images[:1]))
    assert not method.predict(images[:1]).anomaly_map.any()


@pytest.mark.parametrize(
    "wrong",
    [{"degrees": ()}, {"degrees": (1, 2)}, {"windows": ()}, {"windows": (0,)}],
)
def test_wrong_squares_and_windows_are_refused(wrong: dict) -> None:
    with pytest.raises(FewShotError, match=f"{next(iter(wrong))} are .*expected one or more"):
        small(**wrong)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(FewShotError, match="lowest_share"):
        small(lowest_share=share)
