"""Intervals, tests and corrections against slow ones that are drawn and counted by hand."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, rankdata, wilcoxon

from fewshot_ad.evaluation.statistics import estimate, holm, paired, with_holm


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def some_scores(n_classes=8, n_seeds=3, seed=0, shift=0.0, noise=0.02):
    draw = generator(seed)
    of_class = generator(99).uniform(0.5, 0.9, n_classes)
    return {
        (f"class{c}", s): float(of_class[c] + shift + noise * draw.normal())
        for c in range(n_classes)
        for s in range(n_seeds)
    }


def slow_bootstrap(scores, n_resamples, seed):
    """Draw classes, then values of each, one by one."""
    draw = generator(seed)
    by_class = {}
    for (name, _), value in scores.items():
        by_class.setdefault(name, []).append(value)
    groups = list(by_class.values())
    means = []
    for _ in range(n_resamples):
        drawn = [groups[draw.integers(len(groups))] for _ in groups]
        means.append(np.mean([np.mean(draw.choice(values, len(values))) for values in drawn]))
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_is_that_of_resamples_drawn_one_by_one():
    scores = some_scores()
    del scores["class3", 1]  # a hole: its class has fewer values
    found = estimate(scores, n_resamples=4000)
    assert found
    np.testing.assert_allclose([found.low, found.high], slow_bootstrap(scores, 4000, 5), atol=0.006)
    assert found.low < found.mean < found.high
    assert (found.n_classes, found.n_values) == (8, 23)


def test_the_mean_is_over_classes_first():
    found = estimate({("a", 0): 1.0, ("a", 1): 0.0, ("a", 2): 0.5, ("b", 0): 0.9})
    assert found
    assert found.mean == pytest.approx((0.5 + 0.9) / 2)
    assert found.std == pytest.approx(np.std([0.5, 0.9], ddof=1))


def test_the_same_seed_gives_the_same_interval():
    scores = some_scores()
    turned = dict(reversed(scores.items()))
    assert estimate(scores) == estimate(turned)
    assert estimate(scores, seed=1) != estimate(scores)


def test_the_interval_covers_as_often_as_it_says():
    """Twenty classes drawn from a population of mean 0, so that the bootstrap is in its element."""
    covered = 0
    for trial in range(200):
        draw = generator(trial)
        of_class = draw.normal(size=20)
        scores = {(f"c{c:02}", s): of_class[c] + draw.normal() for c in range(20) for s in (0, 1)}
        found = estimate(scores, n_resamples=400)
        assert found
        covered += found.low <= 0.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({("a", 0): 0.5}, "no interval"),
        ({("a", 0): 0.5, ("a", 1): 0.6}, "one class"),
        ({(name, 0): 0.5 for name in "abcde"}, "over classes only"),
        ({(name, s): 0.5 for name in "abc" for s in (0, 1)}, "too narrow"),
    ],
)
def test_what_an_interval_lacks_is_said(scores, words):
    found = estimate(scores)
    assert found
    assert words in found.note
    assert (found.low is None) == (len(scores) == 1)


def test_nothing_has_no_estimate():
    assert estimate({}) is None


def exact_signed_rank(values):
    """All sign patterns, as in the definition of the exact test."""
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    sums = [ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(values))]
    centre = ranks.sum() / 2
    observed = abs(ranks[values > 0].sum() - centre)
    return np.mean(np.abs(np.array(sums) - centre) >= observed - 1e-9)


def test_classes_are_the_units_and_p_is_exact():
    first = some_scores(n_classes=9, seed=1)
    second = some_scores(n_classes=9, seed=2, shift=0.01)
    found = paired(first, second)
    assert (found.unit, found.n) == ("class", 9)
    values = np.array(
        [
            np.mean([second[f"class{c}", s] - first[f"class{c}", s] for s in range(3)])
            for c in range(9)
        ]
    )
    assert found.p == pytest.approx(exact_signed_rank(values))
    assert found.wins == (values > 0).sum()
    assert found.difference
    assert found.difference.mean == pytest.approx(values.mean())


def test_only_shared_cells_count():
    first, second = some_scores(), some_scores(shift=0.1, noise=0.0)
    extra = second | {("elsewhere", 0): -100.0}
    assert paired(first, extra) == paired(first, second)


def test_few_classes_fall_back_to_cells_and_say_so():
    found = paired(some_scores(n_classes=2, n_seeds=5), some_scores(2, 5, seed=3, shift=0.5))
    assert (found.unit, found.n, found.wins) == ("cell", 10, 10)
    assert found.is_significant
    assert "with care" in found.verdict


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (some_scores(), "equal in all 8 classes"),
        (some_scores(n_classes=3, n_seeds=1, shift=0.2), "too few pairs"),
        ({("elsewhere", 0): 1.0}, "no cell in common"),
        ({}, "no cell in common"),
    ],
)
def test_what_cannot_be_tested_is_said(second, words):
    found = paired(some_scores(), second)
    assert found.p is None
    assert not found.is_significant
    assert words in found.verdict


def test_rounding_is_no_difference():
    first = some_scores()
    second = {cell: value + 1e-13 for cell, value in first.items()}
    assert "equal" in paired(first, second).verdict


def test_ties_give_a_p():
    first = {(f"c{c}", 0): 0.0 for c in range(12)}
    second = {(f"c{c}", 0): [0.1, 0.1, -0.1, 0.0][c % 4] for c in range(12)}
    found = paired(first, second)
    wins_of_nine = binom.cdf(3, 9, 0.5)  # equal sizes: the test of ranks is that of signs
    assert found.p == pytest.approx(2 * wins_of_nine)


@given(st.lists(st.integers(-4, 4), min_size=8, max_size=10))
@settings(max_examples=30, deadline=None)
def test_ties_are_tested_as_by_all_sign_patterns(steps):
    second = {(f"c{c}", 0): step / 10 for c, step in enumerate(steps)}
    found = paired(dict.fromkeys(second, 0.0), second)
    values = np.array([step for step in steps if step])
    if len(values) < 6:
        assert found.p is None
        return
    ranks = rankdata(np.abs(values))
    signs = np.array(list(product([0, 1], repeat=len(values))))
    sums, observed = signs @ ranks, ranks[values > 0].sum()
    tail = min(np.mean(sums <= observed), np.mean(sums >= observed))
    assert found.p == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize("n", [30, 101])
def test_many_classes_agree_with_scipy(n):
    draw = generator(n)
    second = {(f"c{c:03}", 0): float(draw.normal() + 0.2) for c in range(n)}
    found = paired(dict.fromkeys(second, 0.0), second)
    assert found.p == pytest.approx(wilcoxon([*second.values()]).pvalue, rel=1e-6)


@given(st.lists(st.floats(0, 1), max_size=5))
@settings(max_examples=50, deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """A hypothesis falls if every set of hypotheses that holds it falls by Bonferroni."""
    numbers = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in combinations(numbers, size)]
    expected = [
        max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if place in s)
        for place in numbers
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_untested_pairs_are_not_counted_by_the_correction():
    same, better = some_scores(), some_scores(shift=0.1)
    pairs = with_holm([paired(same, same), paired(same, better), paired(better, same)])
    assert pairs[0].p_adjusted is None
    assert pairs[1].p is not None
    assert pairs[1].p_adjusted == pytest.approx(2 * pairs[1].p)
