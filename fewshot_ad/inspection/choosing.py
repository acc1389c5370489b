"""The method of an inspector: by name, as it is, or from a file; meta-trained where it must be."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fewshot_ad.api import FewShotError, KnownClasses, MetaTrained, Method, Preprocess, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.checkpoints import load_checkpoint, trained
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.images import prepare
from fewshot_ad.methods import load_method
from fewshot_ad.parts.backbones import RANDOM_PREFIX
from fewshot_ad.parts.field_types import check_field_types
from fewshot_ad.parts.precision import split_precision

PLACES = ("device", "weights_dir")  # where a method runs: the reader's business, not the file's
UNSUITED = {
    "batched": "judges images together, while a line needs a decision on each",
    "supervised": "learns from labelled anomalies, and here are normals alone",
}


def choose_method(
    method: str | Method, checkpoint: str | Path | None, params: Mapping[str, Any]
) -> Method:
    """A method of the caller's choice that is ready for ``fit``; a given one is left as it is.

    Raises:
        FewShotError: there is no such method or parameter, it cannot decide on single images from
            normals alone, or a checkpoint is of another one.
    """
    chosen = load_method(method, **params) if isinstance(method, str) else _copy(method, params)
    if chosen.track in UNSUITED:
        raise FewShotError(
            f"{method_name(chosen)} {UNSUITED[chosen.track]}; choose a method of another track, as "
            "residual_distance"
        )
    if not isinstance(chosen, MetaTrained):
        if checkpoint is not None:
            raise FewShotError(
                f"{method_name(chosen)} is {chosen.track} and reads no checkpoint; leave it out"
            )
        return chosen
    if checkpoint is not None:
        return load_checkpoint(chosen, Path(checkpoint))
    if getattr(chosen, "known_", None) is not None:
        return chosen
    drawn = load_dataset("synthetic")
    return trained(chosen, cast(KnownClasses, known_images([(drawn, drawn.classes)])))[0]


def restored_method(
    about: Mapping[str, Any], *, device: str, weights_dir: str | None, trust: bool
) -> Method:
    """The unfitted method that a file describes; code that it names is not imported unasked.

    Raises:
        FewShotError: there is no such method or parameter, or it names code and is not trusted.
    """
    name, values = str(about["method"]), dict(about["params"])
    code = [text for text in _strings([name, values]) if ":" in _plain(text)]
    if code and not trust:
        raise FewShotError(
            f"it names code that is not of this package, {code[0]!r}; if the file is your own, say "
            "that you trust it (trust=True, --trust)"
        )
    frame = {k: _as_tuple(v) for k, v in values["preprocess"].items()}
    check_field_types(Preprocess, frame)
    method = load_method(name)
    values = {**getattr(type(method), "BEFORE", {}), **values}  # an older file lacks some
    params = {k: _as_tuple(v) for k, v in values.items()} | {"preprocess": Preprocess(**frame)}
    check_field_types(type(method), params)
    places = {"device": device, "weights_dir": weights_dir}
    known = {field.name for field in fields(method)}
    return load_method(name, **params, **{k: v for k, v in places.items() if k in known})


def fit_on(method: Method, name: str, squares: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> None:
    """Fit a method on normals that were stored at its size."""
    method.fit(Support(name, stacked(squares, method)))


def stacked(
    squares: Sequence[UInt8[np.ndarray, "_ _ 3"]], method: Method
) -> Float[Tensor, "n 3 h w"]:
    """Images at a method's size as it eats them."""
    return torch.stack([prepare(square, method.preprocess) for square in squares])


def _copy(method: Method, params: Mapping[str, Any]) -> Method:
    """With what it has learned on known classes, unless a parameter changes."""
    return method.variant(**params) if params else deepcopy(method)


def _strings(value: Any) -> list[str]:
    """Every text in nested JSON, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in _strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in _strings(one)]
    return [value] if isinstance(value, str) else []


def _plain(text: str) -> str:
    """The name of a backbone without precision and dice.

    A colon that is left is that of ``package.module:Class`` or ``path/to/file.py:factory``.
    """
    return split_precision(text)[1].removeprefix(RANDOM_PREFIX)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value
