"""A real Ray cluster of several worker processes on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from studies.test_engines import job_of, run, values

from fewshot_ad.api import FewShotError
from fewshot_ad.studies import ray_engine
from fewshot_ad.studies.engines import Queue
from fewshot_ad.studies.ray_engine import RayCluster
from fewshot_ad.studies.store import STORE


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


STUDY = """\
title: Two classes on a cluster
methods:
  - method: only_here:OwnEdges
    set: {preprocess.size: 32}
targets:
  - dataset: synthetic
    classes: [screw, gear]
shots: [1]
seeds: 2
query_limit: 2
eval_size: 32
"""
OWN = """
from strangers import NearestEdges
class OwnEdges(NearestEdges):
    pass
"""


@contextmanager
def running_cluster(folder: str, path: str) -> Iterator[dict[str, str]]:
    """A cluster as ``ray start --head`` starts it, and the environment in which ``auto`` finds it.

    Args:
        folder: that no other cluster uses; short, for sockets lie in it.
        path: where its workers find modules.
    """
    around = {**os.environ, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    around |= {"PYTHONPATH": path, "RAY_ADDRESS": ""}
    options = ["--block", "--port=0", "--num-cpus=2", "--include-dashboard=false"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *options]
    with subprocess.Popen(
        command, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as head:
        try:
            assert head.stdout is not None
            assert any("Ray runtime started" in line for line in head.stdout)
            yield around
            assert head.poll() is None  # it outlives a study
        finally:
            head.terminate()  # it ends what it started


@pytest.mark.slow
def test_auto_finds_the_cluster_that_ray_start_started(cli, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("ray")
    study, alone, cluster = tmp_path / "study.yaml", tmp_path / "alone", tmp_path / "cluster"
    study.write_text(STUDY)
    (tmp_path / "only_here.py").write_text(OWN)  # workers of other clusters do not find it
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "fewshot_ad", "study", study, "--out", cluster]
    command += ["--engine", "ray", "--address", "auto"]
    with TemporaryDirectory(prefix="ray") as folder, running_cluster(folder, path) as around:
        done = subprocess.run(
            [*map(str, command)], env=around, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    assert cli("study", study, "--out", alone).exit_code == 0
    assert len(values(alone / STORE)) == 4
    assert values(alone / STORE) == values(cluster / STORE)


def test_auto_does_not_wait_for_a_cluster_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(FewShotError, match=r"no Ray cluster at 127.0.0.1:1 \(Connection refused\)"):
        list(RayCluster("auto", 1).run(Queue([])))


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
