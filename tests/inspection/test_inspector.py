"""From photos to verdicts: leave-one-out by hand, sizes, odd input, and no state left behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from painted import SMALL, MeanColour, Painted, Trained
from PIL import Image

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.images import prepare
from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.photos import Photo, square_of
from fewshot_ad.methods import load_method

PLATES = Painted(n_train=12)
TINY = Preprocess(size=64)


def arrays(n=6, class_name="plate"):
    return [PLATES.read_image(sample) for sample in PLATES.train(class_name)[:n]]


def defect(index=3):
    return PLATES.read_image(PLATES.test("plate")[4 + index])


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "ok"
    made.mkdir()
    for number, pixels in enumerate(arrays()):
        Image.fromarray(pixels).save(made / f"{number}.png")
    return made


def by_hand(images, left_out):
    """Score of one image after a fit on the others, straight from the method's definition."""
    mean = torch.stack([each for i, each in enumerate(images) if i != left_out]).mean(dim=0)
    return float((images[left_out] - mean).abs().mean(dim=0).max())


def test_calibration_is_leave_one_out():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    images = [prepare(each, SMALL) for each in arrays()]
    expected = [by_hand(images, i) for i in range(6)]
    assert inspector.calibration.source == "leave_one_out"
    np.testing.assert_allclose(inspector.calibration.scores, expected, rtol=1e-6)
    np.testing.assert_allclose(inspector.calibration.peaks, expected, rtol=1e-6)
    assert inspector.threshold == max(inspector.calibration.scores)


def test_verdicts_have_score_p_value_and_the_size_of_the_photo():
    inspector = Inspector.from_normals(arrays(), MeanColour(), far=0.2)
    images = torch.stack([prepare(each, SMALL) for each in arrays()])
    bad, good = inspector.predict([defect(), arrays(8)[7]])
    score = (prepare(defect(), SMALL) - images.mean(dim=0)).abs().mean(dim=0).max()
    assert bad.score == pytest.approx(float(score), rel=1e-6)
    assert (bad.decision, good.decision) == ("NOT OK", "OK")
    assert bad.p_value == 1 / 7
    assert bad.anomaly_map.shape == defect().shape[:2]
    assert good.p_value > 1 / 7


def test_regions_lie_on_the_defect_and_areas_are_counted():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    (bad,) = inspector.predict(defect())
    mask = PLATES.read_mask(PLATES.test("plate")[7])
    best = bad.regions[0]
    inside = bad.anomaly_map > inspector.scale.level
    assert sum(region.area for region in bad.regions) == inside.sum()
    assert mask[(best.top + best.bottom) // 2, (best.left + best.right) // 2]
    assert [r.peak for r in bad.regions] == sorted((r.peak for r in bad.regions), reverse=True)


def test_a_not_ok_photo_has_a_region_even_where_resizing_flattens_its_peak():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    for verdict in inspector.predict([defect(i) for i in range(4)]):
        assert not verdict.is_anomalous or verdict.regions
        assert verdict.is_anomalous or not verdict.regions


def test_photos_are_forgotten_once_they_are_judged():
    inspector = Inspector.from_normals(arrays(), "residual_distance", preprocess=TINY)
    before = inspector.method.features.stats
    found = inspector.predict([defect(), defect(2)])
    assert inspector.method.features.stats == before
    images = torch.stack([prepare(each, TINY) for each in (defect(), defect(2))])
    expected = inspector.method.predict(images)
    assert [one.score for one in found] == expected.image_score.tolist()
    assert inspector.method.features.stats.misses == before.misses + 2


def test_a_normal_photo_looks_the_same_whatever_is_judged_beside_it():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    alone = inspector.predict(arrays(8)[7])[0].overlay()
    beside = inspector.predict([defect(), arrays(8)[7]])[1].overlay()
    np.testing.assert_array_equal(alone, beside)
    calm = np.abs(alone.astype(int) - arrays(8)[7]).mean()
    loud = np.abs(inspector.predict(defect())[0].overlay().astype(int) - defect()).mean()
    assert calm < loud / 4


def test_the_scale_is_that_of_the_calibration():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    low, level, high = inspector.scale
    assert level == max(inspector.calibration.peaks)
    assert low == pytest.approx((level + inspector.calibration.floor) / 2)
    assert (high - level) == pytest.approx(2 * (level - low))


def test_a_folder_a_list_of_paths_and_arrays_are_one(folder):
    paths = sorted(folder.iterdir())
    of_folder, of_paths, of_arrays = (
        Inspector.from_normals(photos, MeanColour()) for photos in (folder, paths, arrays())
    )
    assert of_folder.calibration == of_paths.calibration == of_arrays.calibration
    assert of_folder.normals == tuple(str(path) for path in paths)
    stacked = Inspector.from_normals(np.stack(arrays()), MeanColour())
    assert stacked.calibration == of_arrays.calibration


def test_one_normal_works_and_promises_nothing():
    inspector = Inspector.from_normals(arrays(1), MeanColour())
    assert inspector.calibration.source == "copies"
    assert "promises nothing" in inspector.promise
    assert inspector.predict(arrays(1)[0])[0].decision == "OK"


def test_the_tail_reaches_further_than_the_normals():
    plain = Inspector.from_normals(arrays(), MeanColour(), far=0.01)
    tail = Inspector.from_normals(arrays(), MeanColour(), far=0.01, tail=True)
    assert len(tail.calibration.altered_scores) == 24
    assert tail.calibration.scores == plain.calibration.scores
    assert tail.predict(defect())[0].p_value < plain.predict(defect())[0].p_value
    assert "extrapolated" in tail.promise


def test_many_normals_are_left_out_in_groups(monkeypatch):
    monkeypatch.setattr("fewshot_ad.inspection.calibrating.MOST_REFITS", 3)
    inspector = Inspector.from_normals(arrays(), MeanColour())
    assert inspector.calibration.source == "folds"
    images = torch.stack([prepare(each, SMALL) for each in arrays()])
    expected = (images[0] - images[2:].mean(dim=0)).abs().mean(dim=0).max()
    assert inspector.calibration.scores[0] == pytest.approx(float(expected), rel=1e-6)
    assert len(inspector.calibration.scores) == 6


def test_recalibration_takes_photos_that_were_not_fitted_on():
    inspector = Inspector.from_normals(arrays(3), MeanColour(), far=0.25)
    before = inspector.predict(defect())[0].score
    inspector.recalibrate(arrays(9)[3:6])
    inspector.recalibrate(arrays(9)[6:])
    assert inspector.calibration.source == "held_out"
    assert inspector.predict(defect())[0].score == before
    scores = [verdict.score for verdict in inspector.predict(arrays(9)[3:])]
    np.testing.assert_allclose(inspector.calibration.scores, scores, rtol=1e-6)
    with (
        pytest.warns(UserWarning, match="same pixels"),
        pytest.raises(FewShotError, match="others"),
    ):
        inspector.recalibrate(arrays(1))


def test_a_tail_that_recalibration_cannot_fit_changes_nothing():
    inspector = Inspector.from_normals(arrays(3), MeanColour(), tail=True)
    before = inspector.calibration
    with pytest.raises(FewShotError, match="8 or more"):
        inspector.recalibrate(arrays(6)[3:])
    assert inspector.calibration is before


def test_a_given_method_is_left_as_it_is():
    method = MeanColour()
    Inspector.from_normals(arrays(), method)
    assert not hasattr(method, "mean_")


def test_a_score_that_is_no_number_is_never_ok():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    inspector.method.mean_ = torch.full_like(inspector.method.mean_, torch.nan)
    with pytest.raises(FewShotError, match="NaN or infinite"):
        inspector.predict(defect())
    with pytest.raises(FewShotError, match="NaN or infinite"):
        Inspector.from_normals(arrays(), MeanColour(gain=float("inf")))


def test_a_defective_normal_is_named():
    photos = [*arrays(), defect()]
    with pytest.warns(UserWarning, match="array-6 stands out"):
        Inspector.from_normals(photos, MeanColour())


def test_a_copy_of_a_normal_is_left_out():
    with pytest.warns(UserWarning, match="array-6 shows the same pixels as array-0"):
        inspector = Inspector.from_normals([*arrays(), arrays()[0]], MeanColour())
    assert len(inspector.normals) == 6


def test_normals_of_differing_sizes_are_told_of():
    with pytest.warns(UserWarning, match="the normals differ in size"):
        inspector = Inspector.from_normals([*arrays(5), arrays()[5][:20]], MeanColour())
    assert len(inspector.views) == 2


def test_a_photo_of_another_size_or_kind_is_told_of():
    inspector = Inspector.from_normals(arrays(), MeanColour())
    with pytest.warns(UserWarning, match="array-0 is 32x20 colour, the normals were 32x24 colour"):
        inspector.predict(arrays()[0][:20])
    with pytest.warns(UserWarning, match="array-0 is 32x24 grey"):
        inspector.predict(arrays()[0][..., 0])


def test_what_is_no_image_is_named_and_left_out(folder):
    (folder / "notes.txt").write_text("line 3")
    (folder / "7.png").write_bytes(b"\x89PNG")
    with pytest.warns(UserWarning, match="left out") as told:
        inspector = Inspector.from_normals(folder, MeanColour())
    lines = " ".join(str(each.message) for each in told)
    assert "notes.txt" in lines
    assert "7.png" in lines
    assert len(inspector.normals) == 6


@pytest.mark.parametrize(
    ("photos", "words"),
    [
        ([], "no normal photo"),
        ("nowhere", "there is no photo or folder nowhere"),
        (np.zeros((4, 4, 3)), "expected bytes"),
        (np.zeros((4, 4, 2), np.uint8), "expected bytes"),
    ],
)
def test_what_cannot_be_fitted_on_is_refused_in_one_line(photos, words):
    with pytest.raises(FewShotError, match=words) as told:
        Inspector.from_normals(photos, MeanColour())
    assert "\n" not in str(told.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FewShotError, match="holds no images"):
        Inspector.from_normals(tmp_path)


def test_methods_that_cannot_decide_on_one_image_are_refused():
    for name, words in (("musc", "together"), ("unet", "labelled anomalies")):
        with pytest.raises(FewShotError, match=words):
            Inspector.from_normals(arrays(), name)
    with pytest.raises(FewShotError, match="reads no checkpoint"):
        Inspector.from_normals(arrays(), MeanColour(), checkpoint="x.safetensors")


def test_a_meta_trained_method_comes_from_its_checkpoint(tmp_path):
    trained = Trained()
    trained.state_ = 7
    trained.save(tmp_path / "t.json")
    inspector = Inspector.from_normals(arrays(), Trained(), checkpoint=tmp_path / "t.json")
    assert inspector.predict(defect())[0].is_anomalous


def test_without_a_checkpoint_it_learns_from_the_drawn_classes_once(monkeypatch):
    asked = []

    def few(pairs):
        asked.extend((dataset.name, len(classes)) for dataset, classes in pairs)
        return known_images([(Painted(), ("rod",))])

    monkeypatch.setattr("fewshot_ad.inspection.choosing.known_images", few)
    monkeypatch.setattr(Trained, "runs", [])
    for _ in range(2):
        inspector = Inspector.from_normals(arrays(), "painted:Trained", steps=1)
        assert inspector.predict(defect())[0].is_anomalous
    assert asked == [("synthetic", 18)] * 2
    assert Trained.runs == [0]


def test_the_square_of_a_photo_loses_nothing():
    for geometry in ("squash", "pad", "crop"):
        preprocess = replace(TINY, geometry=geometry)
        square = square_of(Photo("x", defect()), preprocess)
        assert square.shape == (64, 64, 3)
        assert torch.equal(prepare(square, preprocess), prepare(defect(), preprocess))


def test_params_reach_a_named_method():
    inspector = Inspector.from_normals(
        arrays(3), "patchcore", backbone="random:tiny", preprocess=TINY, blur=2.0
    )
    method = load_method("patchcore", backbone="random:tiny", preprocess=TINY, blur=2.0)
    images = torch.stack([prepare(each, TINY) for each in arrays(3)])
    method.fit(Support("part", images))
    expected = method.predict(prepare(defect(), TINY)[None]).image_score
    assert inspector.predict(defect())[0].score == float(expected[0])
