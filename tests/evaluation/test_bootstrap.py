"""Resampled AUROCs against resamples that are really drawn and really sorted."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewshot_ad.evaluation.bootstrap import (
    differences,
    image_pairs,
    interval,
    pixel_pairs,
    resamples,
)


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def some_scores(seed: int, n: int = 40, shift: float = 1.0):
    draw = generator(seed)
    is_anomalous = np.arange(n) < n // 3
    return draw.normal(size=n).round(1) + shift * is_anomalous, is_anomalous


def test_pairs_of_images_make_the_auroc_with_its_ties() -> None:
    scores, is_anomalous = some_scores(0)
    assert len(np.unique(scores)) < len(scores)
    (found,) = image_pairs(scores, is_anomalous).auroc(np.ones((1, len(scores))))
    assert found == pytest.approx(roc_auc_score(is_anomalous, scores), abs=1e-12)


def test_a_resample_of_images_is_what_drawing_them_gives() -> None:
    scores, is_anomalous = some_scores(1)
    counts = resamples(is_anomalous, 20, generator(0))
    for found, count in zip(image_pairs(scores, is_anomalous).auroc(counts), counts, strict=True):
        drawn = np.repeat(np.arange(len(scores)), count.astype(int))
        assert found == pytest.approx(roc_auc_score(is_anomalous[drawn], scores[drawn]), abs=1e-12)


def test_a_resample_of_pixels_is_what_drawing_their_images_gives() -> None:
    draw = generator(2)
    is_anomalous = np.arange(12) < 5
    masks = [np.zeros((9, 7), dtype=bool) for _ in is_anomalous]
    for mask in masks[:5]:
        mask[2:5, 1:4] = True
    maps = [draw.normal(size=(9, 7)) + 0.7 * mask for mask in masks]
    counts = np.vstack([np.ones(12), resamples(is_anomalous, 5, draw)])
    for found, count in zip(pixel_pairs(maps, masks).auroc(counts), counts, strict=True):
        drawn = np.repeat(np.arange(12), count.astype(int))
        truth, scores = (np.concatenate([each[i].ravel() for i in drawn]) for each in (masks, maps))
        assert found == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)


def test_resamples_keep_the_number_of_each_side() -> None:
    is_anomalous = np.array([True, False, False, True, False])
    counts = resamples(is_anomalous, 200, generator(3))
    assert (counts[:, is_anomalous].sum(axis=1) == 2).all()
    assert (counts[:, ~is_anomalous].sum(axis=1) == 3).all()
    assert counts.max() > 1
    assert (counts == resamples(is_anomalous, 200, generator(3))).all()


def test_equal_scores_never_differ() -> None:
    scores, is_anomalous = some_scores(4)
    pairs = [image_pairs(scores, is_anomalous)]
    warped = [image_pairs(np.exp(scores), is_anomalous)]
    assert not differences(pairs, warped, is_anomalous, generator(0), 50).any()


def test_pairing_makes_the_interval_narrow() -> None:
    scores, is_anomalous = some_scores(5)
    nearly = scores + 0.01 * generator(6).normal(size=len(scores))
    other, _ = some_scores(7)
    first = [image_pairs(scores, is_anomalous)]
    width = [
        np.ptp(
            interval(
                differences(
                    first, [image_pairs(each, is_anomalous)], is_anomalous, generator(0), 500
                )
            )
        )
        for each in (nearly, other)
    ]
    assert width[0] < width[1] / 3


def test_supports_that_disagree_make_the_interval_wide() -> None:
    scores, is_anomalous = some_scores(8)
    better, worse = scores + 2.0 * is_anomalous, scores - 2.0 * is_anomalous
    first = [image_pairs(scores, is_anomalous)] * 2
    second = [image_pairs(each, is_anomalous) for each in (better, worse)]
    low, high = interval(differences(first, second, is_anomalous, generator(0), 500))
    assert low < -0.2
    assert high > 0.1


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth, hits = 0.0, []
    for seed in range(80):
        scores, is_anomalous = some_scores(100 + seed, n=60)
        other, _ = some_scores(1000 + seed, n=60)
        pairs = [[image_pairs(each, is_anomalous)] for each in (scores, other)]
        low, high = interval(differences(*pairs, is_anomalous, generator(seed), 300))
        hits.append(low <= truth <= high)
    assert 0.88 <= np.mean(hits) <= 1.0
