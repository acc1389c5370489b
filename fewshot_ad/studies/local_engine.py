"""Jobs in this process, or in several processes of this machine."""

import os
import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from fewshot_ad.studies.cells import Answer, Ended, Job, Warned, compute
from fewshot_ad.studies.engines import Queue

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LIBRARIES = 600 * 2**20  # bytes that a worker holds before it has any work


class ThisProcess:
    """One job after another, here."""

    def run(self, queue: Queue) -> Generator[tuple[Job, Answer]]:
        """See ``Engine.run``."""
        while (job := queue.take()) is not None:
            for answer in compute(job):
                yield job, answer
            yield job, Ended()


class Processes:
    """Several processes that share the cores and the memory of this machine.

    A job that would not fit beside those that run waits for one to end; alone it always may. A
    process that is killed costs its job, and another takes its place.
    """

    def __init__(self, workers: int, memory: int | None = None) -> None:
        """Say how many.

        Args:
            workers: processes at most; each has its share of the threads of this one.
            memory: bytes that all of them may hold; what is free now where nothing is said.
        """
        self._count = workers
        self._memory = free_memory() if memory is None else memory
        self._workers: list[_Worker] = []

    def run(self, queue: Queue) -> Generator[tuple[Job, Answer]]:
        """See ``Engine.run``."""
        try:
            while self._start(queue) or self._busy:
                for worker in self._ready():
                    job = worker.job
                    answer = worker.receive()
                    if isinstance(answer, Ended) and answer.lost:
                        self._workers.remove(worker)
                    yield job, answer
        finally:
            for worker in self._workers:
                worker.end()

    @property
    def _busy(self) -> list["_Worker"]:
        return [worker for worker in self._workers if worker.is_busy]

    def _ready(self) -> list["_Worker"]:
        found = wait([worker.connection for worker in self._busy])
        return [worker for worker in self._busy if worker.connection in found]

    def _start(self, queue: Queue) -> bool:
        """Give jobs to idle workers, and to new ones while there may be more."""
        started = False
        while len(self._busy) < self._count and (job := queue.take(self._fits)) is not None:
            idle = [worker for worker in self._workers if not worker.is_busy]
            worker = idle[0] if idle else self._hire()
            worker.send(job)
            started = True
        return started

    def _fits(self, job: Job) -> bool:
        held = sum(worker.job.memory + LIBRARIES for worker in self._busy)
        return not self._busy or held + job.memory + LIBRARIES <= self._memory

    def _hire(self) -> "_Worker":
        with divided_threads(self._count):
            worker = _Worker.started()
        self._workers.append(worker)
        return worker


@dataclass
class _Worker:
    process: BaseProcess
    connection: "Connection[Job | None, Answer]"
    current: Job | None = None

    @classmethod
    def started(cls) -> "_Worker":
        """A process of its own; nothing of this one is copied into it."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that its end is noticed here
        return cls(process, ours)

    @property
    def is_busy(self) -> bool:
        return self.current is not None

    @property
    def job(self) -> Job:
        assert self.current is not None
        return self.current

    def send(self, job: Job) -> None:
        self.current = job
        try:
            self.connection.send(job)
        except BrokenPipeError:  # it died while it was idle: receiving will tell
            return

    def receive(self) -> Answer:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            answer = Ended(self._death())
        if isinstance(answer, Ended):
            self.current = None
        return answer

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()

    def _death(self) -> str:
        self.process.join()
        self.connection.close()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its worker process ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        return f"its worker process was killed by {name}{hint}"


def _serve(connection: "Connection[Answer, Job]") -> None:
    """In a worker: compute what is sent until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        for answer in recorded(job):
            connection.send(answer)


def recorded(job: Job) -> Iterator[Answer]:
    """What comes of a job, and its warnings, in a process without a screen; ends with ``Ended``."""
    if job.threads:
        torch.set_num_threads(job.threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for answer in compute(job):
            yield from _told(caught)
            yield answer
        yield from _told(caught)
    yield Ended()


def _told(caught: list[warnings.WarningMessage]) -> Iterator[Warned]:
    messages = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    caught.clear()
    yield from map(Warned, messages)


def free_memory() -> int:
    """Bytes that can be had now without driving others out."""
    try:
        listed = Path("/proc/meminfo").read_text().splitlines()
        (line,) = [line for line in listed if line.startswith("MemAvailable:")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):  # not Linux: all there is, and the system may swap
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def divided_threads(workers: int) -> Generator[None]:
    """Give every process started meanwhile its share of the threads, before it loads a library."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(max(1, torch.get_num_threads() // workers))))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
