"""``fewshot-ad weights``: where published weights lie on this machine; checking and fetching."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.api import FewShotError
from fewshot_ad.cli.options import WeightsDir
from fewshot_ad.parts.published_weights import PUBLISHED, PublishedWeights

app = typer.Typer(no_args_is_help=True)

NAME_HELP = (
    "A name from the list, any network of timm or open_clip with its tag, or a repository of the "
    "Hugging Face hub, OWNER/NAME."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help=NAME_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


@app.command("list")
def list_command(weights_dir: WeightsDir = None, as_json: AsJson = False) -> None:
    """List every set of weights that the package names, and whether it is here.

    With its purpose, file name, size, licence, source and the beginning of its SHA-256; --json
    adds whole digests and where each file lies.
    """
    from fewshot_ad.parts.weight_catalog import locate_weights

    rows = [(entry, locate_weights(entry, weights_dir)) for entry in PUBLISHED]
    if as_json:
        typer.echo(json.dumps([_facts(entry, path) for entry, path in rows], indent=2))
        return
    for entry, path in rows:
        typer.echo(_card(entry, path))


@app.command("where")
def where_command(weights_dir: WeightsDir = None, as_json: AsJson = False) -> None:
    """Print the places that are searched, in order, and what is taken from each.

    The first place that holds a set of weights wins.
    """
    from fewshot_ad.parts.weight_catalog import locate_weights, search_order

    paths = {entry.name: locate_weights(entry, weights_dir) for entry in PUBLISHED}
    rows: list[dict[str, Any]] = []
    for place, folder in search_order(weights_dir).items():
        held = [name for name, path in paths.items() if path and folder in path.parents]
        rows.append({"place": place, "folder": folder and str(folder), "weights": held})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for number, row in enumerate(rows, start=1):
        typer.echo(f"{number}. {row['place']}: {row['folder'] or 'not named'}")
        for name in row["weights"]:
            typer.echo(f"   {name}")


@app.command("path")
def path_command(name: Name, weights_dir: WeightsDir = None) -> None:
    """Print the path of a file of weights and nothing else; an error says what to fetch."""
    from fewshot_ad.parts.weight_catalog import require_weights

    typer.echo(str(require_weights(name, weights_dir)))


@app.command("verify")
def verify_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"{NAME_HELP} [default: all that are here]"),
    ] = None,
    weights_dir: WeightsDir = None,
) -> None:
    """Check files of weights: digest, content and architecture; exit code 2 if one is not sound."""
    from fewshot_ad.parts.weight_checks import verify_weights

    failures: list[str] = []
    for name in names or _here(weights_dir):
        try:
            found = verify_weights(name, weights_dir)
        except FewShotError as error:
            failures.append(str(error))
            continue
        what = "as published" if found.is_pinned else "sound; its published digest is not known"
        typer.echo(f"{name}: {what}\n  {found.path}\n  SHA-256 {found.sha256}")
    if failures:
        raise FewShotError("; ".join(failures))


@app.command("fetch")
def fetch_command(
    name: Name,
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also copy the file here, under NAME. [default: only the cache it belongs to]",
        ),
    ] = None,
) -> None:
    """Download weights; the only command that uses the network."""
    from fewshot_ad.parts.weight_fetching import fetch_weights

    typer.echo(f"{name} is here now: {fetch_weights(name, weights_dir)}")


def _here(weights_dir: Path | None) -> Sequence[str]:
    from fewshot_ad.parts.weight_catalog import locate_weights

    return [entry.name for entry in PUBLISHED if locate_weights(entry, weights_dir)]


def _card(entry: PublishedWeights, path: Path | None) -> str:
    digests = [f"{digest[:16]} of the {suffix} file" for suffix, digest in entry.sha256.items()]
    source = f", from {entry.source}" if entry.source else ""
    lines = [
        f"{entry.name}: {'here' if path else 'not here'}",
        entry.purpose,
        f"{entry.file_name}, {entry.megabytes:.0f} MB, {entry.licence}{source}",
        f"SHA-256 {', '.join(digests) or 'not known'}",
        *filter(None, [entry.note]),
    ]
    return "\n  ".join(lines)


def _facts(entry: PublishedWeights, path: Path | None) -> dict[str, Any]:
    """An entry as JSON takes it, with what the properties say and where it lies."""
    told = asdict(entry) | {"file_name": entry.file_name, "source": entry.source}
    return {**told, "embedded": entry.embedded is not None, "path": path and str(path)}
