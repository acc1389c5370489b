"""``fewshot-ad compare``: what changed between two runs, and whether it matters."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.screen import Screen
from fewshot_ad.evaluation.changes import Changes, Pair, changes
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.statistics import Paired
from fewshot_ad.report.labels import EMPTY, METRIC_NAMES
from fewshot_ad.studies.store import load_rows

app = typer.Typer()
NAMED = 10
First = Annotated[Path, typer.Argument(metavar="RUN_A", help="A store, or the folder of one.")]
Second = Annotated[Path, typer.Argument(metavar="RUN_B", help="The run to compare with it.")]


@app.command()
def compare_command(first: First, second: Second, as_json: AsJson = False) -> None:
    """Tell what changed from one run to another, and whether it matters.

    Cells of the same identity are compared; those that differ in a parameter, in weights or in
    images are matched by method, class, shots and seed, and the difference is named. Differences
    have 95 % intervals over classes and trials; the test is a signed-rank test over classes.
    """
    found = changes(load_rows(first), load_rows(second))
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=1))
        return
    screen = Screen()
    for line in _summary(found, first, second):
        screen.say(line)
    if found.moved:
        screen.show_tables([_differences(found)])
        for note in sorted({pair.note for pair in _tested(found)}):
            screen.say(f"* {note}")
        screen.show_tables([_movements(found)])


def _summary(found: Changes, first: Path, second: Path) -> Iterator[str]:
    same = len(found.pairs) - len(found.moved)
    yield f"{len(found.pairs)} cells in both: {same} have equal metrics, {len(found.moved)} differ"
    for path, rows in ((first, found.only_first), (second, found.only_second)):
        if rows:
            yield f"{len(rows)} cells only in {path}: {_some(rows)}"
    changed = Counter(change for pair in found.pairs for change in pair.changed)
    for change, count in changed.most_common(NAMED):
        yield f"{change} ({count} cells)"
    for name, values in found.origins.items():
        words = ", ".join(f"{before} -> {after}" for before, after in values[:NAMED])
        yield f"{name.replace('_', ' ')}: {words}"


def _some(rows: tuple[ResultRow, ...]) -> str:
    named = Counter(f"{row.method} on {row.dataset}/{row.target_class}" for row in rows)
    words = [f"{name} ({count})" for name, count in named.most_common(NAMED)]
    return ", ".join(words) + (" ..." if len(named) > NAMED else "")


def _differences(found: Changes) -> Table:
    table = Table(
        title="mean differences in points, B less A",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("method", "metric"):
        table.add_column(name)
    for name in ("difference", "95 %", "p, Holm"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    for method, metrics in found.by_method.items():
        for name, pair in metrics.items():
            if pair.difference is not None:
                table.add_row(method, METRIC_NAMES[name], *_cells(pair))
    return table


def _cells(pair: Paired) -> tuple[str, str, str, str]:
    found = pair.difference
    assert found is not None
    ends = EMPTY
    if found.low is not None and found.high is not None:
        ends = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    p = EMPTY if pair.p_adjusted is None else f"{pair.p_adjusted:.2g}"
    return f"{100 * found.mean:+.2f}", ends, p, pair.starred


def _tested(found: Changes) -> Iterator[Paired]:
    """Comparisons with a note on how to read their p."""
    for metrics in found.by_method.values():
        yield from (pair for pair in metrics.values() if pair.p is not None and pair.note)


def _movements(found: Changes) -> Table:
    shown = found.moved[:NAMED]
    title = f"the largest of {len(found.moved)} movements" if len(found.moved) > NAMED else "cells"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "class", "shots", "seed"):
        table.add_column(name)
    for name in METRIC_NAMES.values():
        table.add_column(name, justify="right")
    for pair in shown:
        row = pair.second
        table.add_row(
            row.method,
            f"{row.dataset}/{row.target_class}",
            str(row.shots),
            str(row.seed),
            *(_moved(pair, name) for name in METRIC_NAMES),
        )
    return table


def _moved(pair: Pair, name: str) -> str:
    return f"{100 * pair.moved[name]:+.2f}" if name in pair.moved else "="


def _as_json(found: Changes) -> dict[str, object]:
    return {
        "pairs": len(found.pairs),
        "only_first": [row_key(row) for row in found.only_first],
        "only_second": [row_key(row) for row in found.only_second],
        "origins": found.origins,
        "moved": [
            {
                "first": row_key(pair.first),
                "second": row_key(pair.second),
                "changed": pair.changed,
                "moved": pair.moved,
            }
            for pair in found.moved
        ],
        "by_method": {
            method: {name: asdict(pair) | {"verdict": pair.verdict} for name, pair in each.items()}
            for method, each in found.by_method.items()
        },
    }
