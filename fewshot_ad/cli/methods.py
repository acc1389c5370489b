"""``fewshot-ad methods``: what can be run, from which paper, with which parameters."""

import inspect
import json
import re
import sys
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from fewshot_ad.api import Method
from fewshot_ad.methods import list_methods, load_method


class ListByDefault(TyperGroup):
    """``fewshot-ad methods`` alone lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that was left out."""
        return super().parse_args(ctx, args if args else ["list"])


app = typer.Typer(cls=ListByDefault)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


@dataclass(frozen=True)
class Card:
    """What the list says of a method; paper, year and address are read from its docstring."""

    name: str
    track: str
    min_shots: int
    title: str
    year: str
    url: str


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the methods with their tracks and papers; `methods` alone does the same."""
    cards = [describe(name, load_method(name)) for name in list_methods()]
    if as_json:
        typer.echo(json.dumps([vars(card) for card in cards], indent=2))
        return
    table = Table("method", "track", "min shots", "year", "what it is")
    for card in cards:
        what = Text.assemble(card.title, "\n", (card.url, "dim"))
        table.add_row(card.name, card.track, str(card.min_shots), card.year, what)
    Console().print(table)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A name from the list, or package.module:Class.")],
    as_json: AsJson = False,
) -> None:
    """Print the parameters of one method with their types and defaults, as `--set` takes them."""
    method = load_method(name)
    card = describe(name, method)
    rows = list(parameters(method))
    if as_json:
        said = meanings(method)
        listed = [
            {"name": each, "type": kind, "default": default, "meaning": said.get(each, "")}
            for each, kind, default in rows
        ]
        typer.echo(json.dumps({**vars(card), "parameters": listed}, indent=2))
        return
    typer.echo(documentation(method))
    table = Table("parameter", "default", "what it is")
    said = meanings(method)
    for parameter, kind, default in rows:
        table.add_row(
            Text.assemble(parameter, "\n  ", (kind, "dim")), Text(default), said.get(parameter, "")
        )
    Console().print(table)


def describe(name: str, method: Method) -> Card:
    """The card of a method, from its class and its docstring."""
    text = documentation(method)
    year = re.search(r"\b(?:19|20)\d\d\b", text)
    url = re.search(r"https?://[^\s>)\]`,]+", text)
    return Card(
        name=name,
        track=method.track,
        min_shots=method.min_shots,
        title=text.splitlines()[0] if text else "",
        year=year.group() if year else "",
        url=url.group().rstrip(".") if url else "",
    )


def documentation(method: Method) -> str:
    """The docstrings of the method's module and class, less what ``meanings`` says."""
    module = sys.modules[type(method).__module__].__doc__ or ""
    own, _, _ = (type(method).__doc__ or "").partition("Attributes")
    return "\n\n".join(text.strip() for text in (module, own) if text.strip())


def meanings(settings: Any, prefix: str = "") -> dict[str, str]:
    """What the docstrings of a class and its bases say of the fields, by their dotted names."""
    found: dict[str, str] = {}
    for base in reversed(type(settings).__mro__):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes")
        for names, text in re.findall(r"^    ([\w, ]+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE):
            meaning = " ".join(text.split()).replace("``", "")
            found.update((prefix + name, meaning) for name in names.split(", "))
    for entry in (each for each in fields(settings) if each.init):
        value = getattr(settings, entry.name)
        if is_dataclass(value):
            found |= meanings(value, f"{prefix}{entry.name}.")
    return found


def parameters(settings: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """Name, type and default of every field of a method; those of a nested dataclass are dotted."""
    rows: list[tuple[str, str, str]] = []
    for entry in (each for each in fields(settings) if each.init):
        value = getattr(settings, entry.name)
        if is_dataclass(value):
            rows += parameters(value, f"{prefix}{entry.name}.")
        else:
            annotation = entry.type
            kind = annotation.__name__ if type(annotation) is type else str(annotation)
            kind = kind.replace("typing.", "")
            rows.append((prefix + entry.name, kind, repr(value)))
    return rows
