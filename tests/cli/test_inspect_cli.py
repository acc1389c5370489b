"""``fewshot-ad fit`` and ``predict``: from a folder of photos to decisions, in every way in."""

import json

import numpy as np
import pytest
from painted import Painted
from PIL import Image
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.exporting import Export
from fewshot_ad.inspection.parity import Loss, Parity

PLATES = Painted(n_train=8)
TINY = ("--backbone", "random:tiny", "--set", "preprocess.size=64", "--set", "levels=1,2")


def save(pixels, path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Folders of photos, and a part that was fitted on four normals."""
    root = tmp_path_factory.mktemp("line")
    for number, sample in enumerate(PLATES.train("plate")):
        save(PLATES.read_image(sample), root / ("ok" if number < 4 else "more") / f"{number}.png")
    for number, sample in enumerate(PLATES.test("plate")):
        save(PLATES.read_image(sample), root / "new" / f"{number}.png")
    result = run("fit", "--normals", root / "ok", "--out", root / "part.fsad", *TINY)
    assert result.exit_code == 0
    return root


def run(*arguments, **options):
    return CliRunner().invoke(
        app, [str(each) for each in arguments], catch_exceptions=False, **options
    )


def rows(folder):
    return [json.loads(row) for row in (folder / "decisions.jsonl").read_text().splitlines()]


def test_fit_says_what_can_be_promised(line, tmp_path):
    out = tmp_path / "deep" / "part.fsad"
    result = run("fit", "--normals", line / "ok", "--out", out, "--far", 0.01, *TINY)
    assert result.exit_code == 0
    assert "fitted on 4 normals (32x24 colour)" in result.stdout
    assert "4 normals cannot promise 1 % false alarms" in result.stdout
    assert f"fewshot-ad predict {out} IMAGES" in result.stdout
    assert out.read_bytes() == (line / "part.fsad").read_bytes()


def test_predict_writes_a_row_and_pictures_for_every_photo(line, tmp_path):
    result = run("predict", line / "part.fsad", line / "new", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "8 photos: " in result.stdout
    found = rows(tmp_path / "out")
    python = Inspector.load(line / "part.fsad").predict(line / "new")
    assert [row["score"] for row in found] == [verdict.score for verdict in python]
    assert [row["decision"] for row in found] == [verdict.decision for verdict in python]
    assert {row["decision"] for row in found[5:]} == {"NOT OK"}
    for row in found:
        with Image.open(tmp_path / "out" / row["map"]) as image:
            assert image.size == (32, 24)
        assert (tmp_path / "out" / row["overlay"]).is_file()


def test_a_damaged_photo_is_unreadable_and_the_others_are_judged(line, tmp_path):
    save(np.zeros((24, 32, 3), np.uint8), tmp_path / "new" / "a.png")
    (tmp_path / "new" / "b.png").write_bytes(b"x")
    result = run("predict", line / "part.fsad", tmp_path / "new", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert [row["decision"] for row in rows(tmp_path / "out")] == ["NOT OK", "UNREADABLE"]
    assert "1 UNREADABLE" in result.stdout


def test_json_is_the_rows_and_nothing_else(line, tmp_path):
    path = line / "new" / "7.png"
    result = run("predict", line / "part.fsad", path, "--out", tmp_path, "--json", "--maps", "none")
    assert json.loads(result.stdout) == rows(tmp_path)
    assert not (tmp_path / "maps").exists()


def test_stdin_answers_every_line(line, tmp_path):
    lines = f"{line}/new/7.png\n\n{line}/nothing.png\n{line}/new/0.png\n"
    result = run("predict", line / "part.fsad", "--stdin", "--out", tmp_path, input=lines)
    assert result.exit_code == 0
    answers = [json.loads(row) for row in result.stdout.splitlines()]
    assert [answer["image"] for answer in answers] == lines.split()
    assert answers[0]["decision"] == "NOT OK"
    assert answers[1]["decision"] == "UNREADABLE"
    assert answers == rows(tmp_path)


def test_a_stream_of_odd_photos_is_told_of_once(line, tmp_path):
    lines = f"{line}/new/7.png\n" * 30
    options = ("--stdin", "--out", tmp_path, "--maps", "none", "--no-overlays")
    result = run("predict", line / "part.fsad", *options, input=lines)
    assert result.stderr.count("the camera, the light or the part has changed") == 1
    assert len(result.stdout.splitlines()) == 30


def test_watch_judges_what_lies_in_the_folder(line, tmp_path):
    for index in range(4, 8):
        save(PLATES.read_image(PLATES.test("plate")[index]), tmp_path / "camera" / f"{index}.png")
    arguments = ("--watch", tmp_path / "camera", "--idle", 1, "--out", tmp_path / "out")
    result = run("predict", line / "part.fsad", *arguments)
    assert result.exit_code == 0
    assert [row["image"].rpartition("/")[2] for row in rows(tmp_path / "out")] == [
        *("4.png", "5.png", "6.png", "7.png")
    ]
    assert result.stdout.count("NOT OK ") >= 4


def test_recalibration_sets_a_new_threshold_on_other_photos(line, tmp_path):
    out = tmp_path / "part.fsad"
    arguments = ("--recalibrate", line / "part.fsad", "--normals", line / "more", "--far", 0.2)
    result = run("fit", *arguments, "--out", out)
    assert result.exit_code == 0
    assert "20 % false alarms at most, by 4 normals that nothing was fitted on" in result.stdout
    before, after = Inspector.load(line / "part.fsad"), Inspector.load(out)
    assert after.normals == before.normals
    assert after.calibration.source == "held_out"
    assert run("fit", *arguments[:-2], "--out", out).exit_code == 0
    assert Inspector.load(out).rule == before.rule


def test_export_says_how_far_the_graph_is_from_the_method(line, tmp_path, monkeypatch):
    def write(inspector, path, form, *, int8):
        path.write_bytes(f"{form} of {inspector.name}, {int8=}".encode())
        return Export((path,), Parity(6, 2e-6, 3e-6), Loss(Parity(9, 0.1, 0.2), 0.987, 2))

    monkeypatch.setattr("fewshot_ad.cli.export.export", write)
    monkeypatch.chdir(tmp_path)
    result = run("export", line / "part.fsad", "--format", "onnx", "--int8")
    assert result.exit_code == 0
    assert "onnxruntime judges as the method does: scores differ by 2e-06" in result.stdout
    assert "rank correlation of scores 0.9870; 2 of 9 decisions differ" in result.stdout
    assert (tmp_path / "part.onnx").read_text() == "onnx of part, int8=True"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "--normals", "nowhere"), "no photo or folder nowhere"),
        (("fit", "--normals", "{line}/ok", "--far", "0"), "false-alarm rate"),
        (("fit", "--normals", "{line}/ok", "--out", "{line}"), "is a folder"),
        (("fit", "--normals", "{line}/ok", "--method", "musc"), "together"),
        (("fit", "--normals", "{line}/ok", "--recalibrate", "{line}/part.fsad"), "fitted on"),
        (("export", "{line}/part.fsad", "--format", "tflite"), "choose onnx, openvino, torch"),
        (("export", "{line}/part.fsad", "--out", "a.onnx", "--format", "torch"), "name it a.pt2"),
        (("predict", "{line}/part.fsad"), "nothing to judge"),
        (("predict", "{line}/part.fsad", "{line}/new", "--stdin"), "more than one source"),
        (("predict", "{line}/part.fsad", "--watch", "{line}/gone"), "no such folder"),
        (("predict", "{line}/part.fsad", "{line}/gone.png"), "no photo or folder"),
        (("predict", "{line}/ok/0.png", "{line}/new"), "cannot be opened"),
        (("predict", "{line}/gone.fsad", "{line}/new"), "there is no file"),
        (("predict", "{line}/part.fsad", "{line}/new", "--out", "{line}/part.fsad"), "is a file"),
    ],
    ids=str,
)
def test_what_a_user_gets_wrong_is_one_line(line, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = run(*(each.format(line=line) for each in arguments))
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert [*tmp_path.iterdir()] == []
