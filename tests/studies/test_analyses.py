import json
from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.studies import analyses
from fewshot_ad.studies.analyses import analyse, load_findings
from fewshot_ad.studies.grid import plan
from fewshot_ad.studies.study_files import parse_study

STUDY = """
title: Two of them
analysis: {analysis}
methods: [{{method: "strangers:NearestEdges", set: {{preprocess.size: 32}}}}]
targets: [{{dataset: synthetic, classes: [screw, pill]}}]
shots: [2]
seeds: 2
query_limit: 4
draws: 3
tiles: [1, 2]
"""


@pytest.fixture
def study(tmp_path: Path):
    def made(analysis: str):
        file = parse_study(STUDY.format(analysis=analysis), tmp_path / "study.yaml")
        jobs = plan(
            file, lambda each: configured_method(each.method, each.settings, "cpu", None, None)
        )
        return file.study, jobs

    return made


def test_every_episode_is_asked_and_the_draws_once_per_class(study, tmp_path: Path) -> None:
    found, holes = analyse(*study("influence"), tmp_path)
    assert not holes
    assert [(one.target_class, one.seed) for one in found] == [
        ("screw", 0), ("screw", 1), ("pill", 0), ("pill", 1)
    ]  # fmt: skip
    for one in found:
        assert len(one.facts["left_out_i_auroc"]) == one.shots == 2
        assert len(one.facts.get("drawn_i_auroc", [])) == (3 if one.seed == 0 else 0)
    assert load_findings(tmp_path / "influence.jsonl") == found


def test_sizes_are_asked_with_every_factor(study, tmp_path: Path) -> None:
    found, _ = analyse(*study("sizes"), tmp_path)
    assert [[group["tiles"] for group in one.facts["groups"]] for one in found] == 4 * [
        4 * [1] + 4 * [2]
    ]


def test_what_is_found_is_not_asked_again_unless_the_question_changes(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, jobs = study("sizes")
    first, _ = analyse(declared, jobs, tmp_path)
    path = tmp_path / "sizes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote the last one
    asked: list[int] = []
    ask = analyses.ANALYSES["sizes"]
    monkeypatch.setitem(
        analyses.ANALYSES, "sizes", lambda *given: asked.append(given[2].seed) or ask(*given)
    )
    with pytest.warns(UserWarning, match="torn"):
        second, _ = analyse(declared, jobs, tmp_path)
    assert second == first
    assert asked == [1]
    assert len(load_findings(path)) == 4
    analyse(declared.model_copy(update={"tiles": [2]}), jobs, tmp_path)
    assert len(asked) == 1 + 4


def test_an_episode_that_fails_is_named_and_asked_again(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise FewShotError("no such luck")

    with monkeypatch.context() as patch:
        patch.setitem(analyses.ANALYSES, "sizes", fail)
        found, holes = analyse(*study("sizes"), tmp_path)
    assert not found
    assert [hole.reason for hole in holes] == 4 * ["no such luck"]
    assert len(analyse(*study("sizes"), tmp_path)[0]) == 4


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"format": 2}', '{"format": 1, "cell": "a"}'])
def test_lines_of_another_kind_are_refused_in_one_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "sizes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(FewShotError, match="line 1 is no finding of format 1"):
        load_findings(path)


def test_the_command_shows_a_table_or_all_of_it(cli, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    for analysis, words in (("influence", "k-centre"), ("sizes", "quartile")):
        file.write_text(STUDY.format(analysis=analysis))
        told = cli("study", file, "--out", tmp_path / "out")
        assert told.exit_code == 0, told.stderr
        assert words in told.stdout
        again = json.loads(cli("study", file, "--out", tmp_path / "out", "--json").stdout)
        assert len(again) == 4
    refused = cli("study", file, "--out", tmp_path / "out", "--workers", 2)
    assert refused.exit_code == 2
    assert "a study of sizes runs in one process" in refused.stderr
