"""``fewshot-ad eval``: methods on episodes of unseen classes."""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Annotated

import typer

from fewshot_ad.api import Dataset, Method
from fewshot_ad.cli import options
from fewshot_ad.cli.running import (
    Run,
    check_checkpoint,
    check_shots,
    check_writable,
    choose_known,
    warn_of_ignored_anomalies,
)
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import (
    check_text,
    configured_method,
    parse_eval_size,
    parse_seeds,
    parse_shots,
    parse_target_classes,
    with_options,
)
from fewshot_ad.cli.workers import compute_rows
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import Manifest, episodes, leak_warning, load_manifest
from fewshot_ad.evaluation.known import LIMIT
from fewshot_ad.evaluation.memory import memory_line

app = typer.Typer()


@app.command()
def eval_command(
    method: Annotated[
        list[str],
        typer.Option(help="Name of a method, or package.module:Class of your own. Repeatable."),
    ] = ["resad"],  # noqa: B006 - typer copies it
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME[:ROOT]", help="Where images come from, as folder:path/to/images."
        ),
    ] = "synthetic",
    target_class: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="The unseen class, or 'all'. Repeatable."),
    ] = None,
    shots: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            help="Normal images that are shown: 0, 1, 2 ... or full, joined by commas.",
        ),
    ] = "4",
    anomalous_shots: Annotated[
        int, typer.Option(metavar="N", help="Labelled anomalies that are shown besides.")
    ] = 0,
    seeds: Annotated[
        str,
        typer.Option(metavar="N", help="How many draws of the support, or a list: 0,3,9 (or 7,)."),
    ] = "5",
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Take the supports from a manifest in place of a draw."
        ),
    ] = None,
    known: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help=f"Classes of meta-training: {options.KNOWN_FORM}. [default: every other class of "
            "the target's dataset]",
        ),
    ] = None,
    known_limit: options.KnownLimit = LIMIT,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What 'fewshot-ad train' saved, in place of training."),
    ] = None,
    backbone: options.Backbone = None,
    precision: options.Precision = "fp32",
    weights_dir: options.WeightsDir = None,
    prompts: options.Prompts = None,
    class_name: options.ClassName = None,
    settings: options.Settings = None,
    paper: options.Paper = False,
    device: options.Device = "auto",
    eval_size: Annotated[
        str,
        typer.Option(
            metavar="PIXELS|native", help="The size at which maps and masks are compared."
        ),
    ] = "256",
    query_limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Judge at most so many normal and so many anomalous images per class."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for results.jsonl and overlays/.")
    ] = Path("results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the rows as JSON on stdout, and nothing else.")
    ] = False,
    no_overlays: Annotated[
        bool, typer.Option("--no-overlays", help="Draw no pictures of examples.")
    ] = False,
    boxes: Annotated[
        bool,
        typer.Option("--boxes", help="Judge boxes around what stands out in the maps, besides."),
    ] = False,
    workers: options.Workers = 1,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate methods on episodes of unseen classes: a table, result rows, overlays.

    Every episode shows a method N normal images of a class and judges it on the test images.
    Metrics are taken per class and seed; the table shows percent, mean and standard deviation over
    seeds. What OUT/results.jsonl holds already is not computed again. Meta-trained methods first
    learn from the known classes; that is kept in $FEWSHOT_AD_CACHE and found again by its content.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    source = load_dataset(dataset)
    text = {"prompts": prompts, "class_name": class_name}
    methods = [
        with_options(
            configured_method(
                name, settings or (), device, backbone, weights_dir, paper, precision
            ),
            name,
            text,
        )
        for name in method
    ]
    classes = parse_target_classes(target_class or (), source)
    check_text(methods, classes)
    draw = partial(
        episodes,
        source,
        shots=parse_shots(shots),
        seeds=parse_seeds(seeds),
        anomalous_shots=anomalous_shots,
        manifest=_manifest(manifest, classes),
        query_limit=query_limit,
    )
    trials = [list(draw(name)) for name in classes]
    check_shots(methods, chain.from_iterable(trials))
    warn_of_ignored_anomalies(methods, anomalous_shots)
    check_checkpoint(methods, checkpoint)
    check_writable(out)
    run = Run(
        dataset=source,
        out=out,
        eval_size=parse_eval_size(eval_size),
        choose_known=partial(choose_known, known, source, known_limit, len(classes) > 1),
        checkpoint=checkpoint,
        draws_overlays=not no_overlays,
        boxes=boxes,
        screen=screen,
    )
    screen.say(_first_line(source, methods))
    if (line := memory_line(methods, trials, run.eval_size, workers)) is not None:
        screen.say(line)
    screen.show(compute_rows(run, [*product(methods, trials)], workers))
    pictures = "" if no_overlays else f", pictures: {run.overlays}/"
    screen.say(f"rows: {run.results}{pictures}")


def _manifest(name: str | None, classes: Sequence[str]) -> Manifest | None:
    """The manifest, with a warning for each class whose lists are known to use test images."""
    if name is None:
        return None
    manifest = load_manifest(name)
    for line in filter(None, (leak_warning(manifest, target_class) for target_class in classes)):
        warnings.warn(line, stacklevel=2)
    return manifest


def _first_line(source: Dataset, methods: Sequence[Method]) -> str:
    """What images and features the numbers come from, and how to get to real ones."""
    backbones = sorted({str(getattr(method, "backbone", "none")) for method in methods})
    embedded = [
        (source.name == "synthetic", "drawn images", "--dataset mvtec_ad:PATH or folder:PATH"),
        (backbones == ["tiny"], "the small embedded backbone", "--backbone NAME"),
    ]
    what = [words for is_embedded, words, _ in embedded if is_embedded]
    if not what:
        return f"{source.name}, backbone {', '.join(backbones)}"
    ways = [way for is_embedded, _, way in embedded if is_embedded]
    return f"This runs on {' and '.join(what)}; for real ones: {' and '.join(ways)}"
