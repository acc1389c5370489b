import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fewshot_ad.cli import app
from fewshot_ad.data import dataset_class, list_datasets

OWN = ("csv", "folder", "synthetic")  # images that nobody published


def write(root, *paths, seed=0):
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed + number)
        Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(file)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "my [bold]data"  # neither blanks nor what rich takes for markup may matter
    write(
        folder,
        "nut/train/good/000.png",
        "nut/train/good/001.png",
        "nut/test/good/000.png",
        "nut/test/bent/000.png",
        "nut/ground_truth/bent/000_mask.png",
    )
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_list_names_every_dataset():
    result = run("list")
    assert result.exit_code == 0
    for name in ("folder", "mvtec_ad", "synthetic"):
        assert name in result.stdout


def test_info_of_a_folder_counts_its_classes(root):
    result = run("info", f"folder:{root}")
    assert result.exit_code == 0
    assert "nut" in result.stdout
    assert "bent" in result.stdout


def test_info_without_images_tells_licence_source_and_published_counts():
    result = run("info", "mvtec_ad")
    assert result.exit_code == 0
    assert "licence: CC BY-NC-SA 4.0" in result.stdout
    assert "https://www.mvtec.com" in result.stdout
    assert "391" in result.stdout


def test_info_of_a_dataset_counted_as_a_whole_tells_its_classes_and_total():
    result = run("info", "mvtec_3d")
    assert result.exit_code == 0
    assert "cable_gland" in result.stdout
    assert "2656" in result.stdout


@pytest.mark.parametrize("name", [name for name in list_datasets() if name not in OWN])
def test_info_of_every_published_dataset_tells_licence_source_and_layout(name):
    result = run("info", name)
    assert result.exit_code == 0, result.output
    for what in ("title", "source", "licence", "layout"):
        assert f"{what}: {getattr(dataset_class(name), what)}" in result.stdout


@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_check_of_a_clean_folder_exits_with_0(root, prefix):
    result = run("check", f"{prefix}{root}")
    assert result.exit_code == 0, result.output
    assert "nothing to mend" in result.stdout
    assert "stored as: 4 RGB" in result.stdout


def test_check_with_findings_exits_with_1_and_shows_the_first_three(root):
    write(root, *(f"nut/test/bent/[red]{n}.png" for n in range(5)), seed=50)
    result = run("check", root)
    assert result.exit_code == 1
    assert "warning nut: anomaly without a mask (5)" in result.stdout
    assert "    nut/test/bent/[red]0.png" in result.stdout
    assert "[red]3.png" not in result.stdout
    assert "... and 2 more" in result.stdout


def test_check_as_json_holds_everything(root):
    write(root, *(f"nut/test/bent/extra{n}.png" for n in range(5)), seed=50)
    result = run("check", root, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["clean"] is False
    assert report["counts"][0]["test_anomalous"] == 6
    assert [len(finding["details"]) for finding in report["findings"]] == [5]


def test_export_writes_a_dataset(root, tmp_path):
    result = run("export", f"folder:{root}", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "4 images in" in result.stdout
    assert (tmp_path / "out/nut/ground_truth/bent/000_mask.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "mvtec-ad:x"), "did you mean 'mvtec_ad'?"),
        (("check", "folder:absent"), "does not exist"),
        (("check", "./absent"), "does not exist"),
        (("info", "folder"), "folder:ROOT"),
        (("info", "csv"), "csv:TABLE.csv"),
        (("export", "mvtec_ad", "--out", "never"), "download 4.9 GB"),
        (("export", "synthetic"), "--out"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_export_into_a_full_folder_is_refused(root):
    before = sorted(root.rglob("*"))
    result = run("export", f"folder:{root}", "--out", root)
    assert result.exit_code == 2
    assert "not an empty folder" in result.stderr
    assert sorted(root.rglob("*")) == before
