import json
from pathlib import Path

import pytest
import torch

from fewshot_ad.parts.feature_store import FeatureStore


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_AD_CACHE", str(tmp_path))
    monkeypatch.delenv("FEWSHOT_AD_FEATURE_CACHE", raising=False)
    return tmp_path


@pytest.fixture
def filled(folder: Path) -> Path:
    store = FeatureStore(folder / "features", "net-levels12", 10**9)
    for number in range(3):
        store.save(bytes([number] * 20), (torch.rand(250, 100),))
    (folder / "checkpoints").mkdir()
    for name in ("a.safetensors", "b.partial", "a.lock"):
        (folder / "checkpoints" / name).write_bytes(b"x" * 1000)
    return folder


def test_nothing_is_a_cache_too(cli, folder):
    output = cli("cache", "show").stdout
    assert f"{folder}\n" in output
    assert "features: 0 bytes (switched off; set FEWSHOT_AD_FEATURE_CACHE=10)" in output
    assert "checkpoints: 0 files" in output
    assert "0 bytes freed" in cli("cache", "clear", "all").stdout


@pytest.mark.usefixtures("filled")
def test_show_counts(cli, monkeypatch):
    monkeypatch.setenv("FEWSHOT_AD_FEATURE_CACHE", "2")
    output = cli("cache", "show").stdout
    assert "features: 300 kB (up to 2 GB)" in output
    assert "  net-levels12: 3 images, 300 kB, used today" in output
    assert "checkpoints: 2 files, 2 kB" in output


def test_show_as_json(cli, filled):
    facts = json.loads(cli("cache", "show", "--json").stdout)
    assert facts["folder"] == str(filled)
    assert facts["feature_limit"] == 0
    assert facts["features"][0]["images"] == 3
    assert facts["checkpoints"] == {"files": 2, "bytes": 2000}


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ((), {"a.safetensors", "b.partial", "a.lock"}),
        (("features",), {"a.safetensors", "b.partial", "a.lock"}),
        (("checkpoints",), {"a.lock", "00" * 20, "01" * 20, "02" * 20}),
        (("all",), {"a.lock"}),
    ],
)
def test_clear_deletes_what_is_named(cli, filled, what, left):
    output = cli("cache", "clear", *what).stdout
    found = {path.name for path in filled.rglob("*") if path.is_file()}
    assert {name.removesuffix(".safetensors") if len(name) > 30 else name for name in found} == left
    assert f"freed in {filled}" in output


def test_a_limit_that_is_none_is_one_line(cli, monkeypatch):
    monkeypatch.setenv("FEWSHOT_AD_FEATURE_CACHE", "lots")
    result = cli("cache", "show")
    assert result.exit_code == 2
    assert "FEWSHOT_AD_FEATURE_CACHE is 'lots'" in result.stderr


def test_what_is_no_part_of_the_cache_is_refused(cli):
    assert cli("cache", "clear", "everything").exit_code == 2
