"""``fewshot-ad export``: an inspector's file as a graph for an inference engine."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from fewshot_ad.api import FewShotError
from fewshot_ad.cli import options
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.inspection.exported import SUFFIXES, Format
from fewshot_ad.inspection.exporting import DEFAULT_FORMAT, ENGINES, export
from fewshot_ad.inspection.inspector import Inspector

app = typer.Typer()


@app.command()
def export_command(
    part: Annotated[Path, typer.Argument(metavar="FILE", help="What 'fewshot-ad fit' wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The graph to write. [default: as FILE, by format]"),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="onnx, openvino (.xml and .bin) or torch (.pt2).",
        ),
    ] = DEFAULT_FORMAT,
    int8: Annotated[
        bool, typer.Option("--int8", help="Backbone in 8 bits; says what that changes.")
    ] = False,
    weights_dir: options.WeightsDir = None,
    trust: options.Trust = False,
    quiet: options.Quiet = False,
) -> None:
    """Write all of an inspector's predict as one graph, for onnxruntime, OpenVINO or torch.

    Of resad, resad_pp, simplenet, patchcore, padim and residual_distance. The engine judges normals
    and altered copies of them, and the graph is kept only if it judges as the method does. The
    threshold is in its metadata. docs/inspection.md has how to run it.
    """
    screen = Screen(quiet=quiet)
    chosen = _known(form)
    out = Path(part.name).with_suffix(SUFFIXES[chosen]) if out is None else out
    check_writable(out.parent)
    inspector = Inspector.load(part, device="cpu", weights_dir=weights_dir, trust=trust)
    found = export(inspector, out, chosen, int8=int8)
    screen.say(f"{ENGINES[chosen]} judges as the method does: {found.parity}")
    if found.loss is not None:
        screen.say(f"in 8 bits: {found.loss}")
    for path in found.files:
        screen.say(f"saved as {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _known(form: str) -> Format:
    for known in get_args(Format):
        if form == known:
            return known
    raise FewShotError(f"--format {form} is unknown; choose {', '.join(get_args(Format))}")
