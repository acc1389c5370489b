"""What docs/serving.md says of the page is what it does."""

import re
import shlex
from pathlib import Path

from fewshot_ad.cli import load_command
from fewshot_ad.serving.limits import FORMATS, MB
from fewshot_ad.serving.page import HOST, PORT
from fewshot_ad.serving.page_layout import KEPT
from fewshot_ad.serving.page_session import PAGE_LIMITS
from fewshot_ad.serving.page_verdicts import SHOWN_SIDE

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
PAGE = TEXT[TEXT.index("## The page") :]


def test_its_commands_parse():
    lines = [line for line in PAGE.splitlines() if line.startswith("fewshot-ad app")]
    assert len(lines) >= 2
    for line in lines:
        assert load_command("app").make_context(line, shlex.split(line)[2:]).params


def test_its_numbers_are_those_of_the_code():
    assert f"http://{HOST}:{PORT}" in PAGE
    assert f"at {SHOWN_SIDE} pixels at most" in PAGE
    assert f"{PAGE_LIMITS.photos} photos, {PAGE_LIMITS.body_bytes // MB} MB together" in PAGE
    assert f"{PAGE_LIMITS.pixels // 10**6} million pixels each" in PAGE
    assert KEPT == 3600
    assert "for an hour" in PAGE
    row = re.search(r"\| formats \| (.*) \|", PAGE)
    assert {name.strip().upper() for name in row[1].split(",")} == {*FORMATS}


def test_its_options_exist():
    known = {name for one in load_command("app").params for name in one.opts}
    assert {*re.findall(r"`(--[a-z-]+)`", PAGE)} <= known
