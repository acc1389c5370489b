"""What was made lately, by its key, as long as it fits."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Remembers values up to a limit in bytes; those that nobody asked for longest go first.

    Args:
        byte_limit: of all values together; a single larger one is kept all the same.
        size: of a value, in bytes.
    """

    def __init__(self, byte_limit: int, size: Callable[[T], int]) -> None:
        self.byte_limit = byte_limit
        self._size = size
        self._bytes = 0
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def find(self, key: Hashable) -> T | None:
        """The value of a key, or None."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def keep(self, key: Hashable, value: T) -> T:
        """Remember a value that was not found; returns it."""
        if key in self._held:  # another thread was quicker
            return value
        self._held[key] = value
        self._bytes += self._size(value)
        while self._bytes > self.byte_limit and len(self._held) > 1:
            _, forgotten = self._held.popitem(last=False)
            self._bytes -= self._size(forgotten)
        return value
