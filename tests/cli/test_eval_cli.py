"""``fewshot-ad eval`` with small methods of strangers: what is printed, written and resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = ("--query-limit", 3, "--set", "preprocess.size=64", "--seeds", 2, "--eval-size", 64)
NEAREST = ("--method", "strangers:NearestEdges", *SMALL)
SCALED = (
    "--method",
    "strangers:ScaledEdges",
    "--known",
    "synthetic:gear+washer",
    "--known-limit",
    2,
)


@pytest.fixture
def rows_of(tmp_path):
    def read(folder: Path = tmp_path / "out"):
        return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]

    return read


def test_a_run_prints_a_table_and_writes_rows_and_pictures(cli, tmp_path, rows_of):
    result = cli(
        "eval", *NEAREST, "--target-class", "screw", "--shots", "1,4", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert "drawn images" in first
    assert "--dataset" in first
    for name in ("I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AUPRO", "fit s"):
        assert name in "\n".join(rest)
    rows = rows_of()
    assert [(row["seed"], row["shots"]) for row in rows] == [(0, 1), (0, 4), (1, 1), (1, 4)]
    pictures = sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir())
    assert pictures == [
        f"synthetic-screw-strangers_NearestEdges-{shots}_shot-seed0.png" for shots in (1, 4)
    ]


def test_the_second_run_computes_nothing_and_shows_the_same(cli, tmp_path):
    arguments = ("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out", "--json")
    first = cli(*arguments)
    written = (tmp_path / "out" / "results.jsonl").read_bytes()
    second = cli(*arguments)
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == written
    assert "2 of 2 episodes" in second.stderr


def test_more_seeds_add_only_their_own_rows(cli, tmp_path, rows_of):
    arguments = ("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out")
    cli(*arguments)
    before = rows_of()
    result = cli(*arguments, "--seeds", 3)
    assert "2 of 3 episodes" in result.stdout
    assert rows_of()[:2] == before
    assert [row["seed"] for row in rows_of()] == [0, 1, 2]


def test_json_leaves_stdout_to_the_rows(cli, tmp_path, rows_of):
    result = cli("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == rows_of()
    assert "drawn images" in result.stderr


def test_quiet_prints_the_table_alone(cli, tmp_path):
    result = cli("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out", "--quiet")
    assert result.stdout.startswith("synthetic, training-free")
    assert result.stderr == ""


def test_tracks_are_in_tables_of_their_own(cli, tmp_path):
    result = cli(
        "eval", *NEAREST, *SCALED, "--target-class", "screw", "--target-class", "carpet",
        "--out", tmp_path / "out", "--no-overlays",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    titles = [line for line in result.stdout.splitlines() if line.startswith("synthetic, ")]
    assert ["training-free" in title for title in titles].count(True) == 1
    assert ["meta-trained" in title for title in titles].count(True) == 1
    assert result.stdout.count("mean of classes") == 2
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_class_under_test_is_never_known(cli, tmp_path, rows_of):
    known = "synthetic:gear+screw+washer"
    result = cli(
        "eval", *SCALED, *SMALL, "--known", known, "--target-class", "screw", "--out", tmp_path
    )
    assert result.exit_code == 2
    assert "screw" in result.stderr
    cli("eval", *SCALED, *SMALL, "--target-class", "screw", "--out", tmp_path / "out")
    assert rows_of()[0]["known"] == ["synthetic/gear", "synthetic/washer"]


def test_settings_reach_the_method_and_the_row(cli, tmp_path, rows_of):
    cli("eval", *NEAREST, "--set", "cell=16", "--target-class", "screw", "--out", tmp_path / "out")
    params = rows_of()[0]["params"]
    assert params["cell"] == 16
    assert params["preprocess"]["size"] == 64


@pytest.fixture
def unmasked(tmp_path):
    """A class whose defects have no masks, as a dataset for the command line."""
    root = tmp_path / "images"
    for split, kind in (("train", "good"), ("test", "good"), ("test", "dent")):
        folder = root / "plate" / split / kind
        folder.mkdir(parents=True)
        for index in range(3):
            pixels = np.random.default_rng([len(kind), index]).integers(0, 255, (40, 30, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return "--dataset", f"folder:{root}", "--target-class", "all", "--shots", 2


def test_empty_metrics_say_why(cli, tmp_path, unmasked):
    result = cli("eval", *NEAREST, *unmasked, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    reasons = [line for line in result.stdout.splitlines() if line.startswith("– ")]
    assert len(reasons) == 1
    assert "AUPRO" in reasons[0]
    assert "mask" in reasons[0]
    assert list((tmp_path / "out" / "overlays").iterdir())


def test_boxes_that_cannot_be_judged_say_why_and_are_not_tried_again(cli, tmp_path, unmasked):
    arguments = ("eval", *NEAREST, *unmasked, "--boxes", "--out", tmp_path / "out")
    assert "no boxes AP: a mask is missing" in cli(*arguments).stdout
    assert "2 of 2 episodes" in cli(*arguments).stdout


def test_an_interrupt_keeps_what_is_finished(cli, tmp_path, rows_of, monkeypatch):
    import strangers

    predict = strangers.NearestEdges.predict
    calls = []

    def interrupted(self, images):
        calls.append(len(images))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return predict(self, images)

    monkeypatch.setattr(strangers.NearestEdges, "predict", interrupted)
    arguments = ("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out")
    result = cli(*arguments)
    assert result.exit_code == 130
    assert [row["seed"] for row in rows_of()] == [0]
    monkeypatch.undo()
    assert "1 of 2 episodes" in cli(*arguments).stdout
    assert [row["seed"] for row in rows_of()] == [0, 1]


def test_boxes_are_judged_when_asked_for_and_only_then(cli, tmp_path, rows_of):
    arguments = ("eval", *NEAREST, "--target-class", "screw", "--out", tmp_path / "out")
    assert "boxes AP" not in cli(*arguments).stdout
    result = cli(*arguments, "--boxes")
    assert "synthetic/screw, strangers:NearestEdges, 4 shots: boxes AP at an" in result.stdout
    plain, boxed = rows_of()[:2], rows_of()[2:]
    assert [row["box_ap"] for row in plain] == [None, None]
    assert all(0 <= row["box_ap"] <= 1 for row in boxed)
    assert [row["i_auroc"] for row in plain] == [row["i_auroc"] for row in boxed]
    assert "2 of 2 episodes" in cli(*arguments, "--boxes").stdout


def test_kinds_of_defects_are_told_apart(cli):
    result = cli("kinds", "--target-class", "screw", "--per-kind", 3, "--seeds", 2, "--size", 64)
    assert "balanced accuracy" in result.stdout
    assert "a guess has 33.3" in result.stdout
    few = cli("kinds", "--target-class", "screw", "--per-kind", 99)
    assert few.exit_code == 2
    assert "give a smaller --per-kind" in few.stderr
