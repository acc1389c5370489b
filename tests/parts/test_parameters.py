from dataclasses import dataclass
from math import nan
from typing import Any, Literal

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.parameters import (
    COUNT,
    POSITIVE,
    POSITIVE_SHARE,
    SHARE,
    Between,
    MultipleOf,
    Odd,
    check_parameters,
)


@dataclass
class Settings:
    metric: Literal["euclidean", "cosine"] = "cosine"
    steps: Any = 3
    share: Any = None
    side: Any = 1
    dims: Any = 0
    learning_rate: Any = 1e-3


def check(**changes: Any) -> None:
    check_parameters(Settings(**changes), steps=COUNT, share=SHARE, side=Odd(), dims=MultipleOf(4))


@pytest.mark.parametrize(
    "fine", [{}, {"steps": 1}, {"share": 0.0}, {"share": 1}, {"side": 5}, {"dims": 8}]
)
def test_what_is_allowed_passes(fine: dict[str, Any]) -> None:
    check(**fine)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"steps": 0}, "steps is 0: expected 1 or more"),
        ({"share": 1.5}, "share is 1.5: expected 0 to 1"),
        ({"share": nan}, "share is nan: expected 0 to 1"),
        ({"side": 2}, "side is 2: expected an odd number"),
        ({"side": -1}, "side is -1: expected an odd number"),
        ({"dims": 6}, "dims is 6: expected a multiple of 4, or 0"),
        ({"metric": "cosin"}, "no choice of metric is called 'cosin'; did you mean 'cosine'?"),
    ],
)
def test_the_rest_is_named(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(FewShotError) as caught:
        check(**wrong)
    assert str(caught.value) == line


def test_fields_of_usual_names_are_checked_unless_something_else_is_said() -> None:
    with pytest.raises(FewShotError, match="learning_rate is 0: expected more than 0"):
        check(learning_rate=0)
    check_parameters(Settings(learning_rate=0), learning_rate=SHARE)


def test_multiples_begin_at_the_least() -> None:
    assert all(value in MultipleOf(4) for value in (0, 4, 8))
    assert all(value in MultipleOf(8, least=8) for value in (8, 16))
    assert all(value not in MultipleOf(8, least=8) for value in (-8, 0, 12))
    assert str(MultipleOf(8, least=8)) == "a multiple of 8"


def test_both_ends_are_between() -> None:
    assert all(value in Between(0, 0.5) for value in (0, 0.5))
    assert 0.51 not in Between(0, 0.5)


def test_what_is_above_excludes_its_bound() -> None:
    assert all(value in POSITIVE_SHARE for value in (1e-9, 1))
    assert all(value not in POSITIVE_SHARE for value in (0, -1, 1.01, nan))
    assert str(POSITIVE_SHARE) == "more than 0, 1 at most"
    assert str(POSITIVE) == "more than 0"
