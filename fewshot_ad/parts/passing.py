"""Photos on a line pass once: nothing of them need be remembered.

In a study the next episode shows the same images again, and whatever was made of one is kept. Who
judges photos that will not come again says so, and pays neither the memory nor the digests that
remembering takes. Answers have the same bits either way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_passing = ContextVar("images pass once", default=False)


@contextmanager
def passing_once() -> Iterator[None]:
    """While it lasts, in this thread, query images count as not coming again."""
    before = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(before)


def is_passing_once() -> bool:
    """Whether the images of this moment will not come again."""
    return _passing.get()
