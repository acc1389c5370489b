import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    Metrics,
    image_metrics,
    pixel_metrics,
)

KINDS = {
    "random": lambda rng, shape: rng.standard_normal(shape),
    "tied": lambda rng, shape: rng.integers(0, 4, shape) / 4,
    "half_tied": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0),
    "constant": lambda _, shape: np.full(shape, 0.7),
    "huge": lambda rng, shape: 1e30 * rng.standard_normal(shape),
    "signed_zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, -0.0, 0.0),
}


def sklearn_triple(is_anomalous, scores):
    precision, recall, _ = precision_recall_curve(is_anomalous, scores)
    total = precision + recall
    f1 = 2 * precision * recall / np.where(total > 0, total, 1)
    return (
        roc_auc_score(is_anomalous, scores),
        average_precision_score(is_anomalous, scores),
        f1.max(),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_image_metrics_equal_scikit_learn(kind, dtype):
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 60):
        scores = KINDS[kind](rng, n).astype(dtype)
        is_anomalous = rng.permutation(n) < rng.integers(1, n)
        found = image_metrics(scores, is_anomalous)
        expected = sklearn_triple(is_anomalous, scores)
        assert (found.i_auroc, found.i_ap, found.i_f1_max) == pytest.approx(expected, abs=1e-12)
        assert found.reasons == {}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25))
def test_image_metrics_equal_scikit_learn_on_any_ties(pairs):
    scores = np.array([score for score, _ in pairs], dtype=np.float64)
    is_anomalous = np.array([label for _, label in pairs])
    found = image_metrics(scores, is_anomalous)
    if is_anomalous.all() or not is_anomalous.any():
        assert found.i_auroc is found.i_ap is found.i_f1_max is None
    else:
        expected = sklearn_triple(is_anomalous, scores)
        assert (found.i_auroc, found.i_ap, found.i_f1_max) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_pixel_metrics_equal_scikit_learn_on_images_of_several_sizes(kind, dtype):
    rng = np.random.default_rng(1)
    shapes = [(8, 8), (5, 11), (1, 9), (16, 3)]
    maps = [KINDS[kind](rng, shape).astype(dtype) for shape in shapes]
    masks = [rng.random(shape) < 0.2 for shape in shapes[:3]] + [np.zeros(shapes[3], bool)]
    found = pixel_metrics(maps, prepare_truth(masks))
    expected = sklearn_triple(*(np.concatenate([a.ravel() for a in x]) for x in (masks, maps)))
    assert (found.p_auroc, found.p_ap, found.p_f1_max) == pytest.approx(expected, abs=1e-12)


def test_float64_maps_are_not_ranked_as_float32():
    maps = np.array([[[1.0, 1.0 + 1e-12]]])
    found = pixel_metrics(maps, prepare_truth([np.array([[False, True]])]))
    assert found.p_auroc == 1.0


def test_maps_stay_as_they_were():
    maps = np.random.default_rng(2).random((3, 4, 4))
    before = maps.copy()
    pixel_metrics(maps, prepare_truth([np.eye(4, dtype=bool)] * 3))
    np.testing.assert_array_equal(maps, before)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no image"), ([0, 0], "no anomalous image"), ([1, 1], "no normal image")],
)
def test_image_metrics_are_empty_with_a_reason(labels, reason):
    found = image_metrics(np.zeros(len(labels)), np.array(labels, dtype=bool))
    assert found == Metrics(reasons=dict.fromkeys(IMAGE_METRICS, reason))


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([], "no pixel"),
        ([np.zeros((2, 2), bool)], "no anomalous pixel"),
        ([np.ones((2, 2), bool)], "no normal pixel"),
        ([np.eye(2, dtype=bool), None], "a mask is missing for 1 image"),
        ([None, None], "a mask is missing for 2 images"),
    ],
)
def test_pixel_metrics_are_empty_with_a_reason(masks, reason):
    found = pixel_metrics([np.zeros((2, 2))] * len(masks), prepare_truth(masks))
    assert found == Metrics(reasons=dict.fromkeys(PIXEL_METRICS, reason))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_counted_and_located(bad):
    maps = np.zeros((4, 3, 3), np.float32)
    maps[1, 0, 0] = maps[3, 2, :2] = bad
    truth = prepare_truth([np.eye(3, dtype=bool)] * 4)
    with pytest.raises(
        FewShotError, match=r"anomaly maps: 3 values, in 2 of 4 images \(.*: 1, 3\)"
    ):
        pixel_metrics(maps, truth)
    with pytest.raises(FewShotError, match=r"image scores: 1 values, in 1 of 3 images \(.*: 2\)"):
        image_metrics(np.array([0, 1, bad]), np.array([True, False, False]))


def test_many_faulty_images_are_not_all_listed():
    with pytest.raises(FewShotError, match=r"30 of 30 images \(.*: 0, 1, .*, 9, \.\.\.\)"):
        image_metrics(np.full(30, np.nan), np.arange(30) < 5)


def test_maps_that_do_not_lie_on_their_masks_are_refused():
    truth = prepare_truth([np.eye(3, dtype=bool), None, np.eye(4, dtype=bool)])
    small = np.zeros((3, 3))
    with pytest.raises(FewShotError, match="2 anomaly maps for 3 masks"):
        pixel_metrics([small, small], truth)
    with pytest.raises(FewShotError, match="image 2 has 3 x 3 pixels, its mask 4 x 4"):
        pixel_metrics([small, small, small], truth)


def test_image_and_pixel_metrics_join():
    images = image_metrics(np.array([0.0, 1.0]), np.array([False, True]))
    pixels = pixel_metrics(np.zeros((1, 2, 2)), prepare_truth([np.zeros((2, 2), bool)]))
    both = images | pixels
    assert both == pixels | images
    assert both.i_auroc == 1.0
    assert both.reasons == dict.fromkeys(PIXEL_METRICS, "no anomalous pixel")
    assert tuple(both.values()) == IMAGE_METRICS + PIXEL_METRICS
