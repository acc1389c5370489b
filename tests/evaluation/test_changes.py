"""What changed between two runs."""

from dataclasses import replace

import pytest
from stored_rows import ROW, some_rows

from fewshot_ad.evaluation.changes import changes
from fewshot_ad.evaluation.results import row_key


def test_a_run_equals_itself():
    found = changes(some_rows(), some_rows())
    assert len(found.pairs) == len(some_rows())
    assert not found.moved
    assert not found.only_first
    assert not found.only_second
    assert "equal in all 7 classes" in found.by_method["m0"]["i_auroc"].verdict


def test_what_comes_and_goes_is_listed():
    rows = some_rows()
    new = replace(ROW, method="new")
    found = changes(rows, [*rows[3:], new])
    assert [row_key(row) for row in found.only_first] == [row_key(row) for row in rows[:3]]
    assert found.only_second == (new,)


def test_movements_are_measured_and_tested():
    rows = some_rows()
    better = [replace(r, i_auroc=(r.i_auroc or 0) + 0.01) if r.method == "m1" else r for r in rows]
    found = changes(rows, better)
    assert {pair.first.method for pair in found.moved} == {"m1"}
    assert all(pair.moved == {"i_auroc": pytest.approx(0.01)} for pair in found.moved)
    moved = found.by_method["m1"]["i_auroc"]
    assert moved.difference
    assert moved.difference.mean == pytest.approx(0.01)
    assert moved.is_significant
    assert moved.p == pytest.approx(2 / 2**7)
    assert moved.unit == "class"
    assert not found.by_method["m0"]["i_auroc"].is_significant


def test_the_largest_movement_comes_first():
    rows = [replace(ROW, seed=seed) for seed in range(3)]
    moved = [
        replace(row, aupro=0.3 + shift) for row, shift in zip(rows, (0.01, -0.2, 0.1), strict=True)
    ]
    found = changes(rows, moved)
    assert [pair.first.seed for pair in found.moved] == [1, 2, 0]


def test_another_parameter_or_other_weights_make_another_cell_that_is_still_matched():
    other = replace(ROW, params={"k": 2, "device": "cuda"}, weights_digest="1", i_auroc=0.8)
    (pair,) = changes([ROW], [other]).pairs
    assert pair.changed == ("k: 1 -> 2", "weights_digest: 0 -> 1")
    assert pair.moved == {"i_auroc": pytest.approx(-0.1)}


def test_other_known_classes_are_named():
    first = replace(ROW, known=("a/x", "a/y"), known_digest="1")
    second = replace(ROW, known=("a/y", "a/z"), known_digest="2")
    (pair,) = changes([first], [second]).pairs
    assert pair.changed == ("known: +a/z, -a/x", "known_digest differs")


def test_p_is_corrected_for_all_that_was_tested():
    rows = some_rows(methods=2)
    better = [replace(r, i_auroc=(r.i_auroc or 0) + 0.01, aupro=0.31) for r in rows]
    found = changes(rows, better).by_method
    tested = [pair for metrics in found.values() for pair in metrics.values() if pair.p is not None]
    assert len(tested) == 4
    assert [pair.p_adjusted for pair in tested] == [pytest.approx(4 * 2 / 2**7)] * 4


def test_nothing_is_guessed_where_several_fit():
    others = [replace(ROW, params={"k": k}) for k in (2, 3)]
    found = changes([ROW], others)
    assert not found.pairs
    assert len(found.only_second) == 2


def test_where_it_was_computed_is_told():
    found = changes([ROW], [replace(ROW, git_commit="abc", device="cuda")])
    assert found.origins == {"git_commit": (("None", "abc"),), "device": (("cpu", "cuda"),)}


def test_an_empty_metric_moves_nothing():
    found = changes([ROW], [replace(ROW, aupro=None)])
    assert not found.moved
    assert found.by_method["patchcore"]["aupro"].difference is None
    assert "no cell in common" in found.by_method["patchcore"]["aupro"].verdict
