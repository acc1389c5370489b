"""Every published dataset on a miniature of its tree, drawn here with its quirks."""

import json

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import asset
from fewshot_ad.data import dataset_class, list_datasets, load_dataset
from fewshot_ad.data.audit import audit
from fewshot_ad.data.published import Published
from fewshot_ad.data.real_iad import RealIAD

HEIGHT, WIDTH = 16, 24


def draw(root, tree):
    """Files by path: None is a photograph, a number a mask with this code in its first two rows."""
    for number, (path, content) in enumerate(tree.items()):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_text(content, encoding="utf-8")
            continue
        if content is None:
            rng = np.random.default_rng(number)
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        else:
            pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            pixels[:2] = content
        Image.fromarray(pixels).save(file)
    return root


def boxes(*lines):
    return "".join(f"{line}\n" for line in lines)


MVTEC = {
    "{0}/train/good/000.png": None,
    "{0}/test/good/000.png": None,
    "{0}/test/bad/000.png": None,
    "{0}/ground_truth/bad/000_mask.png": 255,
}


def mvtec(class_name):
    return {path.format(class_name): content for path, content in MVTEC.items()}


def mvtec_truth(class_name):
    train, normal, anomaly, mask = mvtec(class_name)
    return {class_name: ([train], [normal], {anomaly: (mask, "bad")})}


VIEW = "S0001/tape_0001_{}_C1_20230912.{}"
REAL_OK, REAL_NG, REAL_MASK = "OK/" + VIEW, "NG/QS/" + VIEW, "NG/QS/" + VIEW
REAL_OK, REAL_NG = REAL_OK.format("OK", "jpg"), REAL_NG.format("NG_QS", "jpg")
REAL_MASK = REAL_MASK.format("NG_QS", "png")


def real_entry(image, mask=None, kind="OK"):
    return {"category": "tape", "anomaly_class": kind, "image_path": image, "mask_path": mask}


VISA_TABLE = "object,split,label,image,mask\n" + boxes(
    "pcb1,train,normal,pcb1/Data/Images/Normal/0001.JPG,",
    "pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,",
    "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png",
)
PCB = "group00041/00041/00041{:03}_{}.jpg"

# name -> files, then by class: train, normal test images, anomalies with their mask and kind
CASES = {
    "mvtec_ad": (mvtec("screw"), mvtec_truth("screw")),
    "mpdd": (
        mvtec("tubes") | {"tubes/ground_truth/bad/000_mask.png": 7},
        mvtec_truth("tubes"),
    ),
    "dtd_synthetic": (
        mvtec("Woven_001") | mvtec("Another_007"),
        mvtec_truth("Another_007") | mvtec_truth("Woven_001"),
    ),
    "btad": (
        {
            "01/train/ok/0000.bmp": None,
            "01/test/ok/0000.bmp": None,
            "01/test/ko/0000.bmp": None,
            "01/ground_truth/ko/0000.png": 255,
            "03/train/ok/0001.bmp": None,
            "03/test/ok/0001.bmp": None,
            "03/test/ko/0001.bmp": None,
            "03/ground_truth/ko/0001.bmp": 255,
        },
        {
            "01": (
                ["01/train/ok/0000.bmp"],
                ["01/test/ok/0000.bmp"],
                {"01/test/ko/0000.bmp": ("01/ground_truth/ko/0000.png", "ko")},
            ),
            "03": (
                ["03/train/ok/0001.bmp"],
                ["03/test/ok/0001.bmp"],
                {"03/test/ko/0001.bmp": ("03/ground_truth/ko/0001.bmp", "ko")},
            ),
        },
    ),
    "mvtec_ad_2": (
        {
            "rice/train/good/000_regular.png": None,
            "rice/validation/good/000_regular.png": None,
            "rice/test_public/good/000_overexposed.png": None,
            "rice/test_public/bad/000_shift_1.png": None,
            "rice/test_public/ground_truth/bad/000_shift_1_mask.png": 255,
            "rice/test_private/000_regular.png": None,
            "rice/test_private_mixed/000_mixed.png": None,
        },
        {
            "rice": (
                ["rice/train/good/000_regular.png"],
                ["rice/test_public/good/000_overexposed.png"],
                {
                    "rice/test_public/bad/000_shift_1.png": (
                        "rice/test_public/ground_truth/bad/000_shift_1_mask.png",
                        "bad",
                    )
                },
            )
        },
    ),
    "mvtec_3d": (
        {
            "tire/train/good/rgb/000.png": None,
            "tire/train/good/xyz/000.tiff": None,
            "tire/validation/good/rgb/000.png": None,
            "tire/test/good/rgb/000.png": None,
            "tire/test/good/gt/000.png": 0,
            "tire/test/combined/rgb/000.png": None,
            "tire/test/combined/xyz/000.tiff": None,
            "tire/test/combined/gt/000.png": 3,
        },
        {
            "tire": (
                ["tire/train/good/rgb/000.png"],
                ["tire/test/good/rgb/000.png"],
                {"tire/test/combined/rgb/000.png": ("tire/test/combined/gt/000.png", "combined")},
            )
        },
    ),
    "mvtec_loco": (
        {
            "pushpins/train/good/000.png": None,
            "pushpins/validation/good/000.png": None,
            "pushpins/test/good/000.png": None,
            "pushpins/test/logical_anomalies/000.png": None,
            "pushpins/test/structural_anomalies/000.png": None,
            "pushpins/ground_truth/logical_anomalies/000/000.png": 248,
            "pushpins/ground_truth/logical_anomalies/000/001.png": 255,
            "pushpins/ground_truth/structural_anomalies/000.png": 255,  # as merged by others
        },
        {
            "pushpins": (
                ["pushpins/train/good/000.png"],
                ["pushpins/test/good/000.png"],
                {
                    f"pushpins/test/{kind}/000.png": (f"pushpins/ground_truth/{kind}/{mask}", kind)
                    for kind, mask in (
                        ("logical_anomalies", "000"),
                        ("structural_anomalies", "000.png"),
                    )
                },
            )
        },
    ),
    "visa": (
        {
            "pcb1/Data/Images/Normal/0000.JPG": None,
            "pcb1/Data/Images/Normal/0001.JPG": None,
            "pcb1/Data/Images/Anomaly/000.JPG": None,
            "pcb1/Data/Masks/Anomaly/000.png": 2,
            "pcb1/image_anno.csv": "image,label\n",
            "split_csv/1cls.csv": VISA_TABLE,
        },
        {
            "pcb1": (
                ["pcb1/Data/Images/Normal/0001.JPG"],
                ["pcb1/Data/Images/Normal/0000.JPG"],
                {
                    "pcb1/Data/Images/Anomaly/000.JPG": (
                        "pcb1/Data/Masks/Anomaly/000.png",
                        "anomaly",
                    )
                },
            )
        },
    ),
    "real_iad": (
        {
            f"realiad_1024/tape/{REAL_OK}": None,
            f"realiad_1024/tape/{REAL_OK.replace('C1', 'C2')}": None,
            f"realiad_1024/tape/{REAL_NG}": None,
            f"realiad_1024/tape/{REAL_MASK}": 255,
            "realiad_jsons/realiad_jsons/tape.json": json.dumps(
                {
                    "meta": {"prefix": "tape/"},
                    "train": [real_entry(REAL_OK)],
                    "test": [
                        real_entry(REAL_OK.replace("C1", "C2")),
                        real_entry(REAL_NG, REAL_MASK, "QS"),
                    ],
                }
            ),
        },
        {
            "tape": (
                [f"tape/{REAL_OK}"],
                [f"tape/{REAL_OK.replace('C1', 'C2')}"],
                {f"tape/{REAL_NG}": (f"tape/{REAL_MASK}", "QS")},
            )
        },
    ),
    "ksdd2": (
        {
            "train/10000.png": None,
            "train/10000_GT.png": 0,
            "train/10001.png": None,
            "train/10001_GT.png": 255,
            "test/20000.png": None,
            "test/20000_GT.png": 0,
            "test/20001.png": None,
            "test/20001_GT.png": 255,
        },
        {
            "surface": (
                ["train/10000.png"],
                ["test/20000.png"],
                {"test/20001.png": ("test/20001_GT.png", "defect")},
            )
        },
    ),
    "dagm": (
        {
            "Class10/Train/0001.PNG": None,
            "Class10/Train/0002.PNG": None,
            "Class10/Train/Label/0002_label.PNG": 255,
            "Class10/Train/Label/Labels.txt": "1\n",
            "Class10/Test/0001.PNG": None,
            "Class10/Test/0002.PNG": None,
            "Class10/Test/Label/0002_label.PNG": 255,
        },
        {
            "Class10": (
                ["Class10/Train/0001.PNG"],
                ["Class10/Test/0001.PNG"],
                {"Class10/Test/0002.PNG": ("Class10/Test/Label/0002_label.PNG", "defect")},
            )
        },
    ),
    "brats": (
        {
            "train/good/0.png": None,
            "test/good/1.png": None,
            "test/lesion/2.png": None,
            "ground_truth/lesion/2_mask.png": 4,
        },
        {
            "brain": (
                ["train/good/0.png"],
                ["test/good/1.png"],
                {"test/lesion/2.png": ("ground_truth/lesion/2_mask.png", "lesion")},
            )
        },
    ),
    "bmad": (
        {
            "Brain/train/good/img/1.png": None,
            "Brain/valid/Ungood/img/2.png": None,
            "Brain/valid/Ungood/label/2.png": 255,
            "Brain/test/good/img/3.png": None,
            "Brain/test/Ungood/img/4.png": None,
            "Brain/test/Ungood/label/4.png": 255,
            "RESC/train/good/1.png": None,
            "RESC/test/good/img/3.png": None,
            "RESC/test/good/anomaly_mask/3.png": 0,
            "RESC/test/Ungood/img/4.png": None,
            "RESC/test/Ungood/anomaly_mask/4.png": 2,
        },
        {
            "brain": (
                ["Brain/train/good/img/1.png"],
                ["Brain/test/good/img/3.png"],
                {"Brain/test/Ungood/img/4.png": ("Brain/test/Ungood/label/4.png", "Ungood")},
            ),
            "retina": (
                ["RESC/train/good/1.png"],
                ["RESC/test/good/img/3.png"],
                {"RESC/test/Ungood/img/4.png": ("RESC/test/Ungood/anomaly_mask/4.png", "Ungood")},
            ),
        },
    ),
    "mtd": (
        {f"MT_Free/Imgs/exp{n % 6 + 1}_num_{n}.jpg": None for n in (30, 7, 100, 8, 9)}
        | {
            "MT_Free/Imgs/exp2_num_7.png": 0,
            "MT_Blowhole/Imgs/exp1_num_5.jpg": None,
            "MT_Blowhole/Imgs/exp1_num_5.png": 255,
        },
        {
            "magnetic_tile": (
                [f"MT_Free/Imgs/exp{n % 6 + 1}_num_{n}.jpg" for n in (30, 7, 8, 9)],
                ["MT_Free/Imgs/exp5_num_100.jpg"],
                {
                    "MT_Blowhole/Imgs/exp1_num_5.jpg": (
                        "MT_Blowhole/Imgs/exp1_num_5.png",
                        "blowhole",
                    )
                },
            )
        },
    ),
    "deeppcb": (
        {PCB.format(n, kind): None for n in (0, 1) for kind in ("temp", "test")}
        | {
            "group00041/00041_not/00041000.txt": boxes("1 1 2 2 3"),
            "group00041/00041_not/00041001.txt": boxes("0 0 24 1 1", "0 1 24 2 2"),
            "trainval.txt": boxes(
                "group00041/00041/00041000.jpg group00041/00041_not/00041000.txt"
            ),
            "test.txt": boxes("group00041/00041/00041001.jpg group00041/00041_not/00041001.txt"),
        },
        {
            "pcb": (
                [PCB.format(0, "temp")],
                [PCB.format(1, "temp")],
                {PCB.format(1, "test"): ("group00041/00041_not/00041001.txt", "defect")},
            )
        },
    ),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    tree, truth = CASES[request.param]
    return request.param, draw(tmp_path / "data", tree), truth


def test_every_published_dataset_has_a_miniature():
    published = {name for name in list_datasets() if issubclass(dataset_class(name), Published)}
    assert published == {*CASES}


def test_the_tree_is_read(case):
    name, root, truth = case
    dataset = load_dataset(f"{name}:{root}")
    assert dataset.name == name
    assert {*dataset.classes} == {*truth}
    for class_name, (train, normal, anomalous) in truth.items():
        assert not any(sample.is_anomalous for sample in dataset.train(class_name))
        assert [sample.path for sample in dataset.train(class_name)] == sorted(train)
        test = dataset.test(class_name)
        assert [sample.path for sample in test if not sample.is_anomalous] == normal
        found = {s.path: (s.mask_path, s.defect) for s in test if s.is_anomalous}
        assert found == anomalous
        assert {s.class_name for s in (*dataset.train(class_name), *test)} == {class_name}


def test_masks_mark_what_was_drawn_whatever_their_code(case):
    name, root, truth = case
    dataset = load_dataset(f"{name}:{root}")
    for sample in (sample for class_name in truth for sample in dataset.test(class_name)):
        mask, image = dataset.read_mask(sample), dataset.read_image(sample)
        assert mask is not None
        assert mask.shape == image.shape[:2] == (HEIGHT, WIDTH)
        assert mask[:2].all() == sample.is_anomalous
        assert not mask[2:].any()
        assert len(dataset.digest(sample)) == 64


def test_an_audit_finds_only_that_images_are_few(case):
    name, root, _ = case
    found = [f.what for f in audit(load_dataset(f"{name}:{root}")).findings]
    assert all("expected" in what for what in found)
    assert bool(found) == bool(dataset_class(name).expected)


def test_info_of_the_class_is_there():
    for name in CASES:
        kind = dataset_class(name)
        for fact in (kind.title, kind.source, kind.licence, kind.layout):
            assert fact
            assert "\n" not in fact


# Trees of something else


def test_another_tree_is_told_what_is_missing_and_where_to_get_it(case, tmp_path):
    name, _, _ = case
    kind = dataset_class(name)
    draw(tmp_path / "other", {"washer/images/0.png": None, "nut/images/0.png": None})
    with pytest.raises(FewShotError) as caught:
        load_dataset(f"{name}:{tmp_path / 'other'}")
    message = str(caught.value)
    assert "other holds nut, washer and n" in message
    assert kind.title in message
    assert kind.layout in message
    assert kind.source in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in CASES if name != "real_iad"])
def test_a_root_too_high_or_too_low_is_put_right(name, tmp_path):
    root = draw(tmp_path / "data", CASES[name][0])
    with pytest.raises(FewShotError, match=r"did you mean .*data\?"):
        load_dataset(f"{name}:{tmp_path}")
    folder = next(entry for entry in root.iterdir() if entry.is_dir())
    with pytest.raises(FewShotError, match=r"did you mean .*data\?"):
        load_dataset(f"{name}:{folder}")


@pytest.mark.parametrize("name", CASES)
def test_a_root_that_is_not_there_is_told_where_to_get_it(name, tmp_path):
    source = dataset_class(name).source.replace(".", r"\.")
    for spec in (name, f"{name}:{tmp_path / 'absent'}"):
        with pytest.raises(FewShotError, match=f"download .* from {source}"):
            load_dataset(spec)


@pytest.mark.parametrize("name", ["dagm", "ksdd2", "btad"])
def test_a_class_without_its_images_is_told_the_layout(name, tmp_path):
    folder = {"dagm": "Class3/train/images", "ksdd2": "train/good", "btad": "02/images"}[name]
    dataset = load_dataset(f"{name}:{draw(tmp_path, {f'{folder}/0.png': None})}")
    with pytest.raises(FewShotError, match="holds no images; expected"):
        dataset.train(dataset.classes[0])


# One by one


def test_soft_edges_of_btad_count_above_128(tmp_path):
    root = draw(tmp_path, CASES["btad"][0])
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:3] = [[255], [129], [128]]
    Image.fromarray(mask).save(root / "03/ground_truth/ko/0001.bmp")
    dataset = load_dataset(f"btad:{root}")
    marked = dataset.read_mask(dataset.test("03")[0])
    assert marked is not None
    assert marked.any(axis=1).tolist() == [True, True] + [False] * (HEIGHT - 2)


@pytest.mark.parametrize(("name", "class_name"), [("btad", "02"), ("mvtec_3d", "carrot")])
def test_the_references_that_resad_published_are_found(name, class_name, tmp_path):
    manifest = json.loads(asset("episodes", f"resad_{name}_4shot.json").read_text())
    paths = manifest["support"]["0"][class_name]
    dataset = load_dataset(f"{name}:{draw(tmp_path, dict.fromkeys(paths))}")
    assert [sample.path for sample in dataset.train(class_name)] == paths


def test_masks_of_one_image_of_loco_are_united(tmp_path):
    root = draw(tmp_path, CASES["mvtec_loco"][0])
    folder = root / "pushpins/ground_truth/logical_anomalies/000"
    second = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    second[5, 3] = 1
    Image.fromarray(second).save(folder / "001.png")
    dataset = load_dataset(f"mvtec_loco:{root}")
    sample = next(s for s in dataset.test("pushpins") if s.defect == "logical_anomalies")
    marked = dataset.read_mask(sample)
    assert marked is not None
    assert marked[:2].all()
    assert marked.sum() == 2 * WIDTH + 1
    Image.fromarray(second[:4]).save(folder / "001.png")
    with pytest.raises(FewShotError, match="several sizes"):
        dataset.read_mask(sample)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(FewShotError, match="holds no masks"):
        dataset.read_mask(sample)


def test_visa_rearranged_is_read_too(tmp_path):
    tree = {
        "candle/train/good/0000.JPG": None,
        "candle/test/good/0001.JPG": None,
        "candle/test/bad/000.JPG": None,
        "candle/ground_truth/bad/000.png": 255,
    }
    dataset = load_dataset(f"visa:{draw(tmp_path, tree)}")
    *_, mask = tree
    bad, good = dataset.test("candle")
    assert (bad.mask_path, bad.defect, good.is_anomalous) == (mask, "bad", False)
    assert dataset.train("candle")[0].path == "candle/train/good/0000.JPG"


def test_visa_without_its_split_says_so(tmp_path):
    root = draw(tmp_path, CASES["visa"][0])
    (root / "split_csv/1cls.csv").unlink()
    with pytest.raises(FewShotError, match=r"not its split split_csv/1cls\.csv"):
        load_dataset(f"visa:{root}").train("pcb1")


def test_visa_knows_its_published_counts():
    trains, tests = zip(*dataset_class("visa").expected.values(), strict=True)
    assert (sum(trains), sum(tests)) == (8659, 2162)


def test_real_iad_of_another_size_has_the_same_samples(tmp_path):
    tree, _ = CASES["real_iad"]
    root = draw(tmp_path, tree | {p.replace("1024", "512"): c for p, c in tree.items()})
    large, small = RealIAD(root), RealIAD(root / "realiad_512")
    assert large.test("tape") == small.test("tape")
    assert large.root.name == "realiad_1024"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no list of 'train'"),
        ('{"test": []}', "is no list of 'train'"),
        ('{"train": [{"image_path": "a.jpg"}]}', "lacks image_path, mask_path or anomaly_class"),
    ],
)
def test_a_broken_list_of_real_iad_is_named(tmp_path, content, told):
    root = draw(tmp_path, CASES["real_iad"][0])
    (root / "realiad_jsons/realiad_jsons/tape.json").write_text(content, encoding="utf-8")
    with pytest.raises(FewShotError, match=told):
        load_dataset(f"real_iad:{root}").train("tape")


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/hostname"])
def test_lists_of_real_iad_do_not_lead_out_of_it(tmp_path, path):
    root = draw(tmp_path, CASES["real_iad"][0])
    lists = json.dumps({"train": [real_entry(path)], "test": []})
    (root / "realiad_jsons/realiad_jsons/tape.json").write_text(lists, encoding="utf-8")
    dataset = load_dataset(f"real_iad:{root}")
    with pytest.raises(FewShotError):
        dataset.read_image(dataset.train("tape")[0])


def test_ksdd2_without_a_mask_says_so(tmp_path):
    root = draw(tmp_path, CASES["ksdd2"][0])
    (root / "test/20000_GT.png").unlink()
    with pytest.raises(FewShotError, match="20000_GT beside it"):
        load_dataset(f"ksdd2:{root}").test("surface")


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("test.txt", "group/a.jpg", "line 1: 'group/a.jpg' names no image and its boxes"),
        ("group00041/00041_not/00041001.txt", "0 0 24 1", "line 1: '0 0 24 1' is no box"),
    ],
)
def test_broken_lines_of_deeppcb_are_named(tmp_path, file, line, told):
    root = draw(tmp_path, CASES["deeppcb"][0])
    (root / file).write_text(line, encoding="utf-8")
    dataset = load_dataset(f"deeppcb:{root}")
    with pytest.raises(FewShotError, match=told):
        [dataset.read_mask(sample) for sample in dataset.test("pcb")]


def test_totals_are_compared_when_all_classes_are_there(tmp_path):
    whats: list[str] = []
    for name in dataset_class("mpdd").known_classes():
        assert not any("(888, 458) expected" in what for what in whats)
        root = draw(tmp_path, mvtec(name))
        whats = [finding.what for finding in audit(load_dataset(f"mpdd:{root}")).findings]
    assert "(6, 12) images in train and test, (888, 458) expected" in whats
