import json
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.images import write_image

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
    rows = (out / "results.jsonl").read_text().splitlines()
    cells = [json.loads(row) for row in rows]
    found = {
        (row["target_class"], row["params"]["preprocess"]["size"], row["shots"], row["seed"])
        for row in cells
    }
    sizes, classes = (48, 64), ("gear", "screw")
    assert found == {
        (name, size, shots, seed)
        for name in classes for size in sizes for shots in (1, 2) for seed in (0, 1)
    }  # fmt: skip
    assert len(rows) == len(found)
    (out / "results.jsonl").write_text("\n".join(rows[:-3]) + "\n")  # as a kill would leave it
    again = cli("study", study, "--out", out)
    assert again.exit_code == 0
    kept = [json.loads(row) for row in (out / "results.jsonl").read_text().splitlines()]
    for before, after in zip(cells, kept, strict=True):
        assert [before[name] for name in ("i_auroc", "p_auroc", "aupro")] == [
            after[name] for name in ("i_auroc", "p_auroc", "aupro")
        ]
    assert "2 of 4 episodes" not in again.stdout  # of the last cell one was kept
    assert "1 of 4 episodes" in again.stdout


def test_two_folders_are_two_datasets(cli, study, tmp_path) -> None:
    for seed, name in enumerate(("north", "south")):
        paint_plates(tmp_path / name, seed)
    targets = "".join(f'  - dataset: "folder:{{data}}/{name}"\n' for name in ("north", "south"))
    before = "  - dataset: synthetic\n    classes: [screw, gear]\n"
    study.write_text(STUDY.replace(before, targets))
    assert cli("study", study, "--data", tmp_path, "--out", tmp_path / "out").exit_code == 0
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["target_class"] for row in rows} == {"plate"}
    assert len({row["query_digest"] for row in rows}) == 2


def test_a_dry_run_says_what_would_run_and_writes_nothing(cli, study, tmp_path) -> None:
    result = cli("study", study, "--out", tmp_path / "out", "--dry-run")
    assert "4 cells of 16 episodes" in result.stdout
    assert "strangers:NearestEdges on synthetic/gear" in result.stdout
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("synthetic", "folder:{data}/images", "say with --data"),
        ("[screw, gear]", "[screw, gaer]", "'gear'"),
        ("strangers:NearestEdges\n    set: {preprocess.size: 48}", "patchcor", "'patchcore'"),
        ("preprocess.size: 48", "cel: 3", "'cell'"),
        ("shots: [1, 2]", "shots: [0]", "at least 1"),
        ("shots: [1, 2]", "shots: [x]", "line 10: shots.0"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(
    before, after, words, cli, study, tmp_path
) -> None:
    study.write_text(STUDY.replace(before, after))
    result = cli("study", study, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()
