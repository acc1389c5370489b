"""P-values, thresholds, tails and promises, against slow definitions and simulations."""

import numpy as np
import pytest
from scipy.stats import genpareto

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.thresholds import (
    Calibration,
    Rule,
    conformal_p_value,
    conformal_threshold,
    fewest_for,
    fit_tail,
    least_rate,
    promise,
    standing_out,
)


def calibration(n, source="leave_one_out"):
    return Calibration(source, tuple(range(n)), tuple(range(n)), 0.0)


def test_a_p_value_is_the_rank_among_the_normals_and_the_image_itself():
    scores = (3.0, 1.0, 2.0)
    assert [conformal_p_value(s, scores) for s in (4, 3, 2.5, 1, 0)] == [0.25, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("n", [1, 2, 4, 9, 19, 99])
def test_the_threshold_decides_as_the_p_value_does(n):
    generator = np.random.default_rng(n)
    scores = generator.integers(0, 12, n).astype(float).tolist()  # with ties
    for rate in [least_rate(n), 0.29, 0.5, 0.05, 0.1, 0.9]:
        if rate < least_rate(n):
            continue
        threshold = conformal_threshold(scores, rate)
        for score in np.arange(-0.5, 13, 0.5):
            assert (score > threshold) == (conformal_p_value(score, scores) <= rate + 1e-12)


def test_held_out_normals_keep_their_promise_in_the_mean():
    generator = np.random.default_rng(0)
    draws = generator.gamma(2, size=(20_000, 10))
    rate = np.mean([conformal_p_value(row[0], row[1:].tolist()) <= 0.2 for row in draws])
    assert rate == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("n", [2, 4, 9])
def test_leave_one_out_keeps_its_bound_for_distances_to_the_nearest(n):
    """At the least rate the proven bound is that rate itself."""
    generator = np.random.default_rng(n)
    alarms = 0
    for points in generator.standard_normal((4000, n + 1, 2)):
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
        new = gaps[n, :n].min()
        left_out = [np.delete(gaps[i, :n], i).min() for i in range(n)]
        alarms += conformal_p_value(new, left_out) <= least_rate(n) + 1e-12
    assert alarms / 4000 <= 1 / (n + 1) + 0.02
    assert alarms / 4000 > 0.3 / (n + 1)


def test_the_fewest_normals_for_a_rate():
    assert [fewest_for(rate) for rate in (0.5, 0.2, 0.01, 0.05, 0.3)] == [1, 4, 99, 19, 3]
    for rate in (0.5, 0.2, 0.01, 0.05, 0.3, 0.07):
        n = fewest_for(rate)
        assert least_rate(n) <= rate + 1e-12 < least_rate(n - 1) if n > 1 else True


def test_a_rate_out_of_reach_is_replaced_by_the_least():
    assert Rule(far=0.01).threshold((1.0, 5.0, 3.0), ()) == 5.0
    assert Rule(far=0.5).threshold((1.0, 5.0, 3.0), ()) == 3.0


@pytest.mark.parametrize("far", [0, 1, -0.1, 2, float("nan")])
def test_a_rate_must_lie_between_0_and_1(far):
    with pytest.raises(FewShotError, match="false-alarm rate"):
        Rule(far)


def test_the_tail_of_a_known_law_is_found():
    scores = genpareto.rvs(0.2, scale=2.0, size=20_000, random_state=np.random.default_rng(1))
    tail = fit_tail(scores.tolist())
    for rate in (0.1, 0.01, 0.001):
        truth = genpareto.isf(rate, 0.2, scale=2.0)
        assert tail.level(rate) == pytest.approx(truth, rel=0.12)
        assert tail.chance_above(truth) == pytest.approx(rate, rel=0.3)


def test_the_tail_by_hand():
    """Excesses 1, 2, 3, 6 over 10: l1 = 3, l2 = 4/3, so the shape is 0 at least, the scale 3."""
    tail = fit_tail([*range(-5, 11), 11.0, 12.0, 13.0, 16.0][-13:])
    assert tail.start == 10
    assert tail.share == pytest.approx(4 / 13)
    first, second = 3.0, 2 * (0 * 1 + 2 / 3 + 2 * 3 / 3 + 6) / 4 - 3
    assert tail.shape == pytest.approx(max(0, 2 - first / second))
    assert tail.scale == pytest.approx(first * (1 - tail.shape))


def test_a_tail_falls_and_goes_back():
    tail = fit_tail(np.random.default_rng(2).gamma(3, size=40).tolist())
    for rate in (0.2, 0.05, 0.001):
        assert tail.chance_above(tail.level(rate)) == pytest.approx(rate)
    assert tail.chance_above(-9.0) == tail.share
    assert Rule(0.001, tail=True).threshold([1.0] * 9, ()) >= 1.0  # all scores alike


def test_too_few_scores_have_no_tail():
    with pytest.raises(FewShotError, match="8 or more"):
        fit_tail([1.0] * 7)


def test_promises_say_what_they_rest_on():
    assert "4 normals cannot promise 1 %" in promise(calibration(4), Rule(0.01))
    assert "20 %" in promise(calibration(4), Rule(0.01))
    assert "99 normals could" in promise(calibration(4), Rule(0.01))
    assert "30 % at most, where" in promise(calibration(9), Rule(0.2))
    assert "nothing was fitted on" in promise(calibration(99, "held_out"), Rule(0.01))
    assert "promises nothing" in promise(calibration(16, "copies"), Rule(0.2))
    assert "extrapolated" in promise(calibration(9), Rule(0.01, tail=True))
    assert "at most" not in promise(calibration(99, "folds"), Rule(0.01))


def test_what_stands_out():
    assert standing_out([1.0, 1.1, 0.9, 3.0]) == [3]
    assert standing_out([1.0, 1.1, 0.9, 1.2]) == []
    assert standing_out([1.0, 9.0]) == []
    assert standing_out([2.0, 2.0, 2.0, 2.0]) == []
    assert standing_out([0.0, 0.0, 0.0, 1.0]) == [3]
