import hashlib
import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.episodes import (
    Manifest,
    check_manifest,
    digest_samples,
    draw,
    draw_anomalous,
    draw_manifest,
    episodes,
    leak_warning,
    list_manifests,
    load_manifest,
    save_manifest,
)

MVTEC_AD_TRAIN_NORMALS = {
    "bottle": 209, "cable": 224, "capsule": 219, "carpet": 280, "grid": 264,
    "hazelnut": 391, "leather": 245, "metal_nut": 220, "pill": 267, "screw": 320,
    "tile": 230, "toothbrush": 60, "transistor": 213, "wood": 247, "zipper": 240,
}  # fmt: skip


@dataclass
class Listing:
    """A dataset of names only; the content of an image is its path, unless another one is given."""

    name: str = "shelf"
    normals: dict[str, int] = field(default_factory=lambda: {"nut": 20, "screw": 30})
    contents: dict[str, str] = field(default_factory=dict)
    reverse: bool = False

    @property
    def classes(self):
        names = tuple(self.normals)
        return names[::-1] if self.reverse else names

    def train(self, class_name):
        return self._listed(class_name, "train/good", self.normals[class_name])

    def test(self, class_name):
        return (
            *self._listed(class_name, "test/good", 6),
            *self._listed(class_name, "test/crack", 5, "crack"),
            *self._listed(class_name, "test/dent", 3, "dent"),
            *self._listed(class_name, "test/stain", 1, "stain"),
        )

    def read_image(self, sample):
        raise NotImplementedError

    def read_mask(self, sample):
        raise NotImplementedError

    def digest(self, sample):
        return hashlib.sha256(self.contents.get(sample.path, sample.path).encode()).hexdigest()

    def _listed(self, class_name, folder, count, defect=None):
        paths = [f"{class_name}/{folder}/{index:03d}.png" for index in range(count)]
        paths = paths[::-1] if self.reverse else paths
        return tuple(Sample(path, class_name, defect is not None, defect=defect) for path in paths)


def paths_of(samples):
    return [sample.path for sample in samples]


def drawn(dataset, *, seeds=(0, 1), max_shots=8):
    return draw_manifest(dataset, seeds, max_shots, "drawn.json")


# The draw


def test_draw_is_the_rule_it_states():
    key = hashlib.sha256(b'["shelf", "screw", 3]').digest()
    tickets = np.random.PCG64(int.from_bytes(key, "big"))
    holders = [(int(tickets.random_raw()), f"screw/train/good/{i:03d}.png") for i in range(30)]
    expected = [path for _, path in sorted(holders)]
    assert paths_of(draw(Listing(), "screw", 3, 30)) == expected


def test_draw_never_changes():
    names = [Path(path).stem for path in paths_of(draw(Listing(), "screw", 0, 8))]
    assert names == ["002", "029", "007", "024", "001", "015", "028", "014"]


def test_supports_are_nested():
    whole = draw(Listing(), "screw", 0, 30)
    assert sorted(paths_of(whole)) == sorted(paths_of(Listing().train("screw")))
    for shots in range(31):
        assert draw(Listing(), "screw", 0, shots) == whole[:shots]


def test_draw_ignores_the_order_of_classes_and_files():
    assert draw(Listing(reverse=True), "nut", 1, 12) == draw(Listing(), "nut", 1, 12)


def test_draw_depends_on_dataset_class_and_seed():
    wide = {"nut": 30, "screw": 30}
    lists = {
        tuple(Path(path).stem for path in paths_of(draw(Listing(name, wide), class_name, seed, 16)))
        for name, class_name, seed in itertools.product(
            ("shelf", "rack"), ("nut", "screw"), (0, 1, 2)
        )
    }
    assert len(lists) == 12


def test_draw_favours_no_image():
    first = [draw(Listing(), "nut", seed, 1)[0].path for seed in range(1000)]
    counts = np.unique(first, return_counts=True)[1]
    assert len(counts) == 20
    assert counts.min() > 25
    assert counts.max() < 80


def test_anomalous_shots_take_the_kinds_in_turn():
    kinds = [sample.defect for sample in draw_anomalous(Listing(), "nut", 0, 8)]
    assert sorted(kinds[:3]) == ["crack", "dent", "stain"]
    assert sorted(kinds[3:5]) == ["crack", "dent"]
    assert kinds.count("crack") == 4


def test_anomalous_shots_are_nested_and_independent_of_order():
    whole = draw_anomalous(Listing(), "nut", 0, 8)
    assert len(set(whole)) == 8
    assert draw_anomalous(Listing(reverse=True), "nut", 0, 5) == whole[:5]
    assert draw_anomalous(Listing(), "nut", 1, 8) != whole


# Episodes


def test_episodes_come_seed_by_seed():
    frozen = list(episodes(Listing(), "nut", shots=[0, 2, "full"], seeds=[4, 7]))
    assert [(e.seed, e.shots) for e in frozen] == [(4, 0), (4, 2), (4, 20), (7, 0), (7, 2), (7, 20)]
    assert {(e.dataset, e.target_class, e.manifest) for e in frozen} == {("shelf", "nut", "drawn")}
    assert all(e.query == Listing().test("nut") for e in frozen)
    assert frozen[1].support == frozen[2].support[:2]


def test_anomalous_shots_are_not_judged():
    for episode in episodes(Listing(), "nut", shots=[1, 4], seeds=[0, 1, 2], anomalous_shots=4):
        assert len(episode.anomalous_support) == 4
        assert set(episode.anomalous_support).isdisjoint(episode.query)
        assert len(episode.query) == len(Listing().test("nut")) - 4


def test_query_limit_is_balanced_fixed_and_recorded():
    small, large = (
        next(episodes(Listing(), "nut", shots=[1], seeds=[0], query_limit=limit))
        for limit in (3, 5)
    )
    assert [sample.is_anomalous for sample in small.query] == [False] * 3 + [True] * 3
    assert {sample.defect for sample in small.query if sample.is_anomalous} == {
        "crack",
        "dent",
        "stain",
    }
    assert set(small.query) < set(large.query)
    assert small.manifest == "drawn, query limit 3"
    other = episodes(Listing(reverse=True), "nut", shots=[4], seeds=[9], query_limit=3)
    assert set(next(other).query) == set(small.query)


def test_query_limit_still_reaches_its_number_beside_anomalous_shots():
    limited = episodes(Listing(), "nut", shots=[1], seeds=[0, 1], anomalous_shots=3, query_limit=4)
    for episode in limited:
        assert sum(sample.is_anomalous for sample in episode.query) == 4
        assert set(episode.anomalous_support).isdisjoint(episode.query)


def test_a_manifest_gives_the_same_episodes_as_the_draw_it_holds():
    manifest = drawn(Listing())
    listed = episodes(Listing(), "nut", shots=[0, 2, 8], seeds=[0, 1], manifest=manifest)
    expected = episodes(Listing(), "nut", shots=[0, 2, 8], seeds=[0, 1])
    for one, other in zip(listed, expected, strict=True):
        assert one == replace(other, manifest="drawn.json")


def test_full_is_drawn_even_beside_a_manifest():
    full = next(episodes(Listing(), "nut", shots=["full"], seeds=[5], manifest=drawn(Listing())))
    assert (full.shots, full.manifest) == (20, "drawn")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_class": "nutt"}, "no class of shelf is called 'nutt'; did you mean 'nut'"),
        ({"shots": [4, 21]}, "has 20 train normals and 21 shots were asked for"),
        ({"shots": [-1]}, "shots is -1: expected 0 or more"),
        ({"shots": []}, "at least one seed and one number of shots"),
        ({"seeds": []}, "at least one seed and one number of shots"),
        ({"seeds": [-2]}, "seed is -2: expected 0 or more"),
        ({"anomalous_shots": 9}, "has 9 anomalous test images and 9 anomalous shots"),
        ({"anomalous_shots": -1}, "anomalous shots is -1"),
        ({"query_limit": 0}, "query limit is 0: expected at least 1"),
    ],
)
def test_wrong_numbers_are_refused_before_the_first_episode(wrong, message):
    right = {"target_class": "nut", "shots": [1], "seeds": [0]}
    with pytest.raises(FewShotError, match=message) as caught:
        episodes(Listing(), **(right | wrong))
    assert "\n" not in str(caught.value)


def test_a_class_without_test_images_is_refused(monkeypatch):
    monkeypatch.setattr(Listing, "test", lambda self, class_name: ())
    with pytest.raises(FewShotError, match="has no test images"):
        episodes(Listing(), "nut", shots=[1], seeds=[0])


def test_digest_follows_content_order_and_labels():
    normal, other = Listing().train("nut")[:2]
    digest = digest_samples(Listing(), (normal, other))
    moved = Listing(contents={"elsewhere.png": normal.path})
    assert digest == digest_samples(moved, (replace(normal, path="elsewhere.png"), other))
    assert digest != digest_samples(Listing(), (other, normal))
    assert digest != digest_samples(Listing(), (replace(normal, is_anomalous=True), other))
    assert digest != digest_samples(Listing(contents={other.path: "x"}), (normal, other))


def test_a_class_without_train_images_runs_at_zero_shots_only():
    bare = Listing(normals={"nut": 0})
    assert next(episodes(bare, "nut", shots=[0], seeds=[0])).support == ()
    for shots in (1, "full"):
        with pytest.raises(FewShotError, match="has no train normals: only 0 shots"):
            episodes(bare, "nut", shots=[shots], seeds=[0])


# A manifest and a dataset


def listing(paths, *, leaks=(), class_name="nut"):
    marked = {class_name: tuple(leaks)} if leaks else {}
    return Manifest("mine.json", "shelf", 8, {0: {class_name: tuple(paths)}}, leaks=marked)


def test_marked_leaks_are_shown_but_not_judged():
    paths = ["nut/train/good/004.png", "nut/test/good/002.png"]
    manifest = listing(paths, leaks=paths[1:])
    one, two = episodes(Listing(), "nut", shots=[1, 2], seeds=[0], manifest=manifest)
    assert paths_of(two.support) == paths
    assert one.query == two.query
    assert set(paths_of(Listing().test("nut"))) - set(paths_of(two.query)) == {paths[1]}
    assert leak_warning(manifest, "nut") == (
        "manifest mine.json shows 1 test image of 'nut' as support (nut/test/good/002.png): "
        "left out of the query"
    )
    assert leak_warning(manifest, "screw") is None
    assert check_manifest(manifest, Listing()) == []


@pytest.mark.parametrize(
    ("paths", "leaks", "message"),
    [
        (["nut/test/good/002.png"], (), "lists test images as support .* mark them under 'leaks'"),
        (["nut/test/dent/000.png"], (), "lists anomalous images as normal support"),
        (["nut/test/dent/000.png"], ["nut/test/dent/000.png"], "lists anomalous images"),
        (["screw/train/good/000.png"], (), "1 of the 1 images .* are not in shelf"),
        (
            [f"nut/{index}.jpg" for index in range(5)],
            (),
            r"5 of the 5 .*\(nut/0.jpg, nut/1.jpg, nut/2.jpg and 2 more\)",
        ),
    ],
)
def test_paths_that_do_not_fit_are_named(paths, leaks, message):
    manifest = listing(paths, leaks=leaks)
    with pytest.raises(FewShotError, match=message) as caught:
        episodes(Listing(), "nut", shots=[len(paths)], seeds=[0], manifest=manifest)
    (finding,) = check_manifest(manifest, Listing())
    assert str(caught.value) == f"manifest mine.json: {finding}"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shots": [9]}, "lists 8 images for class 'nut', seed 0, and 9 shots"),
        ({"seeds": [2]}, "has no seed 2: it has 0, 1"),
        ({"manifest": listing(["a.png"], class_name="screw")}, "has no class 'nut': it has screw"),
        ({"dataset": Listing(name="rack")}, "lists images of shelf, not of rack"),
    ],
)
def test_a_manifest_without_what_is_asked_says_what_it_has(asked, message):
    right = {"dataset": Listing(), "shots": [1], "seeds": [0], "manifest": drawn(Listing())}
    with pytest.raises(FewShotError, match=message):
        episodes(target_class="nut", **(right | asked))


def test_check_finds_unknown_classes_and_equal_contents():
    manifest = drawn(Listing(normals={"nut": 20, "washer": 20}), seeds=[0])
    twin = manifest.paths(0, "nut")[3]
    contents = {twin: "same", "nut/test/good/001.png": "same"}
    assert check_manifest(manifest, Listing(contents=contents)) == [
        f"support image {twin} has the content of test image nut/test/good/001.png",
        "class 'washer' is not in the dataset",
    ]


def test_drawing_no_shots_is_refused():
    with pytest.raises(FewShotError, match="max shots is 0"):
        drawn(Listing(), max_shots=0)


# Files


def test_a_manifest_survives_its_file(tmp_path):
    manifest = replace(
        listing(["nut/a [1].png", "nut/b, \u00e9.png"], leaks=["nut/a [1].png"]),
        rule="by hand",
        source="nowhere",
        notes="two\nlines",
    )
    save_manifest(manifest, tmp_path / "mine.json")
    assert load_manifest(tmp_path / "mine.json") == manifest
    assert len(list(tmp_path.iterdir())) == 1


def test_save_overwrites_only_when_asked(tmp_path):
    path = tmp_path / "mine.json"
    save_manifest(listing(["a.png"]), path)
    with pytest.raises(FewShotError, match="exists: choose another name"):
        save_manifest(listing(["b.png"]), path)
    assert load_manifest(path) == listing(["a.png"])
    save_manifest(listing(["b.png"]), path, overwrite=True)
    assert load_manifest(path) == listing(["b.png"])


def test_save_asks_for_the_ending_that_load_knows_files_by(tmp_path):
    with pytest.raises(FewShotError, match=r"call it mine\.json"):
        save_manifest(listing(["a.png"]), tmp_path / "mine")


def test_a_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    with pytest.raises(FewShotError, match="cannot be written: No such file or directory"):
        save_manifest(listing(["a.png"]), tmp_path / "absent" / "mine.json")
    (tmp_path / "file").touch()
    with pytest.raises(FewShotError, match="cannot be written: Not a directory"):
        save_manifest(listing(["a.png"]), tmp_path / "file" / "mine.json")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(FewShotError, match="No space left on device"):
        save_manifest(listing(["a.png"]), tmp_path / "mine.json")
    assert paths_in(tmp_path) == ["file"]


def paths_in(folder):
    return sorted(path.name for path in folder.iterdir())


VALID = {
    "format": 1,
    "dataset": "shelf",
    "query": "test",
    "max_shots": 4,
    "support": {"0": {"nut": ["nut/a.png", "nut/b.png"]}},
}


def with_paths(*paths):
    return {"support": {"0": {"nut": list(paths)}}}


OUTSIDE = r"support\['0'\]\['nut'\]\[0\] has '.*', expected a plain path .* below the dataset root"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format has 2, expected 1"),
        ({"query": "train"}, "query has 'train', expected 'test'"),
        ({"dataset": None}, "dataset has nothing, expected a text"),
        ({"max_shots": 0}, "max_shots has 0, expected a whole number from 1 on"),
        ({"max_shots": True}, "max_shots has True"),
        ({"max_shots": 1}, r"support\['0'\]\['nut'\] has 2 paths, expected 1 to max_shots = 1"),
        ({"suport": {}}, "has key 'suport', expected only format, dataset"),
        ({"support": []}, "support has a list, expected an object"),
        ({"support": {}}, "support has no list, expected at least one seed"),
        ({"support": {"0": {}}}, "support has no list, expected at least one seed"),
        ({"support": {"-1": {}}}, "support has seed '-1', expected a whole number"),
        ({"support": {"00": {}}}, "support has seed '00', expected a whole number"),
        ({"support": {"0": 3}}, r"support\['0'\] has a number, expected an object"),
        ({"support": {"0": {"nut": "a.png"}}}, r"\['nut'\] has a text, expected a list of paths"),
        (with_paths(), r"support\['0'\]\['nut'\] has 0 paths"),
        (with_paths("a.png", 7), r"support\['0'\]\['nut'\]\[1\] has a number, expected a text"),
        (with_paths("a.png", "a.png"), r"\['nut'\]\[1\] has 'a.png' again, expected every image"),
        (with_paths("/etc/passwd"), OUTSIDE),
        (with_paths("nut/../../b.png"), OUTSIDE),
        (with_paths("C:/b.png"), OUTSIDE),
        (with_paths("nut\\b.png"), OUTSIDE),
        (with_paths("./b.png"), OUTSIDE),
        (with_paths("nut//b.png"), OUTSIDE),
        (with_paths(""), OUTSIDE),
        (with_paths("."), OUTSIDE),
        ({"leaks": {"nut": ["nut/c.png"]}}, r"leaks\['nut'\] has 'nut/c.png', expected only paths"),
        ({"notes": ["a"]}, "notes has a list, expected a text"),
    ],
)
def test_a_faulty_manifest_names_the_key(tmp_path, change, message):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(VALID | change))
    with pytest.raises(FewShotError, match=message) as caught:
        load_manifest(path)
    assert str(caught.value).startswith(f"manifest {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", VALID)
def test_every_required_key_is_missed(tmp_path, key):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({name: value for name, value in VALID.items() if name != key}))
    with pytest.raises(FewShotError, match=f"key '{key}' is missing"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "has a list, expected an object"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path, content, message):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(FewShotError, match=message):
        load_manifest(path)


def test_absent_manifests(tmp_path):
    with pytest.raises(FewShotError, match="cannot be read: No such file"):
        load_manifest(tmp_path / "absent.json")
    with pytest.raises(FewShotError, match="cannot be read: Is a directory"):
        load_manifest(tmp_path)
    with pytest.raises(FewShotError, match="called 'mvtec'; did you mean 'mvtec_ad'"):
        load_manifest("mvtec")


# What is shipped


@pytest.mark.parametrize("name", list_manifests())
def test_shipped_manifests_are_valid(name):
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.rule
    for seed in manifest.seeds:
        for class_name in manifest.classes:
            paths = manifest.paths(seed, class_name)
            assert len(paths) == manifest.max_shots
            assert all(path.startswith(f"{class_name}/") for path in paths)


def test_the_mvtec_ad_manifest_is_what_draw_gives():
    official = Listing("mvtec_ad", MVTEC_AD_TRAIN_NORMALS)
    expected = draw_manifest(official, range(5), 16, "mvtec_ad")
    assert load_manifest("mvtec_ad") == expected


@pytest.mark.parametrize(
    ("dataset", "classes"), [("mvtec_ad", 15), ("visa", 12), ("btad", 3), ("mvtec_3d", 10)]
)
def test_published_lists_of_resad(dataset, classes):
    four, eight = (load_manifest(f"resad_{dataset}_{shots}shot") for shots in (4, 8))
    assert four.dataset == eight.dataset == dataset
    assert four.classes == eight.classes
    assert len(four.classes) == classes
    assert (four.seeds, four.max_shots, eight.max_shots) == ((0,), 4, 8)
    for class_name in four.classes:
        assert set(four.paths(0, class_name)) <= set(eight.paths(0, class_name))


def test_known_leaks_are_marked():
    counts = {name: sum(map(len, load_manifest(name).leaks.values())) for name in list_manifests()}
    assert {name: count for name, count in counts.items() if count} == {
        "resad_visa_4shot": 5,
        "resad_visa_8shot": 7,
    }
    by_class = {name: len(paths) for name, paths in load_manifest("resad_visa_4shot").leaks.items()}
    assert by_class == {"capsules": 1, "fryum": 1, "macaroni2": 1, "pcb2": 2}
