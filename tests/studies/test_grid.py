from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.image_files import write_image
from fewshot_ad.methods import load_method
from fewshot_ad.studies.cells import Job
from fewshot_ad.studies.declared import Variant
from fewshot_ad.studies.grid import plan
from fewshot_ad.studies.study_files import parse_study

STUDY = """\
title: Edges
methods:
  - strangers:NearestEdges
  - method: strangers:ScaledEdges
    grid: {cell: [4, 8]}
targets:
  - dataset: synthetic
    classes: [screw, gear]
known: ["synthetic:grid+capsule", synthetic]
shots: [1, 2]
seeds: [3]
query_limit: 2
"""


def configured(variant: Variant):
    pairs = dict(each.split("=") for each in variant.settings)
    return load_method(variant.method, **{name: int(value) for name, value in pairs.items()})


def planned(text: str, data: Path | None = None) -> list[Job]:
    return plan(parse_study(text, Path("study.yaml")), configured, data)


def paint(folder: Path) -> None:
    for kind in ("train/good/0", "train/good/1", "test/good/0", "test/bad/0"):
        path = folder / f"{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.zeros((8, 8, 3), np.uint8))


def test_every_method_meets_every_class_and_only_learners_every_known_set() -> None:
    jobs = planned(STUDY)
    found = [
        (job.target[1], getattr(job.method, "cell", 0), job.known, job.leaves_out) for job in jobs
    ]
    assert found == [
        each
        for name in ("screw", "gear")
        for each in [
            (name, 8, None, False),
            *(
                (name, cell, known, known == "synthetic")
                for cell in (4, 8)
                for known in ("synthetic:grid+capsule", "synthetic")
            ),
        ]
    ]
    assert [(trial.shots, trial.seed) for trial in jobs[0].trials] == [(1, 3), (2, 3)]
    assert len({job.cell(trial) for job in jobs for trial in job.trials}) == 20


def test_jobs_share_a_meta_training_unless_their_target_is_left_out_of_it() -> None:
    trainings = {
        (job.target[1], job.known, job.method.params()["cell"]): job.training
        for job in planned(STUDY)
        if job.training
    }
    chosen, whole = "synthetic:grid+capsule", "synthetic"
    assert trainings["screw", chosen, 4] == trainings["gear", chosen, 4]
    assert trainings["screw", whole, 4] != trainings["gear", whole, 4]
    assert trainings["screw", chosen, 4] != trainings["screw", chosen, 8]
    assert len(set(trainings.values())) == 2 + 4


def test_skipping_leaves_only_known_sets_without_the_target() -> None:
    text = STUDY.replace("+capsule", "+screw") + "overlap: skip\n"
    learning = [(job.target[1], job.known) for job in planned(text) if job.training]
    assert learning == 2 * [("gear", "synthetic:grid+screw")]


def test_a_target_may_have_known_sets_of_its_own() -> None:
    own = "[screw]\n  - dataset: synthetic\n    classes: [gear]\n    known: [synthetic:zipper]"
    text = STUDY.replace("[screw, gear]", own)
    learning = {(job.target[1], job.known) for job in planned(text) if job.training}
    assert learning == {
        ("screw", "synthetic:grid+capsule"),
        ("screw", "synthetic"),
        ("gear", "synthetic:zipper"),
    }
    with pytest.raises(FewShotError, match="line 11: the target class synthetic/gear is among"):
        planned(text.replace("zipper", "gear+zipper"))


def test_data_is_filled_in_everywhere(tmp_path: Path) -> None:
    for place in ("a/plate", "b/disc"):
        paint(tmp_path / place)
    text = STUDY.replace("synthetic\n    classes: [screw, gear]", '"folder:{data}/a"')
    text = text.replace('["synthetic:grid+capsule", synthetic]', '["visa:{data}/b"]')
    with pytest.raises(FewShotError, match=r"line 7: 'folder:\{data}/a' lies below .*--data"):
        planned(text)
    with pytest.raises(FewShotError, match=r"study.yaml, line 8: .*VisA"):
        planned(text, tmp_path)
    jobs = planned(
        text.replace("visa", "folder").replace("shots: [1, 2]", "shots: [2, full]"), tmp_path
    )
    assert {job.source for job in jobs} == {f"folder:{tmp_path}/a"}
    assert {len(job.trials) for job in jobs} == {1}  # two images are the full train split


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("NearestEdges", "NoEdges", "line 3: the method strangers:NoEdges cannot be imported"),
        ("cell: [4, 8]", "sell: [4]", "line 4: no parameter of .* is called 'sell'"),
        ("cell: [4, 8]", "cell: [4, 4]", "line 4: two cells are the same: strangers:ScaledEdges"),
        ("- strangers:N", "- {method: strangers:NearestEdges, set: {cell: 8}}\n  - strangers:N",
         "line 4: two cells are the same"),
        ("dataset: synthetic", "dataset: sinthetic", "line 7: no dataset is called 'sinthetic'"),
        ("[screw, gear]", "[screw, gaer]", "line 7: no class of synthetic is called 'gaer'"),
        ("[screw, gear]", "[gear, gear]", "line 7: two cells are the same: class gear of synth"),
        ("grid+capsule", "grid+caps", "line 9: no class of synthetic is called 'caps'"),
        ("grid+capsule", "grid+screw", "line 9: the target class synthetic/screw is among the kn"),
        ("shots: [1, 2]", "shots: [0, 2]", "line 3: strangers:NearestEdges needs at least 1"),
        ("shots: [1, 2]", "shots: [1000]", "line 3: .*1000 shots were asked for"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_its_line(before: str, after: str, words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        planned(STUDY.replace(before, after))


def test_a_known_set_that_is_the_target_alone_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "plate")
    text = STUDY.replace("synthetic\n    classes: [screw, gear]", '"folder:{data}"')
    alone = text.replace('["synthetic:grid+capsule", synthetic]', "[null]")
    with pytest.raises(FewShotError, match="line 8: no known class is left for folder/plate"):
        planned(alone, tmp_path)
    skipped = alone.replace("  - strangers:NearestEdges\n", "") + "overlap: skip\n"
    with pytest.raises(FewShotError, match="no cell is left"):
        planned(skipped, tmp_path)
