import numpy as np
import pytest
from painted import SMALL, MeanColour, Painted
from scipy import ndimage
from sklearn.metrics import average_precision_score

from fewshot_ad.api import FewShotError
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.boxes import Box, box_average_precision, find_boxes, mask_boxes, overlap
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.images import align_map
from fewshot_ad.report.extra_lines import box_lines


def test_boxes_stand_around_what_is_high() -> None:
    anomaly_map = np.zeros((20, 30))
    anomaly_map[2:5, 3:9] = 0.8
    anomaly_map[10:12, 20:21] = 1.0
    anomaly_map[15, 15] = 0.4  # below half of the way
    assert find_boxes(anomaly_map) == [Box(20, 10, 21, 12, 1.0), Box(3, 2, 9, 5, 0.8)]
    assert len(find_boxes(anomaly_map, 0.3)) == 3
    assert find_boxes(np.full((4, 4), 0.7)) == []


def test_regions_are_those_of_scipy() -> None:
    mask = np.random.Generator(np.random.PCG64(1)).random((40, 50)) > 0.75
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = {
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(labels)
    }
    assert {box[:4] for box in mask_boxes(mask)} == expected


def test_overlap_is_that_of_filled_masks() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    for _ in range(50):
        boxes, filled = [], []
        for _ in range(2):
            left, top = generator.integers(0, 10, 2)
            width, height = generator.integers(1, 10, 2)
            boxes.append(Box(int(left), int(top), int(left + width), int(top + height)))
            plane = np.zeros((20, 20), bool)
            plane[top : top + height, left : left + width] = True
            filled.append(plane)
        expected = (filled[0] & filled[1]).sum() / (filled[0] | filled[1]).sum()
        assert overlap(*boxes) == pytest.approx(expected)


def test_average_precision_by_hand() -> None:
    true = [[Box(0, 0, 10, 10), Box(20, 20, 30, 30)], [Box(0, 0, 4, 4)], []]
    found = [
        [Box(0, 0, 10, 9, 0.9), Box(1, 0, 10, 10, 0.8)],  # right; the same again is wrong
        [Box(2, 2, 6, 6, 0.7)],  # overlaps too little
        [Box(5, 5, 6, 6, 0.95)],  # on a normal image
    ]
    assert box_average_precision(found, true) == pytest.approx((1 / 2) / 3)
    assert box_average_precision(found, true, iou=0.1) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert box_average_precision(true, true) == pytest.approx(1)
    assert box_average_precision(found, [[], [], []]) is None


def test_average_precision_is_sklearns_where_every_image_has_a_box() -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    right, scores = generator.random(40) > 0.4, generator.random(40)
    true = [[Box(0, 0, 4, 4)] if each else [] for each in right]
    found = [[Box(0, 0, 4, 4, score)] for score in scores]
    expected = average_precision_score(right, scores)
    assert box_average_precision(found, true) == pytest.approx(expected)


def test_a_level_out_of_range_is_refused() -> None:
    with pytest.raises(FewShotError, match="expected 0 or more"):
        find_boxes(np.zeros((4, 4)), 1.0)


def test_rows_have_the_precision_of_boxes() -> None:
    dataset = Painted()
    trials = list(episodes(dataset, "plate", shots=(3,), seeds=(0,)))
    (plain,) = evaluate(MeanColour(), dataset, trials, eval_size="native")
    assert plain.row.box_ap is None
    (outcome,) = evaluate(MeanColour(), dataset, trials, eval_size="native", boxes=True)
    masks = [dataset.read_mask(sample) for sample in trials[0].query]
    maps = outcome.prediction.anomaly_map.numpy()
    aligned = [align_map(one, SMALL, (24, 32), "native") for one in maps]
    expected = box_average_precision(list(map(find_boxes, aligned)), list(map(mask_boxes, masks)))
    assert outcome.row.box_ap == expected
    (line,) = box_lines([outcome.row])
    assert line.endswith(f"3 shots: boxes AP at an overlap of 0.5: {100 * expected:.1f}")


def test_a_missing_mask_leaves_it_empty() -> None:
    dataset = Painted()
    dataset.without_mask = {"plate/bad/1"}
    trials = episodes(dataset, "plate", shots=(3,), seeds=(0,))
    with pytest.warns(UserWarning, match="a mask is missing"):
        (without,) = evaluate(MeanColour(), dataset, trials, boxes=True)
    assert without.row.box_ap is None
    assert without.row.reasons["box_ap"] == "a mask is missing"
