"""One paper, one file: the name of a method on the command line is the name of its file here.

The ``__all__`` of a file holds exactly one class. A stranger's method is named
``package.module:Class``, or registers itself under the entry point group ``fewshot_ad.methods``.
A model of another library is named ``library:Model``, as ``anomalib:Padim``.
"""

from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.assets import unknown_name

ENTRY_POINTS = "fewshot_ad.methods"
ADAPTERS = {"anomalib": "fewshot_ad.adapters.anomalib_models:AnomalibModel"}
"""By the library before the colon; what stands behind it is the field ``model``."""


def list_methods() -> tuple[str, ...]:
    """Names of our methods, in alphabetical order; nothing heavy is imported."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def load_method(name: str, **params: Any) -> Method:
    """An unfitted method with some hyper-parameters changed.

    Args:
        name: a name of ``list_methods()``, of an entry point, ``package.module:Class``, or
            ``library:Model`` for a library in ``ADAPTERS``.
        params: fields of the method.

    Raises:
        FewShotError: there is no such method, it is not a ``Method``, or a field is unknown or
            has a value that it cannot have.
    """
    library, _, model = name.partition(":")
    if library in ADAPTERS:
        name, params = ADAPTERS[library], {"model": model, **params}
    kind = _method_class(name)
    known = [field.name for field in fields(kind) if field.init]
    for given in params:
        if given not in known:
            raise unknown_name(f"parameter of {name}", given, known)
    try:
        return kind(**params)
    except TypeError as error:
        reason = " ".join(str(error).split())
        raise FewShotError(f"{name} cannot be made of {params}: {reason}") from error


def _method_class(name: str) -> type[Method]:
    if ":" in name:
        return _stranger(name)
    if name in list_methods():
        module = import_module(f"{__name__}.{name}")
        (exported,) = module.__all__
        return getattr(module, exported)
    registered = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    if name in registered:
        return _stranger(registered[name])
    raise unknown_name("method", name, (*list_methods(), *registered))


def _stranger(path: str) -> type[Method]:
    module_name, _, class_name = path.partition(":")
    try:
        kind = getattr(import_module(module_name), class_name)
    except Exception as error:  # a stranger's file can raise anything
        raise FewShotError(
            f"the method {path} cannot be imported ({type(error).__name__}: {error}); expected "
            "package.module:Class on the Python path"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise FewShotError(f"{path} is not a subclass of fewshot_ad.api.Method")
    return kind
