"""``fewshot-ad report``: the rows of a store as something people look at."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.writing import write_whole
from fewshot_ad.report.latex import latex
from fewshot_ad.report.page import Material, html_page
from fewshot_ad.report.published import Published
from fewshot_ad.report.sinks import to_mlflow, to_tensorboard
from fewshot_ad.report.table import markdown, to_csv
from fewshot_ad.studies.kept_evidence import evidence_reader
from fewshot_ad.studies.store import load_failures, load_rows, load_studies
from fewshot_ad.studies.study_files import published_numbers

_NAMED = {each.name for each in fields(Published)} - {"metrics"}

app = typer.Typer()
Store = Annotated[
    list[Path],
    typer.Argument(
        metavar="STORE...",
        help="Results of a study (.sqlite) or of eval (.jsonl), or the folder; several are joined.",
    ),
]


@app.command()
def report_command(
    store: Store,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="[default: report.html; other formats: the screen]"),
    ] = None,
    form: Annotated[
        Literal["html", "md", "csv", "latex"] | None,
        typer.Option("--format", help="[default: what FILE ends in, else html]"),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What ranks and what is drawn: i_auroc, aupro ...")
    ] = "i_auroc",
    title: Annotated[str, typer.Option(help="Headline of the page.")] = "Few-shot results",
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="Log the runs to MLflow besides.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the runs for TensorBoard besides.")
    ] = None,
) -> None:
    """Turn rows into one page that needs nothing else, or into Markdown, CSV or LaTeX.

    The page has a table per track, intervals and tests, curves over shots, classes by methods,
    pictures, cost, what is missing, and every row. Curves and pictures need a study's store.
    """
    rows = [row for path in store for row in load_rows(path)]
    if not rows:
        raise FewShotError(
            f"{', '.join(map(str, store))}: there is no row to report on; run a study or "
            "'fewshot-ad eval' first"
        )
    form = form or _format_of(out)
    texts = {"md": markdown, "csv": to_csv, "latex": latex}
    text = texts[form](rows) if form in texts else _page(store, rows, metric, title)
    out = out or (Path("report.html") if form == "html" else None)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, text.encode())
        typer.echo(f"{out}: {len(rows)} rows, {len(text.encode()) / 1e6:.1f} MB", err=True)
    if mlflow is not None:
        typer.echo(f"{to_mlflow(rows, mlflow)} runs logged to {mlflow}", err=True)
    if tensorboard is not None:
        typer.echo(f"{to_tensorboard(rows, tensorboard)} runs in {tensorboard}", err=True)


def _page(store: Sequence[Path], rows: Sequence[ResultRow], metric: str, title: str) -> str:
    failures = [failure for path in store for failure in load_failures(path)]
    studies = [text for path in store for text in load_studies(path)]
    with _evidence(store) as evidence:
        return html_page(
            Material(
                rows=rows,
                title=title,
                metric=metric,
                evidence=evidence,
                failures=[
                    (str(failure).removesuffix(f": {failure.reason}"), failure.reason)
                    for failure in failures
                ],
                studies=studies,
                published=_published(studies),
            )
        )


def _published(studies: Sequence[str]) -> list[Published]:
    """The numbers of others that the studies name; those of another version are left out."""
    found: list[Published] = []
    for text in studies:
        try:
            named = published_numbers([text])
        except FewShotError as error:
            typer.echo(f"published numbers are left out: {error}", err=True)
            continue
        numbers = [
            Published(**one.model_dump(include=_NAMED), metrics=one.metrics) for one in named
        ]
        found += [one for one in numbers if one not in found]
    return found


@contextmanager
def _evidence(store: Sequence[Path]) -> Generator[Callable[[str], bytes | None]]:
    """What was kept with a row, in whichever store."""
    with ExitStack() as stack:
        readers = [stack.enter_context(evidence_reader(path)) for path in store]
        yield lambda key: next(filter(None, (read(key) for read in readers)), None)


def _format_of(out: Path | None) -> Literal["html", "md", "csv", "latex"]:
    suffixes: dict[str, Literal["md", "csv", "latex"]] = {
        ".md": "md",
        ".csv": "csv",
        ".tex": "latex",
    }
    return "html" if out is None else suffixes.get(out.suffix, "html")
