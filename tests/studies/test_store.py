import json
import sqlite3
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow, append, row_key
from fewshot_ad.studies.store import (
    Failure,
    Store,
    load_evidence,
    load_failures,
    load_rows,
    load_studies,
)
from fewshot_ad.studies.store_files import FORMAT

ROW = ResultRow(
    dataset="synthetic", target_class="screw", method="patchcore", params={"k": 1}, recipe=1,
    track="training_free", backbone="tiny", weights_digest="0", known=("a/b", "a/c"),
    known_digest="d", shots=4, full_shot=False, anomalous_shots=0, seed=0, manifest="drawn",
    support_digest="s", query_digest="q", eval_size="native", i_auroc=0.1 + 0.2, aupro=None,
    reasons={"aupro": "no masks"}, n_normal=24, n_anomalous=24, n_missing_masks=0, fit_seconds=0.5,
    predict_seconds_per_image=0.01, metric_seconds=0.25, peak_memory_mb=1.0,
    peak_gpu_memory_mb=None, device="cpu", package_version="0", git_commit=None, time="now",
)  # fmt: skip
FAILURE = Failure(
    cell="c", method="patchcore", dataset="synthetic", target_class="screw", known=None, shots=4,
    seed=0, reason="memory ran out",
)  # fmt: skip


def saved(store: Store, row: ResultRow, code: str = "v1", evidence: bytes | None = None) -> None:
    store.save(row, cell="c", code=code, seconds=1.5, evidence=evidence)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder? #1" / "results.sqlite"


def test_rows_and_evidence_come_back_to_the_bit(path: Path) -> None:
    rows = [ROW, replace(ROW, seed=1, known=()), replace(ROW, seed=2)]
    with Store(path) as store:
        for row in rows:
            saved(store, row, evidence=b"\0\xff" if row.seed == 1 else None)
    assert load_rows(path) == load_rows(path.parent) == rows
    assert [load_evidence(path, row_key(row)) for row in rows] == [None, b"\0\xff", None]
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # one file, when all is out


def test_a_row_is_kept_once_and_other_code_replaces_it(path: Path) -> None:
    with Store(path) as store:
        saved(store, ROW, evidence=b"first")
        saved(store, replace(ROW, i_auroc=0.9), evidence=b"second")
        assert load_rows(path) == [ROW]
        assert load_evidence(path, row_key(ROW)) == b"first"
        newer = replace(ROW, i_auroc=0.7)
        saved(store, newer, code="v2")
        assert load_rows(path) == [newer]
        assert load_evidence(path, row_key(ROW)) is None
        assert store.finished("patchcore", "synthetic", "screw", "v1") == frozenset()
        for code in ("v2", None):
            assert store.finished("patchcore", "synthetic", "screw", code) == {row_key(ROW)}
        assert store.finished("patchcore", "synthetic", "gear", None) == frozenset()


def test_a_row_with_boxes_takes_the_place_of_one_without(path: Path) -> None:
    boxed = replace(ROW, box_ap=0.5)
    names = (ROW.method, ROW.dataset, ROW.target_class, "v1")
    with Store(path) as store:
        saved(store, ROW)
        assert store.finished(*names) == {row_key(ROW)}
        assert store.finished(*names, boxes=True) == frozenset()
        for row in (boxed, ROW):
            saved(store, row)
            assert load_rows(path) == [boxed]
        assert store.finished(*names, boxes=True) == {row_key(ROW)}


def test_failures_are_counted_until_the_cell_is_there(path: Path) -> None:
    with Store(path) as store:
        store.fail(replace(FAILURE, reason="killed"))
        store.fail(FAILURE)
        (failure,) = load_failures(path)
        assert (failure.times, failure.reason) == (2, "memory ran out")
        assert str(failure) == "patchcore on synthetic/screw, 4 shots, seed 0: memory ran out"
        saved(store, ROW)
        assert load_failures(path) == []


def test_studies_are_kept_in_the_order_of_their_last_run(path: Path) -> None:
    with Store(path) as store:
        for declared in ("title: one", "title: one"):
            store.note_study(declared)
    assert load_studies(path) == ["title: one"]


def test_lines_are_read_as_well_and_one_of_two_must_be_named(tmp_path: Path) -> None:
    lines = tmp_path / "results.jsonl"
    append(lines, ROW)
    assert load_rows(lines) == load_rows(tmp_path) == [ROW]
    assert load_evidence(tmp_path, row_key(ROW)) is None
    assert load_failures(tmp_path) == load_studies(tmp_path) == []
    with Store(tmp_path / "results.sqlite"):
        pass
    with pytest.raises(FewShotError, match="holds both"):
        load_rows(tmp_path)
    with pytest.raises(FewShotError, match="holds neither"):
        load_rows(tmp_path / "..")
    with pytest.raises(FewShotError, match="there is no store"):
        load_rows(tmp_path / "none.sqlite")


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    with Store(path) as store:
        saved(store, ROW)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    for use in (Store, load_rows):
        with pytest.raises(FewShotError, match=rf"has format {FORMAT + 1}, this version reads"):
            use(path)


@pytest.mark.parametrize("content", [b"a line\n" * 200, b"SQLite format 3\0" + b"\7" * 4080])
def test_a_file_that_is_no_store_is_left_alone(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for use in (Store, load_rows):
        with pytest.raises(FewShotError, match="is no store, or a damaged one") as caught:
            use(path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_an_empty_file_is_no_store_to_read(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with pytest.raises(FewShotError, match="is no store of result rows"):
        load_rows(path)


def test_a_damaged_row_is_named(path: Path) -> None:
    with Store(path) as store:
        saved(store, ROW)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE rows SET row = '{\"format\": 1}'")
    connection.commit()
    connection.close()
    with pytest.raises(FewShotError, match=f"row {row_key(ROW)}: not a result row: missing field"):
        load_rows(path)


def test_a_store_held_by_another_is_told_of(path: Path) -> None:
    with Store(path, timeout=0.1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FewShotError, match="another process has held the store"):
            saved(store, ROW)
        other.execute("COMMIT")
        other.close()
        saved(store, ROW)
    assert load_rows(path) == [ROW]


def test_a_full_disk_is_told_of_and_costs_no_earlier_row(path: Path) -> None:
    with Store(path) as store:
        saved(store, ROW)
        with store._engine.begin() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(FewShotError, match="is full; what was finished is kept"):
            saved(store, replace(ROW, seed=1), evidence=bytes(10**6))
    assert load_rows(path) == [ROW]


def test_a_place_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FewShotError, match="cannot use the store"):
        Store(tmp_path / "file" / "results.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(FewShotError, match="unable to open database file"):
        Store(tmp_path / "folder.sqlite")


WRITER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from fewshot_ad.evaluation.results import parse_row
from fewshot_ad.studies.store import Store
row = parse_row("here", sys.argv[2].encode())
with Store(Path(sys.argv[1])) as store:
    for seed in range(int(sys.argv[3]), 30):
        each = replace(row, seed=seed)
        store.save(each, cell=str(seed), code="v1", seconds=0.0, evidence=bytes(5000))
        print(seed, flush=True)
        if seed == int(sys.argv[4]):
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(path: Path, first: int, last: int) -> "subprocess.Popen[str]":
    line = json.dumps(asdict(ROW))
    command = [sys.executable, "-c", WRITER, str(path), line, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_new_store_and_a_kill_costs_nothing_that_was_saved(path: Path) -> None:
    processes = [writer(path, 0, 12), writer(path, 10, 99)]
    said = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [-9, 0]
    assert said[0][-1] == "12"
    assert sorted(row.seed for row in load_rows(path)) == list(range(30))
    assert load_evidence(path, row_key(replace(ROW, seed=12))) == bytes(5000)
