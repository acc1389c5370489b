from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.studies.declared import MethodEntry
from fewshot_ad.studies.study_files import load_study, parse_study, published_numbers

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
    study = load_study(written(tmp_path, GOOD)).study
    values = {"channels": 20, "neighbourhood": 1, "levels": [1, 2]}
    padim = MethodEntry(method="padim", paper=True, set=values)
    assert study.methods == [MethodEntry(method="patchcore"), padim]
    assert (study.shots, study.known, study.overlap) == ([1, "full"], [None], "leave_out")
    assert study.seed_list == [0, 1, 2, 3, 4]
    assert (study.targets[0].dataset, study.targets[0].classes) == ("synthetic", ["screw"])


def test_values_are_texts_as_set_takes_them() -> None:
    entry = MethodEntry(method="x", set={"a": True, "b": None, "c": 0.5, "d": [1]})
    (variant,) = entry.variants()
    assert variant.settings == ["a=true", "b=None", "c=0.5", "d=1"]


def test_a_grid_is_every_combination_once() -> None:
    entry = MethodEntry(
        method="x",
        set={"a": 1},
        grid={"b": [2, 3], "c": [True]},
        backbone=["tiny", "resnet18"],
        prompts="p",
    )
    found = [(variant.settings, variant.backbone, variant.prompts) for variant in entry.variants()]
    assert found == [
        (["a=1", f"b={b}", "c=true"], backbone, "p")
        for b in (2, 3) for backbone in ("tiny", "resnet18")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("title: Two methods\n", "", "title: Field required"),
        ("paper: true", "papre: true", r"line 5: methods.1.papre: Extra inputs.*\(found True\)"),
        ("shots: [1, full]", "shots: [1, fulll]", r"line 10: shots.1: .*\(found 'fulll'\)"),
        ("shots: [1, full]", "shots: [-1]", r"line 10: shots.0: .*greater than or equal to 0"),
        ("shots: [1, full]", "shots: []", "line 10: shots: List should have at least 1"),
        ("shots: [1, full]", "shots: [1, 1]", "line 10: shots: 1 is listed twice"),
        ("[screw]", "screw", r"line 9: targets.0.classes: .*list.*\(found 'screw'\)"),
        ("method: padim", "method: 3", r"line 4: methods.1.method: .*string.*\(found 3\)"),
        ("  - method: padim", "  - patchcore\n  - method: padim", "patchcore is listed twice"),
        ("shots: [1, full]", "shots: [1]\nseeds: 0", "line 11: seeds: .*greater than 0"),
        ("shots: [1, full]", "shots: [1]\nseeds: [3, 3]", "line 11: seeds: 3 is listed twice"),
        ("shots: [1, full]", "shots: [1]\noverlap: no", "line 11: overlap: .*'skip'"),
        ("paper: true", "precision: fp16", r"line 5: methods.1.precision: .*\(found 'fp16'\)"),
        ("paper: true", "grid: {channels: [1]}", "line 4: methods.1: channels is in 'set' and in"),
        ("paper: true", "grid: {cell: []}", "line 5: methods.1.grid.cell: .* at least 1"),
        ("channels: 20", "channels: {a: 1}", r"line 6: methods.1.set.channels"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(before, after, words, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        load_study(written(tmp_path, GOOD.replace(before, after)))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("shots: 4, source: s", "published.0: a published entry without a number"),
        ("shots: 4, source: s, i_auroc: 104", "published.0.i_auroc: .*less than or equal to 100"),
        ("shots: 4, i_auroc: 90.5", "published.0.source: Field required"),
    ],
)
def test_published_numbers_are_percent_with_a_source(entry: str, words: str) -> None:
    listed = f"published:\n  - {{method: padim, dataset: visa, {entry}}}\n"
    with pytest.raises(FewShotError, match=words):
        parse_study(GOOD + listed, Path("study.yaml"))


def test_published_numbers_come_once_from_several_studies() -> None:
    entry = "  - {method: padim, dataset: visa, shots: 4, aupro: 80, source: s}\n"
    one, other = f"{GOOD}published:\n{entry}", f"{GOOD}published:\n{entry}{entry.replace('4', '2')}"
    found = published_numbers([one, other, GOOD])
    assert [(each.shots, each.metrics) for each in found] == [
        (4, {"aupro": 80}),
        (2, {"aupro": 80}),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is no study"), ("- a", "is no study"), ("a: [", "is no YAML"), ("\x00", "is no YAML")],
)
def test_no_study_at_all(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        load_study(written(tmp_path, text))
    with pytest.raises(FewShotError, match=r"cannot read the study .*: No such file"):
        load_study(tmp_path / "none.yaml")


def test_errors_within_a_place_tell_its_line(tmp_path: Path) -> None:
    file = load_study(written(tmp_path, GOOD))
    words = r"study.yaml, line 8: no such thing"
    with pytest.raises(FewShotError, match=words), file.at("targets", 0):
        raise FewShotError("no such thing")


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.yaml")), ids=str)
def test_shipped_studies_can_be_read(path: Path) -> None:
    if "targets:" not in path.read_text():
        pytest.skip("no study, but published numbers")
    assert load_study(path).study.title
