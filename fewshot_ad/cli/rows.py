"""``fewshot-ad rows``: what a store holds, and its rows as a file of another kind."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from fewshot_ad.studies.exports import export_rows
from fewshot_ad.studies.store import load_failures, load_rows, results_file

app = typer.Typer(no_args_is_help=True)

Results = Annotated[
    Path,
    typer.Argument(
        metavar="STORE", help="A results.sqlite, a results.jsonl, or the folder that holds one."
    ),
]


@app.command("show")
def show_command(store: Results) -> None:
    """Count the rows of every method and dataset, and list the cells that failed with reasons."""
    rows, failures = load_rows(store), load_failures(store)
    done = Counter((row.method, row.dataset) for row in rows)
    failed = Counter((failure.method, failure.dataset) for failure in failures)
    table = Table("method", "dataset", "rows", "failed")
    for method, dataset in sorted({*done, *failed}):
        kind = (method, dataset)
        table.add_row(method, dataset, str(done[kind]), str(failed[kind] or ""))
    Console().print(table)
    for failure in failures:
        typer.echo(f"{failure} (tried {failure.times} times, last {failure.time})")


@app.command("export")
def export_command(
    store: Results,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write: FILE.jsonl, .csv or .parquet.")
    ],
    kind: Annotated[
        Literal["jsonl", "csv", "parquet"] | None,
        typer.Option("--format", help="What to write, where the name of the file does not say it."),
    ] = None,
) -> None:
    """Write the rows of a store as lines of JSON, as CSV, or as Parquet (pip install pyarrow).

    A file of lines is what 'eval' writes, and every command that reads a store reads it too.
    """
    rows = load_rows(store)
    export_rows(rows, out, kind)
    typer.echo(f"{len(rows)} rows of {results_file(store)} are in {out}")
