"""What a person sees of a run: messages, progress bars and tables; with ``--json`` one document."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fewshot_ad.cli.finding_tables import finding_tables
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.report.extra_lines import box_lines, kind_lines
from fewshot_ad.report.table import empty_metrics, terminal_tables
from fewshot_ad.studies.analyses import Finding

LOG_WIDTH = 160


class Screen:
    """Messages and tables on stdout, progress on stderr; ``as_json`` leaves stdout to the rows."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._as_json = as_json
        self._quiet = quiet
        width = None if sys.stdout.isatty() else LOG_WIDTH
        self._out = Console(stderr=as_json, width=width, highlight=False)
        self._bars = Console(stderr=True, quiet=quiet)

    def __reduce__(self) -> tuple[Callable[[], "Screen"], tuple[()]]:
        """A copy in another process says nothing."""
        return partial(Screen, quiet=True, as_json=self._as_json), ()

    def say(self, line: str) -> None:
        """Print one line, unless told to be quiet."""
        if not self._quiet:
            self._out.print(line, soft_wrap=True, markup=False)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator["Bar"]:
        """A bar on stderr that goes when the work is done; a line where stderr is no terminal."""
        if not self._bars.is_terminal:
            self.say(f"{what} ...")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self._bars.is_terminal
        with Progress(*columns, console=self._bars, transient=True, disable=hidden) as progress:
            yield Bar(progress, progress.add_task(what, total=total))

    def show_tables(self, tables: Iterable[Table]) -> None:
        """Print tables on stdout, however quiet."""
        for table in tables:
            self._out.print(table)

    def show(self, rows: Sequence[ResultRow]) -> None:
        """The tables with the reasons of what is empty, or the rows as JSON."""
        if self._as_json:
            sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
            return
        self.show_tables(terminal_tables(rows))
        for line in (*kind_lines(rows), *box_lines(rows), *empty_metrics(rows)):
            self._out.print(line, soft_wrap=True, markup=False)

    def show_findings(self, findings: Sequence[Finding]) -> None:
        """What was found beside metrics, as tables or as JSON."""
        if self._as_json:
            sys.stdout.write(json.dumps([asdict(one) for one in findings], indent=1) + "\n")
            return
        self.show_tables(finding_tables(findings))


class Bar:
    """One progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)
