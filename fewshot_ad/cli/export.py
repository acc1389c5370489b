"""``fewshot-ad export``: an inspector's file as an ONNX graph."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.cli import options
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.inspection.exporting import export_onnx
from fewshot_ad.inspection.inspector import Inspector

app = typer.Typer()


@app.command()
def export_command(
    part: Annotated[Path, typer.Argument(metavar="FILE", help="What 'fewshot-ad fit' wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The graph to write.")] = Path(
        "part.onnx"
    ),
    weights_dir: options.WeightsDir = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import code that FILE names; only if it is your own.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write all of an inspector's predict as ONNX, for onnxruntime and OpenVINO.

    Of patchcore, padim and residual_distance. The graph is run on normals and altered copies of
    them, and kept only if it judges as the method does. Its metadata has the threshold.
    """
    screen = Screen(quiet=quiet)
    check_writable(out.parent)
    inspector = Inspector.load(part, device="cpu", weights_dir=weights_dir, trust=trust)
    parity = export_onnx(inspector, out)
    screen.say(
        f"onnxruntime judges as torch does: scores differ by {parity.score:.1g} and maps by "
        f"{parity.map:.1g} of their greatest value at most, over {parity.images} images"
    )
    screen.say(f"saved as {out} ({out.stat().st_size / 1e6:.1f} MB)")
