"""Where prompt sets lie: shipped with the package under a name, or anywhere under a path."""

import os
from contextlib import suppress
from pathlib import Path

import yaml

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import asset, list_assets, unknown_name
from fewshot_ad.prompts.parsing import FORMAT, parse_prompts
from fewshot_ad.prompts.prompt_set import LISTS, PromptSet

SUFFIXES = (".yaml", ".yml")


def list_prompts() -> tuple[str, ...]:
    """The names of the shipped prompt sets, sorted."""
    return tuple(Path(name).stem for name in list_assets("prompts") if name.endswith(".yaml"))


def load_prompts(name_or_path: str | Path) -> PromptSet:
    """Read a shipped set by name, or any by its path, which has a folder or ends in .yaml.

    A file of the user keeps its suffix in ``PromptSet.name``: messages tell it from a shipped one.

    Raises:
        FewShotError: there is no such set, or the file is not a valid one; says which line is
            wrong.
    """
    path = Path(name_or_path)
    is_file = path.suffix in SUFFIXES or len(path.parts) > 1
    file = path if is_file else _shipped(path.name)
    where = path if is_file else file.name
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FewShotError(f"prompts {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FewShotError(f"{where}:{line}: this is not UTF-8 text") from None
    return parse_prompts(path.name, str(where), text)


def save_prompts(prompts: PromptSet, path: Path, *, overwrite: bool = False) -> None:
    """Write a prompt set, whole or not at all; what is written can be loaded again.

    Raises:
        FewShotError: as ``check_new_file``, the set is not valid, or the file cannot be written.
    """
    check_new_file(path, overwrite=overwrite)
    text = render_prompts(prompts)
    parse_prompts(path.name, str(path), text)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise FewShotError(f"prompts {path} cannot be written: {error.strerror}") from None


def check_new_file(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a path that prompts cannot be written to, before work is done for it.

    Raises:
        FewShotError: its name does not end in .yaml, its folder is not there, or the file exists
            and ``overwrite`` is false.
    """
    if path.suffix not in SUFFIXES:
        raise FewShotError(f"prompts {path} have no .yaml ending: call them {path.name}.yaml")
    if not path.parent.is_dir():
        raise FewShotError(f"prompts {path} cannot be written: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise FewShotError(f"{path} exists: choose another name, or ask to overwrite it")


def render_prompts(prompts: PromptSet) -> str:
    """The YAML text of a prompt set."""
    optional = {
        "notes": prompts.notes,
        "known": list(prompts.known),
        "any_class": prompts.any_class,
        "class_names": dict(prompts.class_names),
        "repeats": dict(prompts.repeats),
        "groups": {name: list(listed) for name, listed in prompts.groups.items()},
        "overrides": {
            class_name: {name: list(listed) for name, listed in own.items()}
            for class_name, own in prompts.overrides.items()
        },
    }
    content = {
        "format": FORMAT,
        "source": prompts.source,
        **{name: list(getattr(prompts, name)) for name in LISTS},
        **{key: value for key, value in optional.items() if value},
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _shipped(name: str) -> Path:
    if name not in list_prompts():
        raise unknown_name("shipped prompt set", name, list_prompts())
    return asset("prompts", f"{name}.yaml")
