"""What stands behind the page: one visitor's part, photos and rule. No browser, no web here."""

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.evaluation.reading import read_ahead
from fewshot_ad.evaluation.writing import errors_in_one_line
from fewshot_ad.image_files import ImageStream
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.photos import Photo, Unreadable, read_photo
from fewshot_ad.inspection.thresholds import FAR
from fewshot_ad.inspection.verdicts import Verdict
from fewshot_ad.serving.limits import MB, Limits, sent_photo
from fewshot_ad.serving.page_verdicts import Judged, as_shown, urgency

PAGE_LIMITS = Limits(body_bytes=512 * MB, photos=64)
PART = "part.fsad"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """What all visitors have in common.

    Attributes:
        method: unfitted; every part is learned by a copy.
        checkpoint: of a meta-trained method.
        device, weights_dir: for parts that are opened.
        limits: how much a visitor may send at once.
    """

    method: Method
    checkpoint: Path | None = None
    device: str = "auto"
    weights_dir: Path | None = None
    limits: Limits = PAGE_LIMITS


@dataclass(eq=False)
class Session:
    """One visitor: a part that was learned or opened, and photos that were judged by it.

    Photos are kept no larger than a screen shows them, whatever the camera; scores are those of
    the photos themselves. What goes wrong is a ``FewShotError`` and leaves everything as it was.

    Attributes:
        inspector: None until there is a part.
        part_notes, photo_notes: what was warned of.
    """

    setup: Setup
    inspector: Inspector | None = None
    part_notes: tuple[str, ...] = ()
    photo_notes: tuple[str, ...] = ()
    _seen: dict[str, Judged] = field(default_factory=dict[str, Judged])

    @property
    def judged(self) -> list[Judged]:
        """What cannot be read first, then the highest scores."""
        return sorted(self._seen.values(), key=urgency)

    @property
    def fitted(self) -> Inspector:
        """The part.

        Raises:
            FewShotError: there is none yet.
        """
        if self.inspector is None:
            raise FewShotError("there is no part yet: learn one from normal photos, or open a file")
        return self.inspector

    def fit(
        self,
        photos: Sequence[str],
        *,
        name: str = "part",
        far: float = FAR,
        on_refit: Callable[[], None] | None = None,
    ) -> None:
        """Learn a part from the files of its normal photos; judged photos are forgotten.

        Raises:
            FewShotError: no photo, an unreadable one, or more than the limits.
        """
        files = [*dict.fromkeys(photos)]

        def learn() -> Inspector:
            self._check(files)
            with ExitStack() as stack:
                sent = [stack.enter_context(_sent(file)) for file in files]
                for photo in sent:
                    self.setup.limits.check_pixels(photo)
                return Inspector.from_normals(
                    sent,
                    self.setup.method,
                    checkpoint=self.setup.checkpoint,
                    far=far,
                    name=name.strip() or "part",
                    on_refit=on_refit,
                )

        self._take(*_noted(learn))

    def open(self, file: str) -> None:
        """Go on with a part that was saved; judged photos are forgotten.

        Raises:
            FewShotError: it is no such file, see ``Inspector.load``.
        """

        def load() -> Inspector:
            self.setup.limits.check_bytes(Path(file).stat().st_size)
            return Inspector.load(
                file, device=self.setup.device, weights_dir=self.setup.weights_dir
            )

        self._take(*_noted(load, f"{Path(file).parent}/"))

    def judge(self, photos: Sequence[str], on_photo: Callable[[], None] | None = None) -> None:
        """Judge the files of new photos; those that were judged already are not judged again.

        Raises:
            FewShotError: there is no part, or more photos than the limits.
        """
        inspector, files = self.fitted, [*dict.fromkeys(photos)]
        fresh = [file for file in files if file not in self._seen]

        def judge_fresh() -> dict[str, Judged]:
            self._check(files)
            found: dict[str, Judged] = {}
            for file, judged in zip(fresh, self._judge_each(inspector, fresh), strict=True):
                found[file] = judged
                if on_photo is not None:
                    on_photo()
            return found

        found, notes = _noted(judge_fresh)
        known = self._seen | found
        self._seen = {file: known[file] for file in files}
        self.photo_notes = tuple(dict.fromkeys((*self.photo_notes, *notes)))

    def set_far(self, far: float) -> None:
        """Decide anew at another rate of false alarms; nothing is judged again.

        Raises:
            FewShotError: there is no part, or the rate is none.
        """
        inspector = self.fitted
        inspector.rule = replace(inspector.rule, far=far)
        self._seen = {
            file: inspector.decide(one) if isinstance(one, Verdict) else one
            for file, one in self._seen.items()
        }

    def save(self) -> Path:
        """Write the part into a file that goes when the session does.

        Raises:
            FewShotError: there is no part, or it cannot be written.
        """
        inspector = self.fitted
        with errors_in_one_line(Path(tempfile.gettempdir())):
            folder = tempfile.mkdtemp(prefix="fewshot-ad-part-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        inspector.save(Path(folder) / PART)
        return Path(folder) / PART

    def _check(self, files: Sequence[str]) -> None:
        self.setup.limits.check_photos(len(files))
        gone = [Path(file).name for file in files if not Path(file).exists()]
        if gone:
            raise FewShotError(f"{gone[0]} was sent too long ago and is gone; drop it again")
        self.setup.limits.check_bytes(sum(Path(file).stat().st_size for file in files))

    def _take(self, inspector: Inspector, notes: tuple[str, ...]) -> None:
        self.inspector, self.part_notes = inspector, notes
        self._seen, self.photo_notes = {}, ()

    def _judge_each(self, inspector: Inspector, files: Sequence[str]) -> Iterator[Judged]:
        for judged in inspector.judge_each(read_ahead(files, self._read)):
            is_verdict = isinstance(judged, Verdict)
            yield inspector.decide(as_shown(judged)) if is_verdict else judged

    def _read(self, file: str) -> Photo | Unreadable:
        with _sent(file) as photo:
            try:
                self.setup.limits.check_pixels(photo)
                return read_photo(photo)
            except FewShotError as error:
                return Unreadable(photo.name, str(error))


@contextmanager
def _sent(file: str) -> Generator[ImageStream]:
    """A photo under the name that its sender knows; where it was put says nobody anything."""
    with Path(file).open("rb") as content:
        yield sent_photo(Path(file).name, content)


def _noted(work: Callable[[], T], folder: str = "") -> tuple[T, tuple[str, ...]]:
    """What comes of some work, and what it warned of; neither names the folder.

    The list of filters is the process's: only one such work may go on at a time.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            found = work()
        except FewShotError as error:
            raise FewShotError(_line(error, folder)) from error
    return found, tuple(dict.fromkeys(_line(one.message, folder) for one in caught))


def _line(said: Exception | str, folder: str) -> str:
    return " ".join((str(said).replace(folder, "") if folder else str(said)).split())
