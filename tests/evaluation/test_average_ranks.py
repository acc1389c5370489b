"""Average ranks against ranks counted by hand, the critical difference against published values."""

import numpy as np
import pytest
from scipy.stats import chi2

from fewshot_ad.evaluation.average_ranks import average_ranks, critical_difference

# Nemenyi's q at 5 % for 2 to 10 methods: Demšar (2006), table 5(a).
PUBLISHED = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]


@pytest.mark.parametrize(("n_methods", "q"), [*enumerate(PUBLISHED, start=2)])
def test_the_critical_difference_is_the_published_one(n_methods, q):
    expected = q * np.sqrt(n_methods * (n_methods + 1) / (6 * 14))
    assert critical_difference(n_methods, 14) == pytest.approx(expected, abs=2e-3)


def some_scores(n_classes=10, n_methods=4, gap=0.1):
    draw = np.random.Generator(np.random.PCG64(0))
    return {
        f"m{m}": {
            (f"c{c}", s): float(-gap * m + draw.normal()) for c in range(n_classes) for s in (0, 1)
        }
        for m in range(n_methods)
    }


def counted_ranks(scores):
    classes = sorted({cell[0] for one in scores.values() for cell in one})
    totals = dict.fromkeys(scores, 0.0)
    for name in classes:
        means = {
            method: round(np.mean([v for cell, v in one.items() if cell[0] == name]), 9)
            for method, one in scores.items()
        }
        for method, mean in means.items():
            better = sum(other > mean for other in means.values())
            tied = sum(other == mean for other in means.values())
            totals[method] += better + (tied + 1) / 2
    return {method: total / len(classes) for method, total in totals.items()}


def test_ranks_and_the_friedman_test_are_those_of_the_definition():
    scores = some_scores()
    found = average_ranks(scores)
    expected = counted_ranks(scores)
    assert found.ranks == pytest.approx(expected)
    assert list(found.ranks.values()) == sorted(found.ranks.values())
    k, n = 4, 10
    squares = sum(rank**2 for rank in expected.values())
    statistic = 12 * n / (k * (k + 1)) * (squares - k * (k + 1) ** 2 / 4)
    assert found.friedman_p == pytest.approx(chi2.sf(statistic, k - 1))


def test_ties_share_a_rank():
    scores = {name: {(f"c{c}", 0): 0.5 for c in range(12)} for name in "abc"}
    found = average_ranks(scores)
    assert found.ranks == {"a": 2.0, "b": 2.0, "c": 2.0}
    assert found.friedman_p == 1.0
    assert found.cliques == (("a", "b", "c"),)


def test_cliques_are_the_longest_runs_closer_than_the_critical_difference():
    far = {f"m{m}": {(f"c{c}", 0): -float(m) for c in range(30)} for m in range(5)}
    found = average_ranks(far)
    assert found.critical_difference
    assert 1 < found.critical_difference < 2
    assert found.cliques == (("m0", "m1"), ("m1", "m2"), ("m2", "m3"), ("m3", "m4"))


def test_only_cells_that_all_have_decide():
    scores = some_scores(n_methods=3)
    del scores["m0"]["c0", 0]  # m0 keeps c0 by its other seed
    expected = dict(scores)
    for name in ("m1", "m2"):
        expected[name] = {cell: v for cell, v in scores[name].items() if cell != ("c0", 0)}
    assert average_ranks(scores).ranks == pytest.approx(counted_ranks(expected))


def test_a_method_without_most_cells_is_left_out_and_named():
    scores = some_scores(n_methods=3)
    scores["short"] = {("c0", 0): 9.0}
    found = average_ranks(scores)
    assert set(found.ranks) == {"m0", "m1", "m2"}
    assert "left out for missing cells: short" in found.notes


def test_what_cannot_be_said_is_told():
    assert "nothing to rank" in average_ranks({"a": {("c", 0): 1.0}}).notes[-1]
    assert "no class in common" in average_ranks({}).notes[-1]
    apart = average_ranks({"a": {("c", 0): 1.0}, "b": {("d", 0): 1.0}})
    assert "no class in common" in apart.notes[-1]
    few = average_ranks(some_scores(n_classes=3))
    assert few.critical_difference is None
    assert "too few" in few.notes[-1]
    assert "approximate" in average_ranks(some_scores(n_classes=7)).notes[-1]
