"""The search finds what there is to find, on known classes alone."""

from dataclasses import dataclass

import pytest
from texts import cracked_class, prompt_set

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.data.synthetic import Synthetic
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.prompts import load_prompts, save_prompts
from fewshot_ad.studies.prompt_scoring import EmbeddedClass
from fewshot_ad.studies.prompt_search import check_unseen, described, search


def told_by(value) -> EmbeddedClass:
    """A class whose metric is a function of the prompt set."""

    @dataclass(frozen=True, eq=False)
    class Told(EmbeddedClass):
        def measure(self, prompts, metric):
            asked.append(prompts)
            return value(prompts)

    one, asked = cracked_class(), []
    return Told(one.name, one.method, one.levels, one.is_anomalous, None, one.align)


def test_the_telling_state_is_chosen_alone() -> None:
    found = search(
        prompt_set(anomalous_states=("blue {}", "cracked {}")), [cracked_class()], "i_auroc"
    )
    assert found.prompts.anomalous_states == ("cracked {}",)
    assert found.prompts.templates == ("a photo of a {}",)
    assert found.score == 1.0


def test_strings_are_added_while_that_pays_and_keep_their_order() -> None:
    worth = {"a {}": 0.1, "b {}": 0.02, "c {}": 0.05, "d {}": -0.1}
    templates = tuple(worth)
    one = told_by(lambda prompts: 0.5 + sum(worth[text] for text in prompts.templates))
    found = search(prompt_set(templates=templates, anomalous_states=("x {}",)), [one], "i_auroc")
    assert found.prompts.templates == ("a {}", "b {}", "c {}")
    assert found.score == pytest.approx(0.67)
    assert found.full_score == pytest.approx(0.57)
    assert [step.added for step in found.steps] == ["a {}", "c {}", "b {}"]


def test_what_adds_too_little_is_left_out() -> None:
    worth = {"a {}": 0.1, "b {}": 0.02}
    one = told_by(lambda prompts: sum(worth[text] for text in prompts.templates))
    prompts = prompt_set(templates=tuple(worth), anomalous_states=("x {}",))
    found = search(prompts, [one], "i_auroc", least_gain=0.03)
    assert found.prompts.templates == ("a {}", "b {}")  # the whole set competes and is best
    assert found.steps == ()
    less = told_by(lambda prompts: sum(worth[text] for text in prompts.templates[:1]))
    assert search(prompts, [less], "i_auroc").prompts.templates == ("a {}",)


def test_a_beam_finds_the_pair_that_greed_walks_past() -> None:
    scores = {("a {}",): 0.6, ("b {}",): 0.5, ("c {}",): 0.5, ("b {}", "c {}"): 0.9}
    one = told_by(lambda prompts: scores.get(prompts.templates, 0.55))
    prompts = prompt_set(templates=("a {}", "b {}", "c {}"), anomalous_states=("x {}",))
    assert search(prompts, [one], "i_auroc").score == 0.6
    assert search(prompts, [one], "i_auroc", beam=2).prompts.templates == ("b {}", "c {}")


def test_ties_go_to_the_smaller_set_and_the_earlier_string() -> None:
    found = search(prompt_set(), [told_by(lambda prompts: 0.5)], "i_auroc")
    chosen = found.prompts
    assert chosen.templates == ("a photo of a {}",)
    assert chosen.anomalous_states == ("cracked {}",)


def test_no_set_is_judged_twice() -> None:
    asked = []
    one = told_by(lambda prompts: asked.append(prompts.strings) or 0.5)
    found = search(prompt_set(), [one], "i_auroc", beam=3)
    assert len(asked) == len(set(asked)) == found.n_judged


def test_the_mean_of_the_known_classes_decides() -> None:
    first = told_by(lambda prompts: 0.9 if prompts.templates == ("a {}",) else 0.5)
    second = told_by(lambda prompts: 1.0 if prompts.templates == ("b {}",) else 0.4)
    prompts = prompt_set(templates=("a {}", "b {}"), anomalous_states=("x {}",))
    found = search(prompts, [first, second], "i_auroc")
    assert found.prompts.templates == ("b {}",)
    assert found.score == 0.75


@pytest.mark.parametrize("faulty", [{"beam": 0}, {"least_gain": -0.1}])
def test_numbers_out_of_range_are_refused(faulty) -> None:
    with pytest.raises(FewShotError, match="expected 1 or more"):
        search(prompt_set(), [cracked_class()], "i_auroc", **faulty)


def test_the_chosen_set_is_a_file_that_names_its_known_classes(tmp_path) -> None:
    prompts = load_prompts("industrial")
    found = search(prompts, [told_by(lambda each: -len(each.strings))], "i_auroc")
    chosen = described(found, "i_auroc", ["synthetic/gear", "synthetic/tile"])
    save_prompts(chosen, tmp_path / "found.yaml")
    again = load_prompts(tmp_path / "found.yaml")
    assert again.known == ("synthetic/gear", "synthetic/tile")
    assert again.sentences("pcb1") == chosen.sentences("pcb1")
    assert "industrial" in again.source
    assert (len(again.templates), len(again.normal_states), len(again.anomalous_states)) == (
        1,
        1,
        1,
    )
    assert again.overrides == again.groups == {}


def test_a_known_class_is_no_target_of_the_chosen_set(tmp_path) -> None:
    chosen = described(
        search(prompt_set(), [cracked_class()], "i_auroc"), "i_auroc", ["synthetic/gear"]
    )
    path = tmp_path / "found.yaml"
    save_prompts(chosen, path)
    reader = WinClip(backbone="random:tiny", preprocess=Preprocess(64), prompts=str(path))
    drawn = {
        name: [*episodes(Synthetic(), name, shots=[0], seeds=[0], query_limit=2)]
        for name in ("gear", "screw")
    }
    with pytest.raises(FewShotError, match="leak: the target class synthetic/gear"):
        list(evaluate(reader, Synthetic(), drawn["gear"], eval_size=64))
    (outcome,) = evaluate(reader, Synthetic(), drawn["screw"], eval_size=64)
    assert outcome.row.known == ("synthetic/gear",)


def test_targets_among_the_known_are_refused_before_the_search() -> None:
    known = known_images([(Synthetic(), ["gear", "tile"])], limit=2)
    trials = [*episodes(Synthetic(), "gear", shots=[0], seeds=[0], query_limit=2)]
    with pytest.raises(FewShotError, match="leak"):
        check_unseen(Synthetic(), trials, known)
    check_unseen(Synthetic(), trials, known.without({"synthetic/gear"}))
    check_unseen(Synthetic(), trials, None)
