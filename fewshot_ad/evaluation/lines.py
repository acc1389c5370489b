"""Files of JSON lines that several processes may add to, and that a kill does not harm."""

import errno
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.locks import exclusive


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Add one line, whole and on the disk, or nothing; several processes may append to one file.

    What a kill in the middle of an earlier write left behind is cut off first.

    Raises:
        FewShotError: the file cannot be written.
    """
    line = (json.dumps(values, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            with exclusive(descriptor):
                _write_line(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FewShotError(
            f"cannot write results to {path}: {error.strerror}; choose a writable file with --out."
        ) from error


def numbered_lines(path: Path) -> list[tuple[int, bytes]]:
    """Every line that is not empty, with its number; a torn last one is left out with a warning.

    Raises:
        FewShotError: the file cannot be read.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FewShotError(f"cannot read results from {path}: {error.strerror}.") from error
    if _is_whole(last):
        lines.append(last)
    elif last:
        warnings.warn(
            f"{path}: the last line is torn (a run was killed while writing it) and is left out.",
            stacklevel=3,
        )
    return [(n, line) for n, line in enumerate(lines, start=1) if line]


def _write_line(descriptor: int, line: bytes) -> None:
    end = _mend_last_line(descriptor)
    if os.write(descriptor, line) != len(line):
        os.ftruncate(descriptor, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _mend_last_line(descriptor: int) -> int:
    """Make the file end with a whole line; returns its length."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(end - 1, 0), os.SEEK_SET)
    if os.read(descriptor, 1) in (b"\n", b""):
        return end
    os.lseek(descriptor, 0, os.SEEK_SET)
    head, newline, tail = os.read(descriptor, end).rpartition(b"\n")
    if _is_whole(tail):  # an editor left out the last newline
        return end + os.write(descriptor, b"\n")
    os.ftruncate(descriptor, len(head + newline))
    return len(head + newline)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
