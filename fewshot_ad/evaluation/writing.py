"""Files that are written whole or not at all, and one line when the disk is full."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fewshot_ad.api import FewShotError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there.

    Raises:
        FewShotError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with errors_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def errors_in_one_line(path: Path) -> Generator[None]:
    """Say what could not be written and why."""
    try:
        yield
    except OSError as error:
        raise FewShotError(
            f"cannot write {path}: {error.strerror or error}; choose another place or make room"
        ) from error
