"""Lint: what is odd is found, and what cannot be looked at is said."""

import pytest
from texts import embed, prompt_set

from fewshot_ad.api import Preprocess
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.parts.clip import Clip
from fewshot_ad.prompts import list_prompts, load_prompts
from fewshot_ad.studies.prompt_lint import lint, lint_embeddings, lint_text, spoken_classes


class StubClip(Clip):
    """A text tower without a network."""

    context = 77

    def __init__(self) -> None:
        pass

    def embed_sentences(self, sentences):
        return embed(sentences)


def texts(findings, check: str) -> list[str]:
    return [each.text for each in findings if each.check == check]


@pytest.mark.parametrize("name", list_prompts())
def test_the_shipped_sets_have_nothing_odd(name: str) -> None:
    prompts = load_prompts(name)
    assert lint_text(prompts, spoken_classes(prompts)) == []


def test_strings_that_differ_in_case_or_punctuation_are_duplicates() -> None:
    prompts = prompt_set(templates=("a photo of a {}", "A photo of a {}.", "a photo, of {}"))
    (found,) = lint_text(prompts, ["cup"])
    assert found.check == "duplicates"
    assert "'a photo of a {}' and 'A photo of a {}.' of templates" in found.text


def test_a_sentence_that_is_made_twice_is_found() -> None:
    prompts = prompt_set(templates=("a {}", "a cracked {}"), anomalous_states=("cracked {}", "{}"))
    (found,) = texts(lint_text(prompts, ["cup", "cup"]), "duplicates")
    assert found == "'a cracked cup' is made 2 times"


def test_repeats_are_meant() -> None:
    assert lint_text(prompt_set(repeats={"whole {}": 3}), ["cup"]) == []


def test_a_sentence_of_both_sides_is_a_contradiction() -> None:
    prompts = prompt_set(
        templates=("a {}", "a cracked {}"), normal_states=("{}",), anomalous_states=("cracked {}",)
    )
    found = texts(lint_text(prompts, ["cup"]), "contradictions")
    assert found == ["'a cracked cup' is normal and anomalous at once"]


def test_sentences_over_the_context_are_counted() -> None:
    prompts = prompt_set(templates=("a photo of a {}", "a {}" + " and so on" * 30))
    (found,) = texts(lint_text(prompts, ["cup"]), "length")
    assert found.startswith("3 sentences have more than 77 tokens")
    assert texts(lint_text(prompts, ["cup"], context=100), "length") == []
    assert len(texts(lint_text(prompt_set(), ["cup"], context=5), "length")) == 1


def test_strings_of_one_meaning_are_near_duplicates() -> None:
    prompts = prompt_set(normal_states=("whole {}", "fine {}"), anomalous_states=("cracked {}",))
    found = texts(lint_embeddings(prompts, ["cup"], StubClip()), "near-duplicates")
    assert any(text.startswith("'a photo of a {}' and 'a picture of a {}'") for text in found)
    assert any(text.startswith("'whole {}' and 'fine {}'") for text in found)
    assert len(found) == 2


def test_states_that_mean_the_same_on_both_sides_coincide() -> None:
    prompts = prompt_set(normal_states=("whole {}",), anomalous_states=("fine {}", "cracked {}"))
    (found,) = texts(lint_embeddings(prompts, ["cup"], StubClip()), "coinciding sides")
    assert found.startswith("'whole {}' is hardly told from 'fine {}': cosine 1.0000")
    assert texts(lint_embeddings(prompts, ["cup"], StubClip(), near=1.1), "coinciding sides") == []


def test_checks_without_weights_are_left_out_and_said() -> None:
    report = lint(load_prompts("minimal"), ["cup"], WinClip())
    assert report.findings == ()
    assert report.left_out == ("near-duplicates", "coinciding sides")
    assert "not on this machine" in report.reason


def test_embeddings_wait_for_sentences_that_fit() -> None:
    reader = WinClip(backbone="random:tiny", preprocess=Preprocess(64))
    report = lint(prompt_set(templates=("a {}" + " and so on" * 30,)), ["cup"], reader)
    assert [each.check for each in report.findings] == ["length"]
    assert "too long" in report.reason


def test_with_a_backbone_nothing_is_left_out() -> None:
    reader = WinClip(backbone="random:tiny", preprocess=Preprocess(64))
    assert lint(load_prompts("minimal"), ["cup"], reader).left_out == ()


def test_a_set_is_read_for_the_classes_it_speaks_of() -> None:
    prompts = prompt_set(class_names={"pcb1": "board"}, overrides={"jug": {"templates": ("a {}",)}})
    assert spoken_classes(prompts) == ("object", "pcb1", "jug")


def test_classes_with_the_same_lists_are_embedded_once() -> None:
    asked: list[str] = []

    class Asked(StubClip):
        def embed_sentences(self, sentences):
            asked.extend(sentences)
            return embed(sentences)

    prompts = prompt_set(overrides={"jug": {"normal_states": ("fine {}",)}})
    lint_embeddings(prompts, ["cup", "jug", "lid"], Asked())
    assert any("cup" in each for each in asked)
    assert any("jug" in each for each in asked)
    assert not any("lid" in each for each in asked)
