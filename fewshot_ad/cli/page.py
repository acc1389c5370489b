"""``fewshot-ad app``: the page, on this machine alone unless told otherwise."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli import options
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.inspection.inspector import DEFAULT_METHOD, Inspector
from fewshot_ad.serving.page import HOST, PORT, load_gradio, serve_page
from fewshot_ad.serving.page_session import Setup

app = typer.Typer()


@app.command()
def app_command(
    part: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What 'fewshot-ad fit' wrote; to begin with it."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets others in, and nobody is asked who.")
    ] = HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes any that is free.")
    ] = PORT,
    method: Annotated[
        str, typer.Option(help="What parts are learned with: a method, or package.module:Class.")
    ] = DEFAULT_METHOD,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What 'fewshot-ad train' saved. [default: train on the drawn classes, once]",
        ),
    ] = None,
    backbone: options.Backbone = None,
    precision: options.Precision = "fp32",
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    paper: options.Paper = False,
    trust: options.Trust = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Open a page: drop normal photos, drop new ones, see decisions, move the rate of false alarms.

    It is served on this machine until Ctrl-C. docs/serving.md has what may be sent, and who sees
    it.
    """
    load_gradio()  # before anything that takes long
    chosen = configured_method(
        method, settings or (), device, backbone, weights_dir, paper, precision
    )
    setup = Setup(method=chosen, checkpoint=checkpoint, device=device, weights_dir=weights_dir)
    inspector = (
        None
        if part is None
        else Inspector.load(part, device=device, weights_dir=weights_dir, trust=trust)
    )
    screen = Screen(quiet=quiet)
    ready = "the page is at {}; stop it with Ctrl-C"
    serve_page(
        setup,
        inspector,
        host=host,
        port=port,
        on_ready=lambda address: screen.say(ready.format(address)),
    )
