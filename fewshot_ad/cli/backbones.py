"""``fewshot-ad backbones``: feature extractors, and where their weights lie."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fewshot_ad.cli.options import WeightsDir
from fewshot_ad.cli.weights import fetch_command

app = typer.Typer(no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="'tiny', a timm network with its tag, 'random:NAME', package.module:factory or "
        "path/to/file.py:factory.",
    ),
]


@app.command("list")
def list_command(weights_dir: WeightsDir = None) -> None:
    """List the embedded and the pinned backbones, and where their weights are on this machine."""
    from fewshot_ad.parts.backbones import list_backbones

    table = Table("backbone", "weights", "licence")
    for row in list_backbones(weights_dir):
        table.add_row(row.name, row.where, row.licence)
    console = Console()
    console.print(table)
    console.print(
        "Also taken: any other timm network with a tag, random:NAME, package.module:factory and "
        "path/to/file.py:factory."
    )


@app.command("show")
def show_command(name: Name, weights_dir: WeightsDir = None) -> None:
    """Load a backbone and print its levels, size, digest and source."""
    from fewshot_ad.parts.backbones import load_backbone

    backbone = load_backbone(name, weights_dir=weights_dir)
    table = Table("level", "stride", "channels", title=backbone.name, title_justify="left")
    for level, stride, channels in zip(
        backbone.levels, backbone.strides, backbone.channels, strict=True
    ):
        table.add_row(str(level), str(stride), str(channels))
    console = Console()
    console.print(table)
    facts = {
        "digest": backbone.digest,
        "parameters": f"{backbone.parameters:,} ({backbone.parameters * 4e-6:.1f} MB as float32)",
        "source": backbone.source,
        "licence": backbone.licence,
    }
    for fact, value in facts.items():
        console.print(f"{fact}: {value}", soft_wrap=True, highlight=False, markup=False)


app.command("fetch")(fetch_command)
