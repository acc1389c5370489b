"""The shipped prompt sets: their counts, their sentences, and what every one of them must have."""

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.data.synthetic import Synthetic
from fewshot_ad.prompts import PromptSet, check_class_name, list_prompts, load_prompts

COUNTS = {  # templates, normal states, anomalous states, normal sentences, anomalous sentences
    "winclip": (22, 7, 4, 154, 88),
    "winclip_20": (20, 7, 4, 147, 84),  # one of the templates counts twice
    "minimal": (1, 1, 1, 1, 1),
}
MVTEC_AD = ["bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"]
MVTEC_AD += ["pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"]
VISA = ["candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"]
VISA += ["pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"]


def small(**changes: object) -> PromptSet:
    lists = {
        "templates": ("a photo of {}", "the {}, up close"),
        "normal_states": ("{}", "fine {}"),
        "anomalous_states": ("{} with flaw",),
    }
    return PromptSet(name="small", source="a test", **{**lists, **changes})


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_source(name: str) -> None:
    prompts = load_prompts(name)
    normal, anomalous = prompts.sentences("metal_nut")
    lists = prompts.templates, prompts.normal_states, prompts.anomalous_states
    assert (*map(len, lists), len(normal), len(anomalous)) == COUNTS[name]


def test_the_full_set_has_no_sentence_twice() -> None:
    normal, anomalous = load_prompts("winclip").sentences("bottle")
    assert len({*normal, *anomalous}) == 154 + 88
    assert normal[0] == "a cropped photo of a bottle"
    assert "a photo of the large bottle without defect" in normal
    assert "a jpeg corrupted photo of the damaged bottle" in anomalous
    assert "a photo of a bottle with flaw for visual inspection" in anomalous


def test_the_reimplementation_lacks_two_templates_and_doubles_one() -> None:
    full, other = load_prompts("winclip"), load_prompts("winclip_20")
    assert {text.rstrip(".") for text in other.templates} == {*full.templates} - {
        "a cropped photo of a {}",
        "a jpeg corrupted photo of a {}",
    }
    normal, anomalous = other.sentences("pipe_fryum")
    assert (len(set(normal)), len(set(anomalous))) == (140, 80)
    assert normal.count("a jpeg corrupted photo of the perfect pipe_fryum.") == 2
    assert all(sentence.endswith(".") for sentence in normal + anomalous)
    assert other.spoken("metal_nut") == "metal_nut"


@pytest.mark.parametrize("name", list_prompts())
def test_every_set_speaks_of_every_class_in_words(name: str) -> None:
    prompts = load_prompts(name)
    for class_name in (*MVTEC_AD, *VISA, *Synthetic().classes, "brats_brain"):
        spoken = prompts.spoken(class_name)
        check_class_name(spoken)
        assert name == "winclip_20" or not set("_0123456789") & set(spoken)
        normal, anomalous = prompts.sentences(class_name)
        assert normal
        assert anomalous
        assert not set(normal) & set(anomalous)
        assert all(spoken in sentence for sentence in normal + anomalous)
        assert not any("{" in sentence for sentence in normal + anomalous)


@pytest.mark.parametrize("name", list_prompts())
def test_every_group_holds_something_and_spares_something(name: str) -> None:
    prompts = load_prompts(name)
    for group in prompts.groups:
        members = prompts.group(group)
        assert members
        assert prompts.without(members).strings


def test_states_meet_templates_state_after_state() -> None:
    normal, anomalous = small().sentences("gear")
    assert normal == (
        "a photo of gear",
        "the gear, up close",
        "a photo of fine gear",
        "the fine gear, up close",
    )
    assert anomalous == ("a photo of gear with flaw", "the gear with flaw, up close")


def test_names_are_spoken_as_listed_or_as_the_dataset_has_them() -> None:
    prompts = small(class_names={"pcb1": "circuit board"})
    assert prompts.spoken("pcb1") == "circuit board"
    assert prompts.spoken("metal_nut") == "metal nut"
    assert small(any_class="object").spoken("metal_nut") == "object"
    assert prompts.sentences("pcb1", "green board")[0][0] == "a photo of green board"


def test_an_override_takes_the_place_of_one_list_for_one_class() -> None:
    prompts = small(overrides={"wood": {"anomalous_states": ("{} with a knot",)}})
    assert prompts.sentences("wood")[1][0] == "a photo of wood with a knot"
    assert prompts.sentences("wood")[0] == small().sentences("wood")[0]
    assert prompts.sentences("tile") == small().sentences("tile")
    assert prompts.sentences("wood", "oak")[1][0] == "a photo of oak with a knot"


def test_what_repeats_counts_as_often() -> None:
    normal, anomalous = small(repeats={"fine {}": 3, "the {}, up close": 2}).sentences("gear")
    assert len(normal) == (1 + 3) * (1 + 2)
    assert normal.count("the fine gear, up close") == 6
    assert len(anomalous) == 3


def test_without_drops_strings_from_every_list() -> None:
    prompts = small(
        overrides={"wood": {"normal_states": ("fine {}", "sound {}")}}, repeats={"fine {}": 2}
    )
    fewer = prompts.without(("fine {}",))
    assert fewer.normal_states == ("{}",)
    assert fewer.overrides["wood"]["normal_states"] == ("sound {}",)
    assert fewer.repeats == {}
    assert prompts.normal_states == ("{}", "fine {}")


def test_a_group_is_made_of_whole_words() -> None:
    prompts = small(normal_states=("{} without flaw", "flawless {}"), groups={"g": ("flaw",)})
    assert prompts.group("g") == ("{} without flaw", "{} with flaw")


def test_the_digest_follows_the_sentences_and_not_the_name() -> None:
    assert small().digest == small(notes="other").digest
    for change in (
        {"templates": ("a photo of {}",)},
        {"class_names": {"gear": "wheel"}},
        {"any_class": "object"},
        {"overrides": {"wood": {"templates": ("the {}",)}}},
        {"repeats": {"fine {}": 2}},
    ):
        assert small(**change).digest != small().digest


@pytest.mark.parametrize(
    "name", ["bo{}ttle", "a\tb", "cup!", "-cup", "cup-", "<b>", "a  b", " a", ""]
)
def test_odd_class_names_are_refused(name: str) -> None:
    with pytest.raises(FewShotError):
        small().sentences("gear", name)


def test_an_odd_name_of_a_dataset_asks_for_another() -> None:
    with pytest.raises(FewShotError, match=r"small: class name 'cup\{\}'.*--class-name"):
        small().sentences("cup{}")
    assert small(class_names={"cup{}": "cup"}).sentences("cup{}")


@pytest.mark.parametrize(
    "name", ["Größe 3", "O-ring", "nut (M3)", "X-ray, chest", "歯車", "3/4 inch"]
)
def test_names_may_be_of_any_language(name: str) -> None:
    check_class_name(name)
