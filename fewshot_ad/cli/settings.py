"""The values of options: shots, seeds, and ``--set name=value`` typed by the fields of a method."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from fewshot_ad.api import Dataset, FewShotError, Method
from fewshot_ad.assets import unknown_name
from fewshot_ad.episodes import Shots
from fewshot_ad.images import EvalSize
from fewshot_ad.methods import load_method
from fewshot_ad.parts.precision import split_precision
from fewshot_ad.prompts import load_prompts

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_shots(text: str) -> list[Shots]:
    """``"1,4,full"`` as a list in the order given, without repeats."""
    return list(dict.fromkeys(_shots(item.strip()) for item in text.split(",")))


def _shots(item: str) -> Shots:
    if item == "full":
        return "full"
    if not item.isdecimal():
        raise FewShotError(
            f"--shots: '{item}' is not a number of images; give 0, 1, 2 ... or full, with commas"
        )
    return int(item)


def parse_seeds(text: str) -> list[int]:
    """``"5"`` is the seeds 0 to 4, ``"7,"`` the seed 7 alone, ``"0,3,9"`` a list."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items or not all(item.isdecimal() for item in items):
        raise FewShotError(f"--seeds: '{text}' is neither a count (5) nor a list of seeds (0,3,9)")
    if "," in text:
        return list(dict.fromkeys(map(int, items)))
    if int(items[0]) == 0:
        raise FewShotError(
            "--seeds: 0 seeds leave nothing to do; give 1 or more, or a list such as 0,"
        )
    return list(range(int(items[0])))


def with_settings(method: Any, pairs: Iterable[str]) -> Any:
    """A copy of a method with ``name=value`` pairs set; a dotted name reaches into what is nested.

    Raises:
        FewShotError: a pair without ``=``, an unknown name, or a value of another type.
    """
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise FewShotError(f"--set {pair}: expected name=value")
        method = _with_setting(method, name.strip(), text.strip(), pair)
    return method


def _with_setting(owner: Any, name: str, text: str, pair: str) -> Any:
    head, _, rest = name.partition(".")
    names = [field.name for field in fields(owner) if field.init]
    if head not in names:
        raise unknown_name(f"parameter of {type(owner).__name__}", head, names)
    current = getattr(owner, head)
    if rest and is_dataclass(current):
        return replace(owner, **{head: _with_setting(current, rest, text, pair)})
    if rest and isinstance(current, dict):
        return _replaced(owner, head, _with_entry(current, rest, text), pair)
    if rest or is_dataclass(current):
        raise FewShotError(f"--set {pair}: {_how_to_set(head, current)}")
    annotation = get_type_hints(type(owner))[head]
    return _replaced(owner, head, typed(text, annotation, f"--set {pair}"), pair)


def _with_entry(mapping: Any, path: str, text: str) -> dict[str, Any]:
    """A copy with one entry set, at any depth; the value is JSON where it is any, else text."""
    head, _, rest = path.partition(".")
    known = mapping if isinstance(mapping, dict) else {}
    if rest:
        return {**known, head: _with_entry(known.get(head), rest, text)}
    try:
        return {**known, head: json.loads(text)}
    except ValueError:
        return {**known, head: text}


def _how_to_set(head: str, current: Any) -> str:
    if not is_dataclass(current):
        return f"'{head}' has no parts"
    return f"'{head}' has parts: {', '.join(f'{head}.{field.name}' for field in fields(current))}"


def _replaced(owner: Any, name: str, value: Any, pair: str) -> Any:
    try:
        return replace(owner, **{name: value})
    except FewShotError as error:
        raise FewShotError(f"--set {pair}: {error}") from error


def typed(text: str, annotation: Any, what: str) -> Any:
    """``text`` as a value of an annotation: a number, boolean, choice, optional or a tuple of them.

    Raises:
        FewShotError: ``text`` is no such value; the line starts with ``what``.
    """
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _typed_optional(text, get_args(annotation), what)
    if origin is Literal:
        choices = {str(choice): choice for choice in get_args(annotation)}
        if text not in choices:
            raise unknown_name(f"choice of {what}", text, choices)
        return choices[text]
    if origin is tuple:
        return _typed_tuple(text, get_args(annotation), what)
    return _typed_scalar(text, annotation, what)


def _typed_optional(text: str, options: tuple[Any, ...], what: str) -> Any:
    if text.lower() == "none" and NoneType in options:
        return None
    *others, last = [option for option in options if option is not NoneType]
    for option in others:
        try:
            return typed(text, option, what)
        except FewShotError:
            continue
    return typed(text, last, what)


def _typed_tuple(text: str, options: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    items = [item.strip() for item in text.strip("()").split(",") if item.strip()]
    if options[-1:] == (...,):
        options = options[:1] * len(items)
    if len(items) != len(options):
        raise FewShotError(f"{what}: expected {len(options)} values separated by commas")
    return tuple(typed(item, option, what) for item, option in zip(items, options, strict=True))


def _typed_scalar(text: str, kind: Any, what: str) -> Any:
    try:
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError, TypeError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}
        raise FewShotError(f"{what}: expected {wanted.get(kind, kind)}") from None


def parse_eval_size(text: str) -> EvalSize:
    """``native``, or the side in pixels at which maps meet masks."""
    if text == "native":
        return "native"
    if not text.isdecimal() or int(text) == 0:
        raise FewShotError(f"--eval-size: '{text}' is neither a number of pixels nor 'native'")
    return int(text)


def parse_device(text: str) -> str:
    """``auto``, or a device of torch that this machine has."""
    if text == "auto":
        return text
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise FewShotError(
            f"--device: '{text}' cannot be used here ({reason}); give auto, cpu or a device at hand"
        ) from error
    return text


def parse_target_classes(names: Sequence[str], dataset: Dataset) -> list[str]:
    """The classes under test; ``all`` stands for every class of the dataset."""
    if not names:
        raise FewShotError(
            f"no --target-class: give one or more of {', '.join(dataset.classes)}, or all"
        )
    if "all" in names:
        return list(dataset.classes)
    for name in names:
        if name not in dataset.classes:
            raise unknown_name(f"class of {dataset.name}", name, dataset.classes)
    return list(dict.fromkeys(names))


def configured_method(
    name: str,
    settings: Sequence[str],
    device: str,
    backbone: str | None,
    weights_dir: Path | None,
    paper: bool = False,
    precision: str = "fp32",
) -> Method:
    """The method of a name with what the options say of it.

    ``paper`` starts from the class's ``PAPER`` settings; a method without them is at the paper's
    values already.

    Raises:
        FewShotError: unknown method or parameter, or a method that has no backbone was given one,
            or a precision for it.
    """
    method = load_method(name).variant(device=parse_device(device))
    method = method.variant(**(getattr(method, "PAPER", {}) if paper else {}))
    method = with_options(method, name, {"backbone": backbone, "weights_dir": weights_dir})
    return _with_precision(with_settings(method, settings), name, precision)


def _with_precision(method: Method, name: str, precision: str) -> Method:
    """A copy whose backbone computes in another precision; ``fp32`` leaves it as it is.

    Raises:
        FewShotError: the method has no backbone, or one that says its precision already.
    """
    if precision == "fp32":
        return method
    if "backbone" not in {field.name for field in fields(method)}:
        raise FewShotError(f"{name} takes no --precision: it has no parameter 'backbone'")
    backbone: str = getattr(method, "backbone", "")
    if split_precision(backbone)[0] is not None:
        raise FewShotError(f"--precision {precision}: the backbone {backbone} says its own already")
    return method.variant(backbone=f"{precision}:{backbone}")


def with_options(method: Method, name: str, given: Mapping[str, object]) -> Method:
    """A copy with the parameters that have options of their own; what is None was not given.

    Raises:
        FewShotError: the method has no such parameter.
    """
    known = {field.name for field in fields(method)}
    for parameter, value in given.items():
        if value is None:
            continue
        if parameter not in known:
            option = parameter.replace("_", "-")
            raise FewShotError(f"{name} takes no --{option}: it has no parameter '{parameter}'")
        method = method.variant(**{parameter: str(value)})
    return method


def check_text(methods: Iterable[Method], classes: Sequence[str]) -> None:
    """Refuse prompts that cannot be read, and one name for several classes, before any work.

    Raises:
        FewShotError: see ``load_prompts``; or a class has no name that reads as words.
    """
    for method in methods:
        prompts, class_name = (getattr(method, name, None) for name in ("prompts", "class_name"))
        if not isinstance(prompts, str):
            continue
        if class_name is not None and len(classes) > 1:
            raise FewShotError(
                f"--class-name '{class_name}' names one class and {len(classes)} are under test; "
                "list names under class_names in a prompt file, or give one --target-class"
            )
        found = load_prompts(prompts)
        for target_class in classes:
            found.sentences(target_class, class_name)
