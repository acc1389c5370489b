"""What the folder of decisions holds."""

import csv
import json

import numpy as np
import pytest
from painted import MeanColour, Painted
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection import Inspector, Verdict
from fewshot_ad.inspection.outputs import Outputs, grey16_of
from fewshot_ad.inspection.photos import Photo, Unreadable

PLATES = Painted()


@pytest.fixture(scope="module")
def inspector():
    return Inspector.from_normals(
        [PLATES.read_image(s) for s in PLATES.train("plate")], MeanColour()
    )


def photo(name, index=7):
    return Photo(name, PLATES.read_image(PLATES.test("plate")[index]))


def table(folder):
    return [*csv.DictReader((folder / "decisions.csv").read_text().splitlines())]


def test_a_row_a_line_and_pictures_for_every_photo(inspector, tmp_path):
    outputs = Outputs(tmp_path, inspector)
    verdicts = inspector.judge([photo("x/a.png"), photo("y/a.jpg", 0), photo("=b, c.png")])
    rows = [outputs.write(one) for one in [*verdicts, Unreadable("d.png", "empty, really")]]
    lines = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert lines == json.loads(json.dumps(rows))
    found = table(tmp_path)
    assert [row["image"] for row in found] == ["x/a.png", "y/a.jpg", "=b, c.png", "d.png"]
    assert [row["overlay"] for row in found[:2]] == ["overlays/a.png", "overlays/a-2.png"]
    assert found[3]["decision"] == "UNREADABLE"
    assert found[3]["reason"] == "empty, really"
    boxes = [box.split() for box in found[0]["boxes"].split(";")]
    assert [int(box[4]) for box in boxes] == [region.area for region in verdicts[0].regions]
    painted = np.asarray(Image.open(tmp_path / "overlays/a.png"))
    np.testing.assert_array_equal(painted, verdicts[0].overlay())


def test_a_map_comes_back_from_16_bits_and_from_npy(inspector, tmp_path):
    (verdict,) = inspector.judge([photo("a.png")])
    Outputs(tmp_path / "png", inspector).write(verdict)
    Outputs(tmp_path / "npy", inspector, maps="npy").write(verdict)
    Outputs(tmp_path / "none", inspector, maps="none", overlays=False).write(verdict)
    about = json.loads((tmp_path / "png" / "inspection.json").read_text())["map_png"]
    with Image.open(tmp_path / "png/maps/a.png") as image:
        assert (image.mode, image.size) == ("I;16", (32, 24))
        pixels = np.asarray(image).astype(np.float64)
    inside = (pixels > 0) & (pixels < 65535)
    restored = about["zero"] + about["unit"] * pixels
    assert inside.mean() > 0.9
    assert np.abs(restored - verdict.anomaly_map)[inside].max() <= about["unit"]
    exact = np.load(tmp_path / "npy/maps/a.npy", allow_pickle=False)
    np.testing.assert_array_equal(exact, verdict.anomaly_map)
    assert {path.name for path in (tmp_path / "none").iterdir()} == {
        *("decisions.csv", "decisions.jsonl", "inspection.json")
    }


def test_values_beyond_16_bits_are_clipped(inspector):
    grey = grey16_of(inspector.scale)
    ends = np.array([[grey.zero - 9, grey.zero + 1e9 * grey.unit]], np.float32)
    assert grey.pixels(ends).tolist() == [[0, 65535]]
    level = np.array([[inspector.scale.level]])
    assert grey.pixels(level)[0, 0] == pytest.approx(65535 / 8, abs=1)


def test_a_new_run_begins_anew_and_a_stream_goes_on(inspector, tmp_path):
    (verdict,) = inspector.judge([photo("a.png")])
    for append, expected in ((False, 1), (False, 1), (True, 2), (True, 3)):
        Outputs(tmp_path, inspector, maps="none", append=append).write(verdict)
        assert len(table(tmp_path)) == expected


def test_a_name_that_is_no_text_is_written_escaped(inspector, tmp_path):
    Outputs(tmp_path, inspector).write(Unreadable("caf\udce9.png", "gone"))
    assert "caf\\udce9.png" in (tmp_path / "decisions.csv").read_text()


def test_a_folder_that_is_a_file_is_refused(inspector, tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(FewShotError, match="cannot write"):
        Outputs(tmp_path / "out", inspector)


def test_a_full_disk_is_one_line(inspector, tmp_path, monkeypatch):
    outputs = Outputs(tmp_path, inspector)
    (verdict,) = inspector.judge([photo("a.png")])
    assert isinstance(verdict, Verdict)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(FewShotError, match="No space left on device") as told:
        outputs.write(verdict)
    assert "\n" not in str(told.value)
    assert len(table(tmp_path)) == 0
