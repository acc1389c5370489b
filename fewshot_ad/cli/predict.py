"""``fewshot-ad predict``: decisions on photos by an inspector's file."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewshot_ad.api import FewShotError
from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.evaluation.reading import read_ahead
from fewshot_ad.inspection.drift import DriftWatch
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.outputs import CSV, MapFormat, Outputs
from fewshot_ad.inspection.photos import (
    Photo,
    Source,
    Unreadable,
    ViewGuard,
    list_photos,
    read_or_reason,
)
from fewshot_ad.inspection.verdicts import Verdict
from fewshot_ad.inspection.watching import Watch, watched

app = typer.Typer()

SHOWN = 30
STYLES = {"NOT OK": "bold red", "UNREADABLE": "yellow", "OK": "green"}
Row = dict[str, Any]


@app.command()
def predict_command(
    part: Annotated[Path, typer.Argument(metavar="FILE", help="What 'fewshot-ad fit' wrote.")],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES", help="Photos, or folders of them.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for decisions.csv, overlays/ and maps/.")
    ] = Path("decisions"),
    watch: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Judge what comes into this folder until you stop it with Ctrl-C."
        ),
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="End --watch when nothing came for so long."),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin", help="Read a path from every line of stdin; answer with a line of JSON each."
        ),
    ] = False,
    maps: Annotated[
        MapFormat, typer.Option(help="How anomaly maps are written, at the size of their photos.")
    ] = "png",
    no_overlays: Annotated[
        bool, typer.Option("--no-overlays", help="Paint no maps on photos.")
    ] = False,
    weights_dir: options.WeightsDir = None,
    trust: options.Trust = False,
    device: options.Device = "auto",
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Decide OK or NOT OK on photos; write scores, p-values, boxes, overlays and maps.

    A photo that cannot be read is UNREADABLE, never OK. The exit code is 0 whatever the decisions.
    """
    screen = Screen(quiet=quiet, as_json=as_json or stdin)
    _check_source(images, watch, stdin)
    check_writable(out)
    sources = list_photos(images) if images else []
    inspector = Inspector.load(part, device=device, weights_dir=weights_dir, trust=trust)
    outputs = Outputs(
        out, inspector, maps=maps, overlays=not no_overlays, append=watch is not None or stdin
    )
    screen.say(f"{inspector.name}: NOT OK above {inspector.threshold:.4g}; {inspector.promise}")
    if stdin:
        for row in _streamed(inspector, outputs, ([item] for item in _of_stdin()), screen):
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    elif watch is not None:
        looks = watched(Watch(watch), idle=idle)
        for row in _streamed(inspector, outputs, looks, screen):
            screen.say(_line(row))
    else:
        _show(_all(inspector, outputs, sources, screen), screen, out, as_json)


def _check_source(images: Sequence[Path] | None, watch: Path | None, stdin: bool) -> None:
    given = [bool(images), watch is not None, stdin]
    if sum(given) != 1:
        raise FewShotError(
            f"{'nothing' if not any(given) else 'more than one source'} to judge: give IMAGES, or "
            "--watch DIR, or --stdin"
        )
    if watch is not None and not watch.is_dir():
        raise FewShotError(f"--watch {watch}: there is no such folder; make it, or name another")


def _all(
    inspector: Inspector, outputs: Outputs, sources: Sequence[Source], screen: Screen
) -> list[Row]:
    read = read_ahead(sources, read_or_reason)
    with screen.progress(f"{len(sources)} photos", len(sources)) as bar:
        rows: list[Row] = []
        for verdict in inspector.judge_each(read):
            rows.append(outputs.write(verdict))
            bar.advance()
    return rows


def _streamed(
    inspector: Inspector,
    outputs: Outputs,
    groups: Iterable[list[Photo | Unreadable]],
    screen: Screen,
) -> Iterator[Row]:
    """Rows as photos come; a word when scores drift away from those of the normals."""
    drift = DriftWatch(inspector.calibration.scores)
    guard = ViewGuard(inspector.views)
    judged = (inspector.judge_each(group, guard) for group in groups)
    for verdict in chain.from_iterable(judged):
        yield outputs.write(verdict)
        change = drift.add(verdict.score) if isinstance(verdict, Verdict) else None
        if change is not None:
            screen.say(change)


def _of_stdin() -> Iterator[Photo | Unreadable]:
    for line in sys.stdin:
        if line.strip():
            yield read_or_reason(line.strip())


def _show(rows: Sequence[Row], screen: Screen, out: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    ranked = sorted(rows, key=lambda row: (row.get("p_value", -1), -row.get("score", 0)))
    screen.show_tables([_table(ranked[:SHOWN])])
    if len(ranked) > SHOWN:
        screen.say(f"and {len(ranked) - SHOWN} more with higher p-values, see {out / CSV}")
    counts = Counter(row["decision"] for row in rows)
    words = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    screen.say(f"{len(rows)} photos: {words}; see {out}/")


def _table(rows: Sequence[Row]) -> Table:
    table = Table("image", "decision")
    for title in ("score", "p-value", "regions", "area in pixels"):
        table.add_column(title, justify="right")
    for row in rows:
        style = STYLES[row["decision"]]
        cells = [Text(row["image"]), Text(row["decision"], style)]
        if "score" in row:
            area = sum(region["area"] for region in row["regions"])
            numbers = f"{row['score']:.4g}", f"{row['p_value']:.3g}", len(row["regions"]), area
            cells += [Text(str(number)) for number in numbers]
        table.add_row(*cells)
    return table


def _line(row: Row) -> str:
    if "score" not in row:
        return f"{row['decision']:10} {row['image']}: {row['reason']}"
    judged = f"score {row['score']:.4g}, p-value {row['p_value']:.3g}"
    return f"{row['decision']:10} {row['image']}: {judged}, regions {len(row['regions'])}"
