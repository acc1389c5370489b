"""``fewshot-ad methods``: cards, parameters and what they mean."""

import json
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from fewshot_ad.api import Preprocess
from fewshot_ad.cli.methods import app, meanings
from fewshot_ad.methods import list_methods


@dataclass
class Base:
    """A base.

    Attributes:
        width, height: in pixels
            of the map.
        depth: of the base.
    """

    width: int = 1
    height: int = 2
    depth: int = 3


@dataclass
class Derived(Base):
    """Says one thing anew: and this is no attribute.

    Attributes (besides those of ``Base``):
        depth: of the ``Derived``.
        inner: dotted.

    Raises:
        Nothing: at all.
    """

    inner: Preprocess = field(default_factory=Preprocess)


def test_meanings_come_from_the_nearest_docstring() -> None:
    said = meanings(Derived())
    assert said["width"] == said["height"] == "in pixels of the map."
    assert said["depth"] == "of the Derived."
    assert said["inner.size"].startswith("side")
    assert "one thing anew" not in said


@pytest.mark.parametrize("name", list_methods())
def test_every_parameter_is_explained(name: str) -> None:
    found = CliRunner().invoke(app, ["show", name, "--json"])
    assert found.exit_code == 0
    card = json.loads(found.stdout)
    assert card["parameters"]
    assert [each["name"] for each in card["parameters"] if not each["meaning"]] == []


def test_the_table_shows_type_default_and_meaning() -> None:
    text = CliRunner().invoke(app, ["show", "residual_distance"]).stdout
    assert "Not a method of the paper" in text
    for word in ("unit_length", "bool", "True", "blur"):
        assert word in text
