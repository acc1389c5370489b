"""Finds what travels with the package, ``prompts/`` and ``episodes/``, in a checkout or a wheel."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from fewshot_ad.api import FewShotError

_PACKAGE = Path(__file__).parent


def asset(kind: str, name: str) -> Path:
    """The file ``name`` among the assets of a kind, as ``asset("prompts", "winclip.yaml")``.

    Raises:
        FewShotError: nothing of that name is shipped.
    """
    if name not in list_assets(kind):
        raise unknown_name(f"file in {kind}/", name, list_assets(kind))
    return _folder(kind) / name


def list_assets(kind: str) -> tuple[str, ...]:
    """Names of the files shipped under a kind, sorted; empty when there are none."""
    folder = _folder(kind)
    if not folder.is_dir():
        return ()
    files = (entry.name for entry in folder.iterdir() if entry.is_file())
    return tuple(sorted(name for name in files if not name.startswith(".")))


def unknown_name(what: str, name: str, known: Iterable[str]) -> FewShotError:
    """The error for a name that nothing answers to: suggests the nearest, or lists them all."""
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1) or get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(names) or 'none'}"
    return FewShotError(f"no {what} is called {name!r}; {hint}")


def _folder(kind: str) -> Path:
    shipped = _PACKAGE / "_assets"  # only a wheel has it; beside an installed package lie strangers
    return (shipped if shipped.is_dir() else _PACKAGE.parent) / kind
