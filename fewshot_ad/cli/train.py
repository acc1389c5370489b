"""``fewshot-ad train``: meta-train a method on known classes, once, for any number of targets."""

from pathlib import Path
from typing import Annotated, cast

import typer

from fewshot_ad.api import FewShotError, KnownClasses, MetaTrained
from fewshot_ad.cli import options
from fewshot_ad.cli.running import check_writable
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.evaluation.checkpoints import trained
from fewshot_ad.evaluation.known import LIMIT, parse_known

app = typer.Typer()


@app.command()
def train_command(
    known: Annotated[
        str,
        typer.Option(metavar="SPEC", help=f"Classes to learn from: {options.KNOWN_FORM}."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The checkpoint to write.")],
    method: Annotated[
        str, typer.Option(help="A meta-trained method, or package.module:Class of your own.")
    ] = "resad",
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Step budget, short for --set steps=N.")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the known classes that selects among the steps instead of teaching; "
            "short for --set held_out=SHARE.",
        ),
    ] = None,
    backbone: options.Backbone = None,
    precision: options.Precision = "fp32",
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    paper: options.Paper = False,
    known_limit: options.KnownLimit = LIMIT,
    device: options.Device = "auto",
    processes: options.Processes = 1,
    quiet: options.Quiet = False,
) -> None:
    """Meta-train a method on known classes and save a checkpoint.

    What is learned depends on the images of the known classes, their masks and the parameters
    alone; it is kept in $FEWSHOT_AD_CACHE as well, and the same command after a kill goes on where
    it was. A class that was known cannot be the target of an evaluation: `eval` refuses it.
    """
    screen = Screen(quiet=quiet)
    short = {"steps": steps, "held_out": held_out}
    changes = [f"{name}={value}" for name, value in short.items() if value is not None]
    changes += settings or ()
    student = configured_method(method, changes, device, backbone, weights_dir, paper, precision)
    if not isinstance(student, MetaTrained):
        raise FewShotError(f"{method} is {student.track}: it needs no training, use 'eval' at once")
    check_writable(out.parent)
    classes = parse_known(known, limit=known_limit)
    screen.say(f"{method} learns from {len(classes.names)} classes: {', '.join(classes.names)}")
    student, was_cached = trained(
        student, cast(KnownClasses, classes), out=out, processes=processes
    )
    screen.say(_what_was_selected(student))
    origin = "found in the cache and copied to" if was_cached else "saved as"
    screen.say(f"checkpoint {origin} {out}; use it with: fewshot-ad eval --checkpoint {out} ...")


def _what_was_selected(student: MetaTrained) -> str:
    """Which step was kept, and the classes that chose it, as far as the method tells."""
    known = getattr(student, "known_", None)
    judges, step = getattr(known, "held_out", ()), getattr(known, "selected_step", None)
    if not judges:
        return "no class was held out: the last step is kept"
    return f"step {step} is kept: best on the held-out known classes {', '.join(judges)}"
