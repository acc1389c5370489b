"""What the default budgets learn of 16 images of a drawn class, in minutes.

Floors are some points below what was measured. Where only maps are told apart, defects are smaller
than a cell of the grid, or too little is learned in seconds to rank images.
"""

import pytest
from sklearn.metrics import roc_auc_score

from fewshot_ad.api import Support
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes.drawing import draw
from fewshot_ad.evaluation.reading import read_images, read_labelled
from fewshot_ad.methods import load_method

pytestmark = pytest.mark.slow


def predicted(name: str, class_name: str):
    """The test images of a class, and what is said of them."""
    method, dataset = load_method(name).variant(device="cpu"), load_dataset("synthetic")
    shown = read_images(dataset, draw(dataset, class_name, 0, 16), method.preprocess)
    judged = read_labelled(dataset, dataset.test(class_name), method.preprocess)
    return judged, method.fit(Support(class_name, shown)).predict(judged.images)


@pytest.mark.parametrize(
    ("name", "class_name", "floor"),
    [
        ("efficientad", "washer", 0.7),
        ("fcdd", "zipper", 0.8),
        ("glass", "pill", 0.65),
        ("patch_svdd", "zipper", 0.6),
        ("rd4ad", "washer", 0.8),
        ("rrd", "washer", 0.8),
        ("simplenet", "zipper", 0.8),
        ("stfpm", "washer", 0.8),
    ],
)
def test_images_with_defects_are_told_from_normal_ones(
    name: str, class_name: str, floor: float
) -> None:
    judged, found = predicted(name, class_name)
    assert roc_auc_score(judged.is_anomalous, found.image_score) > floor


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("adtr", 0.9),
        ("anovit", 0.85),
        ("dinomaly", 0.9),
        ("inp_former", 0.85),
        ("intra", 0.75),
        ("uniad", 0.9),
    ],
)
def test_defects_of_pills_are_found_where_they_are(name: str, floor: float) -> None:
    judged, found = predicted(name, "pill")
    assert roc_auc_score(judged.masks.flatten(), found.anomaly_map.flatten()) > floor
