"""Who competes with whom."""

from dataclasses import replace

from stored_rows import ROW, some_rows

from fewshot_ad.report.entrants import leagues
from fewshot_ad.report.row_list import RowList


def labels(rows):
    return [[entrant.label for entrant in league.entrants] for league in leagues(rows)]


def test_class_shots_and_seed_are_no_entrants():
    rows = [ROW, replace(ROW, seed=1), replace(ROW, shots=1), replace(ROW, target_class="gear")]
    (league,) = leagues(rows)
    (entrant,) = league.entrants
    assert entrant.label == "patchcore"
    assert len(entrant.rows) == 4
    assert entrant.scores("i_auroc", 4).keys() == {
        ("synthetic/screw", ("4", 0)), ("synthetic/screw", ("4", 1)), ("synthetic/gear", ("4", 0)),
    }  # fmt: skip


def test_what_differs_in_track_or_rules_is_another_league():
    rows = [
        ROW, replace(ROW, track="batched"), replace(ROW, anomalous_shots=2),
        replace(ROW, manifest="winclip"), replace(ROW, eval_size="native"),
    ]  # fmt: skip
    assert len(leagues(rows)) == 5


def test_the_place_of_computation_is_no_setting():
    rows = [replace(ROW, params={"k": 1, "device": "cpu"}),
            replace(ROW, params={"k": 1, "device": "cuda"}, seed=1)]  # fmt: skip
    assert labels(rows) == [["patchcore"]]


def test_known_classes_of_the_own_dataset_need_no_name():
    own = replace(ROW, track="meta_trained", method="resad", known=("synthetic/a", "synthetic/b"))
    other = replace(own, target_class="gear", known=("synthetic/a", "synthetic/screw"))
    foreign = replace(own, known=("visa/candle",))
    assert labels([own, other]) == [["resad"]]
    assert labels([own, foreign]) == [["resad (known=own dataset)", "resad (known=visa)"]]


def test_the_later_of_two_rows_of_a_cell_counts():
    (league,) = leagues([ROW, replace(ROW, i_auroc=0.1)])
    assert [row.i_auroc for row in league.entrants[0].rows] == [0.1]


def test_four_shots_are_the_main_ones_unless_few_rows_have_them():
    (league,) = leagues(some_rows(shots=(1, 4, 8)))
    assert league.main_shots == 4
    assert league.shots == [1, 4, 8]
    (league,) = leagues(some_rows(shots=(1, 8)) + some_rows(shots=(4,), methods=1))
    assert league.main_shots == 8
    full = [replace(row, full_shot=True) for row in some_rows(shots=(99,))]
    (league,) = leagues(some_rows(shots=(1,)) + full)
    assert league.shots == [1, "full"]


def test_every_group_of_rows_has_one_anchor():
    found = leagues(some_rows() + some_rows(track="batched"))
    listed = RowList(found)
    anchors = [group.anchor for group in listed.groups]
    assert len(anchors) == len(set(anchors)) == 2 * 3 * 7 * 2
    group = next(
        g for g in listed.groups if g.anchor == listed.anchor(1, "m2", "synthetic/class3", 4)
    )
    assert (group.label, group.target, group.shots) == ("m2", "synthetic/class3", 4)
    assert [line.seed for line in group.lines] == [0, 1]
    assert listed.anchor(0, "m9", "synthetic/class3", 4) == ""
    assert listed.first_anchor(0, "m2", "synthetic", 4) == listed.anchor(
        0, "m2", "synthetic/class0", 4
    )
