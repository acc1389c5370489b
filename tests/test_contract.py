"""Every method of ours keeps every promise of the contract."""

from functools import cache
from pathlib import Path

import pytest

from fewshot_ad.checks import CHECKS, Check, exemption, shrunk
from fewshot_ad.checks.trial import Make, maker
from fewshot_ad.methods import list_methods, load_method


@pytest.fixture(scope="module")
def make_of(tmp_path_factory: pytest.TempPathFactory):
    """What makes methods ready for ``fit``; each one is meta-trained once for all its checks."""
    folder: Path = tmp_path_factory.mktemp("contract")

    @cache
    def make(name: str) -> Make:
        return maker(shrunk(load_method(name)), folder)

    return make


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list_methods())
def test_method_keeps_its_promise(name: str, check: Check, make_of) -> None:
    reason = exemption(load_method(name), check)
    if reason is not None:
        pytest.skip(reason)
    check(make_of(name))


def test_there_are_methods() -> None:
    assert {"patchcore", "resad", "resad_pp", "residual_distance"} <= set(list_methods())
