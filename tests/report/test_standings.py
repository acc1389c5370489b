"""Ranks, leaders and differences of a league."""

from dataclasses import replace
from statistics import mean

import pytest
from stored_rows import ROW, some_rows

from fewshot_ad.report.differences import comparisons, leader
from fewshot_ad.report.entrants import leagues
from fewshot_ad.report.row_list import RowList
from fewshot_ad.report.standings import heat, seconds_text, standings


def only_league(rows):
    (league,) = leagues(rows)
    return league


def table(rows, metric="i_auroc"):
    league = only_league(rows)
    return standings(league, 0, RowList([league]), metric)


def headline(rows):
    league = only_league(rows)
    return leader(league, "i_auroc", comparisons(league, "i_auroc")[0])


def test_lines_are_ranked_within_their_shots():
    lines = table(some_rows())
    assert [(line.label, line.shots.text, line.rank.text) for line in lines] == [
        (label, shots, rank)
        for shots in ("1", "4")
        for label, rank in (("m2", "1"), ("m1", "2"), ("m0", "3"))
    ]


def test_ties_share_a_rank():
    lines = table([replace(row, i_auroc=0.5) for row in some_rows(shots=(4,))])
    assert {line.rank.text for line in lines} == {"1"}


def test_a_mean_over_easier_classes_is_no_rival():
    rows = some_rows(shots=(4,))
    easy = [replace(r, method="easy", i_auroc=1.0) for r in rows if r.target_class == "class6"]
    lines = {line.label: line.rank.text for line in table([*rows, *easy])}
    assert lines == {"m2": "1", "m1": "2", "m0": "3", "easy": "–"}


def test_the_leader_is_ahead_on_the_cells_that_all_have():
    rows = some_rows(shots=(4,))
    lacking = ("class0", "class1")
    hard = [row for row in rows if row.method != "m2" or row.target_class not in lacking]
    found = headline(hard)
    assert found
    shared = [r.i_auroc for r in hard if r.method == "m2"]
    assert found.label == "m2"
    assert found.value == f"{100 * mean(shared):.1f}"


def test_who_lacks_most_cells_is_no_leader():
    few = [replace(ROW, method="lucky", target_class="class6", i_auroc=1.0)]
    found = headline(some_rows(shots=(4,)) + few)
    assert found
    assert found.label == "m2"
    assert "1 of 4 methods lack cells and are not compared." in found.sentences


def test_the_headline_says_what_the_pairs_say():
    found = headline(some_rows())
    assert found
    assert "significant difference over all cells, p = 0.047 after Holm" in found.sentences[1]
    (pair,) = [p for p in comparisons(only_league(some_rows()), "i_auroc")[0]
               if {p.first, p.second} == {"m2", "m1"}]  # fmt: skip
    assert pair.first == "m2"
    assert pair.p.value == pytest.approx(3 * 2 / 2**7)  # three pairs, seven classes all won
    assert pair.units == "7 won, 0 lost of 7 classes"


def test_of_very_many_methods_the_best_are_compared_and_the_others_named():
    pairs, note = comparisons(only_league(some_rows(methods=14, shots=(4,), seeds=1)), "i_auroc")
    assert len(pairs) == 12 * 11 / 2
    assert note.endswith(": m1, m0.")


def test_heat_has_a_cell_for_every_class_and_method():
    rows = [row for row in some_rows() if (row.method, row.target_class) != ("m1", "class3")]
    league = only_league(rows)
    found = heat(league, 0, RowList([league]), "i_auroc")
    assert set(found.labels) == {"m0", "m1", "m2"}
    assert found.labels[0] == "m2"
    lines = dict(found.lines)
    assert len(lines) == 7
    hole = lines["synthetic/class3"][found.labels.index("m1")]
    assert (hole.text, hole.anchor) == ("–", "")
    own = [r.i_auroc for r in rows if (r.method, r.target_class, r.shots) == ("m2", "class2", 4)]
    assert lines["synthetic/class2"][0].value == pytest.approx(mean(own))


@pytest.mark.parametrize(
    ("value", "text"), [(0.00123, "0.0012"), (1.26, "1.3"), (9.99, "10"), (1234.5, "1234")]
)
def test_seconds_are_short(value, text):
    assert seconds_text(value) == text
