"""``fewshot-ad rows``: counts, holes, and files that come back as they were."""

import csv
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from fewshot_ad.evaluation.results import ResultRow, load, row_key
from fewshot_ad.studies.store import Failure, Store

ROW = ResultRow(
    dataset="synthetic", target_class="screw", method="patchcore", params={"k": 1}, recipe=1,
    track="training_free", backbone=None, weights_digest="0", known=("a/b", "a/c"),
    known_digest="d", shots=4, full_shot=False, anomalous_shots=0, seed=0, manifest="drawn",
    support_digest="s", query_digest="q", eval_size="native", i_auroc=0.1 + 0.2, aupro=None,
    reasons={"aupro": "no, masks"}, n_normal=24, n_anomalous=24, n_missing_masks=0, fit_seconds=0.5,
    predict_seconds_per_image=0.01, metric_seconds=0.25, peak_memory_mb=1.0,
    peak_gpu_memory_mb=None, device="cpu", package_version="0", git_commit=None, time="now",
)  # fmt: skip
ROWS = [ROW, replace(ROW, seed=1, eval_size=256, backbone="tiny", aupro=0.25)]
FAILURE = Failure(
    cell="c", method="resad", dataset="synthetic", target_class="gear", known="synthetic:screw",
    shots=1, seed=0, reason="memory ran out",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "results.sqlite"
    with Store(path) as opened:
        for row in ROWS:
            opened.save(row, cell=str(row.seed), code="v", seconds=1.0)
        opened.fail(FAILURE)
    return path


def test_show_counts_rows_and_says_why_cells_failed(cli, store) -> None:
    result = cli("rows", "show", store)
    assert result.exit_code == 0
    lines = [line.strip("│┃ ").split() for line in result.stdout.splitlines() if "synth" in line]
    assert [[word for word in line if word != "│"] for line in lines[:2]] == [
        ["patchcore", "synthetic", "2"],
        ["resad", "synthetic", "0", "1"],
    ]
    assert (
        "resad on synthetic/gear after synthetic:screw, 1 shots, seed 0: memory ran out "
        "(tried 1 times" in result.stdout
    )


def test_lines_are_what_eval_writes(cli, store, tmp_path) -> None:
    out = tmp_path / "new" / "rows.jsonl"
    assert "2 rows" in cli("rows", "export", store.parent, "--out", out).stdout
    assert load(out) == ROWS


def test_a_table_has_every_field(cli, store, tmp_path) -> None:
    out = tmp_path / "rows.txt"
    assert cli("rows", "export", store, "--out", out, "--format", "csv").exit_code == 0
    with out.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["key", *(each.name for each in fields(ResultRow))]
    assert [each["key"] for each in read] == [row_key(row) for row in ROWS]
    assert float(read[0]["i_auroc"]) == ROW.i_auroc
    assert (read[0]["aupro"], read[0]["eval_size"]) == ("", "native")
    assert json.loads(read[0]["reasons"]) == ROW.reasons
    assert json.loads(read[0]["known"]) == list(ROW.known)


def test_parquet_keeps_types(cli, store, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "rows.parquet"
    assert cli("rows", "export", store, "--out", out).exit_code == 0
    read = parquet.read_table(out).to_pylist()
    plain = ("method", "backbone", "shots", "full_shot", "i_auroc", "aupro", "fit_seconds")
    assert [[each[name] for name in plain] for each in read] == [
        [asdict(row)[name] for name in plain] for row in ROWS
    ]
    assert [each["eval_size"] for each in read] == ["native", "256"]
    assert json.loads(read[0]["params"]) == ROW.params


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "{none}"), "there is no store"),
        (("export", "{store}", "--out", "{none}/rows.xlsx"), "'xlsx' is no format of rows"),
        (("export", "{store}", "--out", "{store}/rows.csv"), "cannot write"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, words, cli, store, tmp_path) -> None:
    filled = [each.format(store=store, none=tmp_path / "none.sqlite") for each in arguments]
    result = cli("rows", *filled)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("**/.*"))
