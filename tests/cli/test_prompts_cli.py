"""``fewshot-ad prompts`` and ``eval --prompts``, offline with a random CLIP."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.cli import prompt_tables
from fewshot_ad.prompts import list_prompts, load_prompts, save_prompts
from fewshot_ad.studies.prompt_ablation import Ablation, Drop, Worth

TINY = ("--backbone", "random:tiny", "--set", "preprocess.size=64", "--query-limit", 3)
EVAL = ("eval", "--method", "winclip", *TINY, "--shots", 0, "--seeds", 1, "--eval-size", 64)


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.yaml"
    save_prompts(load_prompts("minimal"), path)
    return path


@pytest.fixture
def folder(tmp_path) -> str:
    """Four classes of small images, each with a mask for its defect."""
    draw = np.random.default_rng(0)
    for name in ("cup", "jug", "lid", "mug"):
        for place in ("train/good", "test/good", "test/dent", "ground_truth/dent"):
            (tmp_path / "images" / name / place).mkdir(parents=True)
            pixels = draw.integers(0, 255, (24, 24, 3)).astype(np.uint8)
            mask = np.pad(np.full((8, 8), 255, dtype=np.uint8), 8)
            is_mask = place.startswith("ground")
            path = tmp_path / "images" / name / place / f"0{'_mask' if is_mask else ''}.png"
            Image.fromarray(mask if is_mask else pixels).save(path)
    return f"folder:{tmp_path / 'images'}"


def rows(folder: Path):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_the_list_shows_every_set_with_its_counts(cli) -> None:
    text = cli("prompts").stdout
    assert all(name in text for name in list_prompts())
    assert "154 + 88" in text
    assert "147 + 84" in text
    cards = json.loads(cli("prompts", "list", "--json").stdout)
    assert {card["name"]: card["templates"] for card in cards}["winclip_20"] == 20


def test_show_prints_strings_or_sentences(cli, own) -> None:
    text = cli("prompts", "show", own).stdout
    assert "normal {}" in text
    assert "pcb1: printed circuit board" in text
    text = cli("prompts", "show", "winclip", "--target-class", "metal_nut").stdout
    assert "154 normal sentences:" in text
    assert "a photo of a metal nut with flaw" in text
    assert (
        "a photo of a hex nut with flaw"
        in cli("prompts", "show", "winclip", "--class-name", "hex nut").stdout
    )
    found = json.loads(cli("prompts", "show", "minimal", "--target-class", "pcb1", "--json").stdout)
    assert found["anomalous"] == ["a photo of a damaged printed circuit board"]
    assert json.loads(cli("prompts", "show", own, "--json").stdout)["templates"]


def test_lint_is_content_with_a_good_set_and_says_what_it_left_out(cli) -> None:
    result = cli("prompts", "lint", "winclip")
    assert result.exit_code == 0
    assert "left out: near-duplicates, coinciding sides: ViT-B-16-plus-240" in result.stdout
    assert "nothing odd found" in result.stdout


def test_lint_ends_with_1_on_findings(cli, own) -> None:
    own.write_text(
        own.read_text().replace("- a photo of a {}", "- a photo of a {}\n- A photo of a {}")
    )
    result = cli("prompts", "lint", own, "--backbone", "random:tiny", "--target-class", "cup")
    assert result.exit_code == 1
    assert "duplicates: 'a photo of a {}' and 'A photo of a {}'" in result.stdout
    assert "near-duplicates: " in result.stdout
    assert "left out" not in result.stdout


def test_compare_prints_differences(cli, own) -> None:
    arguments = (
        "prompts",
        "compare",
        "minimal",
        "industrial",
        own,
        "--target-class",
        "screw",
        *TINY,
    )
    result = cli(*arguments, "--eval-size", 64)
    assert result.exit_code == 0, result.stderr
    assert "I-AUROC" in result.stdout
    assert "differences to minimal" in result.stdout
    found = json.loads(cli(*arguments, "--eval-size", 64, "--json").stdout)
    same = [each for each in found if each["prompts"] == str(own)]
    assert {each["difference"] for each in same} == {0.0}
    assert len(found) == 3 * 2


def test_compare_shows_supports(cli) -> None:
    result = cli(
        "prompts", "compare", "minimal", "industrial", "--target-class", "screw", "--shots", 1,
        "--seeds", 2, *TINY, "--eval-size", 64,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr


def test_ablate_prints_a_worth_per_string_and_class(cli) -> None:
    arguments = ("prompts", "ablate", "object_agnostic", "--target-class", "screw", *TINY)
    arguments += ("--target-class", "carpet")
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    for words in ("a cropped photo of the {}", "normal state", "group", "screw", "carpet", "mean"):
        assert words in result.stdout
    assert "variants of object_agnostic: " in result.stdout
    found = json.loads(cli(*arguments, "--json").stdout)
    assert found["full"].keys() == {"screw", "carpet"}
    assert len(found["worths"]) == 5 + 6 + 6 + 4


def test_ablate_counts_in_the_metric_that_is_asked_for(cli) -> None:
    result = cli(
        "prompts", "ablate", "object_agnostic", "--target-class", "screw", *TINY,
        "--metric", "p_auroc", "--eval-size", 32,
    )  # fmt: skip
    assert "points of P-AUROC" in result.stdout


def test_a_table_holds_eight_classes_at_most() -> None:
    names = [f"class {index}" for index in range(17)]
    worth = Worth(Drop("template", "a {}", ("a {}",)), dict.fromkeys(names, 0.01))
    found = Ablation(dict.fromkeys(names, 0.5), (worth,), 1.0, 1.0)
    tables = [*prompt_tables.ablation(found, "i_auroc")]
    assert [len(table.columns) for table in tables] == [3 + 8, 3 + 8, 3 + 1]


def test_search_writes_a_set_and_reports_on_unseen_classes(cli, tmp_path) -> None:
    out = tmp_path / "found.yaml"
    arguments = (
        "prompts", "search", "object_agnostic", "--on", "synthetic:gear+tile", "--known-limit", 3,
        "--target-class", "screw", *TINY, "--eval-size", 64, "--out", out,
    )  # fmt: skip
    result = cli(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "on 2 known classes; wrote" in result.stdout
    assert "screw" in result.stdout
    found = load_prompts(out)
    assert found.known == ("synthetic/gear", "synthetic/tile")
    assert {*found.strings} <= {*load_prompts("object_agnostic").strings}
    assert cli("prompts", "show", out).exit_code == 0
    assert cli(*EVAL, "--prompts", out, "--target-class", "screw", "--out", tmp_path).exit_code == 0
    assert rows(tmp_path)[0]["known"] == ["synthetic/gear", "synthetic/tile"]
    refused = cli(*EVAL, "--prompts", out, "--target-class", "gear", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "leak" in refused.stderr
    again = cli(*arguments)
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_a_dataset_named_whole_is_known_less_the_targets(cli, tmp_path, folder) -> None:
    result = cli(
        "prompts", "search", "minimal", "--on", folder, "--dataset", folder, "--json",
        "--target-class", "cup", "--target-class", "jug", *TINY, "--out", tmp_path / "f.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert {each["target_class"] for each in found["unseen"]} == {"cup", "jug", None}
    assert load_prompts(tmp_path / "f.yaml").known == ("folder/lid", "folder/mug")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--on", "synthetic:gear+screw", "--target-class", "screw"), "screw is among the known"),
        (("--on", "synthetic"), "none is left to report on"),
        (("--on", "synthetic:gear", "--target-class", "scrw"), "did you mean 'screw'"),
        (("--on", "synthetic:gear", "--beam", 0), "expected 1 or more"),
    ],
)
def test_a_search_that_would_peek_is_refused(cli, tmp_path, arguments, words) -> None:
    small = ("--known-limit", 2, *TINY)
    result = cli("prompts", "search", "minimal", *small, *arguments, "--out", tmp_path / "f.yaml")
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "winclop"), "did you mean 'winclip'"),
        (("show", "absent.yaml"), "cannot be read"),
        (("show", "minimal", "--class-name", "a{}b"), "odd characters"),
        (("compare", "winclip", "--target-class", "screw"), "two prompt sets or more"),
        (("compare", "winclip", "winclip", "--target-class", "screw"), "each once"),
        (("compare", "winclip", "minimal"), "no --target-class"),
        (("compare", "winclip", "minimal", "--target-class", "screw", "--method", "patchcore"),
         "patchcore takes no --prompts"),
        (("compare", "winclip", "minimal", "--target-class", "screw", "--shots", "0,1"),
         "one number of shots"),
        (("compare", "winclip", "minimal", "--target-class", "screw", "--query-limit", 1),
         "not on this machine"),
        (("ablate", "minimal", "--target-class", "screw", *TINY, "--set", "tile=32"), "whole"),
        (("search", "minimal", "--on", "synthetic:gear", "--out", "found.txt"), "found.txt.yaml"),
        (("search", "minimal", "--on", "synthetic:gear", "--out", "absent/f.yaml"), "no folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(cli, arguments, words) -> None:
    result = cli("prompts", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert [line.startswith("error: ") for line in result.stderr.splitlines()].count(True) == 1


def test_eval_takes_prompts_and_a_class_name(cli, tmp_path, own) -> None:
    base = (*EVAL, "--target-class", "screw", "--no-overlays", "--out", tmp_path)
    for extra in ((), ("--prompts", "minimal"), ("--prompts", own), ("--class-name", "bolt")):
        assert cli(*base, *extra).exit_code == 0
    found = rows(tmp_path)
    assert [row["params"]["prompts"] for row in found] == [
        "winclip",
        "minimal",
        str(own),
        "winclip",
    ]
    assert [row["params"]["class_name"] for row in found] == [None, None, None, "bolt"]
    assert found[1]["i_auroc"] == found[2]["i_auroc"]


def test_a_changed_prompt_file_is_run_again(cli, tmp_path, own) -> None:
    base = (*EVAL, "--target-class", "screw", "--no-overlays", "--out", tmp_path / "out")
    for text in ("damaged {}", "damaged {}", "broken {}"):
        own.write_text(own.read_text().replace("damaged {}", text))
        assert cli(*base, "--prompts", own).exit_code == 0
    assert len({row["params"]["prompts_digest"] for row in rows(tmp_path / "out")}) == 2
    assert len(rows(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "patchcore", "--prompts", "minimal"), "patchcore takes no --prompts"),
        (("--method", "patchcore", "--class-name", "bolt"), "patchcore takes no --class-name"),
        (("--method", "winclip", "--prompts", "absent"), "no shipped prompt set"),
        (("--method", "winclip", "--class-name", "bo|t"), "odd characters (|)"),
        (("--method", "winclip", "--class-name", "bolt", "--target-class", "wood"), "one class"),
    ],
)
def test_eval_refuses_text_that_makes_no_sense(cli, tmp_path, arguments, words) -> None:
    result = cli("eval", "--target-class", "screw", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()
