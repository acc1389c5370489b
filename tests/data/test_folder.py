import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.data import dataset_class, list_datasets, load_dataset
from fewshot_ad.data.folder import Folder
from fewshot_ad.data.mvtec_ad import MVTecAD

SHARED = Path(os.environ.get("FEWSHOT_AD_SHARED", Path(__file__).parents[2].parent / "shared"))


def write(root, *paths, size_hw=(8, 6)):
    """One image per path, of pixels that depend on the path; masks have their first row marked."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(path)).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        if "ground_truth" in path.lower():
            pixels[:] = 0
            pixels[0] = 1
        Image.fromarray(pixels).save(file, format="PNG")


def paths(samples):
    return [sample.path for sample in samples]


@pytest.fixture
def root(tmp_path):
    write(
        tmp_path,
        "nut/train/good/000.png",
        "nut/train/good/001.png",
        "nut/test/good/000.png",
        "nut/test/bent/000.png",
        "nut/test/bent/001.png",
        "nut/test/scratch/000.png",
        "nut/ground_truth/bent/000_mask.png",
        "nut/ground_truth/bent/001_mask.png",
        "bolt/train/good/000.png",
    )
    return tmp_path


# Layout


def test_reads_the_layout_of_mvtec(root):
    folder = Folder(root)
    assert isinstance(folder, Dataset)
    assert folder.classes == ("bolt", "nut")
    assert folder.train("nut") == (
        Sample("nut/train/good/000.png", "nut", is_anomalous=False),
        Sample("nut/train/good/001.png", "nut", is_anomalous=False),
    )
    bent = "nut/ground_truth/bent/00{}_mask.png"
    assert folder.test("nut") == (
        Sample("nut/test/bent/000.png", "nut", True, bent.format(0), "bent"),
        Sample("nut/test/bent/001.png", "nut", True, bent.format(1), "bent"),
        Sample("nut/test/good/000.png", "nut", False),
        Sample("nut/test/scratch/000.png", "nut", True, None, "scratch"),
    )
    assert folder.test("bolt") == ()
    assert folder.unused("nut") == ()


def test_the_root_may_be_one_class(root):
    folder = load_dataset(f"folder:{root / 'nut'}")
    assert folder.classes == ("nut",)
    assert paths(folder.train("nut")) == ["train/good/000.png", "train/good/001.png"]
    assert folder.read_image(folder.test("nut")[0]).shape == (8, 6, 3)


@pytest.mark.parametrize("normal", ["good", "ok", "OK", "normal", "Normal"])
def test_normal_folders_have_several_names(tmp_path, normal):
    write(tmp_path, f"a/Train/{normal}/0.png", f"a/TEST/{normal}/0.png", "a/TEST/ko/0.png")
    folder = Folder(tmp_path)
    assert paths(folder.train("a")) == [f"a/Train/{normal}/0.png"]
    assert [sample.is_anomalous for sample in folder.test("a")] == [
        "ko" in sample.path for sample in folder.test("a")
    ]
    assert len(folder.test("a")) == 2


def test_images_may_lie_directly_in_train(tmp_path):
    write(tmp_path, "a/train/0.png", "a/train/1.png", "a/test/bad/0.png")
    assert paths(Folder(tmp_path).train("a")) == ["a/train/0.png", "a/train/1.png"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("007.png", "007.png"),
        ("007.JPG", "007.png"),
        ("007.bmp", "007_mask.PNG"),
        ("007.png", "007_label.bmp"),
        ("007.png", "007_GT.png"),
        ("007.png", "007_gt.png"),
        ("Part7.JPG", "part7_MASK.tif"),
    ],
)
def test_masks_are_paired_by_stem(tmp_path, image, mask):
    write(tmp_path, "a/train/good/0.png", f"a/test/Hole/{image}", f"a/Ground_Truth/hole/{mask}")
    write(tmp_path, "a/Ground_Truth/hole/001_mask.png", "a/Ground_Truth/other/007_mask.png")
    (sample,) = Folder(tmp_path).test("a")
    assert sample.mask_path == f"a/Ground_Truth/hole/{mask}"
    assert sample.defect == "Hole"


def test_stems_that_differ_in_case_keep_their_own_masks(tmp_path):
    write(tmp_path, *(f"a/test/bad/{stem}.png" for stem in "xX"), "a/train/good/0.png")
    write(tmp_path, *(f"a/ground_truth/bad/{stem}_mask.png" for stem in "xX"))
    for sample in Folder(tmp_path).test("a"):
        assert sample.mask_path == f"a/ground_truth/bad/{Path(sample.path).stem}_mask.png"


def test_order_is_natural_and_not_that_of_the_file_system(tmp_path, monkeypatch):
    names = ["2.png", "10.png", "010.png", "1a.png", "1B.png", "z9.png", "Ä1.png", "٣.png"]
    write(tmp_path, *(f"a/train/good/{name}" for name in names))
    expected = ["1B.png", "1a.png", "2.png", "010.png", "10.png", "z9.png", "Ä1.png", "٣.png"]
    listed = Path.iterdir

    def shuffled(self):
        entries = list(listed(self))
        random.Random(3).shuffle(entries)
        return iter(entries)

    for _ in range(2):
        assert [Path(p).name for p in paths(Folder(tmp_path).train("a"))] == expected
        monkeypatch.setattr(Path, "iterdir", shuffled)


def test_hidden_files_and_strangers_are_left_out(root):
    (root / "nut/train/good/notes.txt").write_text("not an image")
    write(root, "nut/train/good/.000.png", "nut/.thumbs/000.png", ".cache/train/good/0.png")
    write(root, "docs/figure.png")
    folder = Folder(root)
    assert folder.classes == ("bolt", "nut")
    assert len(folder.train("nut")) == 2
    assert folder.unused("nut") == ()


def test_unused_images_are_named(root):
    strays = ["nut/ground_truth/good/000_mask.png", "nut/test/5.png", "nut/train/bad/000.png"]
    write(root, *strays)
    assert Folder(root).unused("nut") == tuple(strays)


# Reading


def test_masks(root):
    folder = Folder(root)
    bent, _, normal, scratch = folder.test("nut")
    mask = folder.read_mask(bent)
    assert mask is not None
    assert mask[0].all()
    assert not mask[1:].any()
    nothing = folder.read_mask(normal)
    assert nothing is not None
    assert nothing.shape == (8, 6)
    assert not nothing.any()
    assert folder.read_mask(scratch) is None


def test_a_mask_beside_a_normal_image_is_ignored(root):
    write(root, "nut/ground_truth/good/000_mask.png")
    normal = Folder(root).test("nut")[2]
    assert normal.mask_path is None
    mask = Folder(root).read_mask(normal)
    assert mask is not None
    assert not mask.any()


def test_a_mask_of_another_size_names_both_sizes(root):
    write(root, "nut/ground_truth/bent/000_mask.png", size_hw=(9, 5))
    with pytest.raises(FewShotError, match=r"000_mask\.png is 5x9 pixels.*6x8"):
        Folder(root).read_mask(Folder(root).test("nut")[0])


def test_digest_is_that_of_the_file_and_read_once(root):
    folder = Folder(root)
    sample = folder.train("nut")[0]
    expected = hashlib.sha256((root / sample.path).read_bytes()).hexdigest()
    assert folder.digest(sample) == expected
    (root / sample.path).unlink()
    assert folder.digest(sample) == expected
    with pytest.raises(FewShotError, match="cannot read"):
        Folder(root).digest(sample)


@pytest.mark.parametrize("path", ["../secret.png", "nut/../../secret.png", "/secret.png", "a\0b"])
@pytest.mark.parametrize("how", ["read_image", "read_mask", "digest"])
def test_paths_that_leave_the_root_are_refused(root, path, how):
    write(root.parent, "secret.png")
    folder = Folder(root)
    with pytest.raises(FewShotError, match="leads out of"):
        getattr(folder, how)(Sample(path, "nut", is_anomalous=False))
    if how == "read_mask":
        with pytest.raises(FewShotError, match="leads out of"):
            folder.read_mask(Sample("nut/test/bent/000.png", "nut", True, path, "bent"))


def test_links_that_leave_the_root_are_refused(root):
    write(root.parent / "elsewhere", "secret.png")
    (root / "nut/train/good/002.png").symlink_to(root.parent / "elsewhere/secret.png")
    (root / "nut/train/good/003.png").symlink_to(root / "nut/train/good/000.png")
    folder = Folder(root)
    *_, outside, inside = folder.train("nut")
    with pytest.raises(FewShotError, match="leads out of"):
        folder.read_image(outside)
    assert folder.read_image(inside).shape == (8, 6, 3)


def test_the_root_itself_may_be_a_link(root, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(root)
    folder = Folder(link)
    assert folder.read_image(folder.train("nut")[0]).shape == (8, 6, 3)


# What users get wrong


def test_an_empty_class_folder_is_named(root):
    (root / "washer").mkdir()
    (root / "gear/train/good").mkdir(parents=True)
    folder = Folder(root)
    assert folder.classes == ("bolt", "gear", "nut", "washer")
    assert len(folder.train("nut")) == 2
    for name in ("washer", "gear"):
        with pytest.raises(FewShotError, match=rf"class folder .*{name} holds no images"):
            folder.train(name)


def test_an_unknown_class_suggests_the_nearest(root):
    with pytest.raises(FewShotError, match="did you mean 'bolt'"):
        Folder(root).train("bolts")


BAD_SPECS = {
    "folder": "needs its root; give it as folder:ROOT",
    "folder:{root}/absent": "does not exist",
    "folder:{root}/nut/train/good/000.png": "is a file",
    "folder:{root}/nut/train/good": "holds no class",
    "foldre:{root}": "did you mean 'folder'",
    "mvtec_ad": "download 4.9 GB from https://www.mvtec.com",
    "mvtec_ad:{root}/absent": "does not exist; give a folder; download 4.9 GB",
    "mvtec_ad:{root}": "none of the 15 classes of MVTec AD",
    "synthetic:{root}": "root",
}


@pytest.mark.parametrize("spec", BAD_SPECS)
def test_bad_specs_are_one_clear_line(root, spec):
    with pytest.raises(FewShotError) as caught:
        load_dataset(spec.format(root=root))
    assert BAD_SPECS[spec] in str(caught.value)
    assert "\n" not in str(caught.value)


# The datasets by name


def test_datasets_are_found_by_file_name():
    assert {"folder", "mvtec_ad", "synthetic"} <= set(list_datasets())
    assert not {"audit", "export"} & set(list_datasets())
    assert dataset_class("mvtec_ad") is MVTecAD


def test_mvtec_knows_its_published_counts():
    assert len(MVTecAD.expected) == 15
    trains, tests = zip(*MVTecAD.expected.values(), strict=True)
    assert (sum(trains), sum(tests)) == (3629, 1725)


def test_mvtec_reads_the_classes_that_are_there(tmp_path):
    write(tmp_path / "data", "screw/train/good/000.png", "bottle/train/good/000.png")
    write(tmp_path / "data", "candle/train/good/000.png")
    assert load_dataset(f"mvtec_ad:{tmp_path / 'data'}").classes == ("bottle", "screw")
    with pytest.raises(FewShotError, match=r"did you mean .*data\?"):
        MVTecAD(tmp_path)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"no real images in {SHARED}")
def test_counts_of_the_real_images():
    folder = Folder(SHARED / "data")
    counts = {}
    for name in folder.classes:
        anomalies = [sample for sample in folder.test(name) if sample.is_anomalous]
        masks = sum(sample.mask_path is not None for sample in anomalies)
        normal = len(folder.test(name)) - len(anomalies)
        counts[name] = (len(folder.train(name)), normal, len(anomalies), masks)
    assert counts == {
        "bottle": (209, 20, 63, 63),
        "brats_brain": (64, 90, 300, 300),
        "elpv_mono": (412, 176, 313, 0),
        "kolektorsdd": (230, 103, 50, 50),
        "magnetic_tile": (752, 200, 388, 388),
    }
    sample = folder.test("kolektorsdd")[0]
    mask = folder.read_mask(sample)
    assert mask is not None
    assert mask.shape == folder.read_image(sample).shape[:2]
