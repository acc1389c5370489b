import json


def test_defects_are_judged_by_their_size_whole_and_in_tiles(cli) -> None:
    small = (
        "sizes", "--target-class", "screw", "--method", "strangers:NearestEdges", "--shots", 2,
        "--query-limit", 4, "--set", "preprocess.size=32",
    )  # fmt: skip
    rows = json.loads(cli(*small, "--json").stdout)
    assert [row["tiles"] for row in rows] == 4 * [1] + 4 * [2]
    assert [row["n_anomalous"] for row in rows] == 8 * [1]
    areas = [row["largest"] for row in rows[:4]]
    assert areas == sorted(areas)
    assert [row["largest"] for row in rows[4:]] == areas
    assert all(0 <= row["p_auroc"] <= 1 for row in rows)
    assert "x2" in cli(*small).stdout


def test_what_cannot_be_cut_is_refused(cli) -> None:
    result = cli("sizes", "--target-class", "screw", "--method", "resad")
    assert result.exit_code == 2
    assert "tiles are for methods that learn from the support alone" in result.stderr


def test_a_method_that_keeps_what_it_learns_can_be_cut(cli) -> None:
    small = (
        "sizes", "--target-class", "screw", "--shots", 1, "--query-limit", 2, "--backbone",
        "random:tiny", "--set", "preprocess.size=32",
    )  # fmt: skip
    assert len(json.loads(cli(*small, "--json").stdout)) == 2 * 2
