"""One thread that owns an inspector and judges what waits, a few photos at a time.

A method is no thing to call from two threads at once, so requests hand their photos over and wait.
Waiting photos are held as they were sent, not decoded: what is decoded at once is what is judged
at once, and memory is bounded by that. A photo gets the same bits whatever it is judged beside.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from fewshot_ad.evaluation.reading import read_ahead
from fewshot_ad.image_files import ImageStream
from fewshot_ad.inspection.calibrating import AT_ONCE
from fewshot_ad.inspection.drift import FEWEST, WINDOW, drift_p_value
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.photos import Photo, read_photo
from fewshot_ad.inspection.verdicts import Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A photo that was sent, what its decoding takes, and who waits for what is made of it."""

    photo: ImageStream
    pixels: int
    finish: Callable[[Photo, Verdict], Any]
    answer: Future[Any]


class Judging:
    """The thread and those who wait for it.

    Args:
        inspector: nobody else may use it as long as the thread runs.
        pixels: that are decoded at once; a photo with more is judged alone.
        on_batch: told how many photos are judged together.
    """

    def __init__(
        self, inspector: Inspector, *, pixels: int, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self._inspector, self._pixels = inspector, pixels
        self._on_batch = on_batch or (lambda _: None)
        self._line: deque[Waiting] = deque()
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="judging", daemon=True)
        self._thread.start()

    def submit(
        self, photo: ImageStream, pixels: int, finish: Callable[[Photo, Verdict], Any]
    ) -> Future[Any]:
        """Let a photo be judged.

        Args:
            photo: left alone by its owner until the answer is there.
            pixels: that it decodes to.
            finish: makes the answer, in the thread, so that map and pixels need not wait for it.

        Returns:
            The answer, or the error of reading, judging or finishing.
        """
        waiting = Waiting(photo, pixels, finish, Future())
        with self._changed:
            if self._is_closing:
                raise RuntimeError("nothing is judged any more")
            self._line.append(waiting)
            self._changed.notify()
        return waiting.answer

    @property
    def is_alive(self) -> bool:
        """Whether there is anybody to judge."""
        return self._thread.is_alive()

    def __len__(self) -> int:
        """How many photos wait."""
        return len(self._line)

    def drift_p_value(self) -> float | None:
        """How rarely normals score as the last photos did, see ``drift``; None after too few."""
        with self._changed:
            recent = [*self._recent]
        if len(recent) < FEWEST:
            return None
        return drift_p_value(recent, self._inspector.calibration.scores)

    def close(self) -> None:
        """Judge what waits, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._judge(self._next_batch()):
            pass

    def _next_batch(self) -> list[Waiting]:
        """Those who waited longest; nobody when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._is_closing)
            batch, pixels = list[Waiting](), 0
            while self._line and len(batch) < AT_ONCE:
                pixels += self._line[0].pixels
                if batch and pixels > self._pixels:
                    break
                batch.append(self._line.popleft())
        return batch

    def _judge(self, batch: list[Waiting]) -> bool:
        wanted = [waiting for waiting in batch if waiting.answer.set_running_or_notify_cancel()]
        read = [*read_ahead([waiting.photo for waiting in wanted], _read)]
        photos = [photo for photo in read if isinstance(photo, Photo)]
        if photos:
            self._on_batch(len(photos))
        judged = iter(self._verdicts(photos))
        for waiting, photo in zip(wanted, read, strict=True):
            found = next(judged) if isinstance(photo, Photo) else photo
            self._answer(waiting, photo, found)
        return bool(batch)

    def _verdicts(self, photos: Sequence[Photo]) -> Sequence[Verdict | Exception]:
        """A verdict on each; one that cannot be judged does not keep the others from it."""
        try:
            return self._inspector.judge(photos)
        except Exception as error:  # whatever it is, it is the answer to somebody
            if len(photos) == 1:
                return [error]
            return [found for photo in photos for found in self._verdicts([photo])]

    def _answer(
        self, waiting: Waiting, photo: Photo | Exception, found: Verdict | Exception
    ) -> None:
        try:
            if isinstance(photo, Exception):
                raise photo
            if isinstance(found, Exception):
                raise found
            with self._changed:
                self._recent.append(found.score)
            waiting.answer.set_result(waiting.finish(photo, found))
        except Exception as error:  # the thread must outlive it
            waiting.answer.set_exception(error)


def _read(photo: ImageStream) -> Photo | Exception:
    try:
        return read_photo(photo)
    except Exception as error:  # as a stream that was closed since
        return error
