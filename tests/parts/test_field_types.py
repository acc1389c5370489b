from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.field_types import check_field_types


@dataclass
class Settings:
    steps: int = 1
    rate: float = 0.1
    exact: bool = False
    levels: tuple[int, ...] = (1, 2)
    pair: tuple[float, str] = (0.0, "a")
    limit: int | None = None
    rule: Literal["mean", "max"] = "mean"
    nested: dict[str, Any] | None = None


@pytest.mark.parametrize(
    "fine",
    [
        {"steps": 3, "rate": 1, "exact": True},
        {"rate": 0.5, "levels": (), "limit": None},
        {"levels": (3, 4, 5), "pair": (1, "b"), "limit": 2},
        {"rule": "max", "nested": {"a": object()}},
        {"unknown": object()},
    ],
)
def test_what_fits_passes(fine: dict[str, Any]) -> None:
    check_field_types(Settings, fine)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"steps": 2.5}, "steps is 2.5: expected int"),
        ({"steps": True}, "steps is True: expected int"),
        ({"rate": "fast"}, "rate is 'fast': expected float"),
        ({"rate": None}, "rate is None: expected float"),
        ({"exact": 1}, "exact is 1: expected bool"),
        ({"levels": [1]}, "levels is [1]: expected tuple[int, ...]"),
        ({"levels": (1, "2")}, "levels is (1, '2'): expected tuple[int, ...]"),
        ({"pair": (1.0,)}, "pair is (1.0,): expected tuple[float, str]"),
        ({"limit": "2"}, "limit is '2': expected int | None"),
        ({"rule": "min"}, "rule is 'min': expected typing.Literal['mean', 'max']"),
    ],
)
def test_the_rest_is_named(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(FewShotError) as caught:
        check_field_types(Settings, wrong)
    assert str(caught.value) == line
