"""Networks that users bring: ``package.module:factory`` or ``path/to/file.py:factory``."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from torch import nn

from fewshot_ad.api import FewShotError


def load_user_network(name: str) -> nn.Module:
    """Call the factory that ``name`` points at, without arguments.

    Raises:
        FewShotError: the file, module or factory is not there, raises, or returns no module.
    """
    origin, _, factory_name = name.rpartition(":")
    module = _load_file(Path(origin)) if origin.endswith(".py") else _load_module(origin)
    factory: Callable[[], object] | None = getattr(module, factory_name, None)
    if not callable(factory):
        found = ", ".join(
            key for key, value in vars(module).items() if callable(value) and key[0] != "_"
        )
        raise FewShotError(f"{origin} has no factory {factory_name!r}; it has {found or 'none'}")
    try:
        network = factory()
    except Exception as error:
        raise FewShotError(f"the factory {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise FewShotError(f"the factory {name} returned a {kind}: expected a torch.nn.Module")
    return network


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FewShotError(f"there is no file {path}: --backbone takes path/to/file.py:factory")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise FewShotError(f"{path} is no Python file: --backbone takes path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and copies look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise FewShotError(f"running {path} raised {type(error).__name__}: {error}") from error
    return module


def _load_module(origin: str) -> ModuleType:
    try:
        return importlib.import_module(origin)
    except Exception as error:
        raise FewShotError(
            f"cannot import {origin!r} ({type(error).__name__}: {error}): --backbone takes "
            f"package.module:factory or path/to/file.py:factory"
        ) from error
