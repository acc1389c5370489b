import shutil

import numpy as np
import pytest
import torch
from painted import SMALL, Painted
from PIL import Image

from fewshot_ad.api import FewShotError, KnownClasses
from fewshot_ad.evaluation.known import known_images, parse_known
from fewshot_ad.images import prepare, prepare_mask


@pytest.fixture
def folder(tmp_path):
    """Classes ``nut`` and ``bolt`` in the layout of MVTec AD."""
    dataset = Painted(classes=("nut", "bolt"), n_train=2, n_normal=1, n_anomalous=1)
    for name in dataset.classes:
        for sample, place in [
            *((s, "train/good") for s in dataset.train(name)),
            *((s, "test/bad" if s.is_anomalous else "test/good") for s in dataset.test(name)),
        ]:
            file = tmp_path / name / place / f"{sample.path.replace('/', '_')}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.read_image(sample)).save(file)
            if sample.is_anomalous:
                mask = tmp_path / name / "ground_truth/bad" / file.name
                mask.parent.mkdir(parents=True)
                Image.fromarray(dataset.read_mask(sample)).save(mask)
    return tmp_path


def test_every_class_but_the_target_is_known():
    dataset = Painted()
    known = known_images([(dataset, dataset.classes)], exclude=("painted", "disc"))
    assert known.names == ("painted/plate", "painted/rod")
    assert isinstance(known, KnownClasses)


def test_batches_hold_the_samples_in_order_with_their_masks():
    dataset = Painted(n_train=20)
    known = known_images([(dataset, dataset.classes)])
    batches = list(known.normals("painted/plate", SMALL))
    assert [len(batch.images) for batch in batches] == [16, 4]
    expected = [prepare(dataset.read_image(s), SMALL) for s in dataset.train("plate")]
    assert torch.equal(torch.cat([batch.images for batch in batches]), torch.stack(expected))
    assert not any(batch.masks.any() or batch.is_anomalous.any() for batch in batches)

    (labelled,) = known.labelled("painted/plate", SMALL)
    test = dataset.test("plate")
    masks = [prepare_mask(dataset.read_mask(s), SMALL) for s in test]
    assert torch.equal(labelled.masks, torch.stack(masks))
    assert labelled.is_anomalous.tolist() == [s.is_anomalous for s in test]


def test_the_limit_draws_from_each_group_alone_and_keeps_the_order():
    dataset = Painted(n_train=30, n_normal=20, n_anomalous=10)
    known = known_images([(dataset, dataset.classes)], limit=5)
    (normals,) = known.normals("painted/plate", SMALL)
    (labelled,) = known.labelled("painted/plate", SMALL)
    assert len(normals.images) == 5
    assert labelled.is_anomalous.tolist() == [False] * 5 + [True] * 5
    assert len(known.digests) == 3 * 15
    assert known.digest == known_images([(dataset, dataset.classes)], limit=5).digest
    other = known_images([(dataset, dataset.classes)], limit=5, seed=1)
    assert other.digest != known.digest
    read = dataset.reads
    assert read[:5] == sorted(read[:5], key=lambda path: int(path.rsplit("/", 1)[1]))


def test_the_draw_does_not_depend_on_other_classes():
    dataset = Painted(n_train=30)
    alone = known_images([(dataset, ("rod",))], limit=3)
    among = known_images([(dataset, dataset.classes)], limit=3)
    assert alone.digests < among.digests


def test_a_corrected_mask_makes_other_known_classes_of_the_same_images(folder):
    before = parse_known(f"folder:{folder}")
    content = before.digests, before.digest, before.digest_of("folder/nut")
    (file,) = (folder / "bolt/ground_truth/bad").iterdir()
    Image.fromarray(~np.array(Image.open(file))).save(file)
    after = parse_known(f"folder:{folder}")
    assert after.digests == content[0]
    assert after.digest != content[1]
    assert after.digest_of("folder/nut") == content[2]
    assert after.digest_of("folder/bolt") != before.digest_of("folder/bolt")


def test_the_digest_of_drawn_classes_draws_nothing(monkeypatch):
    known = parse_known("synthetic:screw+tile")
    monkeypatch.setattr("fewshot_ad.data.synthetic._drawn", None)
    assert known.digest == parse_known("synthetic:screw+tile").digest
    assert known.digest_of("synthetic/screw") != known.digest_of("synthetic/tile")


def test_digests_name_every_image_that_can_be_read():
    dataset = Painted()
    known = known_images([(dataset, ("disc", "rod"))])
    samples = [s for n in ("disc", "rod") for s in dataset.train(n) + dataset.test(n)]
    assert known.digests == {dataset.digest(sample) for sample in samples}


def test_anomalies_without_a_mask_are_left_out_with_a_count():
    dataset = Painted()
    dataset.without_mask |= {"disc/bad/0", "disc/bad/1"}
    with pytest.warns(UserWarning, match="painted/disc: 2 of 4 anomalies have no mask"):
        known = known_images([(dataset, ("disc",))])
    (labelled,) = known.labelled("painted/disc", SMALL)
    assert labelled.is_anomalous.sum() == 2
    assert labelled.masks.flatten(1).any(dim=1).tolist() == labelled.is_anomalous.tolist()


def test_a_mask_of_another_size_is_refused():
    class Odd(Painted):
        def read_mask(self, sample):
            return np.ones((3, 4), dtype=bool)

    known = known_images([(Odd(), ("disc",))])
    with pytest.raises(FewShotError, match=r"mask of disc/bad/0 is 4x3 pixels, its image 32x24"):
        list(known.labelled("painted/disc", SMALL))


def test_split_holds_out_whole_classes():
    dataset = Painted(classes=tuple("abcdef"))
    known = known_images([(dataset, dataset.classes)])
    train, held_out = known.split(2, seed=3)
    assert len(held_out.names) == 2
    assert sorted(train.names + held_out.names) == sorted(known.names)
    assert not train.digests & held_out.digests
    again = known_images([(dataset, tuple("fedcba"))]).split(2, seed=3)[1]
    assert sorted(again.names) == sorted(held_out.names)
    assert len({known.split(2, seed=seed)[1].names for seed in range(10)}) > 1


@pytest.mark.parametrize("n", [0, 3, 4])
def test_a_split_leaves_classes_on_both_sides(n):
    dataset = Painted()
    with pytest.raises(FewShotError, match=f"cannot hold out {n} of 3"):
        known_images([(dataset, dataset.classes)]).split(n)


def test_faults_are_named():
    dataset = Painted()
    with pytest.raises(FewShotError, match="no known class is left"):
        known_images([(dataset, ("plate",))], exclude=("painted", "plate"))
    with pytest.raises(FewShotError, match="painted/rod is given twice"):
        known_images([(dataset, ("rod", "disc")), (dataset, ("rod",))])
    with pytest.raises(FewShotError, match="limit of known images is 0"):
        known_images([(dataset, ("rod",))], limit=0)
    with pytest.raises(FewShotError, match="did you mean 'painted/rod'"):
        known_images([(dataset, ("rod",))]).normals("painted/rot", SMALL)


def test_specs_name_a_root_or_classes_or_both(folder, monkeypatch):
    assert parse_known(f"folder:{folder}").names == ("folder/bolt", "folder/nut")
    assert parse_known(f"folder:{folder}:nut").names == ("folder/nut",)
    assert parse_known(f"folder:{folder}:nut+bolt").names == ("folder/nut", "folder/bolt")
    monkeypatch.chdir(folder.parent)
    assert parse_known(f"folder:{folder.name}").names == ("folder/bolt", "folder/nut")
    assert parse_known(f"folder:{folder.name}:bolt").names == ("folder/bolt",)


def test_two_folders_with_a_class_of_one_name_are_refused_unless_it_is_chosen_from_one(
    folder, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder / "nut", other / "nut")
    shutil.copytree(folder / "bolt", other / "rivet")
    with pytest.raises(FewShotError, match=r"nut is given twice; .* rename one of two folders"):
        parse_known(f"folder:{folder},folder:{other}")
    names = ("folder/nut", "folder/rivet")
    known = parse_known(f"folder:{folder}:nut,folder:{other}:rivet")
    assert known.names == names
    assert parse_known(f"folder:{other}").names == names
    both = parse_known(f"folder:{folder},folder:{other}", exclude=("folder", "nut"))
    assert both.names == ("folder/bolt", "folder/rivet")  # a target's name counts in any folder


def test_a_folder_named_like_a_class_does_not_hide_the_class(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert parse_known(f"folder:{folder}:nut").names == ("folder/nut",)


def test_a_spec_drops_the_target_unless_it_is_named(folder):
    target = ("folder", "nut")
    assert parse_known(f"folder:{folder}", exclude=target).names == ("folder/bolt",)
    with pytest.raises(FewShotError, match="target class folder/nut is among the known"):
        parse_known(f"folder:{folder}:bolt+nut", exclude=target)
    with pytest.raises(FewShotError, match="did you mean 'bolt'"):
        parse_known(f"folder:{folder}:bold")


def test_one_list_serves_several_targets_each_less_itself(folder):
    spec, target = f"folder:{folder}:nut+bolt", ("folder", "nut")
    assert parse_known(spec, exclude=target, leave_out=True).names == ("folder/bolt",)


def test_a_table_beside_the_working_directory_is_no_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.zeros((4, 4), dtype=np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(image).save(f"{name}.png")
    lines = ("image,split,label,mask", "a.png,train,ok,", "b.png,test,ok,", "c.png,test,ng,a.png")
    (tmp_path / "parts.csv").write_text("\n".join(lines), encoding="utf-8")
    assert parse_known("csv:parts.csv").names == ("csv-parts/parts",)
