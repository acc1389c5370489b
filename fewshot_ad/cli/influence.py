"""``fewshot-ad influence``: which support images matter, and whether others were better."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from fewshot_ad.api import FewShotError, MetaTrained
from fewshot_ad.cli import options
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.settings import configured_method, parse_target_classes
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.checkpoints import load_checkpoint
from fewshot_ad.studies.support_influence import (
    Choices,
    Effects,
    Trials,
    compare_choices,
    effects,
    influence_facts,
)

app = typer.Typer()


@app.command()
def influence_command(
    target_class: Annotated[str, typer.Option(metavar="CLASS", help="The class under test.")],
    method: Annotated[str, typer.Option(help="As eval takes it.")] = "patchcore",
    dataset: Annotated[str, typer.Option(metavar="NAME[:ROOT]", help="As eval takes it.")] = (
        "synthetic"
    ),
    shots: Annotated[int, typer.Option(min=1, help="Normal images that are shown.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the support that is looked into.")] = 0,
    draws: Annotated[
        int, typer.Option(min=1, metavar="N", help="Drawn supports that are compared.")
    ] = 20,
    query_limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As eval takes it.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a meta-trained method.")
    ] = None,
    backbone: options.Backbone = None,
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Leave out and swap each support image; compare drawn supports with a chosen one.

    The choice is k-centre on pooled features of the train normals: it sees no label and no test
    image. Effects on every query image are in the JSON.
    """
    configured = configured_method(method, settings or (), device, backbone, weights_dir)
    if isinstance(configured, MetaTrained):
        if checkpoint is None:
            raise FewShotError(
                f"{method} is meta-trained: give --checkpoint, see 'fewshot-ad train'"
            )
        configured = load_checkpoint(configured, checkpoint)
    source = load_dataset(dataset)
    (name,) = parse_target_classes([target_class], source)[:1]
    drawn = episodes(source, name, shots=[shots], seeds=[seed], query_limit=query_limit)
    (episode,) = drawn
    trials = Trials(configured, source, name, episode.query)
    found, choices = effects(trials, episode.support, seed), compare_choices(trials, shots, draws)
    if as_json:
        typer.echo(json.dumps(influence_facts(found, choices), indent=1))
        return
    _show(found, choices)


def _show(found: Effects, choices: Choices) -> None:
    table = Table("support image", "I-AUROC without", "swapped", "most moved query, without it")
    for n, sample in enumerate(found.support):
        moved = int(np.abs(found.left_out[n]).argmax())
        table.add_row(
            sample.path,
            f"{100 * found.left_out_i_auroc[n]:+.1f}",
            f"{100 * found.swapped_i_auroc[n]:+.1f}",
            f"{found.query[moved].path} {found.left_out[n, moved]:+.3g}",
        )
    typer.echo(f"I-AUROC {100 * found.i_auroc:.1f} with all {len(found.support)} images")
    Console().print(table)
    values = 100 * choices.drawn_i_auroc
    typer.echo(
        f"{len(values)} drawn supports: mean {values.mean():.1f}, worst {values.min():.1f} "
        f"(seed {values.argmin()}), best {values.max():.1f} (seed {values.argmax()})"
    )
    if choices.chosen_i_auroc is not None and choices.share_below is not None:
        typer.echo(
            f"chosen by k-centre: {100 * choices.chosen_i_auroc:.1f}, better than "
            f"{100 * choices.share_below:.0f} % of them"
        )
