"""``fewshot-ad data``: which datasets there are, what is in them, what is wrong with them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from fewshot_ad.api import Dataset
    from fewshot_ad.data.audit import Audit, Finding
    from fewshot_ad.data.published import Published

app = typer.Typer(no_args_is_help=True)

_COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}
_SHOWN = 3

DatasetSpec = Annotated[str, typer.Argument(metavar="NAME[:ROOT]", help="A dataset and its root.")]


@app.command("list")
def list_command() -> None:
    """List the datasets known here."""
    from fewshot_ad.data import dataset_class, list_datasets

    table = Table("dataset", "what it is")
    for name in list_datasets():
        summary = (dataset_class(name).__doc__ or "").strip().splitlines()
        table.add_row(name, Text(summary[0].replace("``", "") if summary else ""))
    Console().print(table)


@app.command("info")
def info_command(dataset: DatasetSpec) -> None:
    """Show the classes of a dataset and their counts, its licence and its source."""
    from fewshot_ad.data import dataset_class, load_dataset

    name, _, root = dataset.partition(":")
    kind = dataset_class(name)
    console = Console()
    for what in ("title", "source", "licence", "layout"):
        if hasattr(kind, what):
            console.print(Text(f"{what}: {getattr(kind, what)}"), soft_wrap=True)
    if hasattr(kind, "known_classes") and not root:
        console.print(_known_table(kind))
    else:
        console.print(_listed_table(load_dataset(dataset)))


@app.command("check")
def check_command(
    dataset: Annotated[
        str, typer.Argument(metavar="PATH|NAME[:ROOT]", help="A folder, or a dataset and its root.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Read every image and mask, and report counts and what is wrong.

    Found are unreadable files; missing, empty and mis-sized masks and masks
    for normal images; images that serve for nothing; and equal pixels
    between train and test, inside them and between classes.

    The exit code is 1 when there are errors or warnings; notes do not count.
    """
    from fewshot_ad.data import list_datasets, load_dataset
    from fewshot_ad.data.audit import audit

    is_name = dataset.partition(":")[0] in list_datasets()
    is_path = not is_name and (Path(dataset).exists() or "/" in dataset)
    spec = f"folder:{dataset}" if is_path else dataset
    with _progress("checking") as progress:
        result = audit(load_dataset(spec), progress)
    if as_json:
        typer.echo(json.dumps(asdict(result) | {"clean": result.clean}, indent=2))
    else:
        _print_audit(result)
    if not result.clean:
        raise typer.Exit(1)


@app.command("export")
def export_command(
    dataset: DatasetSpec,
    out: Annotated[Path, typer.Option("--out", help="A folder that does not exist or is empty.")],
) -> None:
    """Write a dataset as PNG files in the layout of MVTec AD, all of it or nothing."""
    from fewshot_ad.data import load_dataset
    from fewshot_ad.data.export import export

    with _progress("exporting") as progress:
        written = export(load_dataset(dataset), out, progress)
    Console().print(Text(f"{written} images in {out}"), soft_wrap=True)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is gone when the work is done."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _class_table(*columns: str) -> Table:
    return Table(Column("class", no_wrap=True, overflow="fold"), *columns)


def _known_table(kind: "type[Published]") -> Table:
    """Classes as published; counts that are not known stay empty."""
    table = _class_table("train", "test")
    for class_name in kind.known_classes():
        table.add_row(Text(class_name), *map(str, kind.expected.get(class_name, ())))
    if kind.total:
        table.add_row("all", *map(str, kind.total))
    return table


def _listed_table(dataset: "Dataset") -> Table:
    table = _class_table("train", "test normal", "test anomalous", "defects")
    for class_name in dataset.classes:
        test = dataset.test(class_name)
        anomalies = [sample for sample in test if sample.is_anomalous]
        defects = sorted({sample.defect for sample in anomalies if sample.defect})
        counts = (len(dataset.train(class_name)), len(test) - len(anomalies), len(anomalies))
        table.add_row(Text(class_name), *map(str, counts), Text(", ".join(defects)))
    return table


def _print_audit(result: "Audit") -> None:
    console = Console()
    table = _class_table("train", "normal", "anomalous", "with mask", "width x height")
    for count in result.counts:
        numbers = (count.train, count.test_normal, count.test_anomalous, count.with_mask)
        sizes = [f"{s[1]}x{s[0]}" for s in (count.smallest, count.largest) if s]
        table.add_row(Text(count.class_name), *map(str, numbers), " to ".join(dict.fromkeys(sizes)))
    console.print(table)
    if result.modes:
        modes = ", ".join(f"{number} {mode}" for mode, number in result.modes.items())
        console.print(Text(f"stored as: {modes}"), soft_wrap=True)
    for finding in result.findings:
        _print_finding(console, finding)
    verdict = "nothing to mend" if result.clean else "see the errors and warnings above"
    console.print(f"{result.dataset}: {verdict}", markup=False)


def _print_finding(console: Console, finding: "Finding") -> None:
    times = f" ({len(finding.details)})" if finding.details else ""
    line = Text(finding.severity, style=_COLOURS[finding.severity])
    console.print(line + Text(f" {finding.class_name}: {finding.what}{times}"), soft_wrap=True)
    for detail in finding.details[:_SHOWN]:
        console.print(Text(f"    {detail}"), soft_wrap=True)
    if len(finding.details) > _SHOWN:
        console.print(f"    ... and {len(finding.details) - _SHOWN} more (--json lists all)")
