"""Benchmarks take long; that they start, and that what they compare is sound, is quick to see."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fewshot_ad.data import load_dataset
from fewshot_ad.parts.search import nearest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted({path.stem for path in BENCHMARKS.glob("*.py")} - {"peer_worker", "peer_metrics"})


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_can_be_imported_and_says_what_it_does(name: str):
    assert script(name).__doc__


def test_make_bench_runs_scripts_that_are_there():
    run_all = script("run_all")
    for plan in (run_all.FULL, run_all.QUICK, run_all.PEERS):
        for command in (each for commands in plan.values() for each in commands):
            assert (BENCHMARKS / run_all.parts_of(command)[1]).exists()
    assert run_all.FULL.keys() == run_all.QUICK.keys()


def test_a_failing_benchmark_is_told_and_stops_no_other():
    assert "failed:" in script("run_all").outcome("nearest.py --no-such-option")


def test_rows_are_as_hard_as_features():
    draw_rows = script("nearest").draw_rows
    bank, queries = draw_rows(500, 128, 1), draw_rows(20, 128, 2)
    assert torch.equal(bank, draw_rows(500, 128, 1))
    assert 0.2 < (bank == 0).float().mean() < 0.6
    distances, _ = nearest(queries, bank)
    assert (distances < torch.cdist(queries, bank).mean()).all()


def test_as_many_drawn_images_as_asked_for_are_all_different():
    dataset = load_dataset("synthetic")
    samples = script("scaling").many(dataset, 1200)
    assert len({sample.path for sample in samples}) == 1200
    assert sum(sample.is_anomalous for sample in samples) == 300
    for sample in (samples[1], samples[-4], samples[-1]):
        mask = dataset.read_mask(sample)
        assert mask.any() == sample.is_anomalous
        assert dataset.read_image(sample).shape == (*mask.shape, 3)


def test_a_table_is_markdown():
    lines = script("measuring").table(("a", "b"), [(1, "x")]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", "| 1 | x |"]


def test_ranks_agree_by_rank_alone():
    rank_correlation = script("peers").rank_correlation
    scores = np.array([3.0, 1.0, 2.0])
    assert rank_correlation(scores, np.exp(scores)) == pytest.approx(1.0)
    assert rank_correlation(scores, -scores) == pytest.approx(-1.0)
