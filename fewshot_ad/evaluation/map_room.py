"""Room for the anomaly maps of a class: in memory, or in a file where they are very many."""

import mmap
import os
import tempfile

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import FewShotError

IN_MEMORY = 2**30  # bytes; a thousand maps of 512 x 512
_CHUNK = 2**24
_FLOAT = 4


def room_for_maps(n: int, side: int) -> Float[Tensor, "n h w"]:
    """Unwritten maps; beyond ``IN_MEMORY`` in a nameless file, which the system pages out.

    The file lies in the folder of temporary files (``TMPDIR``) and is gone with the tensor, however
    the process ends.

    Raises:
        FewShotError: that folder has no room.
    """
    size = n * side * side * _FLOAT
    if size <= IN_MEMORY:
        return torch.empty(n, side, side)
    try:
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), size)
            room = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise FewShotError(
            f"the maps of {n} images take {size / 1e9:.1f} GB, which {tempfile.gettempdir()} "
            f"cannot hold ({error.strerror}); set TMPDIR to a folder with room, or judge fewer "
            "images (--query-limit) or smaller ones (--set preprocess.size=...)"
        ) from error
    return torch.frombuffer(room, dtype=torch.float32).view(n, side, side)


def _reserve(descriptor: int, size: int) -> None:
    """Take the space now: a full disk found by a later write would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, _CHUNK):
        os.write(descriptor, bytes(min(_CHUNK, size - start)))
