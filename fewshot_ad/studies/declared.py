"""A study as a file: methods on classes, shots and seeds, checked before anything runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from fewshot_ad.api import FewShotError

Shots = Annotated[int, Field(ge=0)] | Literal["full"]
Precision = Literal["fp32", "bf16", "openvino", "openvino-bf16"]
Value = bool | int | float | str | list[int | float | str] | None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MethodEntry(_Entry):
    """A method with what is changed of it; a bare name in the file is one without changes.

    Attributes:
        method: what ``--method`` takes.
        paper: start from the paper's settings.
        set: parameters, as ``--set`` takes them.
        backbone, precision, weights_dir: as the options of ``eval``.
    """

    method: str
    paper: bool = False
    set: dict[str, Value] = Field(default_factory=dict[str, Value])
    backbone: str | None = None
    precision: Precision = "fp32"
    weights_dir: str | None = None

    @property
    def settings(self) -> list[str]:
        """``NAME=VALUE`` for every parameter that is set."""
        return [f"{name}={_text(value)}" for name, value in self.set.items()]


class Target(_Entry):
    """Classes under test.

    Attributes:
        dataset: as ``--dataset`` takes it.
        classes: their names; all of them where nothing is said.
    """

    dataset: str
    classes: list[str] = Field(default=["all"], min_length=1)


class Study(_Entry):
    """The grid: every method on every class, with all numbers of shots and all seeds.

    Attributes:
        title: one line for the head of the table.
        methods, targets: the rows of the grid.
        shots: numbers of normal images.
        seeds: how many draws of the support.
        anomalous_shots: labelled anomalies, for supervised methods alone.
        known: what ``--known`` takes, a run for each; None for the target's other classes.
        query_limit: so many normal and anomalous images per class at most.
        eval_size: side at which maps meet masks, or ``native``.
    """

    title: str
    methods: list[MethodEntry] = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    shots: list[Shots] = Field(min_length=1)
    seeds: PositiveInt = 5
    anomalous_shots: Annotated[int, Field(ge=0)] = 0
    known: list[str | None] = Field(default=[None], min_length=1)
    query_limit: PositiveInt | None = None
    eval_size: PositiveInt | Literal["native"] = 256

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [{"method": each} if isinstance(each, str) else each for each in entries]

    @field_validator("methods")
    @classmethod
    def _all_different(cls, entries: list[MethodEntry]) -> list[MethodEntry]:
        for number, entry in enumerate(entries):
            if entry in entries[:number]:
                raise ValueError(f"{entry.method} is listed twice with the same settings")
        return entries


def load_study(path: Path) -> Study:
    """Read and check a study.

    Raises:
        FewShotError: there is no such file, it is no YAML, or an entry is not what it should be;
            says at which line.
    """
    try:
        text = path.read_text()
        document = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise FewShotError(f"cannot read the study {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FewShotError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    values = yaml.safe_load(text)
    if not isinstance(values, Mapping):
        raise FewShotError(f"{path} is no study: expected 'title', 'methods', 'targets', 'shots'")
    try:
        return Study.model_validate(dict(values))
    except ValidationError as error:
        raise FewShotError("; ".join(_complaints(path, document, error))) from error


def _complaints(path: Path, document: yaml.Node, error: ValidationError) -> Iterator[str]:
    """One for each place, whatever number of types was tried there."""
    tried: dict[_Place, list[str]] = {}
    found: dict[_Place, str] = {}
    for one in error.errors(include_url=False):
        place = _place(document, one["loc"])
        tried.setdefault(place, []).append(one["msg"].removeprefix("Value error, "))
        found[place] = "" if one["type"] == "missing" else f" (found {_short(one['input'])})"
    for place, messages in tried.items():
        name = ".".join(map(str, place.names)) or "the study"
        what = " or ".join(dict.fromkeys(messages))
        yield f"{path}, line {place.line}: {name}: {what}{found[place]}"


@dataclass(frozen=True)
class _Place:
    line: int
    names: tuple[str | int, ...]


def _place(node: yaml.Node, location: tuple[str | int, ...]) -> _Place:
    """The deepest node on the way to a location; below a value, steps are only names of types."""
    names: list[str | int] = []
    for step in location:
        child = _child(node, step)
        if child is not None:
            node = child
        if child is not None or isinstance(node, yaml.MappingNode):
            names.append(step)
    return _Place(node.start_mark.line + 1, tuple(names))


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _text(value: Value) -> str:
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
