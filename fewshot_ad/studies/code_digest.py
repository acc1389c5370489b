"""Which code a row was computed by: a digest of all source that can change its numbers.

A version number is too coarse, for it stands still while code is written, and a commit too fine,
for it moves with every word of a page. So the files are read that a method and the evaluator import
from this package, by themselves or through others, less their comments and docstrings. Libraries do
not count: their releases move the last bits of a score and no more.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fewshot_ad.api import Method
from fewshot_ad.evaluation.provenance import package_version

PACKAGE = "fewshot_ad"
ALWAYS = ("fewshot_ad.evaluation.evaluator", "fewshot_ad.evaluation.known")
DISPATCH = frozenset({"fewshot_ad.methods"})  # imports by name; a method's own file is added


def code_digest(method: Method, *asking: str) -> str:
    """Short digest of the code that a method's rows hang on.

    A stranger's method adds the files of its class and its bases, and not what these import.

    Args:
        method: of any configuration.
        asking: modules that make something else of it than rows.
    """
    return _digest_of_kind(type(method), asking)


@cache
def _digest_of_kind(method: type[Method], asking: tuple[str, ...]) -> str:
    kinds = [kind for kind in method.__mro__ if issubclass(kind, Method)]
    start = (*(kind.__module__ for kind in kinds), *ALWAYS, *asking)
    lines = [f"version {package_version()}"]
    lines += [f"{module} {_digest_of(module)}" for module in sorted(_reached(start))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _reached(start: Iterable[str]) -> set[str]:
    """Modules of this package that can be reached by imports, and those of ``start``."""
    found: set[str] = set()
    waiting = [*start]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports(module)
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    """What a module of this package imports of it; nothing for others'."""
    tree = _tree(module)
    if tree is None or module.partition(".")[0] != PACKAGE or module in DISPATCH:
        return ()
    return tuple(name for name in _names(tree) if name.partition(".")[0] == PACKAGE)


def _names(tree: ast.Module) -> Iterator[str]:
    """Everything that can be a module in the imports of a tree; names of other things among it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in inner if _file(name) is not None)


@cache
def _digest_of(module: str) -> str:
    tree = _tree(module)
    return "" if tree is None else hashlib.sha256(_without_words(tree).encode()).hexdigest()


@cache
def _tree(module: str) -> ast.Module | None:
    file = _file(module)
    return None if file is None else ast.parse(file.read_bytes())


@cache
def _file(module: str) -> Path | None:
    """The source of a module; None for what is none, or has none."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _without_words(tree: ast.Module) -> str:
    """The code alone: comments are gone from a tree, docstrings are left out here."""
    for node in ast.walk(tree):
        has_body = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if has_body and ast.get_docstring(node, clean=False) is not None:
            node.body = [ast.Pass(), *node.body[1:]]
    return ast.dump(tree)
