import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from statistics import fmean, stdev

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import Cell, ResultRow, append, finished, load, row_key
from fewshot_ad.evaluation.summary import summarise


def row(**changes):
    values = {
        "dataset": "painted",
        "target_class": "plate",
        "method": "resad",
        "params": {"steps": 3, "preprocess": {"mean": [0.5, 0.5, 0.5]}, "device": "cpu"},
        "recipe": 1,
        "track": "meta_trained",
        "backbone": "tiny",
        "weights_digest": "abc",
        "known": ("painted/disc", "painted/rod"),
        "known_digest": "def",
        "shots": 2,
        "full_shot": False,
        "anomalous_shots": 0,
        "seed": 0,
        "manifest": "drawn",
        "support_digest": "s",
        "query_digest": "q",
        "eval_size": 256,
        "i_auroc": 0.75,
        "p_auroc": None,
        "reasons": {"p_auroc": "a mask is missing for 1 image"},
        "n_normal": 3,
        "n_anomalous": 4,
        "n_missing_masks": 1,
        "fit_seconds": 0.5,
        "predict_seconds_per_image": 0.25,
        "metric_seconds": 0.125,
        "peak_memory_mb": 100.0,
        "peak_gpu_memory_mb": None,
        "device": "cpu",
        "package_version": "0.1.0",
        "git_commit": None,
        "time": "2026-01-01T00:00:00+00:00",
    }
    return ResultRow(**{**values, **changes})


def test_what_is_appended_is_loaded(tmp_path):
    path = tmp_path / "new folder" / "results.jsonl"
    rows = [row(), row(seed=1, eval_size="native"), row(track="batched", known=())]
    for each in rows:
        append(path, each)
    assert load(path) == rows
    assert path.read_bytes().count(b"\n") == 3
    assert finished(path) == {row_key(each) for each in rows}


def test_the_key_is_that_of_the_cell_alone():
    same = row(i_auroc=0.1, fit_seconds=9.0, time="later", git_commit="f00", device="cuda")
    assert row_key(same) == row_key(row())
    assert row_key(row(params={**row().params, "device": "cuda"})) == row_key(row())
    different = {
        "params": {"steps": 4},
        "known": ("a/b",),
        "eval_size": "native",
        "full_shot": True,
        "track": "batched",
        "extra": {"variant": "a"},
    }
    for each in fields(Cell):
        old = getattr(row(), each.name)
        new = different.get(each.name, old + 1 if isinstance(old, int) else f"{old} other")
        assert row_key(row(**{each.name: new})) != row_key(row()), each.name


def test_a_folder_of_weights_makes_no_other_row_unless_nothing_else_tells_the_weights():
    params = {**row().params, "weights_dir": None}
    moved = {**params, "weights_dir": "elsewhere"}
    for digest, expected in (("0123", True), (None, False)):
        rows = [row(params=each, weights_digest=digest) for each in (params, moved)]
        assert (row_key(rows[0]) == row_key(rows[1])) is expected


def test_a_kill_between_or_within_writes_loses_only_the_torn_line(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, row())
    with path.open("ab") as file:
        file.write(path.read_bytes()[:40])
    with pytest.warns(UserWarning, match="last line is torn"):
        assert load(path) == [row()]
    append(path, row(seed=1))
    assert load(path) == [row(), row(seed=1)]


def test_a_file_that_is_torn_from_the_first_byte_is_mended(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"form')
    append(path, row())
    assert load(path) == [row()]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, row())
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert load(path) == [row()]
    append(path, row(seed=1))
    assert load(path) == [row(), row(seed=1)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append(path, row())
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:20]))
    with pytest.raises(FewShotError, match="No space left"):
        append(path, row(seed=1))
    assert path.read_bytes() == before


def test_several_writers_may_append_to_one_file(tmp_path):
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(4) as pool:  # each opens the file anew, so the lock is put to the test
        list(pool.map(lambda seed: append(path, row(seed=seed)), range(40)))
    assert sorted(each.seed for each in load(path)) == [*range(40)]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda values: "{", "line 2: not JSON"),
        (lambda values: "[1]", "line 2: not a result row"),
        (lambda values: json.dumps({**values, "format": 99}), "line 2: has result format 99"),
        (lambda values: json.dumps({**values, "color": 1}), "line 2: .*unknown field 'color'"),
        (
            lambda values: json.dumps({k: v for k, v in values.items() if k != "seed"}),
            "line 2: .*missing field 'seed'",
        ),
    ],
)
def test_a_faulty_line_is_named(tmp_path, edit, message):
    path = tmp_path / "results.jsonl"
    append(path, row())
    values = json.loads(path.read_text())
    path.write_text(f"{json.dumps(values)}\n{edit(values)}\n")
    with pytest.raises(FewShotError, match=message):
        load(path)


def test_files_that_cannot_be_used_are_named(tmp_path):
    assert finished(tmp_path / "none.jsonl") == set()
    with pytest.raises(FewShotError, match="cannot read results"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(FewShotError, match="cannot write results"):
        append(tmp_path, row())


def test_classes_are_averaged_before_seeds():
    table = {(c, s): (c + 1) / 8 + s / 16 for c in range(3) for s in range(4)}
    rows = [row(target_class=f"c{c}", seed=s, i_auroc=v) for (c, s), v in table.items()]
    mean, *classes = summarise(rows)
    per_seed = [fmean(table[c, s] for c in range(3)) for s in range(4)]
    assert mean.target_class is None
    assert mean.classes == ("c0", "c1", "c2")
    assert mean.metrics["i_auroc"].mean == pytest.approx(fmean(per_seed))
    assert mean.metrics["i_auroc"].std == pytest.approx(stdev(per_seed))
    assert mean.metrics["i_auroc"].n_seeds == 4
    assert mean.metrics["p_auroc"] is None
    assert mean.seconds["fit_seconds"] == 0.5
    assert [line.target_class for line in classes] == ["c0", "c1", "c2"]
    assert classes[1].metrics["i_auroc"].mean == pytest.approx(fmean(table[1, s] for s in range(4)))


def test_one_seed_has_no_deviation():
    mean, _ = summarise([row()])
    assert (mean.metrics["i_auroc"].std, mean.metrics["i_auroc"].n_seeds) == (None, 1)


def test_a_seed_that_lacks_a_class_is_left_out_of_the_mean_over_classes():
    rows = [
        row(target_class="a", seed=0, i_auroc=0.5),
        row(target_class="b", seed=0, i_auroc=0.75),
        row(target_class="a", seed=1, i_auroc=1.0),
    ]
    mean, a, _ = summarise(rows)
    assert (mean.metrics["i_auroc"].mean, mean.metrics["i_auroc"].n_seeds) == (0.625, 1)
    assert (a.metrics["i_auroc"].mean, a.metrics["i_auroc"].n_seeds) == (0.75, 2)


def test_a_metric_that_one_class_lacks_has_no_mean_over_classes():
    mean, *_ = summarise([row(target_class="a"), row(target_class="b", i_auroc=None)])
    assert mean.metrics["i_auroc"] is None


def test_tracks_are_never_ranked_together():
    rows = [
        row(method="a", i_auroc=0.5),
        row(method="b", i_auroc=0.75),
        row(method="c", i_auroc=0.25, track="training_free"),
        row(method="d", i_auroc=0.75, shots=4),
        row(method="e", i_auroc=None),
    ]
    ranks = {line.method: line.rank for line in summarise(rows) if line.target_class is None}
    assert ranks == {"a": 2, "b": 1, "c": 1, "d": 1, "e": None}


def test_configurations_stay_apart_and_targets_together():
    base = row(target_class="plate", known=("painted/disc",), known_digest="1")
    turn = row(target_class="disc", known=("painted/plate",), known_digest="2")
    assert len([ln for ln in summarise([base, turn]) if ln.target_class is None]) == 1
    for change in (
        {"params": {"steps": 9}},
        {"known": ("folder/nut",)},
        {"weights_digest": "other"},
        {"extra": {"variant": "x"}},
        {"eval_size": "native"},
        {"manifest": "published"},
    ):
        lines = summarise([base, replace(turn, **change)])
        assert len([line for line in lines if line.target_class is None]) == 2, change


def test_full_shot_is_one_column_whatever_the_counts():
    rows = [
        row(target_class="a", shots=30, full_shot=True),
        row(target_class="b", shots=50, full_shot=True),
    ]
    mean, *_ = summarise(rows)
    assert (mean.shots, mean.classes) == ("full", ("a", "b"))


def test_of_two_rows_of_one_cell_the_later_counts():
    mean, _ = summarise([row(i_auroc=0.5), row(i_auroc=1.0)])
    assert mean.metrics["i_auroc"].mean == 1.0
