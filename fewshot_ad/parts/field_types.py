"""Whether values are of the types that the fields of a dataclass are annotated with.

The command line makes every value by its annotation. Values that come in a mapping, from a file or
from Python, are what they are, and a wrong one would fail late and in the middle of something.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fewshot_ad.api import FewShotError


def check_field_types(kind: type, values: Mapping[str, Any]) -> None:
    """Refuse values that are not what the annotations of a class say; other names are let pass.

    Raises:
        FewShotError: names the field, its value and what was expected.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        hint = hints.get(name, Any)
        if not is_of_type(value, hint):
            wanted = str(hint) if get_args(hint) else hint.__name__
            raise FewShotError(f"{name} is {value!r}: expected {wanted}")


def is_of_type(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type, choice, union or tuple; a whole number is a number too."""
    origin, options = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, UnionType):
        return any(is_of_type(value, option) for option in options)
    if origin is Literal:
        return value in options
    if origin is tuple:
        return isinstance(value, tuple) and _are_of_types(value, options)
    if annotation in (int, float):
        wanted = (int, float) if annotation is float else int
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, origin or annotation)


def _are_of_types(values: tuple[Any, ...], options: tuple[Any, ...]) -> bool:
    if options[-1:] == (...,):
        options = options[:1] * len(values)
    return len(values) == len(options) and all(map(is_of_type, values, options))
