import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.evaluation.results import row_key
from fewshot_ad.image_files import write_image
from fewshot_ad.studies import cells
from fewshot_ad.studies.store import STORE, load_failures, load_rows, load_studies

STUDY = """\
title: Edges near and scaled
methods:
  - method: strangers:NearestEdges
    set: {preprocess.size: 64}
  - method: strangers:NearestEdges
    set: {preprocess.size: 48}
targets:
  - dataset: synthetic
    classes: [screw, gear]
shots: [1, 2]
seeds: 2
query_limit: 2
eval_size: 64
"""


def paint_plates(root: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for kind in ("train/good/0", "train/good/1", "test/good/0", "test/bad/0"):
        path = root / "plate" / f"{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_a_study_runs_every_cell_once_and_goes_on_where_it_was(cli, study, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli("study", study, "--out", out).exit_code == 0
    rows = load_rows(out)
    found = {
        (row.target_class, row.params["preprocess"]["size"], row.shots, row.seed) for row in rows
    }
    assert found == {
        (name, size, shots, seed)
        for name in ("gear", "screw") for size in (48, 64) for shots in (1, 2) for seed in (0, 1)
    }  # fmt: skip
    assert len(rows) == len(found)
    assert load_studies(out) == [STUDY]
    with sqlite3.connect(out / STORE) as connection:  # as a kill would leave it
        connection.execute("DELETE FROM rows WHERE seed = 1")
    connection.close()
    again = cli("study", study, "--out", out)
    assert again.exit_code == 0
    assert "8 of 16 rows were in" in again.stdout
    assert [row.metrics() for row in sorted(load_rows(out), key=row_key)] == [
        row.metrics() for row in sorted(rows, key=row_key)
    ]


def test_two_folders_are_two_datasets(cli, study, tmp_path) -> None:
    for seed, name in enumerate(("north", "south")):
        paint_plates(tmp_path / name, seed)
    targets = "".join(f'  - dataset: "folder:{{data}}/{name}"\n' for name in ("north", "south"))
    before = "  - dataset: synthetic\n    classes: [screw, gear]\n"
    study.write_text(STUDY.replace(before, targets))
    result = cli("study", study, "--data", tmp_path, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert {row["target_class"] for row in rows} == {"plate"}
    assert len({row["query_digest"] for row in rows}) == 2


def test_images_that_have_changed_make_no_second_row(cli, study, tmp_path) -> None:
    paint_plates(tmp_path / "plates", 0)
    before = "  - dataset: synthetic\n    classes: [screw, gear]\n"
    study.write_text(STUDY.replace(before, '  - dataset: "folder:{data}"\n'))
    command = ("study", study, "--data", tmp_path / "plates", "--out", tmp_path / "out")
    assert cli(*command).exit_code == 0
    rows = load_rows(tmp_path / "out")
    paint_plates(tmp_path / "plates", 1)
    cells.loaded.cache_clear()  # a later run is another process
    result = cli(*command)
    assert result.exit_code == 1
    assert "put them back, or give another --out" in result.stdout
    assert load_rows(tmp_path / "out") == rows
    paint_plates(tmp_path / "plates", 0)
    cells.loaded.cache_clear()
    assert cli(*command).exit_code == 0
    assert load_rows(tmp_path / "out") == rows


def test_a_dry_run_says_what_would_run_and_cost_and_writes_nothing(cli, study, tmp_path) -> None:
    dry = ("study", study, "--out", tmp_path / "out", "--dry-run")
    first = cli(*dry).stdout
    assert "cells: 16, of which 0 are finished; meta-trainings: 0" in first
    assert "time is unknown for strangers:NearestEdges" in first
    assert "memory: up to 0." in first
    assert "strangers:NearestEdges on synthetic/gear: 4 cells" in first
    assert not (tmp_path / "out").exists()
    cli("study", study, "--out", tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / STORE) as connection:
        connection.execute("UPDATE rows SET seconds = 3600 * images")
        connection.execute("DELETE FROM rows WHERE seed = 1 AND shots = 1")
    connection.close()
    later = cli(*dry).stdout
    assert "cells: 16, of which 12 are finished" in later
    assert "time: about 16.0 hours in one process" in later  # 4 cells of 4 images
    assert "8.0 hours with 2 workers" in cli(*dry, "--workers", 2).stdout


def test_holes_are_listed_and_the_exit_code_says_so(cli, study, tmp_path) -> None:
    study.write_text(
        STUDY.replace("NearestEdges\n    set: {", "UnluckyEdges\n    set: {victim: gear, ")
    )
    out = tmp_path / "out"
    result = cli("study", study, "--out", out)
    assert result.exit_code == 1
    hole = "strangers:UnluckyEdges on synthetic/gear, 1 shots, seed 0: RuntimeError: no luck today"
    assert f"no row: {hole}" in result.stdout
    assert {row.target_class for row in load_rows(out)} == {"screw"}
    assert len(load_failures(out)) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--address", "auto"), "add --engine ray"),
        (("--engine", "spark"), "spark"),
    ],
)
def test_an_engine_that_is_none_is_refused(options, words, cli, study, tmp_path) -> None:
    result = cli("study", study, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("synthetic", "folder:{data}/images", "say with --data"),
        ("[screw, gear]", "[screw, gaer]", "'gear'"),
        ("strangers:NearestEdges\n    set: {preprocess.size: 48}", "patchcor", "'patchcore'"),
        ("preprocess.size: 48", "cel: 3", "'cell'"),
        ("shots: [1, 2]", "shots: [0]", "at least 1"),
        ("shots: [1, 2]", "shots: [x]", "line 10: shots.0"),
        ("preprocess.size: 48", "backbone: resnet18", "line 5"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(
    before, after, words, cli, study, tmp_path
) -> None:
    study.write_text(STUDY.replace(before, after))
    result = cli("study", study, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_part_runs_first_and_counts_for_the_whole(cli, study, tmp_path) -> None:
    out = tmp_path / "out"
    part = cli("study", study, "--only", "shots=1", "--only", "class=gear", "--out", out)
    assert part.exit_code == 0
    assert {(row.target_class, row.shots) for row in load_rows(out)} == {("gear", 1)}
    whole = cli("study", study, "--out", out)
    assert "4 of 16 rows" in whole.stdout
    odd = cli("study", study, "--only", "shots=5", "--out", out)
    assert odd.exit_code == 2
    assert "--only shots=5: this study has 1, 2" in odd.stderr
