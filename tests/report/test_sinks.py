"""What is told to MLflow and TensorBoard, by the libraries themselves or by stand-ins."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from types import SimpleNamespace

import pytest
from stored_rows import some_rows

from fewshot_ad.api import FewShotError
from fewshot_ad.report.sinks import logged_runs, to_mlflow, to_tensorboard


def test_a_run_is_an_entrant_at_some_shots_and_seed():
    rows = some_rows()
    runs = list(logged_runs(rows))
    assert len(runs) == 3 * 2 * 2
    run = next(run for run in runs if run.name == "m2, synthetic, 4 shots, seed 1")
    own = [r for r in rows if (r.method, r.shots, r.seed) == ("m2", 4, 1)]
    assert run.metrics["i_auroc"] == pytest.approx(mean(row.i_auroc for row in own))
    assert run.metrics["class3/i_auroc"] == own[3].i_auroc
    assert run.params["k"] == "1"
    assert len(run.keys) == 7


class FakeMlflow:
    """Remembers what it is told; refuses other names than MLflow takes."""

    def __init__(self):
        self.exceptions = SimpleNamespace(MlflowException=RuntimeError)
        self.runs = []

    def set_tracking_uri(self, uri):
        self.uri = uri

    def set_experiment(self, name):
        if self.uri == "sqlite:///x.db":
            raise ModuleNotFoundError("No module named 'alembic'", name="alembic")
        if self.uri == "http://nowhere":
            raise RuntimeError("no\nanswer")

    @contextmanager
    def start_run(self, run_name):
        self.runs.append({"name": run_name})
        yield

    def log_params(self, params):
        assert all(len(value) <= 500 for value in params.values())
        self.runs[-1]["params"] = params

    def log_metrics(self, metrics):
        self.runs[-1]["metrics"] = metrics

    def set_tag(self, name, value):
        self.runs[-1][name] = value


@pytest.fixture
def fake(monkeypatch) -> FakeMlflow:
    module = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_mlflow_is_told_of_every_run(fake):
    assert to_mlflow(some_rows(), "here") == 12
    assert len(fake.runs) == 12
    assert fake.runs[0]["metrics"]["class3/i_auroc"] > 0
    assert fake.uri == "here"


def test_an_answer_of_mlflow_is_one_line(fake):
    with pytest.raises(FewShotError, match="MLflow at http://nowhere: no answer; check"):
        to_mlflow(some_rows(), "http://nowhere")


def test_a_part_that_is_not_installed_is_named(fake):
    with pytest.raises(FewShotError, match=r"x\.db needs alembic; pip"):
        to_mlflow(some_rows(), "sqlite:///x.db")


@pytest.mark.parametrize(
    ("sink", "extra", "place"),
    [(to_mlflow, "mlflow", "here"), (to_tensorboard, "tensorboard", Path("here"))],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, sink, extra, place):
    monkeypatch.setitem(sys.modules, extra, None)  # what import sees as absent
    with pytest.raises(FewShotError, match=rf"pip install 'fewshot-ad\[{extra}\]'"):
        sink(some_rows(), place)


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="needs tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = some_rows(methods=1, shots=(4,), seeds=1)
    assert to_tensorboard(rows, tmp_path) == 1
    (folder,) = tmp_path.iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    (scalar,) = events.Scalars("i_auroc")
    assert scalar.value == pytest.approx(mean(row.i_auroc for row in rows), abs=1e-6)
    assert len(events.Tags()["scalars"]) > 7


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="needs mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_what_was_logged(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    rows = some_rows(methods=1, shots=(4,), seeds=1)
    assert to_mlflow(rows, tmp_path.as_uri()) == 1
    (run,) = mlflow.search_runs(experiment_names=["fewshot-ad"], output_format="list")
    assert run.data.metrics["i_auroc"] == pytest.approx(mean(row.i_auroc for row in rows))
    assert run.data.params["method"] == "m0"
