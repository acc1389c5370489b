from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from painted import SMALL, Painted, Trained

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.evaluation.checkpoints import (
    cache_folder,
    checkpoint_key,
    load_checkpoint,
    save_checkpoint,
    trained,
)
from fewshot_ad.evaluation.known import known_images


@pytest.fixture
def known():
    return known_images([(Painted(), ("disc", "rod"))])


@pytest.fixture(autouse=True)
def _no_runs(monkeypatch):
    monkeypatch.setattr(Trained, "runs", [])


def test_the_second_time_nothing_trains(tmp_path, known):
    method = Trained()
    first, was_cached = trained(method, known, cache_dir=tmp_path)
    assert (first.state_, was_cached) == (12, False)
    again, was_cached = trained(Trained(), known, cache_dir=tmp_path)
    assert (again.state_, was_cached) == (12, True)
    assert Trained.runs == [0]
    assert not hasattr(method, "state_")
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".lock"] == [
        ".safetensors"
    ]


def test_all_that_training_depends_on_makes_another_key(known, monkeypatch):
    base = checkpoint_key(Trained(), known)
    keys = {
        checkpoint_key(Trained(steps=4), known),
        checkpoint_key(Trained(seed=1), known),
        checkpoint_key(Trained(), known_images([(Painted(), ("disc",))])),
        checkpoint_key(Trained(), known_images([(Painted(), ("disc", "rod"))], limit=2)),
    }
    monkeypatch.setattr(Trained, "weights_digest", "w1")
    keys.add(checkpoint_key(Trained(), known))
    monkeypatch.setattr(Trained, "recipe", 2, raising=False)
    keys.add(checkpoint_key(Trained(), known))
    assert len(keys | {base}) == 7


def test_the_device_makes_no_other_key(known):
    assert checkpoint_key(Trained(device="cpu"), known) == checkpoint_key(Trained(), known)


def test_a_corrupted_cache_file_is_reported_and_trained_again(tmp_path, known):
    trained(Trained(), known, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:5])
    with pytest.warns(UserWarning, match="is unusable, training again replaces it"):
        ready, was_cached = trained(Trained(), known, cache_dir=tmp_path)
    assert (ready.state_, was_cached) == (12, False)
    assert file.read_bytes() == whole


def test_a_killed_training_is_taken_up_where_it_was(tmp_path, known, monkeypatch):
    monkeypatch.setattr(Trained, "die_at", 2)
    with pytest.raises(KeyboardInterrupt):
        trained(Trained(), known, cache_dir=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    monkeypatch.setattr(Trained, "die_at", None)
    trained(Trained(), known, cache_dir=tmp_path)
    assert Trained.runs == [0, 2]
    assert not list(tmp_path.glob("*.partial"))


def test_out_is_written_from_the_cache_too(tmp_path, known):
    for name in ("a", "b"):
        trained(Trained(), known, cache_dir=tmp_path / "cache", out=tmp_path / name / "out.st")
        assert load_checkpoint(Trained(), tmp_path / name / "out.st").state_ == 12
    assert Trained.runs == [0]


def test_a_checkpoint_of_the_user_is_never_replaced(tmp_path):
    with pytest.raises(FewShotError, match=r"no checkpoint at .*fewshot-ad train --out"):
        load_checkpoint(Trained(), tmp_path / "none")
    torn = tmp_path / "torn.safetensors"
    torn.write_text('{"sta')
    with pytest.raises(FewShotError, match=r"torn.safetensors is not a readable checkpoint"):
        load_checkpoint(Trained(), torn)
    assert torn.exists()
    torn.write_text("[]")
    with pytest.raises(FewShotError, match="is of another method"):
        load_checkpoint(Trained(), torn)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.safetensors"
    method = Trained()
    method.state_ = 1
    save_checkpoint(method, path)

    def half(self: Trained, file: Path) -> None:
        file.write_text('{"st')
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trained, "save", half)
        with pytest.raises(FewShotError, match="No space left"):
            save_checkpoint(method, path)
    assert load_checkpoint(Trained(), path).state_ == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, known):
    (tmp_path / "file").write_text("")
    with pytest.raises(FewShotError, match="FEWSHOT_AD_CACHE"):
        trained(Trained(), known, cache_dir=tmp_path / "file")


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSHOT_AD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "checkpoints"
    monkeypatch.delenv("FEWSHOT_AD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fewshot-ad" / "checkpoints"


def test_the_trained_method_predicts(tmp_path, known):
    ready, _ = trained(Trained(), known, cache_dir=tmp_path)
    (batch,) = known.normals("painted/disc", SMALL)
    assert ready.fit(Support("disc", batch.images)).predict(batch.images).image_score.shape == (6,)


def test_of_two_that_want_one_checkpoint_one_trains(tmp_path, known, monkeypatch):
    monkeypatch.setattr(Trained, "pause", 0.05)
    with ThreadPoolExecutor(2) as pool:
        ready = list(pool.map(lambda _: trained(Trained(), known, cache_dir=tmp_path), range(2)))
    assert sorted(was_cached for _, was_cached in ready) == [False, True]
    assert Trained.runs == [0]
