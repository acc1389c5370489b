"""What words are worth, where the answer is known."""

import pytest
from texts import cracked_class, image_class, prompt_set

from fewshot_ad.prompts import load_prompts
from fewshot_ad.studies.prompt_ablation import Drop, ablate, drops


def worth_of(ablation, name: str):
    (found,) = [each for each in ablation.worths if each.drop.name == name]
    return found


def test_the_telling_word_is_worth_what_it_tells() -> None:
    found = ablate(prompt_set(), [cracked_class()], "i_auroc")
    assert found.full == {"cup": 1.0}
    assert worth_of(found, "cracked {}").by_class == {"cup": 0.25}
    assert worth_of(found, "blue {}").mean == 0.0
    assert found.worths[0].drop.name == "cracked {}"


def test_a_harmful_word_has_a_negative_worth() -> None:
    """Blue normals against plain anomalies: saying ``blue`` of anomalies turns the order round."""
    points = [(1, 0, 3), (1, 0, 3), (0.4, 0.6, 0), (0.4, 0.6, 0)]
    one = image_class("cup", points, [False, False, True, True])
    found = ablate(prompt_set(), [one], "i_auroc")
    assert worth_of(found, "blue {}").mean == -1.0
    assert [each.drop.name for each in found.worths if each.by_class][-1] == "blue {}"


def test_templates_of_one_meaning_are_worth_nothing() -> None:
    found = ablate(prompt_set(), [cracked_class()], "i_auroc")
    assert worth_of(found, "a photo of a {}").mean == 0.0
    assert worth_of(found, "a picture of a {}").mean == 0.0


def test_the_last_string_of_a_list_cannot_be_left_out() -> None:
    found = ablate(prompt_set(), [cracked_class()], "i_auroc")
    assert worth_of(found, "whole {}").by_class == {}
    assert worth_of(found, "whole {}").mean is None
    assert found.worths[-1].drop.name == "whole {}"


def test_groups_go_together() -> None:
    prompts = prompt_set(
        anomalous_states=("cracked {}", "cracked and blue {}", "blue {}"),
        groups={"cracks": ("cracked",)},
    )
    found = ablate(prompts, [cracked_class()], "i_auroc")
    group = worth_of(found, "cracks")
    assert group.drop == Drop("group", "cracks", ("cracked {}", "cracked and blue {}"))
    assert group.mean == 0.25


def test_a_string_of_one_class_counts_for_that_class_alone() -> None:
    prompts = prompt_set(overrides={"jug": {"anomalous_states": ("cracked {}", "chipped {}")}})
    found = ablate(prompts, [cracked_class("cup"), cracked_class("jug")], "i_auroc")
    assert worth_of(found, "chipped {}").by_class.keys() == {"jug"}
    assert worth_of(found, "blue {}").by_class.keys() == {"cup"}
    assert worth_of(found, "cracked {}").by_class.keys() == {"cup", "jug"}


def test_the_mean_is_over_classes() -> None:
    found = ablate(prompt_set(), [cracked_class("cup"), cracked_class("jug")], "i_auroc")
    assert found.full == {"cup": 1.0, "jug": 1.0}
    assert worth_of(found, "cracked {}").mean == 0.25


def test_every_variant_of_every_class_is_told() -> None:
    told = []
    prompts = prompt_set(groups={"g": ("blue",)})
    one = cracked_class()
    ablate(prompts, [one, one], "i_auroc", lambda: told.append(1))
    assert len(told) == 2 * len(drops(prompts)) == 2 * 6


def test_classes_may_come_one_at_a_time() -> None:
    alive = []

    def classes():
        for name in ("cup", "jug"):
            alive.append(name)
            yield cracked_class(name)

    found = ablate(prompt_set(), classes(), "i_auroc")
    assert alive == ["cup", "jug"]
    assert found.image_seconds >= 0
    assert found.variant_seconds > 0


@pytest.mark.parametrize("name", ["winclip", "industrial"])
def test_every_string_and_every_group_is_dropped_once(name: str) -> None:
    prompts = load_prompts(name)
    listed = drops(prompts)
    assert [each.name for each in listed] == [*prompts.strings, *prompts.groups]
    kinds = [each.kind for each in listed]
    assert kinds.count("group") == len(prompts.groups)
    assert kinds.count("template") == len(prompts.templates)
