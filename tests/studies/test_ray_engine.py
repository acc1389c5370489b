"""A real Ray cluster of several worker processes on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from studies.test_engines import job_of, run, values

from fewshot_ad.api import FewShotError
from fewshot_ad.studies import ray_engine
from fewshot_ad.studies.engines import Queue
from fewshot_ad.studies.ray_engine import RayCluster


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda _: None)
    with pytest.raises(FewShotError, match=r"pip install 'fewshot-ad\[ray\]'"):
        RayCluster("local", 2)


CLUSTER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from studies.test_engines import job_of, run
from fewshot_ad.studies.ray_engine import RayCluster
mortal = job_of("MortalEdges", "gear", victim="gear")
jobs = [
    job_of("UnluckyEdges", marker=sys.argv[3]),
    replace(mortal, trials=mortal.trials[:1]),
    job_of("UnluckyEdges", "grid", victim="grid"),
    job_of("ScaledEdges", known="synthetic:grid"),
    job_of("ScaledEdges", "gear", known="synthetic:grid"),
]
tally = run(Path(sys.argv[2]), jobs, RayCluster("local", 3))
for hole in tally.holes:
    print(hole)
print(len(tally.keys))
"""


@pytest.mark.slow
def test_a_cluster_gives_the_rows_of_one_process_while_workers_are_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    marker, path = tmp_path / "died", tmp_path / "results.sqlite"
    command = [sys.executable, "-c", CLUSTER, Path(__file__).parents[1], path, marker]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *holes, n_rows = done.stdout.splitlines()
    assert marker.exists()
    assert n_rows == "12"  # nothing lost of the jobs that can be done
    assert len(holes) == 5
    assert sum("no luck today" in hole for hole in holes) == 4
    assert sum("its worker was lost" in hole and "3 times" in hole for hole in holes) == 1
    alone = tmp_path / "alone.sqlite"
    jobs = [
        job_of("UnluckyEdges", marker=str(marker)),
        job_of("ScaledEdges", known="synthetic:grid"),
        job_of("ScaledEdges", "gear", known="synthetic:grid"),
    ]
    assert run(alone, jobs).holes == []
    assert values(alone) == values(path)  # and nothing doubled


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"),
        ("ray://127.0.0.1:1", "is neither local, auto nor HOST:PORT"),
        ("nowhere", "is neither local, auto nor HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_of(address: str, words: str) -> None:
    pytest.importorskip("ray")
    engine = RayCluster(address, 1)
    with pytest.raises(FewShotError, match=words):
        list(engine.run(Queue([])))
