import pytest
from typer.testing import CliRunner

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.cli.episodes import app
from fewshot_ad.episodes import draw_manifest, list_manifests, load_manifest, save_manifest


class Shelf:
    """Twelve nuts and six of them to judge; the content of an image is its path."""

    name = "shelf"
    classes = ("nut",)

    def train(self, class_name):
        return tuple(Sample(f"nut/train/{index}.png", "nut", False) for index in range(12))

    def test(self, class_name):
        return tuple(Sample(f"nut/test/{index}.png", "nut", index > 2) for index in range(6))

    def read_image(self, sample):
        raise NotImplementedError

    def read_mask(self, sample):
        raise NotImplementedError

    def digest(self, sample):
        return sample.path


@pytest.fixture(autouse=True)
def shelf(monkeypatch):
    opened = []
    monkeypatch.setattr("fewshot_ad.data.load_dataset", lambda name: opened.append(name) or Shelf())
    return opened


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_draw_writes_what_the_rule_draws(tmp_path, shelf):
    out = tmp_path / "mine.json"
    result = run("draw", "--dataset", "shelf:/photos", "--out", out, "--max-shots", 4, "--seeds", 2)
    assert shelf == ["shelf:/photos"]
    assert load_manifest(out) == draw_manifest(Shelf(), range(2), 4, "mine.json")
    assert result.output == f"wrote {out}; classes: 1, seeds: 2, shots: up to 4\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", 0], "--seeds is 0: expected at least 1"),
        (["--max-shots", 0], "max shots is 0: expected at least 1"),
        (["--max-shots", 13], "has 12 train normals and 13 shots were asked for"),
    ],
)
def test_draw_refuses_wrong_numbers_and_writes_nothing(tmp_path, options, message):
    result = run("draw", "--dataset", "shelf", "--out", tmp_path / "a.json", *options, code=1)
    assert isinstance(result.exception, FewShotError)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_draw_never_overwrites(tmp_path):
    out = tmp_path / "mine.json"
    out.write_text("precious")
    result = run("draw", "--dataset", "shelf", "--out", out, "--max-shots", 2, code=1)
    assert "exists: choose another name" in str(result.exception)
    assert out.read_text() == "precious"


def test_show_prints_every_list_and_the_leaks():
    output = run("show", "resad_visa_4shot").output
    assert "resad_visa_4shot for visa; classes: 12, seeds: 1, shots: up to 4" in output
    assert "source: ResAD (NeurIPS 2024" in output
    assert "[dataset, class, seed]" in run("show", "mvtec_ad").output
    for class_name in load_manifest("resad_visa_4shot").classes:
        assert class_name in output
    assert output.count("warning: ") == 4


def test_show_lists_one_class_in_full():
    manifest = load_manifest("resad_visa_8shot")
    output = run("show", "resad_visa_8shot", "--target-class", "pcb3").output
    for shot, path in enumerate(manifest.paths(0, "pcb3"), start=1):
        assert f"seed 0, shot {shot}: {path}\n" in output
    assert "shows 1 test image of 'pcb3' as support" in output
    assert "capsules" not in output


def test_show_refuses_unknown_names():
    assert "did you mean" in str(run("show", "mvtec_a", code=1).exception)
    unknown = run("show", "mvtec_ad", "--target-class", "scew", code=1)
    assert "has no class 'scew'" in str(unknown.exception)


def test_check_is_silent_about_what_fits_and_fails_on_findings(tmp_path):
    path = tmp_path / "mine.json"
    save_manifest(draw_manifest(Shelf(), [0], 2, "mine.json"), path)
    assert "mine.json fits shelf" in run("check", path, "--dataset", "shelf").output
    text = path.read_text()
    path.write_text(text.replace("nut/train/", "nut/[red]/", 1))
    output = run("check", path, "--dataset", "shelf", code=1).output
    assert output.startswith(
        "1 of the 2 images listed for class 'nut' are not in shelf (nut/[red]/"
    )
    assert output.count("\n") == 1


def test_list_names_every_shipped_manifest():
    output = run("list").output
    assert all(name in output for name in list_manifests())
