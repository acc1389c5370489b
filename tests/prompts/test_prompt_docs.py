"""``docs/prompts.md`` agrees with what runs."""

import re
import shlex
from pathlib import Path

import pytest

from fewshot_ad.cli import load_command
from fewshot_ad.prompts import list_prompts, load_prompts

PAGE = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text()
COMMANDS = [
    line.replace(" ...", "")
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
    if line.startswith("fewshot-ad ")
]


def test_the_table_counts_right() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \+ (\d+) \| (\d+) \+ (\d+) \|", PAGE, re.M)
    assert sorted(name for name, *_ in rows) == sorted(list_prompts())
    for name, *counts in rows:
        prompts = load_prompts(name)
        lists = prompts.templates, prompts.normal_states, prompts.anomalous_states
        found = [*map(len, lists), *map(len, prompts.sentences("cup"))]
        assert found == [int(count) for count in counts]


def test_the_example_is_a_valid_file(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(example)
    prompts = load_prompts(path)
    assert prompts.group("surface") == ("flawless {}", "{} with a scratch")
    assert len(prompts.sentences("wood")[0]) == 3


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str) -> None:
    _, *arguments = shlex.split(line)
    command = load_command(arguments.pop(0))
    while getattr(command, "commands", None):
        command = command.commands[arguments.pop(0)]
    assert command.make_context(line, arguments).params
