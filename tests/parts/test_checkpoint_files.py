import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.checkpoint_files import HEADER, KnownRecord, read_checkpoint, write_checkpoint

IDENTITY = {
    "method": "ResAD",
    "weights_digest": "0123",
    "params": {"steps": 6, "levels": (1, 2), "preprocess": {"size": 64}},
}
KNOWN = KnownRecord(("d/a", "d/b", "d/c"), frozenset({"f0", "f1"}), ("d/b",), 4)
STATE = {"level.weight": torch.arange(6.0).view(2, 3), "share": torch.tensor(0.5)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "c.safetensors", IDENTITY, KNOWN, STATE)
    return tmp_path / "c.safetensors"


def identity(**changes: Any) -> dict[str, Any]:
    return {**IDENTITY, **changes}


def refusal(path: Path, wanted: dict[str, Any] = IDENTITY) -> str:
    with pytest.raises(FewShotError) as caught:
        read_checkpoint(path, wanted)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_round_trip(path: Path) -> None:
    known, state = read_checkpoint(path, IDENTITY)
    assert known == KNOWN
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = KnownRecord(KNOWN.names, frozenset({"f1", "f0"}), KNOWN.held_out, 4)
    write_checkpoint(tmp_path / "again", IDENTITY, again, STATE)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_file_says_how_many_processes_made_it_if_more_than_one_did(path: Path) -> None:
    assert b"processes" not in path.read_bytes()  # as files of one process always were
    write_checkpoint(path, IDENTITY, replace(KNOWN, processes=3), STATE)
    assert read_checkpoint(path, IDENTITY)[0] == replace(KNOWN, processes=3)


def test_parts_of_a_shared_tensor_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(8.0).view(2, 4)
    state = {"whole": whole, "column": whole[:, 1], "same": whole}
    write_checkpoint(tmp_path / "c", IDENTITY, KNOWN, state)
    _, found = read_checkpoint(tmp_path / "c", IDENTITY)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_failed_write_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = path.read_bytes(), Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        write(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, IDENTITY, KNOWN, {})
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_checkpoint(tmp_path / "none" / "c", IDENTITY, KNOWN, STATE)


@pytest.mark.parametrize("left", [0, 4, 100, -4])
def test_a_truncated_file_is_refused(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    assert "is not a checkpoint of fewshot-ad, or is damaged" in refusal(path)


def test_a_pickle_is_refused_and_not_executed(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return path.with_name("executed").write_text, ("boom",)

    path.write_bytes(pickle.dumps(Bomb()))
    assert "is not a checkpoint of fewshot-ad" in refusal(path)
    assert not path.with_name("executed").exists()


def test_safetensors_of_somebody_else_are_refused(path: Path) -> None:
    save_file(STATE, path)
    assert "is not a checkpoint of fewshot-ad" in refusal(path)


def test_no_file_and_a_folder_are_told_from_a_damaged_file(path: Path) -> None:
    for absent in (path.with_name("none"), path.parent):
        assert "there is no checkpoint" in refusal(absent)


def test_another_method_is_named(path: Path) -> None:
    line = refusal(path, identity(method="ResADPlusPlus"))
    assert "is a checkpoint of ResAD, not of ResADPlusPlus" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 7}, "steps=6, now steps=7"),
        ({"levels": (1,)}, "levels=[1, 2], now levels=[1]"),
        ({"new": 1}, "new=None, now new=1"),
        ({"preprocess": {"size": 32}}, "preprocess={'size': 64}, now preprocess={'size': 32}"),
    ],
)
def test_a_parameter_that_differs_is_named(path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(path, identity(params={**IDENTITY["params"], **changes}))


def test_other_backbone_weights_are_told(path: Path) -> None:
    assert "backbone weights 0123, these are 4567" in refusal(path, identity(weights_digest="4567"))


def test_a_factory_whose_file_was_moved_is_the_same_backbone(tmp_path: Path) -> None:
    params = {**IDENTITY["params"], "backbone": "before/nets.py:build"}
    path = tmp_path / "c"
    write_checkpoint(path, identity(params=params), KNOWN, STATE)
    read_checkpoint(path, identity(params={**params, "backbone": "/after/nets.py:build"}))
    for other in ("after/other.py:build", "before/nets.py:make", "nets:build"):
        assert "was trained with backbone=" in refusal(
            path, identity(params={**params, "backbone": other})
        )
    assert "weights" in refusal(path, identity(params=params, weights_digest="4567"))


def test_another_format_is_told(path: Path) -> None:
    save_file(STATE, path, {HEADER: json.dumps({"format": 2})})
    assert "has checkpoint format 2, this version of fewshot-ad reads 1" in refusal(path)


def test_an_older_recipe_is_told(path: Path) -> None:
    line = refusal(path, identity(recipe=2))
    assert "was trained by recipe 1 of ResAD, this version of fewshot-ad has recipe 2" in line
