"""Which images a page shows, and in which colours."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import SMALL, MeanColour, Painted
from PIL import Image

from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.evidence import Evidence, JudgedImage, evidence_of
from fewshot_ad.evaluation.examples import Scale
from fewshot_ad.report.gallery import Judged, errors, gallery, readable


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_errors_are_the_share_of_wrong_pairs(pairs):
    images = tuple(JudgedImage(f"{n}", None, flag, float(s)) for n, (s, flag) in enumerate(pairs))
    found = errors(Evidence(images, len(images), {}, Scale(0, 1), ()))
    for one, error in zip(images, found, strict=True):
        others = [other.score for other in images if other.is_anomalous != one.is_anomalous]
        sign = 1 if one.is_anomalous else -1
        wrong = [sign * other > sign * one.score for other in others]
        ties = [other == one.score for other in others]
        expected = (sum(wrong) + sum(ties) / 2) / len(others) if others else 0.0
        assert error == pytest.approx(expected)


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    """One method, and another that takes everything for the opposite."""
    dataset = Painted(n_normal=6, n_anomalous=6)
    found = []
    for target_class in dataset.classes:
        trials = list(episodes(dataset, target_class, shots=[2], seeds=[0]))
        for label, gain in (("good", 1.0), ("bad", -1.0)):
            (outcome,) = evaluate(MeanColour(gain=gain), dataset, trials)
            evidence = evidence_of(outcome, dataset, SMALL)
            found.append(Judged(label, f"painted/{target_class}", "g1", evidence))
    return found


def test_best_worst_and_disputed_are_what_they_say(judged):
    figures = gallery(judged).figures
    assert len(figures) == 9
    for target in {figure.target for figure in figures}:
        pair = [one.evidence for one in judged if one.target == target]
        wrong = np.stack([errors(evidence) for evidence in pair])
        place = {one.path: n for n, one in enumerate(pair[0].images)}
        best, worst, disputed = (f for f in figures if f.target == target)
        shown = [
            p.index for p in pair[0].pictures if p.index in {q.index for q in pair[1].pictures}
        ]
        means, spread = wrong.mean(axis=0), wrong.std(axis=0)
        assert pair[0].images[place[best.path]].is_anomalous
        rest = [i for i in shown if i != place[best.path]]
        assert means[place[worst.path]] == max(means[rest])
        rest.remove(place[worst.path])
        assert spread[place[disputed.path]] == max(spread[rest])
        assert len({best.path, worst.path, disputed.path}) == 3


def test_one_scale_serves_all_pictures_of_a_method(judged):
    scales = {label: (float(low), float(high)) for label, low, high in gallery(judged).scales}
    assert set(scales) == {"good", "bad"}
    for label, (low, high) in scales.items():
        own = [one.evidence.scale for one in judged if one.label == label]
        assert low == pytest.approx(np.median([scale.low for scale in own]), rel=1e-3)
        assert high == pytest.approx(np.median([scale.high for scale in own]), rel=1e-3)


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), float)


def test_a_map_below_the_scale_is_black_and_leaves_its_image_alone(judged):
    one = judged[0]
    calm = tuple(replace(p, heat=np.full((64, 64), -1, np.float16)) for p in one.evidence.pictures)
    figure = gallery([replace(one, evidence=replace(one.evidence, pictures=calm))]).figures[0]
    (tile,) = figure.tiles
    assert pixels(tile.heat).max() < 12
    assert np.abs(pixels(tile.overlay) - pixels(figure.truth)).max() < 3
    assert np.abs(pixels(figure.truth) - pixels(figure.image)).max() > 30  # the outline


def test_without_pictures_there_is_no_gallery(judged):
    bare = [replace(one, evidence=replace(one.evidence, pictures=())) for one in judged]
    assert gallery(bare).figures == ()
    assert gallery([]).figures == ()


def test_damaged_evidence_is_noted_and_left_out(judged):
    good = judged[0].evidence
    large = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(large, "JPEG")
    bomb = replace(good, pictures=(replace(good.pictures[0], image=large.getvalue()),))
    other = replace(good, pictures=(replace(good.pictures[0], image=b"GIF89a"),))
    broken: list[str] = []
    kept = {"a": good.to_bytes(), "b": b"nonsense", "c": bomb.to_bytes(), "d": other.to_bytes()}
    assert readable(kept.get, "a", broken)
    assert not broken
    for key in "bcd":
        assert readable(kept.get, key, broken) is None
    assert [line[:6] for line in broken] == ["row b:", "row c:", "row d:"]
    assert readable(kept.get, "absent", broken) is None
    assert len(broken) == 3
