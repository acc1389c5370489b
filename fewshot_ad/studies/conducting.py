"""Runs a study: hands jobs to an engine and writes down what comes of every cell.

One process writes: a row, its evidence and the end of an earlier failure are one transaction, made
as soon as the cell is finished. A worker that is lost is replaced, and its job goes on after the
last finished cell; a cell that takes its worker with it again and again is given up.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from fewshot_ad.api import Episode
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.studies.cells import Answer, Done, Ended, Failed, Job, Kept, Trained, Warned
from fewshot_ad.studies.code_digest import code_digest
from fewshot_ad.studies.engines import Engine, Queue
from fewshot_ad.studies.store import Failure, Store, load_failures

TRIES = 3

Heard = Callable[[Job, Answer], None]


@dataclass
class Tally:
    """What came of a study.

    Attributes:
        keys: of all rows, by cell.
        holes: cells without a row, and why.
        n_kept: how many rows were in the store already.
    """

    keys: dict[str, str] = field(default_factory=dict[str, str])
    holes: list[Failure] = field(default_factory=list[Failure])
    n_kept: int = 0


def conduct(
    jobs: Sequence[Job],
    store: Store,
    engine: Engine,
    *,
    any_code: bool = False,
    on_answer: Heard = lambda *_: None,
) -> Tally:
    """Compute what the store lacks of some jobs.

    Args:
        jobs: all cells of a study.
        store: where rows go as they are finished, and failures.
        engine: what runs them.
        any_code: rows of other code count as finished too.
        on_answer: told of every answer after it is written down.

    Raises:
        FewShotError: the store cannot be written, or the engine cannot run. What a cell raises is a
            hole, and the others go on.
    """
    conductor = _Conductor(store, any_code)
    queue = Queue(jobs, conductor.with_finished)
    with closing(engine.run(queue)) as answers:
        for job, answer in answers:
            conductor.note(queue, job, answer)
            on_answer(job, answer)
    return conductor.tally


class _Conductor:
    def __init__(self, store: Store, any_code: bool) -> None:
        self.tally = Tally()
        self._store = store
        self._any_code = any_code
        self._failed_before = {failure.cell for failure in load_failures(store.path)}
        self._left: dict[Job, list[Episode]] = {}
        self._trained: set[str] = set()
        self._losses: Counter[str] = Counter()

    def with_finished(self, job: Job) -> Job:
        """The job as it starts: rows that another run has written meanwhile are known to it."""
        code, name = code_digest(job.method), job.identity["method"]
        wanted = None if self._any_code else code
        started = replace(
            job,
            finished=self._store.finished(name, *job.target, wanted, boxes=job.boxes),
            earlier=self._store.cells(name, *job.target, code),
        )
        self._left[started] = list(job.trials)
        return started

    def note(self, queue: Queue, job: Job, answer: Answer) -> None:
        """Write down what came."""
        match answer:
            case Done() | Kept():
                self._finish(job, answer)
            case Failed(trial, reason):
                self._give_up(job, trial, reason)
            case Trained(seconds):
                self._trained.add(job.training or "")
                queue.trained(job)
                if seconds is not None:
                    identity = job.identity
                    self._store.note_training(identity["method"], identity["backbone"], seconds)
            case Warned(message):
                warnings.warn(message, stacklevel=3)
            case Ended(lost):
                queue.ended(job)
                self._end(queue, job, lost)

    def _finish(self, job: Job, answer: Done | Kept) -> None:
        cell = job.cell(answer.trial)
        self._left[job].remove(answer.trial)
        if isinstance(answer, Kept):
            self.tally.n_kept += 1
            self.tally.keys[cell] = answer.key
            if cell in self._failed_before:
                self._store.mend(cell)
            return
        self.tally.keys[cell] = row_key(answer.row)
        self._store.save(
            answer.row,
            cell=cell,
            code=code_digest(job.method),
            seconds=answer.seconds,
            evidence=answer.evidence,
        )

    def _give_up(self, job: Job, trial: Episode, reason: str) -> None:
        hole = job.hole(trial, reason)
        self._left[job].remove(trial)
        self.tally.holes.append(hole)
        self._store.fail(hole)

    def _end(self, queue: Queue, job: Job, lost: str | None) -> None:
        """Run what a lost worker left undone, without the cell that it was lost in too often."""
        left = self._left[job]
        if left:
            first = job.cell(left[0])
            self._losses[first] += 1
            if self._losses[first] >= TRIES:
                is_trained = job.training is None or job.training in self._trained
                for trial in left[:1] if is_trained else list(left):
                    reason = f"{lost or 'its worker ended early'}, {TRIES} times"
                    self._give_up(job, trial, reason)
        if left:
            queue.put_back(replace(job, trials=tuple(left)))
        del self._left[job]
