"""Checkpoints on disk: safetensors with a JSON header that says what they are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewshot_ad.api import FewShotError

FORMAT = 1
HEADER = "fewshot_ad"


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """What a meta-trained method has seen, so that no target can have been among it unnoticed.

    Attributes:
        names: the known classes, as ``dataset/class``.
        digests: content of every image.
        held_out: the classes that selected instead of teaching.
        selected_step: the step whose weights were kept.
        processes: how many shared every batch; the last bits depend on it.
    """

    names: tuple[str, ...]
    digests: frozenset[str]
    held_out: tuple[str, ...] = ()
    selected_step: int = 0
    processes: int = 1


def write_checkpoint(
    path: Path, identity: Mapping[str, Any], known: KnownRecord, state: Mapping[str, Tensor]
) -> None:
    """Write weights and header into one file, whole or not at all.

    Args:
        path: where.
        identity: JSON-able; a reader must name the same to read the file.
        known: what was learned from.
        state: the weights.

    Raises:
        OSError: the folder cannot be written.
    """
    seen = {name: getattr(known, name) for name in KnownRecord.__slots__}
    seen["digests"] = sorted(known.digests)
    if known.processes == 1:  # such files are what they were before there could be more
        del seen["processes"]
    header = {"format": FORMAT, "identity": identity, "known": seen}
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(save(tensors, {HEADER: json.dumps(header, sort_keys=True)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(
    path: Path, identity: Mapping[str, Any]
) -> tuple[KnownRecord, dict[str, Tensor]]:
    """Read a checkpoint of exactly this identity.

    Raises:
        FewShotError: no such file, not a checkpoint of ours, of another format, or of another
            identity; says which part differs.
    """
    if not path.is_file():
        raise FewShotError(f"there is no checkpoint {path}; make one with 'fewshot-ad train'")
    header, state = _open(path)
    if header.get("format") != FORMAT:
        raise FewShotError(
            f"{path} has checkpoint format {header.get('format')}, this version of fewshot-ad "
            f"reads {FORMAT}; use the version that wrote it, or train again"
        )
    _check_identity(path, header["identity"], json.loads(json.dumps(identity)))
    known = header["known"]
    record = KnownRecord(
        tuple(known["names"]),
        frozenset(known["digests"]),
        tuple(known["held_out"]),
        int(known["selected_step"]),
        int(known.get("processes", 1)),
    )
    return record, state


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(metadata[HEADER]), state
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise FewShotError(
            f"{path} is not a checkpoint of fewshot-ad, or is damaged; make one with "
            "'fewshot-ad train'"
        ) from error


def _check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if found["method"] != wanted["method"]:
        raise FewShotError(
            f"{path} is a checkpoint of {found['method']}, not of {wanted['method']}; choose that "
            "method, or train this one"
        )
    if found.get("recipe", 1) != wanted.get("recipe", 1):
        raise FewShotError(
            f"{path} was trained by recipe {found.get('recipe', 1)} of {found['method']}, this "
            f"version of fewshot-ad has recipe {wanted.get('recipe', 1)}; train again"
        )
    params, asked = found["params"], wanted["params"]
    names = {**params, **asked}
    differing = [name for name in names if _content(params, name) != _content(asked, name)]
    if differing:
        name = differing[0]
        raise FewShotError(
            f"{path} was trained with {name}={params.get(name)}, now {name}={asked.get(name)} is "
            "asked for; set it to what the checkpoint has, or train again"
        )
    if found["weights_digest"] != wanted["weights_digest"]:
        raise FewShotError(
            f"{path} was trained on backbone weights {found['weights_digest']}, these are "
            f"{wanted['weights_digest']}; use the same backbone, or train again"
        )


def _content(params: Mapping[str, Any], name: str) -> Any:
    """A parameter; of a factory in a file, not the folder: the digest of its weights tells it."""
    value = params.get(name)
    if name == "backbone" and isinstance(value, str) and ".py:" in value:
        return PurePath(value).name
    return value
