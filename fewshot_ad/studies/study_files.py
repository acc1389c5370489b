"""Reads the file of a study; whatever is wrong in it is told with its line."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from fewshot_ad.api import FewShotError
from fewshot_ad.studies.declared import Published, Study

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class StudyFile:
    """A study and where it stands.

    Attributes:
        path: of the file.
        text: what it says.
        study: what that declares.
        document: the same as nodes that know their lines.
    """

    path: Path
    text: str
    study: Study
    document: yaml.Node

    @contextmanager
    def at(self, *location: str | int) -> Generator[None]:
        """Say with errors within which line of the file they are about, as ``at("methods", 2)``.

        Raises:
            FewShotError: one was raised within.
        """
        try:
            yield
        except FewShotError as error:
            line = _place(self.document, location).line
            raise FewShotError(f"{self.path}, line {line}: {error}") from error


def load_study(path: Path) -> StudyFile:
    """Read and check a study.

    Raises:
        FewShotError: there is no such file, it is no YAML, or an entry is not what it should be;
            says at which line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FewShotError(f"cannot read the study {path}: {reason}") from error
    return parse_study(text, path)


def parse_study(text: str, path: Path) -> StudyFile:
    """The study that a text declares; see ``load_study``."""
    try:
        document = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FewShotError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping) or document is None:
        raise FewShotError(f"{path} is no study: expected 'title', 'methods', 'targets', 'shots'")
    try:
        return StudyFile(path, text, Study.model_validate(dict(values)), document)
    except ValidationError as error:
        raise FewShotError("; ".join(_complaints(path, document, error))) from error


def published_numbers(texts: Iterable[str]) -> list[Published]:
    """What some studies say of others' numbers, each once; ``store.load_studies`` has the texts.

    Raises:
        FewShotError: a text is no study of this version.
    """
    found = [each for text in texts for each in parse_study(text, Path("study")).study.published]
    return [each for number, each in enumerate(found) if each not in found[:number]]


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
    names: Location


def _place(node: yaml.Node, location: Location) -> _Place:
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
