import numpy as np
import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import PIXEL_METRICS, Metrics, pixel_metrics
from fewshot_ad.evaluation.streaming import StreamingPixelMetrics

SLACK = 1e-12  # rounding of the sums, beside the error of the bins


def case(seed, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    masks = [np.zeros((12, 15), bool) for _ in range(6)]
    for mask in masks[:4]:
        y, x = rng.integers(0, 8, 2)
        mask[y : y + 3, x : x + 4] = mask[11, 14] = True
    return [scale * (rng.standard_normal(m.shape) + 1.5 * m) + shift for m in masks], masks


def streamed(maps, masks, **options):
    stream = StreamingPixelMetrics(**options)
    for one, mask in zip(maps, masks, strict=True):
        stream.update([one], [mask])
    return stream


def assert_within_bounds(stream, exact):
    found, bounds = stream.result(), stream.error_bounds()
    assert bounds.keys() == set(PIXEL_METRICS)
    for name, bound in bounds.items():
        error = getattr(found, name) - getattr(exact, name)
        assert abs(error) <= bound + SLACK, name
        assert bound <= 1
    assert found.p_f1_max <= exact.p_f1_max + SLACK


@pytest.mark.parametrize("bins", [2, 3, 16, 200, 2**16])
def test_error_stays_within_the_bounds(bins):
    for seed in range(5):
        maps, masks = case(seed)
        assert_within_bounds(
            streamed(maps, masks, bins=bins), pixel_metrics(maps, prepare_truth(masks))
        )


@pytest.mark.parametrize("limit", [0.02, 0.3, 1.0])
def test_error_stays_within_the_bounds_at_any_limit(limit):
    maps, masks = case(7)
    exact = pixel_metrics(maps, prepare_truth(masks), fpr_limit=limit)
    assert_within_bounds(streamed(maps, masks, bins=32, fpr_limit=limit), exact)


def test_bounds_shrink_with_the_bins_and_are_small_by_default():
    maps, masks = case(8)
    coarse = streamed(maps, masks, bins=64).error_bounds()
    fine = streamed(maps, masks).error_bounds()
    for name in PIXEL_METRICS:
        assert fine[name] < coarse[name] / 10
        assert fine[name] < 1e-3


def test_the_bound_of_auroc_is_half_the_pairs_that_share_a_bin():
    maps = [np.array([[0.0, 0.25, 1.0, 1.25]])]  # two bins of width one, a pair in each
    stream = streamed(maps, [np.array([[True, False, False, True]])], bins=2)
    assert stream.error_bounds()["p_auroc"] == pytest.approx(0.5 * 2 / 4)


@pytest.mark.parametrize("normal_one", [1.0, 1.3, 1.9])
def test_error_stays_within_the_bounds_when_a_bin_hides_the_worst_order(normal_one):
    anomalous = np.linspace(1.1, 1.6, 10)
    maps = [np.concatenate([[0.0, normal_one], anomalous])[np.newaxis]]
    masks = [np.arange(12)[np.newaxis] >= 2]
    stream = streamed(maps, masks, bins=2)  # zero has a bin of its own, the others share one
    assert_within_bounds(stream, pixel_metrics(maps, prepare_truth(masks)))


@pytest.mark.parametrize(("scale", "shift"), [(1e-30, 0), (1e30, 0), (1e-3, 1e3), (1.0, -50.0)])
def test_the_range_finds_itself(scale, shift):
    maps, masks = case(9, scale, shift)
    exact = pixel_metrics(maps, prepare_truth(masks))
    found = streamed(maps, masks).result()
    for name in PIXEL_METRICS:
        assert getattr(found, name) == pytest.approx(getattr(exact, name), abs=1e-3)


def test_order_and_grouping_do_not_matter():
    maps, masks = case(10)
    maps[2] *= 40.0
    one_by_one = streamed(maps, masks, bins=50).result().values()
    at_once = StreamingPixelMetrics(bins=50)
    at_once.update(maps[::-1], masks[::-1])
    for name in PIXEL_METRICS:
        assert at_once.result().values()[name] == pytest.approx(one_by_one[name], abs=SLACK)


def test_growing_from_zeros_over_subnormals_to_the_largest_float_loses_no_pixel():
    levels = [0.0, 5e-324, -1e-300, 1.0, -1e300, 1.7e308]
    maps = [np.full((2, 2), level) for level in levels]
    masks = [np.eye(2, dtype=bool)] * len(levels)
    stream = streamed(maps, masks)
    assert stream.result().p_auroc == pytest.approx(0.5)
    assert_within_bounds(stream, pixel_metrics(maps, prepare_truth(masks)))


def test_scores_on_a_coarse_grid_are_exact():
    maps, masks = case(11)
    maps = [np.round(one) for one in maps]
    stream = streamed(maps, masks)
    exact = pixel_metrics(maps, prepare_truth(masks)).values()
    assert stream.result().values() == pytest.approx(exact, abs=SLACK)


def test_memory_does_not_grow_with_the_images():
    stream = StreamingPixelMetrics(bins=128)
    maps, masks = case(12)
    for factor in range(1, 20):
        stream.update([factor * one for one in maps], masks)
        held = [value for value in vars(stream).values() if isinstance(value, np.ndarray)]
        assert sum(array.nbytes for array in held) == 3 * 8 * 128


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([], "no pixel"),
        ([np.zeros((2, 2), bool)], "no anomalous pixel"),
        ([np.ones((2, 2), bool)], "no normal pixel"),
        ([np.eye(2, dtype=bool), None], "a mask is missing for 1 image"),
    ],
)
def test_empty_with_the_reason_of_the_exact_metrics(masks, reason):
    stream = streamed([np.zeros((2, 2))] * len(masks), masks)
    assert stream.result() == Metrics(reasons=dict.fromkeys(PIXEL_METRICS, reason))
    assert stream.error_bounds() == {}


def test_a_faulty_update_adds_nothing():
    maps, masks = case(13)
    stream = streamed(maps, masks)
    before = stream.result()
    broken = [*maps[:2], np.full((12, 15), np.nan)]
    with pytest.raises(FewShotError, match=r"180 values, in 1 of 3 images \(.*: 8\)"):
        stream.update(broken, masks[:3])
    with pytest.raises(FewShotError, match="1 anomaly maps for 2 masks"):
        stream.update(maps[:1], masks[:2])
    assert stream.result() == before


def test_options_without_sense_are_refused():
    with pytest.raises(FewShotError, match="1 bins"):
        StreamingPixelMetrics(bins=1)
    with pytest.raises(FewShotError, match="limit is 0"):
        StreamingPixelMetrics(fpr_limit=0.0)
