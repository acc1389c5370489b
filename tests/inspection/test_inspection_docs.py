"""docs/inspection.md says what runs, and runs what it says."""

import re
import shlex
from pathlib import Path

import pytest
from painted import Painted
from PIL import Image

from fewshot_ad.cli import load_command

PAGE = (Path(__file__).parents[2] / "docs" / "inspection.md").read_text()
PLATES = Painted()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, samples in (("ok", PLATES.train("plate")), ("new", PLATES.test("plate"))):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number, sample in enumerate(samples):
            pixels = PLATES.read_image(sample)
            Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"{number}.png")
    return tmp_path


def test_the_page_begins_with_three_lines_that_run_as_they_stand(photos):
    heading, first, *_ = PAGE.split("```")
    assert heading.count("\n") == 2
    lines = first.removeprefix("python\n").split("\n\n")[1].splitlines()
    assert len(lines) == 3
    names: dict[str, object] = {}
    exec(first.removeprefix("python\n"), names)
    assert [verdict.decision for verdict in names["verdicts"]][-3:] == ["NOT OK"] * 3
    assert (photos / "part.fsad").is_file()


def commands():
    blocks = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("fewshot")]


@pytest.mark.parametrize("line", commands())
def test_the_commands_of_the_page_parse(line):
    _, name, *arguments = shlex.split(line)
    assert load_command(name).make_context(line, arguments).params


def test_fit_and_predict_run_as_written(photos, cli):
    for line in commands()[:2]:
        result = cli(*shlex.split(line)[1:])
        assert result.exit_code == 0
    rows = (photos / "decisions" / "decisions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(PLATES.test("plate"))
