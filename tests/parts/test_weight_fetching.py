import io
from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.weight_fetching import fetch_weights, is_offline

E32 = "ViT-B-16-plus-240.laion400m_e32"
MAE = "facebook/vit-mae-base"


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No caches, and a network that is forbidden unless a test puts one in."""
    for name in ("FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("fewshot_ad.parts.weight_fetching.urlopen", refuse)


def refuse(*_: object, **__: object):
    raise ConnectionError("no route")


def answer(content: bytes):
    return lambda *_, **__: io.BytesIO(content)


def serve_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: str) -> None:
    """A hub whose every repository holds these files."""

    def ask(url: str, **_: object) -> None:
        if url.rpartition("/")[2] not in files:
            raise EntryNotFoundError("no such file")

    def download(repository: str, file: str, **_: object) -> str:
        path = folder / "cached" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{file} of {repository}")
        return str(path)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


@pytest.mark.parametrize("name", ["FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("value", "expected"), [("1", True), ("TRUE", True), ("0", False)])
def test_two_variables_forbid_the_network(
    name: str, value: str, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    assert is_offline() is expected
    reason = "forbids it" if expected else "ConnectionError"
    with pytest.raises(FewShotError, match=f"{reason}.*save it as vit-mae-base.safetensors"):
        fetch_weights(MAE, None)


def test_the_first_file_that_the_repository_has_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    serve_hub(monkeypatch, tmp_path, "pytorch_model.bin")
    assert fetch_weights(MAE, None) == tmp_path / "cached" / "pytorch_model.bin"
    path = fetch_weights(MAE, tmp_path / "own")
    assert path == tmp_path / "own" / "vit-mae-base.bin"
    assert path.read_text() == f"pytorch_model.bin of {MAE}"
    serve_hub(monkeypatch, tmp_path, "pytorch_model.bin", "model.safetensors")
    assert fetch_weights(MAE, None).name == "model.safetensors"


def test_a_repository_without_weights_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    serve_hub(monkeypatch, tmp_path, "README.md")
    with pytest.raises(FewShotError, match=r"has none of model.safetensors, pytorch_model.bin"):
        fetch_weights(MAE, None)


def test_no_answer_says_how_large_it_is_and_from_where():
    with pytest.raises(FewShotError, match=r"834 MB, from https://github.com.*ConnectionError"):
        fetch_weights(E32, None)


def test_a_release_is_kept_in_the_cache_of_torch_once_its_digest_is_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("fewshot_ad.parts.weight_fetching.urlopen", answer(b"e32"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(FewShotError, match=r"is not .*e32 as published"):
        fetch_weights(E32, None)
    assert not [*folder.iterdir()]
    monkeypatch.setattr("fewshot_ad.parts.weight_checks.file_digest", lambda _: "699c4b84" * 8)
    path = fetch_weights(E32, None)
    assert path == folder / "vit_b_16_plus_240-laion400m_e32-699c4b84.pt"
    assert path.read_bytes() == b"e32"
    assert fetch_weights(E32, tmp_path / "own").name == f"{E32}.pt"
    assert [each.name for each in folder.iterdir()] == [path.name]


def test_a_download_that_breaks_off_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise TimeoutError("the read timed out")

    monkeypatch.setattr("fewshot_ad.parts.weight_fetching.urlopen", lambda *_, **__: Broken())
    with pytest.raises(FewShotError, match="TimeoutError"):
        fetch_weights(E32, None)
    assert not [*(tmp_path / "torch" / "hub" / "checkpoints").iterdir()]


def test_embedded_weights_need_no_network():
    assert fetch_weights("tiny", None).is_file()
