"""Datasets, one per file: the name of the file is the name of the dataset."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from fewshot_ad.api import Dataset
from fewshot_ad.assets import unknown_name


def list_datasets() -> tuple[str, ...]:
    """Names of the datasets known here, sorted."""
    return tuple(sorted(_dataset_classes()))


def dataset_class(name: str) -> type[Any]:
    """The class behind the name of a dataset, not yet looking at any files.

    Raises:
        FewShotError: no dataset has this name.
    """
    classes = _dataset_classes()
    if name not in classes:
        raise unknown_name("dataset", name, classes)
    return classes[name]


def load_dataset(spec: str) -> Dataset:
    """A dataset by ``NAME`` or ``NAME:ROOT``, as ``synthetic`` or ``folder:path/to/images``.

    Raises:
        FewShotError: no dataset has this name, or its root is absent or laid out differently.
    """
    name, _, root = spec.partition(":")
    return dataset_class(name)(Path(root) if root else None)


def _dataset_classes() -> dict[str, type[Any]]:
    """Every module here whose ``__all__`` is a single class that has a ``name``; by file name."""
    found: dict[str, type[Any]] = {}
    for info in iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        public = [getattr(module, name) for name in getattr(module, "__all__", ())]
        if len(public) == 1 and isinstance(public[0], type) and hasattr(public[0], "name"):
            found[info.name] = public[0]
    return found
