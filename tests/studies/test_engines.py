"""Engines and the conductor, with jobs that cost next to nothing."""

import multiprocessing
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot_ad.api import Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.methods import load_method
from fewshot_ad.studies.cells import Answer, Ended, Failed, Job
from fewshot_ad.studies.conducting import TRIES, Tally, conduct
from fewshot_ad.studies.engines import Engine, Queue
from fewshot_ad.studies.local_engine import Processes, ThisProcess
from fewshot_ad.studies.store import Store, load_evidence, load_failures, load_rows

LASTING = (
    "i_auroc",
    "i_ap",
    "i_f1_max",
    "p_auroc",
    "p_ap",
    "p_f1_max",
    "aupro",
    "kinds",
    "reasons",
)


def job_of(name: str, target_class: str = "screw", known: str | None = None, **params) -> Job:
    dataset = load_dataset("synthetic")
    drawn = episodes(dataset, target_class, shots=[1, 2], seeds=[0, 1], query_limit=2)
    return Job(
        method=load_method(f"strangers:{name}", preprocess=Preprocess(size=32), **params),
        source="synthetic",
        trials=tuple(drawn),
        known=known,
        leaves_out=False,
        known_limit=1,
        eval_size=32,
        boxes=False,
    )


def run(path: Path, jobs: list[Job], engine: Engine | None = None, **settings) -> Tally:
    with Store(path) as store:
        return conduct(jobs, store, engine or ThisProcess(), **settings)


def values(path: Path) -> dict[str, tuple[object, ...]]:
    """What must not hang on who computed it."""
    rows = {row_key(row): row for row in load_rows(path)}
    assert len(rows) == len(load_rows(path))
    return {
        key: (*(getattr(row, name) for name in LASTING), tensors(load_evidence(path, key)))
        for key, row in rows.items()
    }


def tensors(evidence: bytes | None) -> bytes:
    """The numbers of a safetensors file; the order of its header changes from run to run."""
    assert evidence is not None
    return evidence[8 + int.from_bytes(evidence[:8], "little") :]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def test_a_queue_keeps_jobs_apart_that_would_meta_train_the_same() -> None:
    known = "synthetic:grid"
    first, second = (job_of("ScaledEdges", name, known) for name in ("screw", "gear"))
    other, plain = job_of("ScaledEdges", "screw", "synthetic:capsule"), job_of("NearestEdges")
    queue = Queue([first, second, other, plain])
    assert [queue.take() for _ in range(4)] == [first, other, plain, None]
    queue.ended(first)  # it never came to its training, so the next one tries
    assert queue.take() is second
    queue.put_back(first)
    assert queue.take() is None
    queue.trained(second)
    assert queue.take() is first
    assert queue.take() is None


def test_a_queue_passes_over_what_does_not_fit() -> None:
    small, large = (
        replace(job_of("NearestEdges"), memory=1),
        replace(job_of("NearestEdges"), memory=9),
    )
    queue = Queue([large, small])
    assert queue.take(lambda job: job.memory < 5) is small
    assert queue.take(lambda job: job.memory < 5) is None
    assert queue.take() is large


def test_rows_are_stored_once_with_their_evidence(path: Path) -> None:
    jobs = [job_of("NearestEdges"), job_of("ScaledEdges", known="synthetic:gear")]
    tally = run(path, jobs)
    rows = load_rows(path)
    assert {row_key(row) for row in rows} == set(tally.keys.values())
    assert len(tally.keys) == len(rows) == 8
    assert all(load_evidence(path, row_key(row)) for row in rows)
    again = run(path, jobs)
    assert (again.keys, again.n_kept, again.holes) == (tally.keys, 8, [])
    assert load_rows(path) == rows


def test_rows_of_other_code_are_computed_again_unless_any_code_will_do(path: Path) -> None:
    run(path, [job_of("NearestEdges")])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE rows SET code = 'older' WHERE seed = 1")
    connection.commit()
    connection.close()
    assert run(path, [job_of("NearestEdges")], any_code=True).n_kept == 4
    assert run(path, [job_of("NearestEdges")]).n_kept == 2
    assert run(path, [job_of("NearestEdges")]).n_kept == 4


def test_a_failing_cell_is_a_hole_that_the_next_run_tries_again(path: Path) -> None:
    broken = job_of("UnluckyEdges", victim="screw")
    fine = job_of("UnluckyEdges", "gear", victim="screw")
    tally = run(path, [broken, fine])
    assert len(tally.keys) == 4
    assert [hole.reason for hole in tally.holes] == 4 * ["RuntimeError: no luck today"]
    run(path, [broken])
    assert [(each.target_class, each.times) for each in load_failures(path)] == 4 * [("screw", 2)]
    mended = [replace(broken, method=broken.method.variant(victim=""))]
    assert run(path, mended).holes == []
    assert len(load_failures(path)) == 4  # of a method with other parameters


def test_an_image_that_is_gone_fails_the_cells_that_need_it(path: Path) -> None:
    job = job_of("NearestEdges")
    (first, *others) = job.trials
    lost = replace(first, support=(replace(first.support[0], path="screw/train/none"),))
    tally = run(path, [replace(job, trials=(lost, *others))])
    assert len(tally.keys) == 3
    assert [hole.seed for hole in tally.holes] == [0]
    assert "none" in tally.holes[0].reason


def test_a_meta_training_that_cannot_be_is_told_of_every_cell(path: Path) -> None:
    tally = run(path, [job_of("ScaledEdges", known="synthetic:none")])
    assert {hole.known for hole in tally.holes} == {"synthetic:none"}
    assert len(tally.holes) == 4


def test_processes_give_the_rows_of_one_and_replace_a_killed_worker(
    path: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "died"
    jobs = [
        job_of("UnluckyEdges", marker=str(marker)),
        job_of("ScaledEdges", known="synthetic:grid"),
        job_of("ScaledEdges", "gear", known="synthetic:grid"),
    ]
    tally = run(path, jobs, Processes(2))
    assert marker.exists()
    assert (len(tally.keys), tally.holes) == (12, [])
    alone = tmp_path / "alone.sqlite"
    assert run(alone, jobs).holes == []
    assert values(alone) == values(path)
    assert not multiprocessing.active_children()


def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_are_there(path: Path) -> None:
    mortal = job_of("MortalEdges", victim="screw")
    only = replace(mortal, trials=mortal.trials[:1])
    tally = run(path, [only, job_of("NearestEdges")], Processes(1))
    (hole,) = tally.holes
    assert "killed by SIGKILL, perhaps because memory ran out" in hole.reason
    assert f"{TRIES} times" in hole.reason
    assert len(tally.keys) == 4


def test_a_job_that_would_not_fit_in_memory_waits_until_it_is_alone() -> None:
    engine = Processes(4, memory=1)
    large = [replace(job_of("NearestEdges", name), memory=2**40) for name in ("screw", "gear")]
    running = 0
    for _, answer in engine.run(Queue(large)):
        running = max(running, len(engine._busy))
        assert len(engine._workers) == 1
        assert not isinstance(answer, Failed)
    assert running == 1


class Losing:
    """An engine whose worker is lost after a number of answers, again and again."""

    def __init__(self, *after: int) -> None:
        self._after = list(after)

    def run(self, queue: Queue) -> Generator[tuple[Job, Answer]]:
        while (job := queue.take()) is not None:
            for number, (_, answer) in enumerate(ThisProcess().run(Queue([job]))):
                if self._after and number == self._after[0]:
                    self._after.pop(0)
                    yield job, Ended("a storm")
                    break
                yield job, answer


def test_what_a_lost_worker_left_is_run_from_there(path: Path) -> None:
    tally = run(path, [job_of("NearestEdges")], Losing(2, 1, 0))
    assert (len(tally.keys), tally.holes, tally.n_kept) == (4, [], 0)


def test_only_the_cell_in_flight_is_given_up(path: Path) -> None:
    tally = run(path, [job_of("NearestEdges")], Losing(1, 0, 0))
    assert [hole.reason for hole in tally.holes] == [f"a storm, {TRIES} times"]
    assert len(tally.keys) == 3


def test_a_meta_training_that_kills_its_worker_is_not_tried_for_every_cell(path: Path) -> None:
    tally = run(path, [job_of("ScaledEdges", known="synthetic:grid")], Losing(0, 0, 0))
    assert len(tally.holes) == 4
    again = run(path, [job_of("ScaledEdges", known="synthetic:grid")], Losing(1, 0, 0))
    assert len(again.holes) == 1  # it was trained, then one cell was lost thrice


RUNNER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from studies.test_engines import job_of
from fewshot_ad.studies.cells import Done
from fewshot_ad.studies.conducting import conduct
from fewshot_ad.studies.local_engine import ThisProcess
from fewshot_ad.studies.store import Store
jobs = [job_of("NearestEdges", name) for name in ("screw", "gear", "grid")]
with Store(Path(sys.argv[1])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    tally = conduct(jobs, store, ThisProcess(), on_answer=lambda _, answer: print(
        "done" if isinstance(answer, Done) else "-", flush=True))
    print(len(tally.keys), tally.n_kept, len(tally.holes))
"""


def runner(path: Path) -> "subprocess.Popen[str]":
    code = RUNNER.format(path=[str(Path(__file__).parents[1])])
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe, text=True
    )


def test_two_runs_share_a_store_and_a_kill_costs_the_cell_in_flight(
    path: Path, tmp_path: Path
) -> None:
    processes = [runner(path) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    killed, other = processes
    assert killed.stdout is not None
    told = [killed.stdout.readline() for _ in range(5)]
    killed.kill()
    saved = len(load_rows(path))
    assert saved >= told.count("done\n")
    said = other.communicate()[0].splitlines()
    killed.communicate()
    assert said[-1].split()[::2] == ["12", "0"]
    alone = tmp_path / "alone.sqlite"
    run(alone, [job_of("NearestEdges", name) for name in ("screw", "gear", "grid")])
    assert values(path) == values(alone)
