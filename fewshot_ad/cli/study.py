"""``fewshot-ad study``: a declared grid of methods, classes, known sets, shots and seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import check_text, configured_method, with_options
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.studies.analyses import analyse, findings_path
from fewshot_ad.studies.cells import Answer, Done, Failed, Job, Kept
from fewshot_ad.studies.conducting import Tally, conduct
from fewshot_ad.studies.declared import Study, Variant
from fewshot_ad.studies.engines import Engine
from fewshot_ad.studies.estimate import estimate, measured
from fewshot_ad.studies.grid import plan
from fewshot_ad.studies.local_engine import Processes, ThisProcess
from fewshot_ad.studies.part import part_of
from fewshot_ad.studies.store import STORE, Store, load_rows
from fewshot_ad.studies.study_files import StudyFile, load_study

app = typer.Typer()

EngineName = Literal["local", "ray"]
HOLES = 1  # exit code of a study that has some
SHOWN = 20


@app.command()
def study_command(
    study: Annotated[Path, typer.Argument(metavar="FILE", help="A .yaml file; docs/studies.md.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What {data} stands for in the names of datasets."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUES",
            help="A part of the grid: method=, class=, shots= or seed= and values, as "
            "shots=4,full; again for another axis.",
        ),
    ] = None,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help=f"Folder for {STORE}; resumed where it is.")
    ] = Path("results"),
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, say what would run and cost, and stop."),
    ] = False,
    any_code: Annotated[
        bool,
        typer.Option(
            "--any-code",
            help="Rows that other code has computed count as finished, too. [default: they are "
            "computed again]",
        ),
    ] = False,
    engine: Annotated[
        EngineName,
        typer.Option(help="What runs the cells: processes of this machine, or a Ray cluster."),
    ] = "local",
    address: Annotated[
        str,
        typer.Option(
            metavar="local|auto|HOST:PORT",
            help="The Ray cluster: one that is started here with --workers processors, the one "
            "that this machine belongs to, or another.",
        ),
    ] = "local",
    workers: options.Workers = 1,
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a declared grid: every method on every class, with all known sets, shots and seeds.

    The whole file is checked before anything runs. Rows are stored as they finish, each with its
    evidence, and what OUT holds already is not computed again, so that a run that was stopped goes
    on where it was. A cell that fails is noted with its reason while the others go on; the exit
    code is 1 then, and the same command tries it again.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    file = load_study(study)
    check_writable(out)
    jobs = part_of(plan(file, _configure(weights_dir, device), data), only or [])
    _check_text(jobs)
    runner = _engine(engine, address, workers)
    screen.say(file.study.title)
    has_rows = file.study.analysis == "metrics"
    if has_rows:
        costs = estimate(jobs, measured(out / STORE), workers=workers, any_code=any_code)
        for line in costs.lines(workers):
            screen.say(line)
    if dry_run:
        for job in jobs:
            screen.say(f"  {job}: {len(job.trials)} cells")
        return
    if not has_rows:
        _analyse(file.study, jobs, runner, out, screen)
        return
    tally = _run(file, jobs, runner, out / STORE, any_code, screen)
    _show(tally, out / STORE, screen)
    if tally.holes:
        raise typer.Exit(HOLES)


def _configure(weights_dir: Path | None, device: str) -> Callable[[Variant], Method]:
    def configure(variant: Variant) -> Method:
        own = None if variant.weights_dir is None else Path(variant.weights_dir)
        has_weights = variant.backbone not in (None, "tiny")
        method = configured_method(
            variant.method,
            variant.settings,
            device,
            variant.backbone,
            own or (weights_dir if has_weights else None),
            variant.paper,
            variant.precision,
        )
        return with_options(method, variant.method, {"prompts": variant.prompts})

    return configure


def _check_text(jobs: Sequence[Job]) -> None:
    """Refuse prompts that cannot be read before anything runs."""
    for method in dict.fromkeys(job.method for job in jobs):
        classes = dict.fromkeys(job.target[1] for job in jobs if job.method is method)
        check_text([method], list(classes))


def _engine(name: EngineName, address: str, workers: int) -> Engine:
    if name == "ray":
        from fewshot_ad.studies.ray_engine import RayCluster  # an extra

        return RayCluster(address, workers)
    if address != "local":
        raise FewShotError(f"--address {address} is of a Ray cluster; add --engine ray")
    return ThisProcess() if workers == 1 else Processes(workers)


def _analyse(study: Study, jobs: Sequence[Job], engine: Engine, out: Path, screen: Screen) -> None:
    if not isinstance(engine, ThisProcess):
        raise FewShotError(
            f"a study of {study.analysis} runs in one process; leave out --workers and --engine"
        )
    n_cells = sum(len(job.trials) for job in jobs)
    with screen.progress(f"{n_cells} episodes", n_cells) as bar:
        found, holes = analyse(study, jobs, out, lambda *_: bar.advance())
    screen.show_findings(found)
    for hole in holes:
        screen.say(f"nothing found: {hole}")
    screen.say(f"findings: {findings_path(out, study)}")
    if holes:
        raise typer.Exit(HOLES)


def _run(
    file: StudyFile,
    jobs: Sequence[Job],
    engine: Engine,
    path: Path,
    any_code: bool,
    screen: Screen,
) -> Tally:
    n_cells = sum(len(job.trials) for job in jobs)
    with Store(path) as store, screen.progress(f"{n_cells} cells", n_cells) as bar:
        store.note_study(file.text)

        def hear(job: Job, answer: Answer) -> None:
            if isinstance(answer, Done | Kept | Failed):
                bar.advance()
            if isinstance(answer, Failed):
                screen.say(f"failed: {job.hole(answer.trial, answer.reason)}")

        return conduct(jobs, store, engine, any_code=any_code, on_answer=hear)


def _show(tally: Tally, path: Path, screen: Screen) -> None:
    """The rows of this study, whatever else the store holds, and what is missing."""
    rows = {row_key(row): row for row in load_rows(path)}
    found = [rows[key] for key in dict.fromkeys(tally.keys.values())]
    if found or not tally.holes:
        screen.show(found)
    if tally.n_kept:
        screen.say(f"{tally.n_kept} of {len(found)} rows were in {path} and not computed again")
    for hole in tally.holes[:SHOWN]:
        screen.say(f"no row: {hole}")
    if len(tally.holes) > SHOWN:
        screen.say(f"and {len(tally.holes) - SHOWN} more: fewshot-ad rows show {path}")
    screen.say(f"rows: {path}")
