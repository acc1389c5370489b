"""What things are called: metrics, and methods with the settings that tell them from rivals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

METRIC_NAMES = {
    "i_auroc": "I-AUROC",
    "i_ap": "I-AP",
    "i_f1_max": "I-F1max",
    "p_auroc": "P-AUROC",
    "p_ap": "P-AP",
    "p_f1_max": "P-F1max",
    "aupro": "AUPRO",
}
EMPTY = "–"


def with_budget(method: str, preset: str, params: Mapping[str, Any]) -> str:
    """The method, with its preset where it trains on the support."""
    return f"{method}, {preset}" if preset and "steps" in params else method


def settings_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, nested ones by a dotted name; where it ran is none."""
    return {name: value for name, value in _flat(values).items() if name != "device"}


def telling_labels(names: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A label for each: its name, and those settings in which items of one name differ.

    Args:
        names: of the methods, in order.
        settings: of each, from ``settings_of``.
    """
    seen: defaultdict[str, defaultdict[str, set[str | None]]] = defaultdict(
        lambda: defaultdict(set[str | None])
    )
    for name, chosen in zip(names, settings, strict=True):
        for setting, value in chosen.items():
            seen[name][setting].add(value)
    for name, chosen in zip(names, settings, strict=True):
        for setting in seen[name].keys() - chosen.keys():
            seen[name][setting].add(None)
    return [
        _label(name, {key: value for key, value in chosen.items() if len(seen[name][key]) > 1})
        for name, chosen in zip(names, settings, strict=True)
    ]


def _label(name: str, telling: Mapping[str, str]) -> str:
    details = ", ".join(f"{key}={value}" for key, value in telling.items())
    return f"{name} ({details})" if details else name


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
