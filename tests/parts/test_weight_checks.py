import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import weight_catalog, weight_checks
from fewshot_ad.parts.published_weights import PUBLISHED, PublishedWeights
from fewshot_ad.parts.weight_checks import check_digest, verify_weights

E31, E32 = "ViT-B-16-plus-240.laion400m_e31", "ViT-B-16-plus-240.laion400m_e32"
POSITIONS = {"visual.positional_embedding": torch.zeros(226, 896)}
SMALL = "resnet10t.c3_in1k"
ENTRIES = {entry.name: entry for entry in PUBLISHED}


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def publish(monkeypatch: pytest.MonkeyPatch, **digests: dict[str, str]) -> None:
    """Let the catalogue hold other digests of e31 and e32, as no test has the real files."""
    listed = tuple(
        replace(entry, sha256=digests.get(entry.name[-3:], entry.sha256)) for entry in PUBLISHED
    )
    for module in (weight_catalog, weight_checks):
        monkeypatch.setattr(module, "PUBLISHED", listed)


def error_of(name: str, folder: Path) -> str:
    with pytest.raises(FewShotError) as caught:
        verify_weights(name, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_the_embedded_weights_are_the_pinned_ones():
    found = verify_weights("tiny", None)
    assert found.is_pinned
    assert found.sha256 == digest(found.path)


def test_a_file_whose_published_digest_is_not_known_is_judged_by_its_content(tmp_path: Path):
    path = tmp_path / f"{E31}.safetensors"
    save_file(POSITIONS, path)
    assert verify_weights(E31, tmp_path) == weight_checks.Verified(path, digest(path), False)


@pytest.mark.parametrize("length", [8, 64])
def test_a_file_with_the_published_digest_is_told_apart(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"{E31}.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in POSITIONS.items()}}, path)
    publish(monkeypatch, e31={".pt": digest(path)[:length]})
    assert verify_weights(E31, tmp_path).is_pinned


def test_a_pickle_with_another_digest_than_the_published_is_refused(tmp_path: Path):
    path = tmp_path / f"{E32}.pt"
    torch.save(POSITIONS, path)
    message = error_of(E32, tmp_path)
    assert f"its SHA-256 is {digest(path)[:16]}..., expected 699c4b84" in message
    assert "fetch it again from https://github.com" in message


def test_the_weights_of_e31_under_the_name_of_e32_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"{E32}.safetensors"
    save_file(POSITIONS, path)
    publish(monkeypatch, e31={".safetensors": digest(path)})
    assert f"{path} holds {E31}, not {E32}" in error_of(E32, tmp_path)


def test_absent_weights_say_what_to_fetch(tmp_path: Path):
    assert "fewshot-ad weights fetch" in error_of(E32, tmp_path)


# ------------------------------------------------------------ what is no such file of weights


class Bomb:
    """What a malicious pickle holds."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("exploded"),)  # pyright: ignore[reportReturnType]


def write_other_architecture(path: Path) -> None:
    save_file({"visual.positional_embedding": torch.zeros(197, 768)}, path)


def write_other_family(path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, path)


def write_cut_off(path: Path) -> None:
    save_file(POSITIONS, path)
    path.write_bytes(path.read_bytes()[:-100])


def write_web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>404</html>")


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))


def write_nan(path: Path) -> None:
    save_file({name: value / 0 for name, value in POSITIONS.items()}, path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "another architecture": (
        write_other_architecture,
        ".safetensors",
        r"is not of ViT-B-16-plus-240.*expected visual.positional_embedding \[226, 896\], found "
        r"\[197, 768\]",
    ),
    "another family": (write_other_family, ".safetensors", "found nothing of that name"),
    "cut off": (write_cut_off, ".safetensors", "damaged or cut off"),
    "web page": (write_web_page, ".safetensors", "is a web page, not weights"),
    "web page as a pickle": (write_web_page, ".pt", "is a web page, not weights"),
    "code in a pickle": (write_pickle, ".bin", "a pickle that runs code"),
    "pickle under another suffix": (write_pickle, ".safetensors", "with the wrong suffix"),
    "empty": (Path.touch, ".safetensors", "is empty"),
    "NaN": (write_nan, ".safetensors", "NaN or infinite values"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_said_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write, suffix, expected = DAMAGES[kind]
    path = tmp_path / f"{E31}{suffix}"
    write(path)
    message = error_of(E31, tmp_path)
    assert re.search(expected, message)
    assert str(path) in message
    assert not (tmp_path / "exploded").exists()


def test_a_backbone_must_be_of_its_architecture(tmp_path: Path):
    state = timm.create_model(SMALL.partition(".")[0], pretrained=False).state_dict()
    path = tmp_path / f"{SMALL}.safetensors"
    save_file(state, path)
    assert verify_weights(SMALL, tmp_path).sha256 == digest(path)
    path.rename(tmp_path / "resnet18.tv_in1k.safetensors")
    assert "is not of resnet18" in error_of("resnet18", tmp_path)


def test_a_digest_that_is_pinned_for_one_kind_of_file_says_nothing_of_others(tmp_path: Path):
    entry = PublishedWeights(
        name="mine", family="unknown", purpose="", megabytes=None, licence="", sha256={".pt": "00"}
    )
    path = tmp_path / "mine.safetensors"
    save_file(POSITIONS, path)
    assert check_digest(entry, path) == (digest(path), False)
    with pytest.raises(FewShotError, match="is not mine as published"):
        check_digest(entry, path, ".pt")
    with pytest.raises(FewShotError, match="cannot be read"):
        check_digest(entry, tmp_path / "absent.pt")
