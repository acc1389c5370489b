from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.methods import load_method
from fewshot_ad.studies.cells import Job
from fewshot_ad.studies.grid import plan
from fewshot_ad.studies.part import part_of
from fewshot_ad.studies.study_files import parse_study

STUDY = """\
title: Edges
methods: ["strangers:NearestEdges", "strangers:ScaledEdges"]
targets:
  - dataset: synthetic
    classes: [screw, gear]
known: ["synthetic:grid+capsule"]
shots: [1, 2, full]
seeds: 2
query_limit: 2
"""


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    file = parse_study(STUDY, Path("study.yaml"))
    return plan(file, lambda variant: load_method(variant.method))


def cells(jobs: list[Job]) -> set[tuple[str, str, int, int]]:
    return {
        (job.identity["method"].split(":")[1], job.target[1], trial.shots, trial.seed)
        for job in jobs
        for trial in job.trials
    }


def test_nothing_named_is_the_whole(jobs) -> None:
    assert cells(part_of(jobs, [])) == cells(jobs)


@pytest.mark.parametrize(
    ("only", "is_kept"),
    [
        (["class=gear"], lambda method, name, shots, seed: name == "gear"),
        (["shots=1,2"], lambda method, name, shots, seed: shots in (1, 2)),
        (["shots=full"], lambda method, name, shots, seed: shots > 2),
        (["shots=1", "shots=2"], lambda method, name, shots, seed: shots in (1, 2)),
        (["seed=1"], lambda method, name, shots, seed: seed == 1),
        (
            ["method=strangers:NearestEdges", "seed=0", "class=screw"],
            lambda method, name, shots, seed: (method, name, seed) == ("NearestEdges", "screw", 0),
        ),
    ],
)
def test_cells_that_are_all_of_it_stay(jobs, only, is_kept) -> None:
    assert cells(part_of(jobs, only)) == {cell for cell in cells(jobs) if is_kept(*cell)}


def test_a_cell_of_a_part_is_the_cell_of_the_whole(jobs) -> None:
    whole = {job.cell(trial) for job in jobs for trial in job.trials}
    assert {job.cell(trial) for job in part_of(jobs, ["shots=2"]) for trial in job.trials} < whole


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("shots", "expected one of method, class, shots, seed and values"),
        ("shots=", "expected one of method, class, shots, seed and values"),
        ("backbone=tiny", "expected one of method"),
        ("shots=1,3", "--only shots=3: this study has 1, 2, .*full"),
        ("class=pill", "--only class=pill: this study has gear, screw"),
        ("seed=x", "--only seed=x: this study has 0, 1"),
    ],
)
def test_what_the_study_does_not_have_is_told(jobs, only, told) -> None:
    with pytest.raises(FewShotError, match=told):
        part_of(jobs, [only])
