"""From the text of a prompt file to a ``PromptSet``; every fault is told with its line."""

from collections.abc import Callable
from typing import Any

from yaml.nodes import Node, ScalarNode

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import unknown_name
from fewshot_ad.prompts.nodes import Document, described, line_of
from fewshot_ad.prompts.prompt_set import LISTS, PromptSet, Strings
from fewshot_ad.prompts.wording import check_class_name, check_known, check_phrase, check_plain

FORMAT = 1
_REQUIRED = ("format", "source", *LISTS)
_OPTIONAL = ("class_names", "any_class", "overrides", "groups", "repeats", "known", "notes")


def parse_prompts(name: str, where: str, text: str) -> PromptSet:
    """Check a prompt file key by key.

    Args:
        name: of the set.
        where: the file, as messages name it.
        text: its content.

    Raises:
        FewShotError: starts with ``where:line`` and says what was expected there.
    """
    return _Reader(where).read(name, text)


class _Reader:
    def __init__(self, where: str) -> None:
        self._document = Document(where)
        self._lines: dict[tuple[str, str], int] = {}
        """The line of every string, by the list that it stands in."""

    def read(self, name: str, text: str) -> PromptSet:
        root = self._document.root(text)
        keys = self._document.mapping(root, "the file")
        for key, (node, _) in keys.items():
            if key not in _REQUIRED + _OPTIONAL:
                self._document.fail(node, str(unknown_name("key", key, _REQUIRED + _OPTIONAL)))
        for key in _REQUIRED:
            if key not in keys:
                self._document.fail(root, f"key '{key}' is missing")
        values = {key: value for key, (_, value) in keys.items()}
        self._check_format(values.pop("format"))
        found = PromptSet(name=name, **{key: self._value(key, v) for key, v in values.items()})
        self._check_sides(found)
        self._check_mentions(found)
        return found

    def _check_format(self, node: Node) -> None:
        if not isinstance(node, ScalarNode) or node.value != str(FORMAT):
            found = described(node)
            self._document.fail(node, f"format is {found}, this version reads format {FORMAT}")

    def _value(self, key: str, node: Node) -> Any:
        readers: dict[str, Callable[[Node, str], Any]] = {
            "any_class": self._class_name,
            "class_names": self._class_names,
            "overrides": self._overrides,
            "groups": self._groups,
            "repeats": self._repeats,
            "known": self._known,
            **dict.fromkeys(LISTS, self._phrases),
        }
        return readers.get(key, self._document.text)(node, key)

    def _phrases(self, node: Node, what: str) -> Strings:
        return self._texts(check_phrase, node, what)

    def _texts(self, check: Callable[[str], None], node: Node, what: str) -> Strings:
        """A list of texts that pass a check, none twice."""
        found: list[str] = []
        for item in self._document.items(node, what):
            text = self._checked(check, item, f"an entry of {what}")
            if text in found:
                first = self._lines[what, text]
                self._document.fail(item, f"{text!r} comes twice in {what}, first in line {first}")
            self._lines[what, text] = line_of(item)
            found.append(text)
        return tuple(found)

    def _class_name(self, node: Node, what: str) -> str:
        return self._checked(check_class_name, node, what)

    def _checked(self, check: Callable[[str], None], node: Node, what: str) -> str:
        text = self._document.text(node, what)
        try:
            check(text)
        except FewShotError as error:
            self._document.fail(node, f"{what}: {error}")
        return text

    def _class_names(self, node: Node, what: str) -> dict[str, str]:
        entries = self._document.mapping(node, what).items()
        return {raw: self._class_name(value, f"{what}.{raw}") for raw, (_, value) in entries}

    def _overrides(self, node: Node, what: str) -> dict[str, dict[str, Strings]]:
        entries = self._document.mapping(node, what).items()
        return {name: self._override(value, f"{what}.{name}") for name, (_, value) in entries}

    def _override(self, node: Node, what: str) -> dict[str, Strings]:
        lists = self._document.mapping(node, what)
        if not lists:
            self._document.fail(node, f"{what} changes nothing, expected a list or no entry")
        for key, (key_node, _) in lists.items():
            if key not in LISTS:
                self._document.fail(key_node, str(unknown_name("list to override", key, LISTS)))
        return {key: self._phrases(value, f"{what}.{key}") for key, (_, value) in lists.items()}

    def _groups(self, node: Node, what: str) -> dict[str, Strings]:
        entries = self._document.mapping(node, what).items()
        return {group: self._words(value, f"{what}.{group}") for group, (_, value) in entries}

    def _words(self, node: Node, what: str) -> Strings:
        return self._texts(check_plain, node, what)

    def _known(self, node: Node, what: str) -> Strings:
        return self._texts(check_known, node, what)

    def _repeats(self, node: Node, what: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for text, (key_node, value) in self._document.mapping(node, what).items():
            count = value.value if isinstance(value, ScalarNode) else ""
            if count not in map(str, range(2, 100)):
                times = described(value)
                self._document.fail(value, f"{text!r} is to count {times}, expected 2 to 99 times")
            self._lines[what, text] = line_of(key_node)
            found[text] = int(count)
        return found

    def _check_sides(self, found: PromptSet) -> None:
        """No state may be normal and anomalous at once, in any class."""
        for class_name in ("", *found.overrides):
            lists = found.of_class(class_name)
            for text in sorted({*lists["normal_states"]} & {*lists["anomalous_states"]}):
                line = max(line for (_, each), line in self._lines.items() if each == text)
                self._document.fail(
                    line, f"{text!r} is a normal and an anomalous state, choose one"
                )

    def _check_mentions(self, found: PromptSet) -> None:
        """Groups and repeats speak of strings that are there."""
        for (what, text), line in self._lines.items():
            is_absent = what == "repeats" and text not in found.strings
            if is_absent or (what.startswith("groups.") and not found.holding(text)):
                self._document.fail(line, f"{what} names {text!r}, which no template or state has")
