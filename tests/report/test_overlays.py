"""Which examples are painted, and that one scale serves a whole episode."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_ad.api import Episode, Prediction, Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.examples import pick_examples, shared_scale
from fewshot_ad.report.overlays import PANEL, Sheet


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_examples_are_the_extremes_of_their_kind(pairs):
    scores = np.array([score for score, _ in pairs], dtype=np.float32)
    is_anomalous = np.array([flag for _, flag in pairs], dtype=bool)
    highest, missed, alarmed = pick_examples(scores, is_anomalous).values()
    assert list(scores[highest]) == sorted(scores, reverse=True)[:3]
    assert list(scores[missed]) == sorted(scores[is_anomalous])[:3]
    assert list(scores[alarmed]) == sorted(scores[~is_anomalous], reverse=True)[:3]
    assert all(is_anomalous[missed])
    assert not any(is_anomalous[alarmed])


def test_the_scale_is_taken_over_all_maps_together():
    calm, loud = np.zeros((1, 10, 10), np.float32), np.full((1, 10, 10), 8, np.float32)
    scale = shared_scale(np.concatenate([calm, calm, loud]))
    assert (scale.low, scale.high) == (0, 8)


def painted(loud: float) -> np.ndarray:
    dataset = load_dataset("synthetic")
    test = dataset.test("tile")
    query = (test[0], next(sample for sample in test if sample.is_anomalous))
    episode = Episode("synthetic", "tile", 0, dataset.train("tile")[:1], query)
    maps = torch.zeros(2, 64, 64)
    maps[1, 10:30, 10:30] = loud
    prediction = Prediction(maps.amax(dim=(1, 2)), maps)
    return Sheet(dataset, episode, prediction, Preprocess(size=64)).paint("a title")


def test_a_calm_map_leaves_its_image_as_it_is():
    sheet = painted(loud=5.0)
    rows = np.flatnonzero((sheet[:, : 3 * PANEL] != 255).any(axis=(1, 2)))
    assert sheet.dtype == np.uint8
    normal = sheet[
        -(PANEL + 18 + 6) : -(18 + 6), : 3 * PANEL
    ]  # the last row is that of false alarms
    image, outlined, heat = np.split(normal, 3, axis=1)
    assert len(rows) > 3 * PANEL
    np.testing.assert_array_equal(image, outlined)
    np.testing.assert_array_equal(image, heat)


def test_an_anomaly_shows_its_outline_and_its_heat():
    sheet = painted(loud=5.0)
    red, green, blue = sheet.astype(int).transpose(2, 0, 1)
    cyan = np.minimum(green, blue) - red > 100
    assert cyan.any()
    assert not np.array_equal(sheet, painted(loud=0.0))
