import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process per core runs tests; read by torch

import pytest
from typer.testing import CliRunner, Result

from fewshot_ad.cli import app

Cli = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests neither find nor leave anything in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_AD_CACHE", str(folder))
        patch.delenv("FEWSHOT_AD_WEIGHTS", raising=False)
        yield folder


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run ``fewshot-ad`` with these arguments; a bug shows as the exception it is."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)

    return run
