from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.studies.declared import MethodEntry, load_study

GOOD = """\
title: Two methods
methods:
  - patchcore
  - method: padim
    paper: true
    set: {channels: 20, neighbourhood: 1, levels: [1, 2]}
targets:
  - dataset: synthetic
    classes: [screw]
shots: [1, full]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_is_read_whole(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, GOOD))
    padim = MethodEntry(
        method="padim", paper=True, set={"channels": 20, "neighbourhood": 1, "levels": [1, 2]}
    )
    assert study.methods == [MethodEntry(method="patchcore"), padim]
    assert padim.settings == ["channels=20", "neighbourhood=1", "levels=1,2"]
    assert (study.shots, study.seeds, study.known) == ([1, "full"], 5, [None])
    assert (study.targets[0].dataset, study.targets[0].classes) == ("synthetic", ["screw"])


def test_values_are_texts_as_set_takes_them() -> None:
    entry = MethodEntry(method="x", set={"a": True, "b": None, "c": 0.5, "d": [1]})
    assert entry.settings == ["a=true", "b=None", "c=0.5", "d=1"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("title: Two methods\n", "", "title: Field required"),
        ("paper: true", "papre: true", r"line 5: methods.1.papre: Extra inputs.*\(found True\)"),
        ("shots: [1, full]", "shots: [1, fulll]", r"line 10: shots.1: .*\(found 'fulll'\)"),
        ("shots: [1, full]", "shots: [-1]", r"line 10: shots.0: .*greater than or equal to 0"),
        ("shots: [1, full]", "shots: []", "line 10: shots: List should have at least 1"),
        ("[screw]", "screw", r"line 9: targets.0.classes: .*list.*\(found 'screw'\)"),
        ("method: padim", "method: 3", r"line 4: methods.1.method: .*string.*\(found 3\)"),
        ("  - method: padim", "  - patchcore\n  - method: padim", "patchcore is listed twice"),
        ("shots: [1, full]", "shots: [1]\nseeds: 0", "line 11: seeds: .*greater than 0"),
        ("paper: true", "precision: fp16", r"line 5: methods.1.precision: .*\(found 'fp16'\)"),
        ("channels: 20", "channels: {a: 1}", r"line 6: methods.1.set.channels"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(before, after, words, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        load_study(written(tmp_path, GOOD.replace(before, after)))


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is no study"), ("- a", "is no study"), ("a: [", "is no YAML"), ("\x00", "is no YAML")],
)
def test_no_study_at_all(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        load_study(written(tmp_path, text))
    with pytest.raises(FewShotError, match=r"cannot read the study .*: No such file"):
        load_study(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.yaml")), ids=str)
def test_shipped_studies_can_be_read(path: Path) -> None:
    if "targets:" not in path.read_text():
        pytest.skip("no study, but published numbers")
    assert load_study(path).title
