"""What a class promises by what it declares: fields, their ranges, presets and a docstring."""

import inspect
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from fewshot_ad.checks.promises import require, require_refusal
from fewshot_ad.checks.trial import Make
from fewshot_ad.parts.field_types import check_field_types

IMPOSSIBLE: Mapping[str, tuple[float, ...]] = {
    "batch_size": (0,),
    "blur": (-1.0,),
    "learning_rate": (0.0, math.nan),
    "pairs_per_step": (0,),
    "steps": (0,),
    "support_views": (0,),
    "vectors_per_step": (0,),
    "weight_decay": (-1.0,),
    "width": (0,),
}
"""What no method can mean by fields of these names."""


def check_defaults(make: Make) -> None:
    """The class constructs without arguments and without reading a file or a network."""
    type(make())()


def check_fields(make: Make) -> None:
    """Fields are keyword-only, kept as they were given, and params() goes through JSON."""
    method = make()
    for field in fields(method):
        require(
            bool(field.kw_only) or not field.init, f"the field {field.name} is not keyword-only"
        )
    given = {field.name: getattr(method, field.name) for field in fields(method) if field.init}
    copy = type(method)(**given)
    for name, value in given.items():
        require(getattr(copy, name) == value, f"the field {name} is not stored as it was given")
    json.dumps(method.params(), allow_nan=False)


def check_docstring(make: Make) -> None:
    """The docstring of the class or its module names the paper: a year and an address."""
    method = type(make())
    text = f"{sys.modules[method.__module__].__doc__} {inspect.getdoc(method)}"
    require(re.search(r"\b(19|20)\d\d\b", text) is not None, "the docstring has no year")
    require(re.search(r"https?://", text) is not None, "the docstring has no address (https://...)")


def check_paper(make: Make) -> None:
    """What ``PAPER`` holds, if there is one, are values of fields that differ from the defaults."""
    kind = type(make())
    paper: Mapping[str, Any] = getattr(kind, "PAPER", {})
    names = {field.name for field in fields(kind) if field.init}
    require(paper.keys() <= names, f"PAPER names no fields: {sorted(paper.keys() - names)}")
    check_field_types(kind, paper)
    defaults, method = kind(), kind(**paper)
    for name, value in paper.items():
        require(getattr(method, name) == value, f"PAPER's {name} is not stored as it is given")
        require(getattr(defaults, name) != value, f"PAPER's {name} is the default")
    json.dumps(method.params(), allow_nan=False)


def check_impossible_values(make: Make) -> None:
    """A value without a meaning is refused when the method is made, by a line that names it."""
    method = make()
    names = {field.name for field in fields(method)}
    for name, values in IMPOSSIBLE.items():
        for value in values if name in names else ():
            said = require_refusal(partial(method.variant, **{name: value}), f"{name}={value}")
            named = f"{name} is {value}" in said
            require(named, f"the refusal of {name}={value} does not say so: {said}")
