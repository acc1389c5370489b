"""What is written agrees with what runs: help, README, packaging."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_ad import __version__
from fewshot_ad.cli import COMMANDS, FILES, app, load_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(command, path=()):
    """Every command with its path, groups included."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


EVERYTHING = [found for name in COMMANDS for found in commands(load_command(name), (name,))]


@pytest.mark.parametrize(("path", "command"), EVERYTHING, ids=[" ".join(p) for p, _ in EVERYTHING])
def test_every_command_and_option_has_help(path, command, cli):
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} of {' '.join(path)}"
    assert cli(*path, "--help").exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_every_command(name):
    assert f"fewshot-ad {name}" in README


def readme_commands():
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    lines = [part.strip() for block in blocks for part in re.split(r"&&|\n", block)]
    return [line for line in lines if line.startswith("fewshot-ad ")]


@pytest.mark.parametrize("line", readme_commands())
def test_the_commands_of_the_readme_parse(line):
    _, *arguments = shlex.split(line)
    command = load_command(arguments.pop(0))
    while getattr(command, "commands", None):
        command = command.commands[arguments.pop(0)]
    context = command.make_context(line, arguments)
    assert context.params


def test_the_readme_is_short():
    prose = [line for line in README.splitlines() if not line.startswith("|")]
    assert len(prose) <= 160  # tables grow with the methods


def test_help_needs_no_torch():
    script = (
        "import sys; from typer.testing import CliRunner; from fewshot_ad.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_help_page_lists_every_command(cli):
    page = cli("--help").stdout
    assert all(name in page for name in COMMANDS)
    files = {path.stem for path in (ROOT / "fewshot_ad" / "cli").glob("*.py")}
    assert {FILES.get(name, name) for name in COMMANDS} <= files


def test_no_arguments_show_the_help_page(cli):
    result = cli()
    assert result.exit_code == 2
    assert "eval" in result.output


def test_an_unknown_command_suggests_the_nearest(cli):
    result = cli("evla")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "'eval'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").stdout.strip() == __version__
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_a_bug_keeps_its_traceback(cli, monkeypatch):
    monkeypatch.setattr("fewshot_ad.cli.load_command", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("methods")
    assert app.info.name == "fewshot-ad"
