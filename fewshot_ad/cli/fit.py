"""``fewshot-ad fit``: an inspector from normal photos, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.api import FewShotError
from fewshot_ad.cli import options
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.inspection.calibrating import MOST_REFITS
from fewshot_ad.inspection.inspector import DEFAULT_METHOD, Inspector
from fewshot_ad.inspection.photos import list_photos
from fewshot_ad.inspection.thresholds import FAR, Rule

app = typer.Typer()


@app.command()
def fit_command(
    normals: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A folder of normal photos of the part, or one photo."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write; as part.fsad.")
    ] = Path("part.fsad"),
    method: Annotated[
        str, typer.Option(help="Name of a method, or package.module:Class of your own.")
    ] = DEFAULT_METHOD,
    far: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="The wanted rate of false alarms among normal parts. [default: "
            f"{FAR}, or that of the file of --recalibrate]",
        ),
    ] = None,
    tail: Annotated[
        bool,
        typer.Option(
            "--tail",
            help="Extrapolate to rates that so few normals cannot promise, by a fitted tail.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What 'fewshot-ad train' saved. [default: train on the drawn classes, once]",
        ),
    ] = None,
    recalibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what this file was fitted on, and set only its threshold anew by the "
            "normals, which must be other photos.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="What the part is called; prompts read it.")
    ] = "part",
    backbone: options.Backbone = None,
    precision: options.Precision = "fp32",
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    paper: options.Paper = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import code that the file of --recalibrate names.")
    ] = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Learn how normal photos of a part look, and write it with a threshold into one file.

    The threshold comes from the normals alone: each is judged after a refit on the others. The
    command says what that can promise of false alarms. docs/inspection.md has what is behind it.
    """
    screen = Screen(quiet=quiet)
    rule = Rule(FAR if far is None else far, tail=tail)
    if out.is_dir():
        raise FewShotError(f"--out {out} is a folder; give the name of a file, as {out}/part.fsad")
    check_writable(out.parent)
    if recalibrate is not None:
        inspector = Inspector.load(recalibrate, device=device, weights_dir=weights_dir, trust=trust)
        inspector.rule = inspector.rule if far is None else rule
        inspector.recalibrate(normals)
    else:
        chosen = configured_method(
            method, settings or (), device, backbone, weights_dir, paper, precision
        )
        refits = min(len(list_photos(normals)), MOST_REFITS)
        with screen.progress(f"{refits} refits, each without some normals", refits) as bar:
            inspector = Inspector.from_normals(
                normals,
                chosen,
                checkpoint=checkpoint,
                far=rule.far,
                tail=rule.tail,
                name=name,
                on_refit=bar.advance,
            )
    inspector.save(out)
    _say(screen, inspector, method if recalibrate is None else str(recalibrate), out)


def _say(screen: Screen, inspector: Inspector, origin: str, out: Path) -> None:
    """What was fitted, what normals score, what can be promised, and where it went."""
    scores = inspector.calibration.scores
    views = ", ".join(str(view) for view in inspector.views)
    screen.say(f"{inspector.name}: {origin}, fitted on {len(inspector.normals)} normals ({views})")
    screen.say(
        f"{len(scores)} scores of normals ({inspector.calibration.source.replace('_', ' ')}): "
        f"{min(scores):.4g} to {max(scores):.4g}; NOT OK above {inspector.threshold:.4g}"
    )
    screen.say(f"false alarms: {inspector.promise}")
    screen.say(
        f"saved as {out} ({out.stat().st_size / 1e6:.1f} MB); use it with: "
        f"fewshot-ad predict {out} IMAGES --out DIR"
    )
