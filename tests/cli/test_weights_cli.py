import json
import os
import socket
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewshot_ad.methods import list_methods, load_method
from fewshot_ad.parts.published_weights import PUBLISHED

E31 = "ViT-B-16-plus-240.laion400m_e31"
NAMES = [entry.name for entry in PUBLISHED]
TRIAL = (
    *("--dataset", "synthetic", "--target-class", "gear", "--query-limit", 1, "--seeds", 1),
    *("--shots", 1, "--no-overlays"),
)


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("FEWSHOT_AD_WEIGHTS", "FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked of the network; every question raises, and is remembered if that is caught."""
    questions: list[object] = []

    def refuse(*question: object, **_: object):
        questions.append(question)
        raise OSError("this test has no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    return questions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one set of weights, as far as looks go."""
    path = tmp_path / "weights"
    path.mkdir()
    save_file({"visual.positional_embedding": torch.zeros(226, 896)}, path / f"{E31}.safetensors")
    return path


def test_the_list_says_everything_of_every_entry(cli, folder):
    output = cli("weights", "list", "--weights-dir", folder).stdout
    for entry in PUBLISHED:
        here = "here" if entry.name in ("tiny", E31) else "not here"
        assert f"{entry.name}: {here}\n" in output
        for part in (entry.purpose, entry.licence, entry.file_name, entry.source, entry.note):
            assert part in output
    rows = json.loads(cli("weights", "list", "--json", "--weights-dir", folder).stdout)
    assert [row["name"] for row in rows] == NAMES
    (row,) = [row for row in rows if row["name"] == E31]
    assert row["path"] == str(folder / f"{E31}.safetensors")
    assert row["sha256"][".bin"].startswith("fa8eec9a")


def test_where_prints_the_places_in_order_with_what_is_taken_from_each(
    cli, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEWSHOT_AD_WEIGHTS", str(folder))
    rows = json.loads(cli("weights", "where", "--json").stdout)
    assert [row["folder"] for row in rows] == [
        None,
        str(folder),
        str(tmp_path / "hub"),
        str(tmp_path / "torch" / "hub" / "checkpoints"),
    ]
    assert [row["weights"] for row in rows] == [[], [E31], [], []]
    output = cli("weights", "where").stdout
    assert output.startswith(f"1. --weights-dir: not named\n2. $FEWSHOT_AD_WEIGHTS: {folder}\n")
    assert f"{folder}\n   {E31}\n3. " in output


def test_path_prints_a_path_and_nothing_else(cli, folder):
    result = cli("weights", "path", E31, "--weights-dir", folder)
    assert result.stdout == f"{folder / E31}.safetensors\n"
    result = cli("weights", "path", E31)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"`fewshot-ad weights fetch {E31}`" in result.stderr


def test_verify_checks_all_that_is_here_and_fails_if_one_is_not_sound(cli, folder):
    result = cli("weights", "verify", "--weights-dir", folder)
    assert result.exit_code == 0
    assert "tiny: as published" in result.stdout
    assert f"{E31}: sound; its published digest is not known" in result.stdout

    torch.save({"a": torch.zeros(1)}, folder / "resnet18-f37072fd.pth")
    (folder / "vit-mae-base.safetensors").write_text("<html>moved</html>")
    result = cli("weights", "verify", "--weights-dir", folder)
    assert result.exit_code == 2
    assert E31 in result.stdout
    assert "resnet18-f37072fd.pth is not of resnet18" in result.stderr
    assert "vit-mae-base.safetensors is a web page" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_verify_finds_a_digest_that_does_not_match(cli, folder):
    path = folder / f"{E31}.safetensors"
    path.unlink()
    torch.save({"visual.positional_embedding": torch.zeros(226, 896)}, path.with_suffix(".pt"))
    result = cli("weights", "verify", E31, "--weights-dir", folder)
    assert result.exit_code == 2
    assert "expected 8fb26589..." in result.stderr


# ------------------------------------------------------------ the network


def test_offline_refuses_to_fetch_and_is_forgotten_afterwards(cli, asked):
    for command in ("weights", "backbones"):
        result = cli("--offline", command, "fetch", "resnet18")
        assert result.exit_code == 2
        assert "--offline" in result.stderr
    assert not asked
    assert not {"FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE"} & set(os.environ)


def test_the_environment_says_offline_too(cli, asked, monkeypatch):
    for name in ("FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
        assert cli("weights", "fetch", "resnet18").exit_code == 2
        monkeypatch.delenv(name)
    assert not asked


def test_fetch_is_what_asks_the_network(cli, asked):
    result = cli("weights", "fetch", "ViT-B-16-plus-240.laion400m_e32")
    assert result.exit_code == 2
    assert "834 MB, from https://github.com" in result.stderr
    assert asked


@pytest.mark.parametrize("offline", [("--offline",), ()])
@pytest.mark.parametrize(
    "command",
    [
        ("weights", "list"),
        ("weights", "where"),
        ("weights", "path", "facebook/vit-mae-base"),
        ("weights", "path", "someone/something"),
        ("weights", "verify"),
        ("backbones", "list"),
        ("backbones", "show", "tiny"),
        ("backbones", "show", "resnet18"),
        ("methods", "list"),
    ],
    ids=" ".join,
)
def test_nothing_else_does(command, offline, cli, asked):
    assert cli(*offline, *command).exit_code in (0, 2)
    assert not asked


WITH_WEIGHTS = [
    name
    for name in list_methods()
    if name == "ensemble" or "backbone" in {field.name for field in fields(load_method(name))}
]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_no_method_does_and_without_weights_each_says_what_to_fetch(name, cli, asked, tmp_path):
    method = load_method(name)
    own = getattr(method, "backbone", "tiny")
    backbone = ("--backbone", "wide_resnet50_2") if own == "tiny" else ()
    trial = ("eval", "--method", name, *TRIAL, "--out", tmp_path / "out")
    result = cli("--offline", *trial, *backbone)
    assert result.exit_code == 2
    assert "is not on this machine: expected" in result.stderr
    assert "`fewshot-ad weights fetch " in result.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()
    assert not asked


def test_an_evaluation_runs_offline(cli, asked, tmp_path):
    small = ("--set", "preprocess.size=64", "--out", tmp_path)
    assert cli("--offline", "eval", "--method", "patchcore", *TRIAL, *small).exit_code == 0
    assert not asked
