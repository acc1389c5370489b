"""The ranking by counting against one that compares every score with every positive."""

import numpy as np
import pytest

from fewshot_ad.evaluation import counting
from fewshot_ad.evaluation.counting import rank_by_counting
from fewshot_ad.evaluation.ranking import rank

RNG = np.random.default_rng(0)
SMOOTH = RNG.normal(size=3000)
HUGE, TINY = np.finfo(np.float32).max, np.float32(1e-45)

CASES = {
    "smooth": SMOOTH,
    "float32": SMOOTH.astype(np.float32),
    "float16": SMOOTH.astype(np.float16),
    "many ties": RNG.integers(0, 40, 3000).astype(np.float32),
    "two values": RNG.integers(0, 2, 3000).astype(np.float32),
    "all equal": np.full(3000, 0.5, np.float32),
    "one outlier": np.append(SMOOTH[1:], 1e12).astype(np.float32),
    "both zeros": np.where(SMOOTH > 0, 0.0, -0.0).astype(np.float32),
    "range overflows": (np.sign(SMOOTH) * HUGE).astype(np.float32),
    "range nearly overflows": np.append(SMOOTH[1:], HUGE).astype(np.float32),
    "denormal range": (RNG.integers(0, 9, 3000) * TINY).astype(np.float32),
    "far from zero": (1e6 + SMOOTH).astype(np.float32),
    "float64 beyond float32": 1.0 + 1e-12 * SMOOTH,
}


def compared(scores, where, region_share):
    """The definition: every distinct score of a positive, counted by comparison."""
    is_positive = np.zeros(len(scores), bool)
    is_positive[where] = True
    negatives = scores[~is_positive]
    for step in sorted({*scores[where].tolist()}, reverse=True):
        at = scores[where] == step
        yield (
            at.sum(),
            region_share[at].sum(),
            (negatives == step).sum(),
            (negatives > step).sum(),
        )


def rows(ranking):
    return np.stack(
        [ranking.positives, ranking.region_shares, ranking.negatives, ranking.above], axis=1
    )


@pytest.mark.parametrize("ranked", [rank, rank_by_counting])
@pytest.mark.parametrize("n_positives", [1, 90, 2999])
@pytest.mark.parametrize("name", CASES)
def test_equals_comparing_everything(name, n_positives, ranked):
    scores = CASES[name]
    where = np.sort(np.random.default_rng(1).permutation(len(scores))[:n_positives])
    region_share = np.random.default_rng(2).random(n_positives)
    found = ranked(scores, where, region_share)
    expected = np.array(list(compared(scores, where, region_share)))
    np.testing.assert_array_equal(rows(found)[:, [0, 2, 3]], expected[:, [0, 2, 3]])
    np.testing.assert_allclose(rows(found)[:, 1], expected[:, 1], rtol=1e-12)
    assert found.n_negatives == len(scores) - n_positives


@pytest.mark.parametrize("at_once", [1, 7, 2999, 3000, 3001])
def test_parts_of_any_size_give_the_same(at_once, monkeypatch):
    where, region_share = np.arange(0, 3000, 31), np.ones(97)
    whole = rows(rank_by_counting(SMOOTH, where, region_share))
    monkeypatch.setattr(counting, "AT_ONCE", at_once)
    np.testing.assert_array_equal(rows(rank_by_counting(SMOOTH, where, region_share)), whole)


@pytest.mark.parametrize("most", [2, 64, 2**22])
def test_any_number_of_buckets_gives_the_same(most, monkeypatch):
    where, region_share = np.arange(0, 3000, 31), np.ones(97)
    whole = rows(rank(SMOOTH, where, region_share))
    monkeypatch.setattr(counting, "FEWEST", 1)
    monkeypatch.setattr(counting, "MOST", most)
    np.testing.assert_array_equal(rows(rank_by_counting(SMOOTH, where, region_share)), whole)


def test_few_scores_are_sorted(monkeypatch):
    """The point of counting: of a hundred thousand negatives, most are not even kept."""
    scores = np.random.default_rng(3).normal(size=100_000).astype(np.float32)
    sorted_ones = []
    among = counting.Steps.among

    def watched(steps, ordered, *rest):
        sorted_ones.append(len(ordered))
        return among(steps, ordered, *rest)

    monkeypatch.setattr(counting.Steps, "among", watched)
    rank_by_counting(scores, np.arange(1000), np.ones(1000))
    assert 1000 <= sorted_ones[0] < 20_000
