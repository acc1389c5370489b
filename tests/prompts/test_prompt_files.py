"""Prompt files: round trips, and every fault told with the file and the line."""

from dataclasses import replace
from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.prompts import list_prompts, load_prompts, save_prompts

GOOD = """\
format: 1
source: a test
templates:
  - a photo of {}
  - the {}, up close
normal_states:
  - "{}"
  - fine {}
anomalous_states:
  - broken {}
"""

BAD = {  # what is wrong: the text, the line, words of the message
    "unknown key": (GOOD + "template: a\n", 11, "did you mean 'templates'"),
    "missing key": (GOOD.replace("source: a test\n", ""), 1, "'source' is missing"),
    "key twice": (GOOD + "source: b\n", 11, "'source' comes twice, first in line 2"),
    "another format": (GOOD.replace("format: 1", "format: 2"), 1, "reads format 1"),
    "format of a list": (GOOD.replace("format: 1", "format: [1]"), 1, "format is a list"),
    "slot missing": (GOOD.replace("fine {}", "fine"), 8, "no slots, expected exactly one {}"),
    "slot doubled": (GOOD.replace("fine {}", "fine {} {}"), 8, "2 slots"),
    "slot in slot": (GOOD.replace("fine {}", "fine {{}}"), 8, "stray '{'"),
    "slot with a name": (GOOD.replace("fine {}", "fine {name}"), 8, "no slots"),
    "stray brace": (GOOD.replace("fine {}", "fine {} }"), 8, "stray '}'"),
    "slot without quotes": (GOOD.replace('"{}"', "{}"), 7, "needs quotes"),
    "words after a bare slot": (GOOD.replace('"{}"', "{} with"), 7, "needs quotes"),
    "empty string": (GOOD.replace('"{}"', '""'), 7, "empty"),
    "empty list": (GOOD.replace("  - broken {}\n", "").strip() + " []\n", 9, "empty list"),
    "no list": (GOOD.replace("  - broken {}\n", ""), 9, "is nothing, expected a list"),
    "text for a list": (GOOD.replace(":\n  - broken {}", ": broken {}"), 9, "expected a list"),
    "mapping for a list": (GOOD.replace("  - broken {}", "  broken: {}"), 10, "is a mapping"),
    "string twice": (GOOD.replace("fine {}", '"{}"'), 8, "comes twice in normal_states"),
    "normal and anomalous": (GOOD.replace("broken", "fine"), 10, "choose one"),
    "number for a text": (GOOD.replace("fine {}", "12"), 8, "the number '12'"),
    "truth value for a text": (GOOD.replace("a test", "no"), 2, "the truth value 'no'"),
    "double space": (GOOD.replace("fine {}", "fine  {}"), 8, "two in a row"),
    "space at the end": (GOOD.replace("fine {}", '"fine {} "'), 8, "spaces at an end"),
    "line break": (GOOD.replace("fine {}", '"fine\\n{}"'), 8, "U+000A"),
    "zero width space": (GOOD.replace("fine {}", "fine\u200b {}"), 8, "zero width space"),
    "control character": (GOOD.replace("fine", "fi\x07ne"), 8, "U+0007"),
    "odd class name": (GOOD + "class_names:\n  cup: cup{}\n", 12, "odd characters ({})"),
    "name of a number": (GOOD + "class_names:\n  cup: 3\n", 12, "put quotes around"),
    "class twice": (GOOD + "class_names:\n  a: b\n  a: c\n", 13, "comes twice"),
    "names in a list": (GOOD + "class_names: [cup]\n", 11, "expected keys with values"),
    "odd name for any class": (GOOD + "any_class: '*'\n", 11, "odd characters (*)"),
    "override of nothing": (GOOD + "overrides:\n  cup: {}\n", 12, "overrides.cup changes nothing"),
    "override of a text": (GOOD + "overrides:\n  cup:\n    source: b\n", 13, "list to override"),
    "override without slot": (GOOD + "overrides:\n  cup:\n    templates: [a]\n", 13, "no slots"),
    "override makes both": (
        GOOD + "overrides:\n  cup:\n    anomalous_states: ['fine {}']\n", 13, "choose one",
    ),
    "empty group": (GOOD + "groups:\n  g: []\n", 12, "empty list"),
    "group of no string": (GOOD + "groups:\n  g:\n    - bro\n", 13, "no template or state has"),
    "empty words of a group": (GOOD + "groups:\n  g: ['']\n", 12, "empty"),
    "known without dataset": (GOOD + "known:\n  - screw\n", 12, "expected dataset/class"),
    "known twice": (GOOD + "known: [a/b, a/b]\n", 11, "comes twice"),
    "repeat of no string": (GOOD + "repeats:\n  bent {}: 2\n", 12, "no template or state has"),
    "repeated once": (GOOD + "repeats:\n  fine {}: 1\n", 12, "expected 2 to 99"),
    "repeated by a word": (GOOD + "repeats:\n  fine {}: two\n", 12, "expected 2 to 99"),
    "open quote": (GOOD.replace("fine {}", '"fine {}'), None, "not YAML"),
    "tab": (GOOD.replace("  - fine", "\t- fine"), 8, "not YAML"),
    "two documents": (GOOD + "---\n" + GOOD, 11, "not YAML"),
    "a list at the top": ("- a\n", 1, "the file is a list"),
    "only a comment": ("# nothing\n", 1, "the file is empty"),
    "no text": ("", 1, "the file is empty"),
    "too deep": (GOOD + "groups: " + "[" * 5000, 1, "nested too deeply"),
    "too long": (GOOD + "#" * 2**20, 1, "too many"),
}  # fmt: skip


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_good_file_is_good(written) -> None:
    prompts = load_prompts(written(GOOD))
    assert prompts.name == "own.yaml"
    assert prompts.normal_states == ("{}", "fine {}")


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_is_told_with_its_line(fault: str, written) -> None:
    text, line, words = BAD[fault]
    path = written(text)
    with pytest.raises(FewShotError) as caught:
        load_prompts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:" if line is None else f"{path}:{line}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("name", list_prompts())
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    prompts = load_prompts(name)
    path = tmp_path / "copy.yaml"
    save_prompts(prompts, path)
    assert load_prompts(path) == replace(prompts, name="copy.yaml")
    assert load_prompts(path).digest == prompts.digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy.yaml"]


def test_an_invalid_set_is_not_written(tmp_path: Path) -> None:
    prompts = load_prompts("minimal").without(("damaged {}",))
    with pytest.raises(FewShotError, match="anomalous_states is an empty list"):
        save_prompts(prompts, tmp_path / "own.yaml")
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    save_prompts(load_prompts("minimal"), path)
    with pytest.raises(FewShotError, match="exists"):
        save_prompts(load_prompts("winclip"), path)
    assert load_prompts(path).templates == load_prompts("minimal").templates
    save_prompts(load_prompts("winclip"), path, overwrite=True)
    assert len(load_prompts(path).templates) == 22


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("winclp", "did you mean 'winclip'"),
        ("", "no shipped prompt set"),
        ("absent.yaml", "cannot be read: No such file"),
        ("some/folder", "cannot be read"),
    ],
)
def test_an_unknown_set_is_told(name: str, words: str) -> None:
    with pytest.raises(FewShotError, match=words):
        load_prompts(name)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(GOOD.encode() + b"notes: \xff\n")
    with pytest.raises(FewShotError, match=r"own\.yaml:11: this is not UTF-8"):
        load_prompts(path)


def test_another_ending_or_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match=r"call them own\.txt\.yaml"):
        save_prompts(load_prompts("minimal"), tmp_path / "own.txt")
    with pytest.raises(FewShotError, match="cannot be written"):
        save_prompts(load_prompts("minimal"), tmp_path / "absent" / "own.yaml")
