import pytest
from typer.testing import CliRunner

from fewshot_ad.api import FewShotError
from fewshot_ad.cli.backbones import app
from fewshot_ad.parts.backbones import load_backbone


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch, tmp_path):
    monkeypatch.delenv("FEWSHOT_AD_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_names_what_is_embedded_and_what_is_in_a_folder(tmp_path):
    (tmp_path / "resnet34.tv_in1k.pth").touch()
    rows = {
        line.split()[1]: line
        for line in run("list", "--weights-dir", tmp_path).splitlines()
        if "│" in line
    }
    assert "embedded" in rows["tiny"]
    assert str(tmp_path) in rows["resnet34.tv_in1k"]
    assert "not here" in rows["wide_resnet50_2.racm_in1k"]


def test_show_prints_levels_and_digest():
    output = run("show", "random:tiny")
    backbone = load_backbone("random:tiny")
    assert backbone.digest in output
    for channels in backbone.channels:
        assert f" {channels} " in output


def test_fetch_says_where_the_file_is(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    cached = tmp_path / "model.safetensors"
    cached.touch()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: cached)
    assert str(tmp_path / "resnet18.tv_in1k.safetensors") in run(
        "fetch", "resnet18", "--weights-dir", tmp_path
    )


def test_errors_are_for_the_user(tmp_path):
    for arguments in (["show", "resnett18"], ["list", "--weights-dir", tmp_path / "no"]):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, FewShotError)
