"""``part.fsad``: back to the bit, and refused in one line when it is damaged, edited or hostile."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from painted import Painted

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.inspection import Inspector, archive
from fewshot_ad.methods import load_method

OLD = Path(__file__).parent / "format_1.fsad"
PLATES = Painted(n_train=6)
TINY = Preprocess(size=64)


def arrays(n=3):
    return [PLATES.read_image(sample) for sample in PLATES.train("plate")[:n]]


def defect():
    return PLATES.read_image(PLATES.test("plate")[7])


def made(method="patchcore", **changes):
    params = {"backbone": "random:tiny", "preprocess": TINY, "levels": (1, 2), **changes}
    return Inspector.from_normals(arrays(), method, far=0.3, name="plate", **params)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "part.fsad"
    made().save(path)
    return path


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_raw(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def resealed(path, out, **changes):
    """As a hostile hand would: other JSON, with a manifest that fits."""
    members = members_of(path)
    about = json.loads(members["inspector.json"]) | changes
    members = {k: v for k, v in members.items() if k != "manifest.json"}
    archive.write_archive(out, members | {"inspector.json": json.dumps(about).encode()})
    return out


def refused(path, words, **options):
    with pytest.raises(FewShotError, match=words) as told:
        Inspector.load(path, **options)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", ["patchcore", "padim", "residual_distance"])
def test_what_comes_back_judges_to_the_bit(method, tmp_path):
    inspector = made(method)
    inspector.save(tmp_path / "part.fsad")
    back = Inspector.load(tmp_path / "part.fsad")
    first, second = (i.predict([defect(), *arrays()]) for i in (inspector, back))
    for one, other in zip(first, second, strict=True):
        assert one.as_row() == other.as_row()
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
        np.testing.assert_array_equal(one.overlay(), other.overlay())
    assert (back.promise, back.views, back.normals) == (
        inspector.promise,
        inspector.views,
        inspector.normals,
    )


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    Inspector.load(saved).save(tmp_path / "again.fsad")
    assert (tmp_path / "again.fsad").read_bytes() == saved.read_bytes()


def test_recalibration_is_kept(saved, tmp_path):
    inspector = Inspector.load(saved).recalibrate(arrays(6)[3:])
    inspector.save(tmp_path / "part.fsad")
    assert Inspector.load(tmp_path / "part.fsad").calibration == inspector.calibration


def meta_trained(**changes):
    from fewshot_ad.evaluation.known import known_images

    known = known_images([(Painted(), ("disc", "rod"))])
    size = {"backbone": "random:tiny", "preprocess": TINY, "levels": (2,), "channels": 8}
    resad = load_method("resad", steps=2, flow_blocks=1, known_shots=2, **size, **changes)
    return Inspector.from_normals(arrays(), resad.meta_train(known))


def test_a_meta_trained_method_brings_its_checkpoint(tmp_path):
    inspector = meta_trained(constrained_channels=4)
    inspector.save(tmp_path / "part.fsad")
    assert "checkpoint.safetensors" in members_of(tmp_path / "part.fsad")
    back = Inspector.load(tmp_path / "part.fsad")
    assert back.predict(defect())[0].as_row() == inspector.predict(defect())[0].as_row()


def test_a_file_from_before_the_constraintor_could_be_narrow_means_a_wide_one(tmp_path):
    inspector = meta_trained(constrained_channels=None)
    inspector.save(tmp_path / "new.fsad")
    stored = json.loads(members_of(tmp_path / "new.fsad")["inspector.json"])
    del stored["params"]["constrained_channels"]
    old = resealed(tmp_path / "new.fsad", tmp_path / "old.fsad", params=stored["params"])
    assert load_method("resad").constrained_channels is not None
    back = Inspector.load(old)
    assert back.method.constrained_channels is None
    assert back.predict(defect())[0].as_row() == inspector.predict(defect())[0].as_row()


def test_an_old_file_is_read_by_this_version():
    """Written by the first version that had this format; never written again.

    Its method, patchcore, has counted zeros beyond the border since: the file is read, and says so.
    """
    with pytest.warns(UserWarning, match="scores have changed since it was fitted"):
        inspector = Inspector.load(OLD)
    bad, good = inspector.predict([defect(), arrays()[0]])
    stored = json.loads(members_of(OLD)["inspector.json"])
    assert stored["normals"] == list(inspector.normals)
    assert inspector.calibration.scores == tuple(stored["calibration"]["scores"])
    assert bad.score == pytest.approx(0.514373, rel=1e-4)
    assert (bad.decision, good.decision) == ("NOT OK", "OK")
    assert OLD.stat().st_size < 60_000


def test_a_truncated_file_is_refused_wherever_it_ends(saved, tmp_path):
    content = saved.read_bytes()
    for length in [0, 1, 100, *range(200, len(content), len(content) // 23), len(content) - 1]:
        (tmp_path / "cut.fsad").write_bytes(content[:length])
        refused(tmp_path / "cut.fsad", "cannot be opened")


def test_a_flipped_byte_never_goes_unnoticed(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    good = Inspector.load(saved).calibration
    for place in range(0, len(content), len(content) // 61):
        changed = content.copy()
        changed[place] ^= 0x55
        (tmp_path / "bad.fsad").write_bytes(bytes(changed))
        try:
            assert Inspector.load(tmp_path / "bad.fsad").calibration == good  # unused zip fields
        except FewShotError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is fine


def test_an_edited_member_is_named(saved, tmp_path):
    members = members_of(saved)
    about = members["inspector.json"].replace(b'"far": 0.3', b'"far": 0.9')
    assert about != members["inspector.json"]
    write_raw(tmp_path / "x.fsad", members | {"inspector.json": about})
    refused(tmp_path / "x.fsad", "edited or damaged: inspector.json")
    del members["normals/00001.png"]
    write_raw(tmp_path / "x.fsad", members)
    refused(tmp_path / "x.fsad", "normals/00001.png")


def test_an_edited_manifest_is_refused(saved, tmp_path):
    members = members_of(saved)
    about = members["inspector.json"].replace(b'"far": 0.3', b'"far": 0.9')
    manifest = json.loads(members["manifest.json"])
    entry = {"bytes": len(about), "sha256": hashlib.sha256(about).hexdigest()}
    manifest["members"]["inspector.json"] = entry
    changed = {"inspector.json": about, "manifest.json": json.dumps(manifest).encode()}
    write_raw(tmp_path / "x.fsad", members | changed)
    refused(tmp_path / "x.fsad", "manifest.json is not what was saved")


def test_a_newer_format_says_update(saved, tmp_path):
    members = members_of(saved)
    manifest = json.loads(members["manifest.json"]) | {"format": 2}
    write_raw(tmp_path / "x.fsad", members | {"manifest.json": json.dumps(manifest).encode()})
    refused(tmp_path / "x.fsad", "has format 2.*update fewshot-ad")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/x", "normals/../../x", "a.pkl", "C:\\x"])
def test_a_member_that_would_escape_is_refused(saved, tmp_path, name):
    members = {**members_of(saved), name: b"x"}
    refused(write_raw(tmp_path / "x.fsad", members), "does not belong there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.fsad"]


def test_a_bomb_is_not_unpacked(saved, tmp_path, monkeypatch):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", b" " * (9 * 2**20))
    (tmp_path / "x.fsad").write_bytes(content.getvalue())
    assert len(content.getvalue()) < 50_000
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    refused(tmp_path / "x.fsad", "larger than 8 MB")
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    refused(saved, "would unpack to more")


def test_twice_the_same_member_is_refused(saved, tmp_path):
    path = write_raw(tmp_path / "x.fsad", members_of(saved))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("inspector.json", b"{}")
    refused(path, "come twice")


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"backbone": "os.path:join"}},
        {"params": {"backbone": "/tmp/a place/evil.py:factory"}},
        {"params": {"backbone": "bf16:evil:factory"}},
        {"params": {"x": [{"y:z": 1}]}},
        {"method": "strangers:NearestEdges"},
    ],
)
def test_a_file_cannot_have_code_imported(saved, tmp_path, changes):
    about = json.loads(members_of(saved)["inspector.json"])
    changes = {k: v if k == "method" else about["params"] | v for k, v in changes.items()}
    refused(resealed(saved, tmp_path / "x.fsad", **changes), "names code")


def test_a_strangers_method_needs_trust(tmp_path):
    inspector = Inspector.from_normals(arrays(), "strangers:NearestEdges", preprocess=TINY)
    inspector.save(tmp_path / "part.fsad")
    refused(tmp_path / "part.fsad", "trust=True")
    back = Inspector.load(tmp_path / "part.fsad", trust=True)
    assert back.predict(defect())[0].score == inspector.predict(defect())[0].score


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {}},
        {"calibration": {"source": "x", "scores": [], "peaks": [], "floor": 0}},
        {"normals": []},
        {"normals": ["a"] * 9},
        {"params": None},
        {"params": {"preprocess": {"size": "64"}}},
        {"method": "nothing"},
        {"rule": {"far": 2}},
        {"views": 3},
        {"weights_digest": "0"},
        {"probe": "x"},
        {"name": None},
    ],
    ids=str,
)
def test_odd_content_is_refused_in_one_line(saved, tmp_path, changes):
    path = resealed(saved, tmp_path / "x.fsad", **changes)
    refused(path, "x.fsad")


def test_scores_that_have_changed_are_told_of(saved, tmp_path):
    probe = json.loads(members_of(saved)["inspector.json"])["probe"]
    path = resealed(saved, tmp_path / "x.fsad", probe=probe * 1.05)
    with pytest.warns(UserWarning, match="scores have changed"):
        Inspector.load(path)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(self, data):
        Path.touch(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FewShotError, match=r"No space left on device.*make room"):
        made().save(tmp_path / "part.fsad")
    assert [*tmp_path.iterdir()] == []


def test_what_is_no_archive_is_refused(tmp_path):
    refused(tmp_path / "none.fsad", "there is no file")
    (tmp_path / "text.fsad").write_text("hello")
    refused(tmp_path / "text.fsad", "cannot be opened")
    refused(write_raw(tmp_path / "zip.fsad", {"a.txt": b"x"}), "no manifest")
