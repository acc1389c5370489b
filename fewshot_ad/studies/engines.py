"""What an engine is, and the queue that all engines take their jobs from."""

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, runtime_checkable

from fewshot_ad.studies.cells import Answer, Job


class Queue:
    """Jobs that wait to be run, in their order, except that nothing is meta-trained twice.

    The first job of those that need one meta-training runs alone; the others wait until it is
    there, so that no worker stands idle before a lock.
    """

    def __init__(
        self, jobs: Iterable[Job], prepare: Callable[[Job], Job] = lambda job: job
    ) -> None:
        """Line up.

        Args:
            jobs: in the order in which they should run.
            prepare: what is to be done to a job when it starts.
        """
        self._waiting = list(jobs)
        self._prepare = prepare
        self._training: dict[str, Job] = {}
        self._trained: set[str] = set()

    def take(self, fits: Callable[[Job], bool] = lambda _: True) -> Job | None:
        """The next job that can run now; None where there is none."""
        for place, job in enumerate(self._waiting):
            if job.training not in self._training and fits(job):
                started = self._prepare(self._waiting.pop(place))
                if started.training is not None and started.training not in self._trained:
                    self._training[started.training] = started
                return started
        return None

    def put_back(self, job: Job) -> None:
        """Run a job, or what is left of it, again and soon."""
        self._waiting.insert(0, job)

    def trained(self, job: Job) -> None:
        """The meta-training of a job is there: whoever waits for it can go on."""
        if job.training is not None:
            self._trained.add(job.training)
            self._training.pop(job.training, None)

    def ended(self, job: Job) -> None:
        """A job runs no more; if it never came to its meta-training, the next one tries."""
        if job.training is not None and self._training.get(job.training) is job:
            del self._training[job.training]


@runtime_checkable
class Engine(Protocol):
    """Runs jobs somewhere."""

    def run(self, queue: Queue) -> Generator[tuple[Job, Answer]]:
        """Take jobs until none is left and yield what comes of them, in any order.

        The last answer of every job is ``Ended``, with a reason where its worker was lost on the
        way. The queue is told of meta-trainings and ends by whoever reads the answers, before the
        next one is asked for. Closing it early ends all workers.

        Raises:
            FewShotError: the engine cannot run here.
        """
        ...
