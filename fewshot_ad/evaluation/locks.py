"""A lock between processes, held while a file is being written."""

from collections.abc import Generator
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # Windows has no flock: there, one writer at a time is up to the user
    fcntl = None


@contextmanager
def exclusive(descriptor: int) -> Generator[None]:
    """Wait until no other process holds the open file, then hold it; a kill releases it."""
    if fcntl is None:
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
