from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import LabelledBatch, Method, Prediction, Support
from fewshot_ad.parts.calibration import (
    COPIES,
    Calibration,
    Scale,
    altered_copies,
    calibrate,
    scale_of,
)


@dataclass(kw_only=True, eq=False)
class Distance(Method):
    """The distance of an image to the mean of the support; remembers all that it was asked."""

    track: ClassVar = "training_free"
    min_shots: ClassVar[int] = 1
    asked: list[tuple[int, int]] = field(default_factory=list)

    def fit(self, support: Support) -> "Distance":
        self.support_ = support
        return self

    def predict(self, images: Tensor) -> Prediction:
        self.asked.append((len(self.support_.images), len(images)))
        maps = (images - self.support_.images.mean(dim=0)).abs().mean(dim=1)
        return Prediction(2 * maps.mean(dim=(1, 2)), maps)


class NeedsTwo(Distance):
    min_shots = 2


class AllAtOnce(Distance):
    track = "batched"


def levels(*values: float) -> Support:
    return Support("flat", torch.tensor(values).float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16))


def test_every_support_image_is_judged_by_the_others() -> None:
    found = calibrate(Distance(), levels(0.0, 3.0, 9.0))
    distances = np.array([6.0, 1.5, 7.5])  # to the mean of the other two
    assert found.image == pytest.approx((2 * distances.mean(), 2 * distances.std(ddof=1)))
    pixels = distances.repeat(16 * 16)
    assert found.pixel == pytest.approx((pixels.mean(), pixels.std(ddof=1)))


def test_two_images_judge_each_other() -> None:
    found = calibrate(Distance(), levels(0.0, 3.0))
    assert found.image == pytest.approx((6.0, 0.05 * 6.0))  # they agree: a twentieth of the mean


@pytest.mark.parametrize(
    ("kind", "n_images", "asked"),
    [
        (Distance, 4, [(3, 1)] * 4),
        (Distance, 17, [(14, 3)] + [(15, 2)] * 7),
        (Distance, 80, [(70, 8), (70, 2)] * 8),
        (AllAtOnce, 80, [(70, 10)] * 8),
        (Distance, 1, [(1, COPIES)]),
        (NeedsTwo, 2, [(2, COPIES)]),
        (NeedsTwo, 3, [(2, 1)] * 3),
    ],
)
def test_it_takes_eight_folds_at_most_or_copies(
    kind: type[Distance], n_images: int, asked: list[tuple[int, int]]
) -> None:
    method = kind()
    calibrate(method, levels(*range(n_images)))
    assert method.asked == asked  # variants share the list


def test_copies_are_judged_by_the_whole_support() -> None:
    method = Distance()
    found = calibrate(method, levels(1.0, 3.0), "copies")
    assert method.asked == [(2, COPIES)]
    copies = altered_copies(levels(1.0, 3.0).images, 4, torch.Generator().manual_seed(0))
    scores = 2 * (copies - 2.0).abs().mean(dim=(1, 2, 3)).double().numpy()
    assert found.image == pytest.approx((scores.mean(), scores.std(ddof=1)), rel=1e-4)


def test_labelled_anomalies_are_kept() -> None:
    seen: list[Support] = []

    class Watching(Distance):
        def fit(self, support: Support) -> "Watching":
            seen.append(support)
            return super().fit(support)

    images = levels(1.0, 2.0).images
    anomalous = LabelledBatch(images, torch.ones(2, 16, 16).bool(), torch.ones(2).bool())
    calibrate(Watching(), Support("flat", images, anomalous))
    assert [each.anomalous is anomalous for each in seen] == [True, True]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 3.0], (2.0, 2.0**0.5)),
        ([4.0, 4.0, 4.0], (4.0, 0.2)),
        ([-10.0], (-10.0, 0.5)),
        ([0.0, 0.0], (0.0, 1.0)),
    ],
)
def test_the_deviation_is_never_zero(scores: list[float], expected: tuple[float, float]) -> None:
    assert scale_of(torch.tensor(scores)) == pytest.approx(expected)


def test_z_scores_are_deviations_from_the_mean() -> None:
    prediction = Prediction(torch.tensor([3.0, 7.0]), torch.full((2, 4, 4), 5.0))
    found = Calibration(Scale(3.0, 2.0), Scale(4.0, 0.5)).apply(prediction)
    assert found.image_score.tolist() == [0.0, 2.0]
    assert torch.equal(found.anomaly_map, torch.full((2, 4, 4), 2.0))
    same = Calibration().apply(prediction)
    assert torch.equal(same.image_score, prediction.image_score)
    assert torch.equal(same.anomaly_map, prediction.anomaly_map)


def test_copies_are_moved_and_a_little_brighter() -> None:
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    images = torch.cat([rows, rows.mT])
    before = torch.get_rng_state()
    copies = altered_copies(images, 6, torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(copies, altered_copies(images, 6, torch.Generator().manual_seed(2)))
    assert copies.shape == (12, 3, 32, 32)
    of_rows = copies[::2]
    slopes = of_rows[:, 0, 16, 0] - of_rows[:, 0, 15, 0]
    assert ((slopes - 1).abs() <= 0.05 + 1e-5).all()
    shifts = of_rows[:, 0, 16, 0] / slopes - 16
    assert (shifts.abs() <= 2.06).all()
    assert len({round(float(each)) for each in shifts}) > 2
    assert torch.equal(of_rows[:, :, :, :1].expand_as(of_rows), of_rows)
