"""``fewshot-ad eval --workers``: the rows of one process, from several."""

import json
from multiprocessing import active_children
from pathlib import Path

import pytest

from fewshot_ad.cli import INTERRUPTED, workers
from fewshot_ad.evaluation.results import load

TARGETS = ("--target-class", "screw", "--target-class", "gear", "--target-class", "grid")
SMALL = ("--query-limit", 2, "--set", "preprocess.size=32", "--seeds", 1, "--eval-size", 32)
OF_THE_MOMENT = {
    "fit_seconds",
    "predict_seconds_per_image",
    "metric_seconds",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "time",
}


def lasting(text: str) -> list[dict[str, object]]:
    return [
        {name: value for name, value in row.items() if name not in OF_THE_MOMENT}
        for row in json.loads(text)
    ]


def test_two_workers_give_the_rows_of_one_process(cli, tmp_path: Path) -> None:
    shared = ("eval", "--method", "strangers:NearestEdges", *TARGETS, *SMALL, "--json", "--out")
    alone = cli(*shared, tmp_path / "alone")
    together = cli(*shared, tmp_path / "together", "--workers", 2)
    assert lasting(together.stdout) == lasting(alone.stdout)
    assert len(load(tmp_path / "together" / "results.jsonl")) == 3
    pictures = [
        sorted(p.name for p in tmp_path.glob(f"{n}/overlays/*")) for n in ("alone", "together")
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 3
    again = cli(*shared, tmp_path / "together", "--workers", 3)
    assert json.loads(again.stdout) == json.loads(together.stdout)


def test_a_killed_worker_is_told_and_loses_nothing_finished(cli, tmp_path: Path) -> None:
    mortal = ("eval", "--method", "strangers:MortalEdges", "--set", "victim=grid", *SMALL)
    folder = ("--out", tmp_path / "out", "--json")
    first = cli(*mortal, *TARGETS[:2], *folder)
    killed = cli(*mortal, *TARGETS, *folder, "--workers", 2)
    assert killed.exit_code == 2
    assert "a worker process was killed" in killed.stderr
    assert "--workers" in killed.stderr
    assert "Traceback" not in killed.stderr
    assert json.loads(first.stdout)[0]["time"] in [
        row.time for row in load(tmp_path / "out" / "results.jsonl")
    ]


def test_an_interrupt_leaves_no_worker_behind(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_collected", interrupted)
    result = cli(
        "eval", "--method", "strangers:NearestEdges", *TARGETS, *SMALL, "--workers", 2,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == INTERRUPTED
    assert not active_children()


def test_no_workers_are_refused(cli, tmp_path: Path) -> None:
    result = cli("eval", *TARGETS, "--workers", 0, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--workers" in result.stderr
    assert not (tmp_path / "out").exists()
