"""``fewshot-ad sizes``: metrics by the size of the defect, with and without tiles."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.settings import configured_method, parse_target_classes
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.studies.small_defects import size_facts

app = typer.Typer()

SHOWN = ("i_auroc", "p_auroc", "p_ap", "aupro")


@app.command()
def sizes_command(
    target_class: Annotated[str, typer.Option(metavar="CLASS", help="The class under test.")],
    method: Annotated[str, typer.Option(help="A method that learns from the support alone.")] = (
        "patchcore"
    ),
    dataset: Annotated[str, typer.Option(metavar="NAME[:ROOT]", help="As eval takes it.")] = (
        "synthetic"
    ),
    shots: Annotated[int, typer.Option(min=1, help="Normal images that are shown.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of the support.")] = 0,
    tiles: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            metavar="FACTOR",
            help="How many times larger than a tile the image is shown. Repeatable. [default: 1, "
            "which is whole, and 2]",
        ),
    ] = None,
    query_limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As eval takes it.")
    ] = None,
    backbone: options.Backbone = None,
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Judge quartiles of the defects, the smallest first, with images whole and in tiles.

    Tiles cost as many times more as there are of them: 4 to 9 for a factor of 2.
    """
    configured = configured_method(method, settings or (), device, backbone, weights_dir)
    source = load_dataset(dataset)
    (name, *_) = parse_target_classes([target_class], source)
    (episode,) = episodes(source, name, shots=[shots], seeds=[seed], query_limit=query_limit)
    rows = size_facts(configured, source, episode, tiles or [1, 2])
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("tiles", "share of the image", "images", *SHOWN)
    for row in rows:
        share = f"{100 * row['smallest']:.2f} to {100 * row['largest']:.2f} %"
        table.add_row(f"x{row['tiles']}", share, str(row["n_anomalous"]), *_percent(row))
    Console().print(table)


def _percent(row: dict[str, Any]) -> Iterator[str]:
    for name in SHOWN:
        yield "–" if row[name] is None else f"{100 * row[name]:.1f}"
