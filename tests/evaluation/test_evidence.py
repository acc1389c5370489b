"""Evidence is what was measured, survives its bytes, and stays small."""

import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from painted import SMALL, MeanColour, Painted
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from fewshot_ad.api import Episode, FewShotError, Prediction, Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.curves import CURVES, GRID
from fewshot_ad.evaluation.evaluator import Outcome, evaluate
from fewshot_ad.evaluation.evidence import MAP_SIDE, MAX_BYTES, SIDE, Evidence, evidence_of


@pytest.fixture(scope="module")
def judged() -> tuple[Outcome, Painted]:
    dataset = Painted(n_normal=20, n_anomalous=12)
    (episode,) = episodes(dataset, "plate", shots=[2], seeds=[0])
    (outcome,) = evaluate(MeanColour(), dataset, [episode])
    return outcome, dataset


def test_it_holds_what_the_row_was_measured_from(judged):
    outcome, dataset = judged
    evidence = evidence_of(outcome, dataset, SMALL)
    assert [one.path for one in evidence.images] == [s.path for s in outcome.episode.query]
    scores = np.array([one.score for one in evidence.images])
    np.testing.assert_array_equal(scores, outcome.prediction.image_score.numpy())
    flags = np.array([one.is_anomalous for one in evidence.images])
    fpr, tpr, _ = roc_curve(flags, scores, drop_intermediate=False)
    assert list(evidence.curves) == list(CURVES)
    reached = [tpr[fpr <= x + 1e-12].max() for x in GRID]  # no ties: the curve is a staircase
    np.testing.assert_allclose(evidence.curves["i_roc"], reached)
    precision, recall, _ = precision_recall_curve(flags, scores)
    first = [precision[:-1][recall[:-1] >= r - 1e-12][-1] for r in GRID]
    np.testing.assert_allclose(evidence.curves["i_pr"], first)


def test_the_areas_under_the_curves_are_the_metrics(judged):
    outcome, _ = judged
    for name, curve in (("i_auroc", "i_roc"), ("p_auroc", "p_roc")):
        area = np.trapezoid(outcome.curves[curve], GRID)
        assert area == pytest.approx(getattr(outcome.row, name), abs=0.02)
    upto = GRID <= 0.3
    area = np.trapezoid(outcome.curves["pro"][upto], GRID[upto]) / GRID[upto][-1]
    assert area == pytest.approx(outcome.row.aupro, abs=0.03)


def test_bytes_come_back(judged):
    evidence = evidence_of(*judged, SMALL)
    again = Evidence.from_bytes(evidence.to_bytes())
    assert again.images == evidence.images
    assert (again.n_images, again.scale) == (32, evidence.scale)
    for name, curve in evidence.curves.items():
        np.testing.assert_allclose(again.curves[name], curve, atol=1e-6)
    assert len(again.pictures) == len(evidence.pictures) > 6
    for one, other in zip(again.pictures, evidence.pictures, strict=True):
        assert (one.index, one.image, one.mask) == (other.index, other.image, other.mask)
        np.testing.assert_array_equal(one.heat, other.heat)


def test_pictures_show_the_image_the_truth_and_the_map(judged):
    outcome, dataset = judged
    evidence = evidence_of(outcome, dataset, SMALL)
    for picture in evidence.pictures:
        sample = outcome.episode.query[picture.index]
        assert sample.path == evidence.images[picture.index].path
        mask = np.array(Image.open(io.BytesIO(picture.mask)))
        assert mask.any() == sample.is_anomalous
        assert Image.open(io.BytesIO(picture.image)).size == mask.shape[::-1]
        raw = evidence.scale.low + picture.heat * (evidence.scale.high - evidence.scale.low)
        expected = outcome.prediction.anomaly_map[picture.index].mean()
        assert raw.mean() == pytest.approx(float(expected), rel=0.02)
    paths = {evidence.images[picture.index].path for picture in evidence.pictures}
    lowest = min((o for o in evidence.images if o.is_anomalous), key=lambda one: one.score)
    alarm = max((o for o in evidence.images if not o.is_anomalous), key=lambda one: one.score)
    assert {lowest.path, alarm.path} <= paths


def test_some_pictures_are_the_same_for_every_method(judged):
    outcome, dataset = judged
    flipped = Prediction(-outcome.prediction.image_score, -outcome.prediction.anomaly_map)
    other = evidence_of(replace(outcome, prediction=flipped), dataset, SMALL)
    ours, theirs = (
        {picture.index for picture in evidence.pictures}
        for evidence in (evidence_of(outcome, dataset, SMALL), other)
    )
    assert len(ours & theirs) >= 6


def test_without_pictures_it_takes_a_few_kilobytes(judged):
    outcome, dataset = judged
    evidence = evidence_of(outcome, dataset, SMALL, with_pictures=False)
    assert not evidence.pictures
    assert len(evidence.to_bytes()) < 5000


def noisy_evidence(judged: Outcome) -> Evidence:
    dataset = load_dataset("synthetic")
    query = dataset.test("tile")
    episode = Episode("synthetic", "tile", 0, dataset.train("tile")[:1], query)
    maps = torch.rand(len(query), 64, 64) * 1e9  # more than half precision can hold
    outcome = Outcome(judged.row, episode, Prediction(maps.amax((1, 2)), maps))
    return evidence_of(outcome, dataset, Preprocess(size=64))


def test_it_stays_below_its_bound(judged):
    evidence = noisy_evidence(judged[0])
    assert 8 <= len(evidence.pictures) <= 12
    assert all(np.isfinite(picture.heat).all() for picture in evidence.pictures)
    assert all(max(Image.open(io.BytesIO(p.image)).size) == SIDE for p in evidence.pictures)
    assert all(picture.heat.shape == (MAP_SIDE, MAP_SIDE) for picture in evidence.pictures)
    assert len(evidence.to_bytes()) < 250_000
    large = tuple(replace(picture, image=bytes(60_000)) for picture in evidence.pictures)
    heavy = replace(evidence, pictures=large)
    packed = heavy.to_bytes()
    assert len(packed) <= MAX_BYTES
    assert len(Evidence.from_bytes(packed).pictures) == 4


def test_very_many_images_are_thinned(judged):
    outcome, dataset = judged
    n = 5000
    few = dataset.test("plate")
    query = tuple(replace(few[i % 32], path=f"{i}/{few[i % 32].path}") for i in range(n))
    scores = torch.arange(n, dtype=torch.float32)
    prediction = Prediction(scores, torch.rand(n, 16, 16))
    many = replace(outcome, episode=replace(outcome.episode, query=query), prediction=prediction)
    evidence = evidence_of(many, dataset, SMALL)
    assert evidence.n_images == n
    assert 2000 <= len(evidence.images) <= 2012
    assert evidence.images[-1].score == n - 1
    assert len(evidence.to_bytes()) <= MAX_BYTES


def test_bad_bytes_are_refused(judged):
    good = evidence_of(*judged, SMALL).to_bytes()
    with pytest.raises(FewShotError, match="at most"):
        Evidence.from_bytes(bytes(MAX_BYTES + 1))
    for damaged in (b"", b"nonsense", good[:-100], good[: len(good) // 2]):
        with pytest.raises(FewShotError, match="damaged"):
            Evidence.from_bytes(damaged)
    with pytest.raises(FewShotError, match="format 2"):
        Evidence.from_bytes(good.replace(b'"format":"1"', b'"format":"2"'))


def test_a_text_that_unpacks_to_gigabytes_is_refused(judged):
    from safetensors.numpy import load, save

    tensors = load(evidence_of(*judged, SMALL).to_bytes())
    bomb = zlib.compress(b"[" + b" " * 50_000_000)
    tensors["images"] = np.frombuffer(bomb, np.uint8)
    header = {"format": "1", "n_images": "32", "pictures": "[]"}
    with pytest.raises(FewShotError, match="damaged"):
        Evidence.from_bytes(save(tensors, header))
