import os
from pathlib import PurePosixPath

import numpy as np
import pytest

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.export import export
from fewshot_ad.data.folder import Folder


class Drawn:
    """Two classes without files; stems repeat, one anomaly has no mask and no kind of defect."""

    name = "drawn"
    classes = ("a", "b")

    def train(self, class_name):
        return tuple(Sample(f"{class_name}/train/{n}.jpg", class_name, False) for n in range(3))

    def test(self, class_name):
        return (
            Sample(f"{class_name}/x/0.jpg", class_name, False),
            Sample(f"{class_name}/x/0.png", class_name, False),
            Sample(f"{class_name}/y/0.png", class_name, True, "y", "hole"),
            Sample(f"{class_name}/y/1.png", class_name, True),
        )

    def read_image(self, sample):
        seed = int.from_bytes(sample.path.encode(), "big")
        return np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)

    def read_mask(self, sample):
        if sample.is_anomalous and sample.mask_path is None:
            return None
        return self.read_image(sample)[..., 0] > (128 if sample.is_anomalous else 255)

    def digest(self, sample):
        return sample.path


def test_exported_and_read_again_is_the_same(tmp_path):
    drawn, calls = Drawn(), []
    assert export(drawn, tmp_path / "out", lambda *done: calls.append(done)) == 14
    assert calls == [(n, 14) for n in range(1, 15)]
    folder = Folder(tmp_path / "out")
    assert folder.classes == drawn.classes
    for name in drawn.classes:
        for ours, theirs in [
            (folder.train(name), drawn.train(name)),
            (sorted(folder.test(name), key=by_kind), sorted(drawn.test(name), key=by_kind)),
        ]:
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs, strict=True):
                assert a.is_anomalous == b.is_anomalous
                assert np.array_equal(folder.read_image(a), drawn.read_image(b))
                assert_same(folder.read_mask(a), drawn.read_mask(b))


def by_kind(sample):
    """Normals first, then by defect, each kind in its own order."""
    return sample.is_anomalous, sample.defect != "hole"


def assert_same(ours, theirs):
    if theirs is None:
        assert ours is None
    else:
        assert np.array_equal(ours, theirs)


def test_layout_and_names(tmp_path):
    export(Drawn(), tmp_path / "deep" / "out")
    root = tmp_path / "deep" / "out"
    written = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
    assert [path for path in written if path.startswith("a/")] == [
        "a/ground_truth/hole/0_mask.png",
        "a/test/defect/1.png",
        "a/test/good/0.png",
        "a/test/good/0_2.png",
        "a/test/hole/0.png",
        "a/train/good/0.png",
        "a/train/good/1.png",
        "a/train/good/2.png",
    ]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_empty_folder_may_be_given(tmp_path):
    (tmp_path / "out").mkdir()
    assert export(Drawn(), tmp_path / "out") == 14


def test_the_folder_can_be_entered_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        export(Drawn(), tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("target", ["full", "file", "file/out"])
def test_bad_targets_are_refused_and_left_alone(tmp_path, target):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FewShotError, match="choose another place"):
        export(Drawn(), tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "precious.txt").read_text() == "kept"


class Broken(Drawn):
    def __init__(self, error):
        self.error = error

    def read_image(self, sample):
        if PurePosixPath(sample.path).stem == "1" and sample.class_name == "b":
            raise self.error
        return super().read_image(sample)


@pytest.mark.parametrize("error", [FewShotError("b/1.jpg is damaged"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failed_export(tmp_path, error):
    with pytest.raises(type(error)):
        export(Broken(error), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
