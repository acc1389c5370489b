"""Embedded classes say what WinCLIP and the evaluator say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from texts import cracked_class, prompt_set

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.data.synthetic import Synthetic
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.evaluation.reading import read_images
from fewshot_ad.methods.patchcore import PatchCore
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.prompts import load_prompts, save_prompts
from fewshot_ad.studies.prompt_scoring import embed_known, embed_query, text_method


@pytest.fixture(scope="module")
def reader() -> WinClip:
    return WinClip(backbone="random:tiny", preprocess=Preprocess(64), device="cpu")


@pytest.fixture(scope="module")
def episode():
    (found,) = episodes(Synthetic(), "screw", shots=[0], seeds=[0], query_limit=5)
    return found


@pytest.mark.parametrize("name", ["winclip", "minimal", "industrial"])
def test_scores_and_maps_are_those_of_the_method(name: str, reader, episode) -> None:
    prompts = load_prompts(name)
    found = embed_query(reader, Synthetic(), episode, "p_auroc")
    images = read_images(Synthetic(), episode.query, reader.preprocess)
    expected = reader.variant(prompts=name).fit(Support("screw", images[:0])).predict(images)
    assert torch.allclose(found.image_scores(prompts), expected.image_score, atol=1e-6)
    assert torch.allclose(found.anomaly_maps(prompts), expected.anomaly_map, atol=1e-6)
    assert expected.anomaly_map.std() > 0


@pytest.mark.parametrize("metric", ["i_auroc", "i_ap", "p_auroc", "aupro"])
def test_a_metric_is_that_of_the_evaluator(metric: str, reader, episode) -> None:
    (outcome,) = evaluate(reader, Synthetic(), [episode], eval_size=64)
    found = embed_query(reader, Synthetic(), episode, metric, 64)
    expected = outcome.row.metrics()[metric]
    assert found.measure(load_prompts("winclip"), metric) == pytest.approx(expected, abs=1e-4)


def test_windows_are_embedded_for_maps_alone(reader, episode) -> None:
    levels = [
        len(embed_query(reader, Synthetic(), episode, metric).levels)
        for metric in ("i_auroc", "aupro")
    ]
    assert levels == [1, 3]


def test_known_classes_are_judged_on_their_own_masks(reader) -> None:
    known = known_images([(Synthetic(), ["gear"])], limit=4)
    found = embed_known(reader, known, "synthetic/gear", "p_auroc")
    assert found.name == "gear"
    assert found.is_anomalous.sum() == 4
    assert 0 <= found.measure(load_prompts("minimal"), "p_auroc") <= 1


def test_other_words_give_other_scores(reader, episode) -> None:
    found = embed_query(reader, Synthetic(), episode, "i_auroc")
    one, other = (found.image_scores(load_prompts(name)) for name in ("winclip", "minimal"))
    assert not torch.allclose(one, other)


def test_the_stub_knows_what_is_cracked() -> None:
    plain = prompt_set(anomalous_states=("cracked {}",))
    assert cracked_class().measure(plain, "i_auroc") == 1.0
    assert cracked_class().measure(prompt_set(anomalous_states=("blue {}",)), "i_auroc") == 0.75


def test_a_class_without_a_value_says_why() -> None:
    one = cracked_class()
    one.is_anomalous[:] = np.False_
    with pytest.raises(FewShotError, match="cup has no i_auroc: no anomalous image"):
        one.measure(prompt_set(), "i_auroc")


def test_only_winclip_on_whole_images_is_studied(reader, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match="runs on winclip, not on PatchCore"):
        text_method(PatchCore())
    with pytest.raises(FewShotError, match="tile"):
        text_method(reader.variant(tile=32))
    save_prompts(prompt_set(), tmp_path / "own.yaml")
    assert text_method(reader.variant(prompts=str(tmp_path / "own.yaml")))
