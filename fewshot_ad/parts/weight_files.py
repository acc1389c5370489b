"""Finds and reads files of weights; what is wrong with one is said, and no pickle runs."""

import hashlib
import os
import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewshot_ad.api import FewShotError

FOLDER_VARIABLE = "FEWSHOT_AD_WEIGHTS"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weight_folders(weights_dir: Path | None) -> list[Path]:
    """Where weights are looked for: the folder given, then the one named by FEWSHOT_AD_WEIGHTS.

    Raises:
        FewShotError: one of them is no folder.
    """
    named = {"--weights-dir": weights_dir, f"${FOLDER_VARIABLE}": os.environ.get(FOLDER_VARIABLE)}
    folders = {origin: Path(folder) for origin, folder in named.items() if folder}
    for origin, folder in folders.items():
        if not folder.is_dir():
            raise FewShotError(
                f"{origin} is {folder}, which is no folder: name one that holds weights"
            )
    return list(folders.values())


def find_weights(folders: list[Path], architecture: str, tag: str = "") -> Path | None:
    """The file of an architecture's weights, as ``resnet18.tv_in1k.pth`` or ``resnet18_mine.pth``.

    Args:
        folders: searched in this order.
        architecture: what the file name starts with.
        tag: what follows it; empty for whatever weights there are.

    Raises:
        FewShotError: a folder holds several that fit.
    """
    start = re.compile(rf"{re.escape(architecture)}[._-]{re.escape(tag)}")
    for folder in folders:
        files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES]
        fitting = [file for file in files if start.match(file.name)]
        exact = [file for file in fitting if file.stem == f"{architecture}.{tag}".strip(".")]
        chosen = exact or fitting
        if len(chosen) > 1:
            names = ", ".join(file.name for file in chosen)
            raise FewShotError(
                f"{folder} holds several weights for {architecture} ({names}): keep one"
            )
        if chosen:
            return chosen[0]
    return None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        FewShotError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FewShotError(f"{path} cannot be read ({error.strerror}): fetch it again") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a torch checkpoint that needs no code to be run.

    Raises:
        FewShotError: the file is cut off, is something else, is a pickle with more than tensors in
            it, or holds values that are not finite.
    """
    try:
        stored = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise FewShotError(
            f"{path} {_look(path)}: expected tensors only; save its state dict as safetensors"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise FewShotError(
            f"{path} {_look(path)}: expected a whole {path.suffix} file of weights; fetch it again"
        ) from error
    return _checked(stored, path)


def _checked(stored: object, path: Path) -> dict[str, Tensor]:
    """Unwrap what trainers put around a state dict, and refuse what is none."""
    for wrapper in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    tensors = stored if isinstance(stored, dict) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise FewShotError(f"{path} holds no state dict: expected a mapping of names to tensors")
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise FewShotError(f"{path} holds NaN or infinite values in {name}: fetch it again")
    return tensors


def _look(path: Path) -> str:
    """What the file seems to be, from its first bytes."""
    start = path.read_bytes()[:64] if path.is_file() else b""
    if not start:
        return "is empty or cannot be read"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not weights"
    is_pickle = start.startswith((b"PK", b"\x80"))
    if is_pickle and path.suffix == ".safetensors":
        return "is a torch checkpoint with the wrong suffix"
    return "is damaged or holds a pickle that runs code" if is_pickle else "is damaged or cut off"
