"""``fewshot-ad kinds``: can features tell the kinds of defects apart?"""

import json
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.settings import parse_device, parse_target_classes
from fewshot_ad.data import load_dataset
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.studies.kind_probe import ProbeResult, probe_kinds

app = typer.Typer()


@app.command()
def kinds_command(
    target_class: Annotated[str, typer.Option(metavar="CLASS", help="Whose defects are told.")],
    dataset: Annotated[
        str,
        typer.Option(metavar="NAME[:ROOT]", help="Where images come from, as folder:path."),
    ] = "synthetic",
    per_kind: Annotated[
        int, typer.Option(metavar="K", min=1, help="Anomalies of each kind that are learned from.")
    ] = 4,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="How many draws of these.")] = 5,
    pool: Annotated[
        Literal["image", "mask"],
        typer.Option(help="Features of the whole image, or of the defect by its mask."),
    ] = "image",
    backbone: Annotated[str, typer.Option(metavar="NAME", help="Feature extractor.")] = "tiny",
    levels: Annotated[str, typer.Option(metavar="N,N", help="Levels of it.")] = "2,3",
    size: Annotated[int, typer.Option(metavar="PIXELS", min=16, help="Side of the images.")] = 224,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn the kinds of defects from K labelled anomalies of each, and tell the others.

    A linear probe on pooled features of a frozen backbone: balanced accuracy, beside a guess, and
    which kinds are taken for which. Normal images take no part.
    """
    source = load_dataset(dataset)
    (name,) = parse_target_classes([target_class], source)
    found = probe_kinds(
        source,
        name,
        load_features(
            backbone, _levels(levels), weights_dir=weights_dir, device=parse_device(device)
        ),
        Preprocess(size=size),
        per_kind=per_kind,
        seeds=seeds,
        pool=pool,
    )
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"confusion": found.confusion.tolist()}, indent=1))
        return
    _show(found)


def _levels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise FewShotError(f"--levels: '{text}' is no list of numbers, as 2,3") from None


def _show(found: ProbeResult) -> None:
    table = Table("kind", *(f"told {kind}" for kind in found.kinds), title="counts over all draws")
    for kind, counts in zip(found.kinds, found.confusion.tolist(), strict=True):
        table.add_row(kind, *map(str, counts))
    Console().print(table)
    for words in ("balanced_accuracy", "accuracy"):
        values: tuple[float, ...] = getattr(found, words)
        spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
        typer.echo(f"{words.replace('_', ' ')} {100 * fmean(values):.1f}{spread} percent")
    typer.echo(f"a guess has {100 * found.chance:.1f}")
