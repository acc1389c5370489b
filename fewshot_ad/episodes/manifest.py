"""What a manifest says, from JSON and back: support lists that anyone can repeat.

A published manifest is never edited: a new list gets a new name, so that results never change
their meaning.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import cast

from fewshot_ad.api import FewShotError

FORMAT = 1
QUERY = "test"
_REQUIRED = ("format", "dataset", "query", "max_shots", "support")
_OPTIONAL = ("rule", "source", "notes", "leaks")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Support lists by seed and class; the N-shot support is the first N paths of a list.

    Paths are POSIX and relative to the root of the dataset. The query is always the test split,
    less ``leaks``: the test images, by class, that the lists are known to use.
    """

    name: str
    dataset: str
    max_shots: int
    support: Mapping[int, Mapping[str, tuple[str, ...]]]
    leaks: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    rule: str = ""
    source: str = ""
    notes: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that have lists, in the order of the file."""
        return tuple(self.support)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that have a list under any seed, in the order of the file."""
        return tuple(dict.fromkeys(name for lists in self.support.values() for name in lists))

    def paths(self, seed: int, target_class: str) -> tuple[str, ...]:
        """The list of one seed and class.

        Raises:
            FewShotError: The manifest has no such seed or class.
        """
        if seed not in self.support:
            has = ", ".join(map(str, self.seeds))
            raise FewShotError(f"manifest {self.name} has no seed {seed}: it has {has}")
        if target_class not in self.support[seed]:
            has = ", ".join(self.support[seed])
            raise FewShotError(f"manifest {self.name} has no class '{target_class}': it has {has}")
        return self.support[seed][target_class]


def render_manifest(manifest: Manifest) -> str:
    """The JSON text of a manifest, one line per list of paths."""
    optional = {
        "rule": manifest.rule,
        "source": manifest.source,
        "notes": manifest.notes,
        "leaks": dict(manifest.leaks),
    }
    content = {
        "format": FORMAT,
        "dataset": manifest.dataset,
        "query": QUERY,
        "max_shots": manifest.max_shots,
        **{key: value for key, value in optional.items() if value},
        "support": {str(seed): dict(lists) for seed, lists in manifest.support.items()},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # JSON escapes line breaks within strings, so brackets beside a line break are those of lists.
    lists = re.compile(r"\[\n *(.*?)\n *\]", re.DOTALL)
    return lists.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text) + "\n"


def parse_manifest(name: str, content: object) -> Manifest:
    """Check what was read from JSON, key by key.

    Raises:
        FewShotError: names the key at fault and what was expected of it.
    """
    fields = _mapping("the manifest", content)
    _check_keys(fields)
    support = {
        _seed(seed): _lists(f"support['{seed}']", lists)
        for seed, lists in _mapping("support", fields["support"]).items()
    }
    manifest = Manifest(
        name=name,
        dataset=_text("dataset", fields["dataset"]),
        max_shots=_max_shots(fields["max_shots"]),
        support=support,
        leaks=_lists("leaks", fields.get("leaks", {})),
        rule=_text("rule", fields.get("rule", "")),
        source=_text("source", fields.get("source", "")),
        notes=_text("notes", fields.get("notes", "")),
    )
    _check_lengths(manifest)
    _check_leaks(manifest)
    return manifest


def _check_keys(fields: Mapping[str, object]) -> None:
    for key in _REQUIRED:
        if key not in fields:
            raise FewShotError(f"key '{key}' is missing")
    for key in fields:
        if key not in _REQUIRED + _OPTIONAL:
            raise _fault("the manifest", f"key '{key}'", f"only {', '.join(_REQUIRED + _OPTIONAL)}")
    for key, expected in (("format", FORMAT), ("query", QUERY)):
        if fields[key] != expected:
            raise _fault(key, repr(fields[key]), repr(expected))


def _check_lengths(manifest: Manifest) -> None:
    if not manifest.classes:
        raise _fault("support", "no list", "at least one seed with one class")
    for seed, lists in manifest.support.items():
        for class_name, paths in lists.items():
            if not 1 <= len(paths) <= manifest.max_shots:
                where = f"support['{seed}']['{class_name}']"
                raise _fault(where, f"{len(paths)} paths", f"1 to max_shots = {manifest.max_shots}")


def _check_leaks(manifest: Manifest) -> None:
    for class_name, leaks in manifest.leaks.items():
        listed = {path for lists in manifest.support.values() for path in lists.get(class_name, ())}
        for path in leaks:
            if path not in listed:
                where = f"leaks['{class_name}']"
                raise _fault(where, f"'{path}'", "only paths that a support of the class lists")


def _lists(where: str, value: object) -> dict[str, tuple[str, ...]]:
    return {
        class_name: _paths(f"{where}['{class_name}']", paths)
        for class_name, paths in _mapping(where, value).items()
    }


def _paths(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _fault(where, _kind(value), "a list of paths")
    items = cast("list[object]", value)
    paths = tuple(_path(f"{where}[{index}]", item) for index, item in enumerate(items))
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise _fault(f"{where}[{index}]", f"'{path}' again", "every image once")
    return paths


def _path(where: str, value: object) -> str:
    text = _text(where, value)
    plain = PurePosixPath(text)
    outside = plain.is_absolute() or ".." in plain.parts or PureWindowsPath(text).drive
    if outside or "\\" in text or str(plain) != text or text == ".":
        raise _fault(where, f"'{text}'", "a plain path with forward slashes below the dataset root")
    return text


def _seed(value: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,17}", value):
        raise _fault("support", f"seed '{value}'", "a whole number from 0 on")
    return int(value)


def _max_shots(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _fault("max_shots", repr(value), "a whole number from 1 on")
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise _fault(where, _kind(value), "a text")
    return value


def _mapping(where: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _fault(where, _kind(value), "an object with named entries")
    return cast("dict[str, object]", value)


def _kind(value: object) -> str:
    kinds = ((dict, "an object"), (list, "a list"), (str, "a text"), (bool, "true or false"))
    named = [name for kind, name in kinds if isinstance(value, kind)]
    return "nothing" if value is None else (named or ["a number"])[0]


def _fault(where: str, found: str, expected: str) -> FewShotError:
    return FewShotError(f"{where} has {found}, expected {expected}")
