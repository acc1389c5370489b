"""Class-generalizable visual anomaly detection from a few normal images of an unseen product.

``fewshot_ad.api`` says what a sample, an episode, a support and a method are; the names below are
imported when they are first used, because most of them bring torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "FewShotError": "api",
    "Inspector": "inspection",
    "Preprocess": "api",
    "Support": "api",
    "check_method": "checks",
    "episodes": "episodes",
    "evaluate": "evaluation.evaluator",
    "list_methods": "methods",
    "load_dataset": "data",
    "load_method": "methods",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fewshot_ad' has no attribute '{name}'")
    return getattr(import_module(f"fewshot_ad.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
