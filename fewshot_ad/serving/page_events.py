"""What happens when the page is touched: a visitor's session changes, then it is shown."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple

from markupsafe import escape

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.calibrating import MOST_REFITS
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.serving.page_session import Session, Setup
from fewshot_ad.serving.page_views import findings, headline

FARS = (0.1, 50.0)  # ends of the slider, in percent
ERROR_SHOWN = 20  # seconds
PRESS_DOWNLOAD = "() => document.querySelector('#file a, button#file').click()"

Tell = Callable[..., object]
Files = list[str] | None


class Work:
    """What can be done on a visitor's session; one that has none yet is given one.

    Args:
        setup: what all visitors have in common.
        inspector: the part that each begins with.
    """

    def __init__(self, setup: Setup, inspector: Inspector | None) -> None:
        self._setup, self._inspector = setup, inspector

    def begin(self, session: Session | None = None) -> Session:
        """A visitor comes; the rule is theirs, the fitted method is everybody's."""
        own = None if self._inspector is None else replace(self._inspector)
        return session or Session(self._setup, own)

    def learn(
        self,
        session: Session | None,
        normals: Files,
        new: Files,
        name: str,
        percentage: float,
        tell: Tell,
    ) -> Session:
        """Fit, then judge the new photos that lie there already."""
        session = self.begin(session)
        bar = _Bar(tell, min(len(normals or ()), MOST_REFITS), "Judging each normal by the others")
        session.fit(normals or (), name=name, far=percentage / 100, on_refit=bar.advance)
        return self.judge(session, new, tell)

    def open(self, session: Session | None, file: str, new: Files, tell: Tell) -> Session:
        """Take a saved part, then judge the new photos that lie there already."""
        session = self.begin(session)
        session.open(file)
        return self.judge(session, new, tell)

    def judge(self, session: Session | None, new: Files, tell: Tell) -> Session:
        """Judge what was dropped; before there is a part, it waits."""
        session = self.begin(session)
        if session.inspector is not None:
            session.judge(new or (), _Bar(tell, len(new or ()), "Judging new photos").advance)
        return session

    def move(self, session: Session | None, percentage: float) -> Session:
        """Decide anew at another rate of false alarms."""
        session = self.begin(session)
        if session.inspector is not None:
            session.set_far(percentage / 100)
        return session

    def save(self, session: Session | None) -> str:
        """The file of the part."""
        return str(self.begin(session).save())


class Touches(NamedTuple):
    """The work as Gradio calls it: values of components in, values of components out."""

    begin: Callable[..., Any]
    learn: Callable[..., Any]
    open: Callable[..., Any]
    judge: Callable[..., Any]
    move: Callable[..., Any]
    save: Callable[..., Any]


def connect(gradio: Any, blocks: Any, work: Work, feed: Any, shown: Any) -> None:
    """Tie what is touched to the work, and its outcome to what is shown.

    All work takes turns, since it shares the fitted methods and the list of warnings.
    """
    touches = Touches(*map(_in_one_line(gradio), _touches(gradio, work)))
    turns: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_id": "inspector",
        "api_visibility": "private",
        "show_progress_on": shown.headline,
    }
    follow = turns | {"trigger_mode": "always_last", "show_progress": "hidden"}
    state, far = shown.session, shown.far
    everything = [state, shown.headline, far, shown.save, shown.findings]
    learned_from = [state, feed.normals, feed.new, feed.name, far]
    blocks.load(touches.begin, None, everything, **turns)
    feed.learn.click(touches.learn, learned_from, everything, **turns)
    feed.part.upload(touches.open, [state, feed.part, feed.new], everything, **turns)
    feed.new.change(touches.judge, [state, feed.new], everything, **turns)
    far.input(touches.move, [state, far], [shown.headline, shown.findings], **follow)
    saved = shown.save.click(touches.save, [state], [shown.file], **turns)
    saved.success(None, js=PRESS_DOWNLOAD, api_visibility="private")


def _touches(gradio: Any, work: Work) -> Touches:
    """Gradio knows its progress by the default of an argument."""
    progress = gradio.Progress()

    def view(session: Session) -> list[Any]:
        inspector = session.inspector
        far = gradio.skip() if inspector is None else _on_slider(inspector.rule.far)
        save = gradio.update(interactive=inspector is not None)
        return [session, headline(session), far, save, findings(session)]

    def begin() -> list[Any]:
        return view(work.begin())

    def learn(
        session: Any, normals: Any, new: Any, name: str, far: float, tell: Any = progress
    ) -> list[Any]:
        return view(work.learn(session, normals, new, name, far, tell))

    def open_part(session: Any, file: str, new: Any, tell: Any = progress) -> list[Any]:
        return view(work.open(session, file, new, tell))

    def judge(session: Any, new: Any, tell: Any = progress) -> list[Any]:
        return view(work.judge(session, new, tell))

    def move(session: Any, far: float) -> list[Any]:
        moved = work.move(session, far)
        return [headline(moved), findings(moved)]

    return Touches(begin, learn, open_part, judge, move, work.save)


def _on_slider(far: float) -> float:
    """A rate in percent, at the nearer end where a saved part wants another than the slider has."""
    return min(max(100 * far, FARS[0]), FARS[1])


class _Bar:
    """Tells Gradio's progress how far some work has come."""

    def __init__(self, tell: Tell, total: int, what: str) -> None:
        self._tell, self._total, self._what, self._done = tell, total, what, 0
        if total:
            tell((0, total), desc=what)

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        self._tell((self._done, max(self._total, self._done)), desc=self._what)


def _in_one_line(gradio: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What the user can mend is shown as the one line it is, and is no bug to be printed."""

    def wrapped(work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def safe(*arguments: Any, **named: Any) -> Any:
            try:
                return work(*arguments, **named)
            except FewShotError as error:
                raise gradio.Error(
                    str(escape(error)), ERROR_SHOWN, title="", print_exception=False
                ) from error

        return safe

    return wrapped
