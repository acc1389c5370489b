import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import pixel_metrics


def flood(mask):
    """Regions by walking over the eight neighbours: the oracle of the components."""
    left = set(zip(*np.nonzero(mask), strict=True))
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        yield tuple(np.array(sorted(region)).T)


def slow_aupro(maps, masks, limit):
    """One pass over all images for every distinct score: the definition, word for word."""
    regions = [
        (one, region) for one, mask in zip(maps, masks, strict=True) for region in flood(mask)
    ]
    normal = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([one.ravel() for one in maps]))[::-1]:
        fpr.append(np.mean(normal >= threshold))
        pro.append(np.mean([np.mean(one[region] >= threshold) for one, region in regions]))
    at_limit = np.interp(limit, fpr, pro) if limit not in fpr else pro[fpr.index(limit)]
    inside = [k for k, x in enumerate(fpr) if x < limit]
    x, y = [*(fpr[k] for k in inside), limit], [*(pro[k] for k in inside), at_limit]
    return (
        sum((b - a) * (p + q) / 2 for a, b, p, q in zip(x, x[1:], y, y[1:], strict=False)) / limit
    )


def random_case(rng, levels):
    shapes = [tuple(rng.integers(3, 9, 2)) for _ in range(4)]
    masks = [rng.random(shape) < 0.3 for shape in shapes[:3]] + [np.zeros(shapes[3], bool)]
    masks[0][:2, :2] = [[True, False], [False, True]]
    maps = [rng.integers(0, levels, m.shape) / levels + 0.3 * m for m in masks]
    return maps, masks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [1, 2, 5, 10**6])
def test_equals_the_loop_over_regions_and_thresholds(levels, dtype):
    rng = np.random.default_rng(levels)
    for limit in (0.05, 0.3, 1.0):
        maps, masks = random_case(rng, levels)
        maps = [one.astype(dtype) for one in maps]
        found = pixel_metrics(maps, prepare_truth(masks), fpr_limit=limit).aupro
        assert found == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=12, max_size=12),
    st.sampled_from([0.05, 0.25, 0.3, 0.5, 1.0]),
)
def test_equals_the_loop_on_any_small_image(pixels, limit):
    scores = np.array([score for score, _ in pixels], dtype=np.float64).reshape(1, 3, 4)
    masks = np.array([anomalous for _, anomalous in pixels]).reshape(1, 3, 4)
    found = pixel_metrics(scores, prepare_truth(list(masks)), fpr_limit=limit).aupro
    if masks.all() or not masks.any():
        assert found is None
    else:
        assert found == pytest.approx(slow_aupro(scores, masks, limit), abs=1e-12)


def test_diagonal_neighbours_are_one_region():
    truth = prepare_truth([np.eye(3, dtype=bool), np.fliplr(np.eye(2, dtype=bool))])
    assert truth.n_regions == 2
    np.testing.assert_array_equal(truth.positives, [0, 4, 8, 10, 11])
    np.testing.assert_allclose(truth.region_share, [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_a_missing_mask_takes_no_pixels():
    truth = prepare_truth([None, np.ones((2, 3), bool)])
    assert truth.shapes == (None, (2, 3))
    assert (truth.n_missing, truth.n_pixels) == (1, 6)
    np.testing.assert_array_equal(truth.positives, range(6))


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[2:6, 2:6] = True
    only_small, only_large = np.zeros((2, 6, 6))
    only_small[0, 0] = 1.0
    only_large[2:6, 2:6] = 1.0
    truth = prepare_truth([mask])
    small, large = (pixel_metrics(one[np.newaxis], truth) for one in (only_small, only_large))
    assert small.aupro == pytest.approx(large.aupro)
    assert small.p_auroc < large.p_auroc


def test_constant_maps_give_the_area_under_the_diagonal():
    found = pixel_metrics(np.full((2, 5, 5), 3.0), prepare_truth([np.eye(5, dtype=bool)] * 2))
    assert found.aupro == pytest.approx(0.15)


def test_normal_images_dilute_the_false_positive_rate():
    rng = np.random.default_rng(3)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    one, quiet = rng.random((8, 8)) + 0.5 * mask, np.full((8, 8), -1.0)
    alone = pixel_metrics([one], prepare_truth([mask])).aupro
    beside = pixel_metrics([one, quiet], prepare_truth([mask, np.zeros_like(mask)])).aupro
    assert alone < beside < 1.0


def test_only_the_order_of_scores_matters():
    maps, masks = random_case(np.random.default_rng(4), 1000)
    truth = prepare_truth(masks)
    stretched = [np.exp(20.0 * one) for one in maps]
    assert pixel_metrics(stretched, truth) == pixel_metrics(maps, truth)


@pytest.mark.parametrize("limit", [0.0, -0.3, 1.01, float("nan")])
def test_a_limit_that_is_no_rate_is_refused(limit):
    with pytest.raises(FewShotError, match="above 0 and at most 1"):
        pixel_metrics(np.zeros((1, 2, 2)), prepare_truth([np.eye(2, dtype=bool)]), fpr_limit=limit)
