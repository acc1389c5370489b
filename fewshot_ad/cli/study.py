"""``fewshot-ad study``: a declared grid of methods, classes, shots and seeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.api import Dataset, Episode, FewShotError, Method
from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.running import Run, check_shots, check_writable, choose_known
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import configured_method, parse_target_classes
from fewshot_ad.cli.workers import compute_rows
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.known import LIMIT
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.studies.declared import MethodEntry, Study, load_study

app = typer.Typer()


@dataclass(frozen=True)
class Cell:
    """A method on the episodes of a class.

    Attributes:
        source: how the file names the dataset; two folders have one name, ``folder``.
    """

    method: Method
    source: str
    dataset: Dataset
    trials: list[Episode]
    known: str | None

    def __str__(self) -> str:
        return f"{method_name(self.method)} on {self.dataset.name}/{self.trials[0].target_class}"


@app.command()
def study_command(
    study: Annotated[Path, typer.Argument(metavar="FILE", help="A .yaml file; docs/studies.md.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What {data} stands for in the names of datasets."),
    ] = None,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    known_limit: options.KnownLimit = LIMIT,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for results.jsonl; resumed where it is.")
    ] = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would run, and stop.")
    ] = False,
    workers: options.Workers = 1,
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a declared grid: every method on every class, with all shots and seeds.

    The whole file is checked before anything runs. Rows are appended as they finish, and what OUT
    holds already is not computed again, so that a run that was stopped goes on where it was.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    declared = load_study(study)
    cells = list(_cells(declared, _with_folders(declared, data), weights_dir, device))
    check_writable(out)
    runs = {
        (cell.source, cell.known): Run(
            dataset=cell.dataset,
            out=out,
            eval_size=declared.eval_size,
            choose_known=partial(choose_known, cell.known, cell.dataset, known_limit, True),
            checkpoint=None,
            draws_overlays=False,
            screen=screen,
        )
        for cell in cells
    }
    n_episodes = sum(len(cell.trials) for cell in cells)
    screen.say(f"{declared.title}: {len(cells)} cells of {n_episodes} episodes")
    if dry_run:
        for cell in cells:
            screen.say(f"  {cell}")
        return
    rows: list[ResultRow] = []
    for key, some in groupby(cells, lambda cell: (cell.source, cell.known)):
        rows += compute_rows(runs[key], [(cell.method, cell.trials) for cell in some], workers)
    screen.show(rows)
    screen.say(f"rows: {out / 'results.jsonl'}")


def _with_folders(study: Study, data: Path | None) -> list[tuple[str, list[str]]]:
    """Targets with ``{data}`` filled in."""
    named = [(target.dataset, target.classes) for target in study.targets]
    if data is None and any("{data}" in dataset for dataset, _ in named):
        raise FewShotError(
            "this study has datasets below {data}: say with --data where that folder is"
        )
    return [(dataset.replace("{data}", str(data)), classes) for dataset, classes in named]


def _cells(
    study: Study, targets: list[tuple[str, list[str]]], weights_dir: Path | None, device: str
) -> Iterator[Cell]:
    """Class by class, so that all methods find the features of one class in memory."""
    methods = [_configured(entry, weights_dir, device) for entry in study.methods]
    for spec, names in targets:
        dataset = load_dataset(spec)
        for target_class in parse_target_classes(names, dataset):
            for method in methods:
                shown = study.anomalous_shots if method.track == "supervised" else 0
                trials = list(
                    episodes(
                        dataset,
                        target_class,
                        shots=study.shots,
                        seeds=range(study.seeds),
                        anomalous_shots=shown,
                        query_limit=study.query_limit,
                    )
                )
                check_shots([method], trials)
                learns = method.track == "meta_trained"
                for known in study.known if learns else study.known[:1]:
                    yield Cell(method, spec, dataset, trials, known)


def _configured(entry: MethodEntry, weights_dir: Path | None, device: str) -> Method:
    folder = None if entry.weights_dir is None else Path(entry.weights_dir)
    has_weights = entry.backbone not in (None, "tiny")
    return configured_method(
        entry.method,
        entry.settings,
        device,
        entry.backbone,
        folder or (weights_dir if has_weights else None),
        entry.paper,
        entry.precision,
    )
