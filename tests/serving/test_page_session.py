"""What stands behind the page, without a browser: files in, decisions out, limits, one line."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painted import MeanColour, Painted
from PIL import Image

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.inspection import Inspector
from fewshot_ad.methods import load_method
from fewshot_ad.serving.limits import Limits
from fewshot_ad.serving.page_session import Session, Setup
from fewshot_ad.serving.page_verdicts import SHOWN_SIDE
from fewshot_ad.serving.page_views import rows

PLATES = Painted(n_train=8)
SETUP = Setup(method=MeanColour())
SMALL_ONE = {"backbone": "random:tiny", "preprocess": Preprocess(size=64)}


def stored(folder, pixels, name):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


@pytest.fixture
def normals(tmp_path):
    return [
        stored(tmp_path / "upload", PLATES.read_image(sample), f"{n}.png")
        for n, sample in enumerate(PLATES.train("plate")[:6])
    ]


@pytest.fixture
def photos(tmp_path):
    """Four normals, then four with a defect that grows."""
    return [
        stored(tmp_path / "upload", PLATES.read_image(sample), f"new-{n}.png")
        for n, sample in enumerate(PLATES.test("plate"))
    ]


@pytest.fixture
def session(normals, photos):
    made = Session(SETUP)
    made.fit(normals, far=0.2)
    made.judge(photos)
    return made


def of(session, name):
    return next(one for one in session.judged if one.name == name)


def test_it_judges_as_the_inspector_does_and_names_no_folder(session, normals, photos):
    inspector = Inspector.from_normals(normals, MeanColour(), far=0.2)
    assert session.inspector.normals == tuple(f"{n}.png" for n in range(6))
    for n, expected in enumerate(inspector.predict(photos)):
        found = of(session, f"new-{n}.png")
        assert (found.decision, found.score, found.p_value) == (
            expected.decision,
            expected.score,
            expected.p_value,
        )
        assert found.regions == expected.regions
        np.testing.assert_array_equal(found.overlay(), expected.overlay())


def test_the_highest_scores_come_first(session):
    scores = [one.score for one in session.judged]
    assert scores == sorted(scores, reverse=True)
    assert [row["decision"] for row in rows(session)].index("OK") == 4


@pytest.mark.parametrize("far", [0.01, 0.15, 0.3, 0.6])
def test_another_rate_decides_as_a_fresh_inspector_and_judges_nothing(
    session, normals, photos, far, monkeypatch
):
    monkeypatch.setattr(MeanColour, "predict", None)  # calling it is an error
    session.set_far(far)
    monkeypatch.undo()
    fresh = Inspector.from_normals(normals, MeanColour(), far=far)
    assert session.inspector.threshold == fresh.threshold
    assert session.inspector.promise == fresh.promise
    for n, expected in enumerate(fresh.predict(photos)):
        found = of(session, f"new-{n}.png")
        assert (found.decision, found.p_value) == (expected.decision, expected.p_value)
        assert (found.regions, found.scale) == (expected.regions, expected.scale)


def test_a_photo_is_judged_once_and_forgotten_when_it_is_taken_away(session, photos, monkeypatch):
    counts = []
    monkeypatch.setattr(MeanColour, "fit", None)
    session.judge(photos[2:5], lambda: counts.append(1))
    assert not counts
    assert {one.name for one in session.judged} == {f"new-{n}.png" for n in (2, 3, 4)}
    session.judge(photos[:4], lambda: counts.append(1))
    assert len(counts) == 2


def test_a_large_photo_is_scored_as_it_is_and_shown_smaller(session, tmp_path):
    pixels = np.kron(PLATES.read_image(PLATES.test("plate")[7]), np.ones((50, 50, 1), np.uint8))
    file = stored(tmp_path, pixels, "large.png")
    session.judge([file])
    with pytest.warns(UserWarning, match="1600x1200"):
        (expected,) = session.inspector.predict(file)
    (shown,) = session.judged
    assert shown.pixels.shape == (SHOWN_SIDE * 24 // 32, SHOWN_SIDE, 3)
    assert shown.anomaly_map.shape == shown.pixels.shape[:2]
    assert shown.score == expected.score
    assert len(shown.regions) == len(expected.regions) > 0
    box, whole = shown.regions[0], expected.regions[0]
    assert np.allclose(np.array(box[:4]) * 2, whole[:4], atol=4)


def test_what_cannot_be_read_is_named_first_and_is_not_ok(session, photos, tmp_path):
    broken = tmp_path / "upload" / "broken.jpg"
    broken.write_bytes(b"no image")
    session.judge([*photos, str(broken)])
    first = rows(session)[0]
    assert (first["name"], first["decision"]) == ("broken.jpg", "UNREADABLE")
    assert "cannot be read" in first["reason"]
    assert str(tmp_path) not in first["reason"]
    session.set_far(0.5)
    assert rows(session)[0] == first


def test_warnings_are_told_without_folders_and_go_with_their_part(
    session, normals, photos, tmp_path
):
    other = stored(tmp_path / "upload", np.full((10, 60), 120, np.uint8), "grey.png")
    session.judge([*photos, other])
    (note,) = session.photo_notes
    assert note.startswith("grey.png is 60x10 grey, the normals were 32x24 colour")
    twin = stored(tmp_path / "upload", PLATES.read_image(PLATES.train("plate")[0]), "twin.png")
    session.fit([*normals, twin])
    (note,) = session.part_notes
    assert note.startswith("twin.png shows the same pixels as 0.png")
    assert session.photo_notes == ()


def test_an_outlier_among_the_normals_is_told(session, normals, photos):
    session.fit([*normals, photos[7]])
    assert any("new-7.png stands out among the normals" in note for note in session.part_notes)


def test_warnings_of_others_are_left_alone(normals):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Session(SETUP).fit(normals)
    assert caught == []


def test_a_part_goes_through_a_file(normals, photos):
    chosen = Session(Setup(method=load_method("residual_distance", **SMALL_ONE)))
    chosen.fit(normals, name=" plate ", far=0.25)
    chosen.judge(photos)
    file = chosen.save()
    assert file.name == "part.fsad"
    other = Session(SETUP)
    other.open(str(file))
    other.judge(photos)
    assert other.inspector.name == "plate"
    assert other.inspector.rule.far == 0.25
    assert [one.score for one in other.judged] == [one.score for one in chosen.judged]
    folder = file.parent
    del chosen
    assert not folder.exists()


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (Limits(photos=5), "6 photos were sent"),
        (Limits(body_bytes=100), "were sent at once"),
        (Limits(pixels=700), "pixels"),
    ],
)
def test_more_than_the_limits_is_refused_and_changes_nothing(session, normals, limits, line):
    before = session.inspector
    session.setup = replace(SETUP, limits=limits)
    with pytest.raises(FewShotError, match=line):
        session.fit(normals)
    assert session.inspector is before
    assert len(session.judged) == 8


def test_a_new_photo_of_too_many_pixels_is_not_decoded(session, photos):
    session.setup = replace(SETUP, limits=Limits(pixels=700))
    session.judge([*photos[:1]])  # judged already
    assert session.judged[0].decision == "OK"
    fresh = Session(session.setup, session.inspector)
    fresh.judge(photos[:1])
    assert fresh.judged[0].decision == "UNREADABLE"
    assert "768 pixels" in fresh.judged[0].reason


@pytest.mark.parametrize(
    ("touch", "line"),
    [
        (lambda s, d: s.judge([]), "there is no part yet"),
        (lambda s, d: s.set_far(0.1), "there is no part yet"),
        (lambda s, d: s.save(), "there is no part yet"),
        (lambda s, d: s.fit([]), "no normal photo was given"),
        (lambda s, d: s.open(stored(d, np.zeros((9, 9), np.uint8), "no-part.png")), "no-part.png"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, touch, line):
    session = Session(SETUP)
    with pytest.raises(FewShotError, match=line) as caught:
        touch(session, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert session.inspector is None


def test_photos_that_were_cleaned_away_are_named(session, normals):
    Path(normals[2]).unlink()
    with pytest.raises(FewShotError, match=r"^2\.png was sent too long ago"):
        session.fit(normals)


def test_a_rate_that_is_none_changes_nothing(session):
    before = rows(session)
    with pytest.raises(FewShotError, match="false-alarm rate"):
        session.set_far(0.0)
    assert rows(session) == before
    assert session.inspector.rule.far == 0.2
