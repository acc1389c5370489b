"""A folder that a camera fills: every new image once it is whole, and again when it is replaced."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fewshot_ad.api import FewShotError
from fewshot_ad.data.trees import is_image, visible
from fewshot_ad.inspection.photos import Photo, Unreadable, read_photo

POLL, PATIENCE = 0.2, 5.0

Signature = tuple[int, int]


@dataclass
class Watch:
    """What was seen of a folder so far.

    A file is read when its size and time are those of the look before, so that a file that still
    grows is left alone. One that cannot be read then may be half-written still: it is tried at
    every look until it has not changed for ``patience`` seconds, and only then given up.

    Attributes:
        folder: that is looked into; not its subfolders.
        patience: seconds.
        clock: the seconds of now.
    """

    folder: Path
    patience: float = PATIENCE
    clock: Callable[[], float] = time.monotonic
    _done: dict[Path, Signature] = field(default_factory=dict[Path, Signature])
    _last: dict[Path, tuple[Signature, float]] = field(
        default_factory=dict[Path, tuple[Signature, float]]
    )

    def look(self) -> Iterator[Photo | Unreadable]:
        """Look once: the photos that have become ready, in natural order of their names.

        Raises:
            FewShotError: the folder cannot be looked into.
        """
        for path in visible(self.folder):
            signature = _signature(path)
            if signature is None or self._done.get(path) == signature:
                continue
            last, since = self._last.get(path, (None, 0.0))
            if last != signature:
                self._last[path] = signature, self.clock()
                continue
            ready = self._try(path, gives_up=self.clock() - since >= self.patience)
            if ready is not None:
                self._done[path] = signature
                del self._last[path]
                yield ready

    def _try(self, path: Path, *, gives_up: bool) -> Photo | Unreadable | None:
        try:
            return read_photo(path)
        except FewShotError as error:
            return Unreadable(str(path), str(error)) if gives_up else None


def watched(
    watch: Watch, *, idle: float | None = None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[Photo | Unreadable]]:
    """What every look finds, if anything, for ever, or until nothing came for ``idle`` seconds."""
    last = watch.clock()
    while idle is None or watch.clock() - last < idle:
        found = [*watch.look()]
        if found:
            yield found
            last = watch.clock()
        sleep(POLL)


def _signature(path: Path) -> Signature | None:
    """Size and time of an image file; None for what is none, or has just gone."""
    try:
        if not is_image(path):
            return None
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
