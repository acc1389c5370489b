"""``fewshot-ad serve``: an inspector's file as a web service for machines."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_ad.api import FewShotError
from fewshot_ad.cli import options
from fewshot_ad.cli.screen import Screen
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.serving.limits import MB, Limits
from fewshot_ad.serving.listening import address_of, listen, warn_of_an_open_door

app = typer.Typer()

DEFAULTS = Limits()
MOST_PIXELS = 170_000_000  # Pillow itself refuses little more
EXTRA = 'pip install "fewshot-ad[serve]"'


@app.command()
def serve_command(
    part: Annotated[Path, typer.Argument(metavar="FILE", help="What 'fewshot-ad fit' wrote.")],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 for all machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes one that is free, and says which.")
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="FEWSHOT_AD_TOKEN",
            help="What requests must bear in 'Authorization: Bearer TEXT'. Better given by the "
            "environment: the list of processes shows options to everybody.",
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests at once; others get 503, Retry-After.")
    ] = 64,
    max_mb: Annotated[
        float, typer.Option(min=0.001, metavar="MB", help="Size of a request, as it is sent.")
    ] = DEFAULTS.body_bytes / MB,
    max_photos: Annotated[
        int, typer.Option(min=1, metavar="N", help="Photos of a request.")
    ] = DEFAULTS.photos,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, max=MOST_PIXELS, metavar="N", help="Pixels of a photo, decoded."),
    ] = DEFAULTS.pixels,
    weights_dir: options.WeightsDir = None,
    trust: options.Trust = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Answer photos with decisions over HTTP: /predict, /healthz, /metrics, /openapi.json.

    Runs until Ctrl-C or SIGTERM, and answers before it ends what it has accepted.
    docs/serving.md has requests and answers.
    """
    screen = Screen(quiet=quiet)
    service = load_service()
    if token is not None and not token.strip():
        raise FewShotError("the token is empty: give one of some length, or none at all")
    limits = Limits(body_bytes=int(max_mb * MB), photos=max_photos, pixels=max_pixels)
    warn_of_an_open_door(host, token)
    with listen(host, port) as listening:
        inspector = Inspector.load(part, device=device, weights_dir=weights_dir, trust=trust)
        web = service.create_app(inspector, limits=limits, queue=queue, token=token)
        screen.say(f"{inspector.name}: NOT OK above {inspector.threshold:.4g}; {inspector.promise}")
        screen.say(f"answering at {address_of(listening)}/predict; Ctrl-C ends it")
        try:
            service.run(web, listening)
        except KeyboardInterrupt:
            screen.say("ended: all that was accepted has been answered")


def load_service() -> Any:
    """The module of the service, whose libraries are an extra.

    Raises:
        FewShotError: one of them is not installed.
    """
    try:
        return import_module("fewshot_ad.serving.service")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("fewshot_ad"):
            raise
        raise FewShotError(f"serve needs {error.name}, which is not installed: {EXTRA}") from error
