"""The rank test against counting pairs and permutations, and the watch that tells once."""

from itertools import combinations

import numpy as np
import pytest

from fewshot_ad.inspection.drift import FEWEST, DriftWatch, drift_p_value


def slow_p_value(recent, calibration):
    """Share of all splits whose U statistic is as far from its mean."""
    pooled, n = [*recent, *calibration], len(recent)

    def distance(chosen):
        mine = [pooled[i] for i in chosen]
        rest = [v for i, v in enumerate(pooled) if i not in chosen]
        u = sum((a > b) + 0.5 * (a == b) for a in mine for b in rest)
        return abs(u - n * len(rest) / 2)

    splits = [distance(chosen) for chosen in combinations(range(len(pooled)), n)]
    return np.mean([each >= distance(tuple(range(n))) - 1e-9 for each in splits])


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_that_of_all_splits(seed):
    generator = np.random.default_rng(seed)
    recent = (generator.normal(size=5) + seed / 2).tolist()
    calibration = generator.normal(size=4).tolist()
    assert drift_p_value(recent, calibration) == pytest.approx(slow_p_value(recent, calibration))


def test_a_shift_is_told_once_and_again_after_it_went():
    generator = np.random.default_rng(0)
    watch = DriftWatch(generator.normal(size=16).tolist(), window=20)
    shifts = [0] * 40 + [4] * 60 + [0] * 60 + [4] * 60
    told = [i for i, shift in enumerate(shifts) if watch.add(generator.normal() + shift)]
    assert len(told) == 2
    assert 40 < told[0] < 60
    assert 160 < told[1] < 180


def test_normals_and_a_few_defects_are_no_drift():
    generator = np.random.default_rng(1)
    watch = DriftWatch(generator.normal(size=8).tolist())
    assert not any(watch.add(generator.normal() + 9 * (i % 10 == 0)) for i in range(400))


def test_few_scores_say_nothing():
    watch = DriftWatch([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] * 9)
    assert all(watch.add(99.0) is None for _ in range(FEWEST - 1))
    assert "has changed" in (watch.add(99.0) or "")
