"""The page on weights says what the catalogue says."""

from pathlib import Path

import pytest

from fewshot_ad.parts.published_weights import PUBLISHED, PublishedWeights
from fewshot_ad.parts.weight_catalog import search_order

PAGE = (Path(__file__).parents[1] / "docs" / "weights.md").read_text()


def line(entry: PublishedWeights) -> str:
    digests = [f"`{digest[:16]}` ({suffix})" for suffix, digest in entry.sha256.items()]
    source = f"[{entry.repository or 'release'}]({entry.source})" if entry.source else "embedded"
    cells = (
        f"`{entry.name}`",
        f"`{entry.file_name}`",
        f"{entry.megabytes:.0f}",
        entry.licence,
        source,
        ", ".join(digests) or "not known",
    )
    return f"| {' | '.join(cells)} |"


def test_the_table_is_that_of_the_catalogue():
    written = [each for each in PAGE.splitlines() if each.startswith("| `")]
    assert written == [line(entry) for entry in PUBLISHED]


def test_the_places_are_named_in_the_order_of_the_search():
    variables = ["--weights-dir", "$FEWSHOT_AD_WEIGHTS", "$HF_HOME", "$TORCH_HOME"]
    section = PAGE[PAGE.index("## Search order") : PAGE.index("In a folder of weights")]
    assert sorted(variables, key=section.index) == variables
    for place, variable in zip(search_order(None), variables, strict=True):
        assert variable in place


@pytest.mark.parametrize("command", ["list", "where", "path", "verify", "fetch"])
def test_every_command_is_on_the_page(command):
    assert f"fewshot-ad weights {command}" in PAGE
