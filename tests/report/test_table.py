"""Tables from rows made by hand."""

import csv
import io
from dataclasses import replace
from statistics import mean, stdev

from stored_rows import ROW

from fewshot_ad.report.table import empty_metrics, grids, markdown, terminal_tables, to_csv


def test_percent_with_the_deviation_over_seeds():
    values = (0.90, 0.94, 0.95)
    (grid,) = grids(replace(ROW, seed=seed, i_auroc=value) for seed, value in enumerate(values))
    ((cells,),) = grid.blocks
    expected = f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"
    assert dict(zip(grid.header, cells, strict=True))["I-AUROC"] == expected
    assert "3 seeds" in grid.title


def test_one_seed_has_no_deviation():
    (grid,) = grids([ROW])
    assert grid.blocks == (
        (("screw", "90.0", "80.0", "70.0", "60.0", "50.0", "40.0", "30.0", "0.5", "0.01", "0.25"),),
    )


def test_classes_come_first_and_their_mean_last():
    rows = [ROW, replace(ROW, target_class="carpet", i_auroc=0.7)]
    (grid,) = grids(rows)
    assert [block[0][0] for block in grid.blocks] == ["carpet", "screw", "mean of classes"]
    assert [block[0][1] for block in grid.blocks] == ["70.0", "90.0", "80.0"]


def test_tracks_do_not_share_a_table():
    other = replace(ROW, method="resad", track="meta_trained", known=("synthetic/gear",))
    titles = sorted(grid.title for grid in grids([ROW, other]))
    assert ["meta-trained" in title for title in titles] == [True, False]


def test_what_all_lines_share_stands_in_the_title():
    (grid,) = grids([ROW, replace(ROW, shots=1)])
    assert "method: patchcore" in grid.title
    assert grid.header[:2] == ("class", "shots")


def test_settings_in_which_a_method_differs_are_named():
    nested = replace(ROW, params={"k": 1, "preprocess": {"size": 128}})
    wider = replace(ROW, params={"k": 1, "preprocess": {"size": 256}}, i_auroc=0.95)
    (grid,) = grids([nested, wider])
    methods = [cells[grid.header.index("method")] for cells in grid.blocks[0]]
    assert methods == ["patchcore (preprocess.size=256)", "patchcore (preprocess.size=128)"]


def test_an_empty_metric_is_a_dash_with_its_reason():
    rows = [
        replace(
            ROW,
            seed=seed,
            p_auroc=None,
            aupro=None,
            reasons={"p_auroc": "no mask", "aupro": "no mask"},
        )
        for seed in (0, 1)
    ]
    (grid,) = grids(rows)
    assert dict(zip(grid.header, grid.blocks[0][0], strict=True))["P-AUROC"] == "–"
    assert empty_metrics(rows) == ["– synthetic/screw: no P-AUROC, AUPRO: no mask"]


def test_no_metric_at_all_still_makes_a_table():
    nothing = dict.fromkeys(ROW.metrics())
    (grid,) = grids([replace(ROW, **nothing)])
    assert grid.blocks[0][0][1:8] == ("–",) * 7


def test_markdown_has_a_row_per_line():
    lines = markdown([ROW, replace(ROW, target_class="carpet")]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1


def test_csv_keeps_full_precision_and_empty_values():
    rows = [replace(ROW, i_auroc=1 / 3, aupro=None)]
    mean_line, line = csv.DictReader(io.StringIO(to_csv(rows)))
    assert float(line["i_auroc_mean"]) == 1 / 3
    assert line["aupro_mean"] == line["aupro_std"] == ""
    assert mean_line["target_class"] == "mean of classes"


def test_terminal_tables_hold_every_cell():
    (table,) = terminal_tables([ROW])
    assert table.row_count == 1
    assert len(table.columns) == len(grids([ROW])[0].header)


def test_the_preset_stands_beside_a_method_that_trains():
    labels = [
        grid.title for row in (
            replace(ROW, preset="quick", params={"steps": 5}),
            replace(ROW, preset="quick", params={"k": 1}),
        ) for grid in grids([row])
    ]  # fmt: skip
    assert "method: patchcore, quick, " in labels[0]
    assert "method: patchcore, shots" in labels[1]
