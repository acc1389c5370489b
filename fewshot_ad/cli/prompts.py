"""``fewshot-ad prompts``: look at prompt sets, check them, and learn what their words are worth."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fewshot_ad.cli import options, prompt_studies, prompt_tables
from fewshot_ad.cli.methods import AsJson, ListByDefault
from fewshot_ad.cli.prompt_studies import PromptsName, TextBackbone
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.prompts import LISTS, list_prompts, load_prompts
from fewshot_ad.studies.prompt_lint import NEAR, UNLISTED, lint, spoken_classes
from fewshot_ad.studies.prompt_scoring import text_method

app = typer.Typer(cls=ListByDefault)
app.command("compare")(prompt_studies.compare_command)
app.command("ablate")(prompt_studies.ablate_command)
app.command("search")(prompt_studies.search_command)


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the shipped prompt sets; `prompts` alone does the same."""
    sets = [load_prompts(name) for name in list_prompts()]
    if not as_json:
        Screen().show_tables([prompt_tables.overview(sets)])
        return
    counts = [{name: len(getattr(one, name)) for name in LISTS} for one in sets]
    cards = [{"name": one.name, "source": one.source} for one in sets]
    both = [card | count for card, count in zip(cards, counts, strict=True)]
    typer.echo(json.dumps(both, indent=2))


@app.command("show")
def show_command(
    prompts: PromptsName,
    target_class: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Print every sentence of this class.")
    ] = None,
    class_name: options.ClassName = None,
    as_json: AsJson = False,
) -> None:
    """Print the strings of a prompt set, or all the sentences it makes for a class."""
    found = load_prompts(prompts)
    if target_class is None and class_name is None:
        typer.echo(json.dumps(asdict(found), indent=2) if as_json else prompt_tables.card(found))
        return
    sides = ("normal", "anomalous")
    sentences = dict(zip(sides, found.sentences(target_class or UNLISTED, class_name), strict=True))
    if as_json:
        typer.echo(json.dumps(sentences, indent=2))
        return
    for side, listed in sentences.items():
        typer.echo("\n  ".join([f"{len(listed)} {side} sentences:", *listed]))


@app.command("lint")
def lint_command(
    prompts: PromptsName,
    target_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Read the sentences of this class. Repeatable. [default: every class that the "
            "set lists, and one that it does not know]",
        ),
    ] = None,
    backbone: TextBackbone = None,
    weights_dir: options.WeightsDir = None,
    near: Annotated[
        float,
        typer.Option(metavar="COSINE", help="From here on two embeddings count as the same."),
    ] = NEAR,
    device: options.Device = "auto",
) -> None:
    """Look for duplicates, cut-off sentences and words that mean the same; exit code 1 on findings.

    What needs embeddings is left out, and said so, where the weights of the backbone are not here.
    """
    found = load_prompts(prompts)
    reader = text_method(configured_method("winclip", (), device, backbone, weights_dir))
    report = lint(found, target_class or spoken_classes(found), reader, near)
    for finding in report.findings:
        typer.echo(f"{finding.check}: {finding.text}")
    if report.left_out:
        typer.echo(f"left out: {', '.join(report.left_out)}: {report.reason}")
    if report.findings:
        raise typer.Exit(1)
    typer.echo(f"{found.name}: nothing odd found")
