"""Datasets, one per file: the name of the file is the name of the dataset."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from fewshot_ad.api import Dataset
from fewshot_ad.assets import unknown_name


def list_datasets() -> tuple[str, ...]:
    """Names of the datasets known here, sorted."""
    return tuple(name for name in _modules() if _class_of(name))


def dataset_class(name: str) -> type[Any]:
    """The class behind the name of a dataset, not yet looking at any files.

    Raises:
        FewShotError: no dataset has this name.
    """
    found = _class_of(name) if name in _modules() else None
    if found is None:
        raise unknown_name("dataset", name, list_datasets())
    return found


def load_dataset(spec: str) -> Dataset:
    """A dataset by ``NAME`` or ``NAME:ROOT``, as ``synthetic`` or ``folder:path/to/images``.

    Raises:
        FewShotError: no dataset has this name, or its root is absent or laid out differently.
    """
    name, _, root = spec.partition(":")
    return dataset_class(name)(Path(root) if root else None)


def _modules() -> tuple[str, ...]:
    return tuple(sorted(info.name for info in iter_modules(__path__)))


def _class_of(module_name: str) -> type[Any] | None:
    """What ``__all__`` holds, if it is one class and has a ``name``: the mark of a dataset."""
    module = import_module(f"{__name__}.{module_name}")
    public = [getattr(module, name) for name in getattr(module, "__all__", ())]
    is_dataset = len(public) == 1 and isinstance(public[0], type) and hasattr(public[0], "name")
    return public[0] if is_dataset else None
