"""Hyper-parameters are checked when a method is made, so that no run fails late."""

from collections.abc import Container, Mapping
from dataclasses import fields
from math import inf
from typing import Any, Literal, NamedTuple, get_args, get_origin

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name


class Between(NamedTuple):
    """All numbers between two, both included."""

    least: float
    most: float = inf

    def __contains__(self, value: Any) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        return f"{self.least} or more" if self.most == inf else f"{self.least} to {self.most}"


class Above(NamedTuple):
    """All numbers above one, up to another that is included."""

    bound: float
    most: float = inf

    def __contains__(self, value: Any) -> bool:
        return self.bound < value <= self.most

    def __str__(self) -> str:
        upper = "" if self.most == inf else f", {self.most} at most"
        return f"more than {self.bound}{upper}"


class MultipleOf(NamedTuple):
    """Multiples of a whole number, of which 0 is one unless the least is higher."""

    base: int
    least: int = 0

    def __contains__(self, value: Any) -> bool:
        return value >= self.least and value % self.base == 0

    def __str__(self) -> str:
        return f"a multiple of {self.base}" + (", or 0" if self.least <= 0 else "")


class Odd(NamedTuple):
    """Odd numbers from 1 on."""

    def __contains__(self, value: Any) -> bool:
        return value > 0 and value % 2 == 1

    def __str__(self) -> str:
        return "an odd number"


COUNT, SHARE, NOT_NEGATIVE = Between(1), Between(0, 1), Between(0)
POSITIVE, POSITIVE_SHARE = Above(0), Above(0, 1)


USUAL: Mapping[str, Container[float]] = {
    "batch_size": COUNT,
    "blur": NOT_NEGATIVE,
    "learning_rate": POSITIVE,
    "pairs_per_step": COUNT,
    "steps": COUNT,
    "support_views": COUNT,
    "vectors_per_step": COUNT,
    "weight_decay": NOT_NEGATIVE,
    "width": COUNT,
}
"""What fields of these names may hold wherever nothing else is said."""


def check_parameters(owner: Any, **allowed: Container[float]) -> None:
    """Refuse values that are not allowed, and choices that are none.

    Args:
        owner: a dataclass; every field that is a ``Literal`` must hold one of its choices, and
            those of usual names what is usual.
        allowed: what other fields may hold. None passes: where it is allowed it means something.

    Raises:
        FewShotError: names the field, its value and what was expected.
    """
    for one in fields(owner):
        value, choices = getattr(owner, one.name), get_args(one.type)
        if get_origin(one.type) is Literal and value not in choices:
            raise unknown_name(f"choice of {one.name}", str(value), choices)
    own = {one.name for one in fields(owner)}
    usual = {name: values for name, values in USUAL.items() if name in own}
    for name, values in (usual | allowed).items():
        value = getattr(owner, name)
        if value is not None and value not in values:
            raise FewShotError(f"{name} is {value}: expected {values}")
