"""Several processes for one run: each takes the episodes of one method on one class at a time."""

import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context

from fewshot_ad.api import Episode, FewShotError, Method
from fewshot_ad.cli.running import Run
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.studies.local_engine import divided_threads

Group = tuple[Method, Sequence[Episode]]
Answer = tuple[list[ResultRow], list[str]]


def compute_rows(run: Run, groups: Sequence[Group], workers: int) -> list[ResultRow]:
    """The rows of all groups, in order, by so many processes; none is started for one.

    Workers append to the results file as they go, under its lock, so that nothing finished is lost
    with a worker. Two that need one meta-training share it through the cache: one trains, the other
    waits. The threads of this process are divided among them.

    Raises:
        FewShotError: see ``Run.rows``; or a worker was killed.
    """
    workers = min(workers, len(groups))
    if workers <= 1:
        return [row for group in groups for row in run.rows(*group)]
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_leave_interrupts)
    what = f"{len(groups)} classes and methods with {workers} workers"
    with divided_threads(workers), run.screen.progress(what, len(groups)) as bar:
        futures = [pool.submit(_rows, run, *group) for group in groups]
        for future in futures:
            future.add_done_callback(lambda _: bar.advance())
        try:
            return _collected(futures)
        except BrokenProcessPool as error:
            raise FewShotError(
                "a worker process was killed, perhaps because memory ran out; what was finished is "
                f"kept in {run.results}: run the same command again, with fewer --workers"
            ) from error
        except KeyboardInterrupt:
            for worker in active_children():
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # and wait: what runs is written down


def _collected(futures: Sequence[Future[Answer]]) -> list[ResultRow]:
    """The rows of all, as soon as all are done; or the first error, as soon as there is one."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    rows: list[ResultRow] = []
    for future in futures:
        found, messages = future.result()
        rows += found
        for message in messages:
            warnings.warn(message, stacklevel=3)
    return rows


def _rows(run: Run, method: Method, trials: Sequence[Episode]) -> Answer:
    """In a worker: the rows of one group, and the warnings that the parent shows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rows = run.rows(method, trials)
    return rows, [str(each.message) for each in caught if each.category is UserWarning]


def _leave_interrupts() -> None:
    """In a worker: the parent alone answers Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
