"""An inspector as a file and back: JSON, PNG and safetensors in an archive.

The normals are stored at the method's size, without loss, and the method is fitted on them again
when the file is opened: the same bits come out, and no state of a method needs a format of its own.
"""

import io
import json
import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fewshot_ad.api import FewShotError, MetaTrained, Method
from fewshot_ad.evaluation.identity import method_identity, method_name
from fewshot_ad.inspection.archive import ABOUT, CHECKPOINT, read_archive, write_archive
from fewshot_ad.inspection.choosing import PLACES, fit_on, restored_method, stacked
from fewshot_ad.inspection.photos import View
from fewshot_ad.inspection.thresholds import Calibration, Rule
from fewshot_ad.parts.field_types import check_field_types

PACKAGES = ("fewshot-ad", "torch", "numpy", "pillow", "timm")
LARGEST_CHANGE = 0.01
MOST_BYTES = 4 * 2**30
# What values of other types, or images that are none, can raise.
UNREADABLE = (
    *(KeyError, TypeError, ValueError, AttributeError, OSError, SyntaxError, RecursionError),
    Image.DecompressionBombError,
)

T = TypeVar("T")
Square = UInt8[np.ndarray, "side side 3"]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that an inspector is made of; its attributes are those of ``Inspector``."""

    name: str
    method: Method
    normals: tuple[str, ...]
    squares: Sequence[Square]
    views: tuple[View, ...]
    calibration: Calibration
    rule: Rule


def pack(path: Path, contents: Contents) -> None:
    """Write what ``unpack`` reads; the same inspector gives the same bytes.

    Raises:
        FewShotError: the file cannot be written, or a parameter is not JSON-able.
    """
    method = contents.method
    identity = method_identity(method)
    identity["params"] = {k: v for k, v in identity["params"].items() if k not in PLACES}
    about = {
        "name": contents.name,
        **identity,
        "normals": contents.normals,
        "views": [asdict(view) for view in contents.views],
        "calibration": asdict(contents.calibration),
        "rule": asdict(contents.rule),
        "probe": _probe(method, contents.squares[0]),
        "versions": _versions(),
    }
    text = json.dumps(about, indent=1, sort_keys=True, allow_nan=False)
    members = {ABOUT: text.encode()}
    members |= {_png_name(number): _png(one) for number, one in enumerate(contents.squares)}
    if isinstance(method, MetaTrained):
        members[CHECKPOINT] = _checkpoint(method)
    write_archive(path, members)


def unpack(path: Path, *, device: str, weights_dir: str | None, trust: bool) -> Contents:
    """What ``pack`` wrote, with the method fitted again.

    Args:
        path: of the file.
        device: where the method is to run.
        weights_dir: where the weights of its backbone lie, if not in a usual place.
        trust: import code that the file names.

    Raises:
        FewShotError: not such a file, damaged, edited or of a newer version; or it needs code or
            weights that are not allowed or not here.
    """
    members = read_archive(path)
    try:
        about: dict[str, Any] = json.loads(members[ABOUT])
        facts = _made(_Facts, {one.name: about[one.name] for one in fields(_Facts)})
        calibration, rule = _calibration(about["calibration"]), _made(Rule, about["rule"])
        views = tuple(_made(View, view) for view in about["views"])
        method = restored_method(about, device=device, weights_dir=weights_dir, trust=trust)
        squares = _squares(members, len(facts.normals), method.preprocess.size)
        _check_weights(method, facts)
        _load_checkpoint(method, members)
    except FewShotError as error:
        raise FewShotError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise FewShotError(
            f"{path} does not hold what an inspector needs ({type(error).__name__}: {error}); fit "
            "again with 'fewshot-ad fit'"
        ) from error
    fit_on(method, facts.name, squares)
    _compare_probe(path, facts, _probe(method, squares[0]))
    return Contents(facts.name, method, facts.normals, squares, views, calibration, rule)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the JSON of a file tells besides method, calibration, rule and views."""

    name: str
    normals: tuple[str, ...]
    backbone: str | None
    weights_digest: str | None
    probe: float
    versions: dict[str, str]


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON, once the values are of the types of its fields."""
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    check_field_types(kind, listed)
    return kind(**listed)


def _calibration(values: Mapping[str, Any]) -> Calibration:
    found = _made(Calibration, values)
    numbers = (*found.scores, *found.peaks, *found.altered_scores, *found.altered_peaks)
    if not found.scores or len(found.scores) != len(found.peaks):
        raise ValueError("a calibration needs scores, and as many peaks")
    if not all(math.isfinite(value) for value in (*numbers, found.floor)):
        raise ValueError("calibration scores must be finite")
    return found


def _check_weights(method: Method, facts: _Facts) -> None:
    found = getattr(method, "weights_digest", None)
    if found != facts.weights_digest:
        raise FewShotError(
            f"it was fitted with weights {facts.weights_digest} of {facts.backbone}, those found "
            f"here are {found}; use the same weights, or fit again"
        )


def _load_checkpoint(method: Method, members: Mapping[str, bytes]) -> None:
    if not isinstance(method, MetaTrained):
        return
    if CHECKPOINT not in members:
        raise FewShotError(f"the checkpoint of {method_name(method)} is missing; fit again")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CHECKPOINT
        file.write_bytes(members[CHECKPOINT])
        method.load(file)


def _checkpoint(method: MetaTrained) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CHECKPOINT
        method.save(file)
        return file.read_bytes()


def _probe(method: Method, square: Square) -> float:
    """The score of the first normal moved a little: tells whether a machine computes the same."""
    moved = np.roll(square, (len(square) // 16, len(square) // 16), axis=(0, 1))
    return float(method.predict(stacked([moved], method)).image_score[0])


def _compare_probe(path: Path, facts: _Facts, found: float) -> None:
    if not math.isclose(found, facts.probe, rel_tol=LARGEST_CHANGE, abs_tol=1e-6):
        written = ", ".join(f"{k} {v}" for k, v in sorted(facts.versions.items()))
        warnings.warn(
            f"{path}: scores have changed since it was fitted (a known image scores {found:.4g}, "
            f"then {facts.probe:.4g}; written by {written}): fit again, or set the threshold anew",
            stacklevel=4,
        )


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[package] = "unknown"
    return found


def _png_name(number: int) -> str:
    return f"normals/{number:05}.png"


def _png(square: Square) -> bytes:
    content = io.BytesIO()
    Image.fromarray(square).save(content, "PNG")
    return content.getvalue()


def _squares(members: Mapping[str, bytes], count: int, side: int) -> list[Square]:
    if not count or count * side * side * 3 > MOST_BYTES:
        raise ValueError(f"it says that it has {count} normals of {side}x{side} pixels")
    return [_square(members[_png_name(number)], side) for number in range(count)]


def _square(data: bytes, side: int) -> Square:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.size != (side, side) or image.mode != "RGB":  # before any pixel is unpacked
            raise ValueError(f"a stored normal is {image.size} {image.mode}, not {side}x{side} RGB")
        return np.array(image)
