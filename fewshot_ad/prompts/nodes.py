"""YAML as nodes that know their lines, so that every fault can be told with ``file:line``."""

from typing import NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fewshot_ad.api import FewShotError

_MOST_CHARACTERS = 2**20
_QUOTES = 'a string that starts with { needs quotes: "{} with damage"'


class Document:
    """The nodes of one file.

    Args:
        where: the file, as messages name it.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def root(self, text: str) -> Node:
        """The node that holds all others.

        Raises:
            FewShotError: the text is empty, or no YAML.
        """
        if len(text) > _MOST_CHARACTERS:
            self.fail(1, f"{len(text)} characters are too many, expected at most 2^20")
        try:
            found = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.fail(line, f"this is not YAML ({error.problem or error.context}); {_QUOTES}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.fail(line, f"the character U+{ord(text[error.position]):04X} is not allowed")
        except RecursionError:
            self.fail(1, "lists are nested too deeply, expected keys with lists of texts")
        if found is None:
            self.fail(1, "the file is empty, expected keys with values")
        return found

    def mapping(self, node: Node, what: str) -> dict[str, tuple[Node, Node]]:
        """Key node and value node by key."""
        if not isinstance(node, MappingNode):
            self.fail(node, f"{what} is {described(node)}, expected keys with values")
        found: dict[str, tuple[Node, Node]] = {}
        for key_node, value_node in node.value:
            key = self.text(key_node, f"a key of {what}")
            if key in found:
                first = line_of(found[key][0])
                self.fail(key_node, f"key '{key}' comes twice, first in line {first}")
            found[key] = key_node, value_node
        return found

    def items(self, node: Node, what: str) -> list[Node]:
        """The nodes of a list that is not empty."""
        if not isinstance(node, SequenceNode):
            self.fail(node, f"{what} is {described(node)}, expected a list of texts")
        if not node.value:
            self.fail(node, f"{what} is an empty list, expected at least one text")
        return node.value

    def text(self, node: Node, what: str) -> str:
        """A string that is one in YAML too: neither ``no`` nor ``12``."""
        if not isinstance(node, ScalarNode) or not node.tag.endswith(":str"):
            hint = _QUOTES if isinstance(node, MappingNode) else "put quotes around a text"
            self.fail(node, f"{what} is {described(node)}, expected a text; {hint}")
        return node.value

    def fail(self, where: Node | int, message: str) -> NoReturn:
        """Raise a fault of a node or a line."""
        line = where if isinstance(where, int) else line_of(where)
        raise FewShotError(f"{self._where}:{line}: {message}")


def line_of(node: Node) -> int:
    """The line that a node starts in, counted from 1."""
    return node.start_mark.line + 1


def described(node: Node) -> str:
    """What a message calls a node: its kind, and its value where that is short."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    kind = {
        "str": "the text",
        "int": "the number",
        "float": "the number",
        "bool": "the truth value",
    }
    name = kind.get(node.tag.rpartition(":")[2])
    return f"{name} {node.value!r}" if name else "nothing"
