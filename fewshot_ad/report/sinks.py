"""Rows for people who keep their runs in MLflow or TensorBoard; both are optional.

A run is an entrant on a dataset at some shots and one seed: its parameters, and its metrics as the
mean over classes and class by class.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.summary import METRICS, SECONDS, shots_of
from fewshot_ad.report.entrants import leagues
from fewshot_ad.report.labels import settings_of

_LONGEST = 500  # letters of a parameter that MLflow keeps


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """What is told of one run.

    Attributes:
        name: of the entrant, its dataset, shots and seed.
        params: settings as text.
        metrics: means over classes by name, and ``class/metric`` for each; seconds besides.
        keys: of the rows that it is made of.
    """

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    keys: tuple[str, ...]


def logged_runs(rows: Iterable[ResultRow]) -> Iterator[LoggedRun]:
    """The runs of a store, in the order of its leagues."""
    for league in leagues(rows):
        for entrant in league.entrants:
            groups: defaultdict[Hashable, list[ResultRow]] = defaultdict(list)
            for row in entrant.rows:
                groups[row.dataset, str(shots_of(row)), row.seed].append(row)
            for group in groups.values():
                yield _run(entrant.label, group)


def to_mlflow(rows: Iterable[ResultRow], uri: str, experiment: str = "fewshot-ad") -> int:
    """Log every run to a tracking server or a store; returns how many.

    Raises:
        FewShotError: MLflow is not installed, or it refuses.
    """
    mlflow = _library("mlflow", "mlflow")
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment)
        count = 0
        for run in logged_runs(rows):
            with mlflow.start_run(run_name=run.name):
                mlflow.log_params({key: text[:_LONGEST] for key, text in run.params.items()})
                mlflow.log_metrics({_mlflow_name(key): v for key, v in run.metrics.items()})
                mlflow.set_tag("rows", json.dumps(run.keys)[:_LONGEST])
            count += 1
    except ImportError as error:  # the skinny package lacks what databases need
        raise FewShotError(
            f"MLflow at {uri} needs {error.name}; pip install 'fewshot-ad[mlflow]'"
        ) from error
    except (OSError, mlflow.exceptions.MlflowException) as error:
        raise FewShotError(
            f"MLflow at {uri}: {' '.join(str(error).split())[:300]}; check the address"
        ) from error
    return count


def to_tensorboard(rows: Iterable[ResultRow], folder: Path) -> int:
    """Write a folder that TensorBoard shows: a run per folder, hyper-parameters with metrics.

    Raises:
        FewShotError: TensorBoard is not installed, or the folder cannot be written to.
    """
    _library("tensorboard", "tensorboard")
    writing = _library("torch.utils.tensorboard", "tensorboard")
    count = 0
    for run in logged_runs(rows):
        try:
            with writing.SummaryWriter(str(folder / run.name.replace("/", "_"))) as writer:
                for name, value in run.metrics.items():
                    writer.add_scalar(name, value)
                means = {f"mean/{key}": v for key, v in run.metrics.items() if "/" not in key}
                writer.add_hparams(run.params, means, run_name="settings")
        except OSError as error:
            raise FewShotError(
                f"cannot write to {folder}: {error.strerror}; choose another folder"
            ) from error
        count += 1
    return count


def _run(label: str, rows: list[ResultRow]) -> LoggedRun:
    first = rows[0]
    metrics: dict[str, float] = {}
    for name in METRICS:
        values = {row.target_class: v for row in rows if (v := row.metrics()[name]) is not None}
        if values:
            metrics[name] = fmean(values.values())
            metrics |= {f"{target_class}/{name}": value for target_class, value in values.items()}
    metrics |= {name: fmean(getattr(row, name) for row in rows) for name in SECONDS}
    names = ("track", "backbone", "dataset", "seed", "manifest")
    told = {name: getattr(first, name) for name in names}
    settings = {**first.params, **told, "method": first.method, "shots": shots_of(first)}
    name = f"{label}, {first.dataset}, {shots_of(first)} shots, seed {first.seed}"
    return LoggedRun(name, settings_of(settings), metrics, tuple(row_key(row) for row in rows))


def _mlflow_name(name: str) -> str:
    """MLflow allows letters, digits and a few signs."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise FewShotError(
            f"{extra} is not installed; pip install 'fewshot-ad[{extra}]'"
        ) from error
