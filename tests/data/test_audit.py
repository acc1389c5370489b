from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import Sample
from fewshot_ad.data.audit import audit
from fewshot_ad.data.folder import Folder
from fewshot_ad.data.mvtec_ad import MVTecAD


def write(root, *paths, seed=None, size_hw=(8, 6), mode="RGB"):
    """One image of noise per path, all different unless a seed is given; masks are marked."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(crc32(path.encode()) if seed is None else seed)
        pixels = rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(file)


@pytest.fixture
def root(tmp_path):
    """A class with nothing to mend."""
    write(
        tmp_path,
        "nut/train/good/000.png",
        "nut/train/good/001.png",
        "nut/test/good/000.png",
        "nut/test/bent/000.png",
        "nut/test/bent/001.png",
        "nut/ground_truth/bent/000_mask.png",
        "nut/ground_truth/bent/001_mask.png",
    )
    return tmp_path


def findings(root):
    return {(f.severity, f.what): f.details for f in audit(Folder(root)).findings}


def test_a_clean_folder_has_counts_and_no_findings(root):
    write(root, "nut/train/good/big.png", size_hw=(20, 10), mode="L")
    result = audit(Folder(root))
    assert result.findings == ()
    assert result.clean
    (count,) = result.counts
    assert (count.train, count.test_normal, count.test_anomalous, count.with_mask) == (3, 1, 2, 2)
    assert (count.smallest, count.largest) == ((8, 6), (20, 10))
    assert result.modes == {"L": 1, "RGB": 5}
    assert result.dataset == "folder"


def _truncate(root, path):
    file = root / path
    file.write_bytes(file.read_bytes()[:60])


def _blacken(root, path):
    Image.new("L", (6, 8)).save(root / path)


BENT, MASK = "nut/test/bent/000.png", "nut/ground_truth/bent/000_mask.png"
NEW = "nut/test/bent/new.png"
FAULTS = {
    "truncated image": (lambda r: _truncate(r, BENT), "error", "image cannot be read", BENT),
    "empty image": (lambda r: (r / BENT).write_bytes(b""), "error", "image cannot be read", BENT),
    "no image": (lambda r: (r / BENT).write_text("x"), "error", "image cannot be read", BENT),
    "truncated mask": (lambda r: _truncate(r, MASK), "error", "mask cannot be read", MASK),
    "mis-sized mask": (
        lambda r: write(r, MASK, size_hw=(5, 5)),
        "error",
        "mask of another size than its image",
        "is 5x5 pixels",
    ),
    "missing mask": (lambda r: (r / MASK).unlink(), "warning", "anomaly without a mask", BENT),
    "empty mask": (lambda r: _blacken(r, MASK), "warning", "empty mask of an anomaly", MASK),
    "jpeg mask": (
        lambda r: (write(r, NEW), write(r, "nut/ground_truth/bent/new.jpg")),
        "warning",
        "mask with lossy compression: its noise counts as defect",
        "new.jpg",
    ),
    "mask for a normal image": (
        lambda r: write(r, "nut/ground_truth/good/000_mask.png"),
        "warning",
        "mask for a normal image, ignored",
        "good/000_mask.png",
    ),
    "defects in train": (
        lambda r: write(r, "nut/train/bent/000.png"),
        "warning",
        "image that serves as neither sample nor mask",
        "nut/train/bent/000.png",
    ),
    "train in test": (
        lambda r: write(r, "nut/train/good/a.png", "nut/test/good/b.png", seed=1),
        "error",
        "same pixels in train and test",
        "nut/train/good/a.png = nut/test/good/b.png",
    ),
    "twice in train": (
        lambda r: write(r, "nut/train/good/a.png", "nut/train/good/b.png", seed=1),
        "warning",
        "same pixels twice in train",
        "nut/train/good/a.png = nut/train/good/b.png",
    ),
    "twice in test": (
        lambda r: write(r, "nut/test/good/a.png", "nut/test/good/b.png", seed=1),
        "warning",
        "same pixels twice in test",
        "nut/test/good/a.png = nut/test/good/b.png",
    ),
    "normal and anomalous": (
        lambda r: write(r, "nut/test/good/a.png", BENT, seed=1),
        "error",
        "same pixels as a normal and as an anomalous image",
        f"{BENT} = nut/test/good/a.png",
    ),
    "empty class": (
        lambda r: (r / "bolt").mkdir(),
        "error",
        "the class cannot be used",
        "bolt holds no images",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_nothing_else(root, fault):
    make, severity, what, detail = FAULTS[fault]
    make(root)
    found = findings(root)
    assert list(found) == [(severity, what)]
    assert len(found[severity, what]) == 1
    assert detail in found[severity, what][0]
    assert not audit(Folder(root)).clean


def test_equal_pixels_in_different_files_are_duplicates(root):
    Image.open(root / "nut/train/good/000.png").save(root / "nut/test/good/copy.bmp")
    assert ("error", "same pixels in train and test") in findings(root)


def test_equal_pixels_in_two_classes(root):
    write(root, "bolt/train/good/0.png", "nut/train/good/copy.png", seed=1)
    write(root, "bolt/test/bent/0.png", "bolt/ground_truth/bent/0.png", "bolt/test/good/1.png")
    assert list(findings(root)) == [("warning", "same pixels in several classes")]


def test_equal_bytes_of_another_shape_are_no_duplicates(root):
    Image.new("RGB", (6, 8)).save(root / "nut/train/good/a.png")
    Image.new("RGB", (8, 6)).save(root / "nut/train/good/b.png")
    assert findings(root) == {}


def test_no_masks_at_all_is_a_note(root):
    for file in (root / "nut/ground_truth/bent").iterdir():
        file.unlink()
    result = audit(Folder(root))
    assert [(f.severity, f.what) for f in result.findings] == [
        ("note", "no masks at all: pixel metrics stay empty")
    ]
    assert result.clean
    assert result.counts[0].with_mask == 0


@pytest.mark.parametrize(
    ("gone", "what"),
    [
        (["nut/train"], "no normal images in train: no support can be drawn"),
        (["nut/test/good"], "no normal image in test: nothing can be evaluated"),
        (["nut/test/bent"], "no anomalous image in test: nothing can be evaluated"),
    ],
)
def test_missing_splits(root, gone, what):
    for folder in gone:
        for file in (root / folder).rglob("*.png"):
            file.unlink()
    assert ("warning", what) in findings(root)


def test_published_counts_are_compared(root):
    (root / "nut").rename(root / "screw")
    result = audit(MVTecAD(root))
    assert [f.what for f in result.findings] == [
        "(2, 3) images in train and test, (320, 160) expected"
    ]


def test_progress_counts_every_image(root):
    calls = []
    audit(Folder(root), lambda done, total: calls.append((done, total)))
    assert calls == [(n, 5) for n in range(1, 6)]


class Drawn:
    """A dataset without files."""

    name = "drawn"
    classes = ("a",)

    def train(self, class_name):
        return (Sample("a/0", "a", False), Sample("a/1", "a", False))

    def test(self, class_name):
        return (Sample("a/2", "a", False), Sample("a/3", "a", True, None, "hole"))

    def read_image(self, sample):
        return np.full((4, 5, 3), int(sample.path[-1]), dtype=np.uint8)

    def read_mask(self, sample):
        return np.eye(4, 5, dtype=bool)

    def digest(self, sample):
        return sample.path


def test_a_dataset_without_files_is_checked_too():
    result = audit(Drawn())
    assert result.findings == ()
    assert result.modes == {}
    assert result.counts[0].with_mask == 1
