"""Comparisons: the evaluator's values, paired differences, and intervals that mean something."""

import pytest

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.data.synthetic import Synthetic
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.prompts import load_prompts, save_prompts
from fewshot_ad.studies.prompt_comparison import compare


@pytest.fixture(scope="module")
def reader() -> WinClip:
    return WinClip(backbone="random:tiny", preprocess=Preprocess(64), device="cpu")


def trials_of(*names: str, shots: int = 0, seeds: int = 1):
    draw = {"shots": [shots], "seeds": range(seeds), "query_limit": 5}
    return [[*episodes(Synthetic(), name, **draw)] for name in names]


@pytest.fixture(scope="module")
def found(reader):
    trials = trials_of("screw", "carpet")
    return compare(reader, ["winclip", "minimal", "industrial"], Synthetic(), trials, eval_size=64)


def test_values_are_those_of_the_evaluator(found, reader) -> None:
    for name in ("winclip", "minimal"):
        ((episode,),) = trials_of("carpet")
        (outcome,) = evaluate(reader.variant(prompts=name), Synthetic(), [episode], eval_size=64)
        for metric in ("i_auroc", "p_auroc"):
            (one,) = [
                each
                for each in found
                if (each.prompts, each.metric, each.target_class) == (name, metric, "carpet")
            ]
            assert one.value == outcome.row.metrics()[metric]


def test_differences_are_to_the_first_set_and_lie_in_their_intervals(found) -> None:
    table = {(each.target_class, each.metric, each.prompts): each for each in found}
    assert len(table) == len(found) == 3 * 2 * 3  # classes and their mean, metrics, sets
    for (target_class, metric, _), one in table.items():
        first = table[target_class, metric, "winclip"]
        assert one.difference == pytest.approx(one.value - first.value, abs=1e-12)
        assert one.low <= one.difference <= one.high
        assert (one.low < one.high) is (one is not first)


def test_the_mean_is_that_of_the_classes(found) -> None:
    for metric in ("i_auroc", "p_auroc"):
        of_set = [each for each in found if each.metric == metric and each.prompts == "minimal"]
        (mean,) = [each for each in of_set if each.target_class is None]
        classes = [each for each in of_set if each.target_class]
        assert mean.value == pytest.approx(sum(each.value for each in classes) / 2)
        assert mean.high - mean.low < max(each.high - each.low for each in classes)


def test_the_same_words_never_differ(reader, tmp_path) -> None:
    path = tmp_path / "copy.yaml"
    save_prompts(load_prompts("minimal"), path)
    same = compare(reader, ["minimal", str(path)], Synthetic(), trials_of("screw"), eval_size=64)
    assert {(each.difference, each.low, each.high) for each in same} == {(0.0, 0.0, 0.0)}
    assert not any(each.target_class is None for each in same)  # one class is its own mean


def test_the_same_seed_draws_the_same(reader) -> None:
    arguments = reader, ["minimal", "winclip"], Synthetic(), trials_of("screw")
    first, second, other = (compare(*arguments, eval_size=64, seed=seed) for seed in (0, 0, 1))
    assert first == second != other


def test_supports_are_shown_to_every_set_alike(reader) -> None:
    trials = trials_of("screw", shots=1, seeds=2)
    found = compare(reader, ["winclip", "minimal"], Synthetic(), trials, eval_size=64)
    for name in ("winclip", "minimal"):
        rows = evaluate(reader.variant(prompts=name), Synthetic(), trials[0], eval_size=64)
        values = [outcome.row.i_auroc for outcome in rows]
        (one,) = [each for each in found if (each.prompts, each.metric) == (name, "i_auroc")]
        assert one.value == pytest.approx(sum(values) / 2)


def test_what_was_known_is_no_target(reader) -> None:
    known = known_images([(Synthetic(), ["screw"])], limit=2)
    with pytest.raises(FewShotError, match="leak"):
        compare(reader, ["winclip", "minimal"], Synthetic(), trials_of("screw"), known=known)
