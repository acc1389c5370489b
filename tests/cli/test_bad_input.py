"""What users get wrong: one line on stderr, exit code 2, and nothing half-written."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

NEAREST = ("--method", "strangers:NearestEdges", "--seeds", 1, "--set", "preprocess.size=64")
PATCHCORE = ("--method", "patchcore", "--seeds", 1, "--set", "preprocess.size=64")
SCALED = ("--method", "strangers:ScaledEdges", "--seeds", 1, "--set", "preprocess.size=64")
RESAD = ("--set", "preprocess.size=64", "--set", "steps=2")


def draw(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (48, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(str(path.with_suffix("")).encode())).integers(
        0, 255, (size[1], size[0], 3)
    )
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    image.convert(mode).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two sound classes in MVTec layout, ``bolt`` and ``nut``."""
    root = tmp_path / "images"
    for name in ("bolt", "nut"):
        for place, count in (("train/good", 4), ("test/good", 3), ("test/dent", 3)):
            for index in range(count):
                draw(root / name / place / f"{index}.png")
        for index in range(3):
            mask = np.zeros((40, 48), np.uint8)
            mask[10:20, 10 + index : 20] = 255
            path = root / name / "ground_truth" / "dent" / f"{index}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    return root


def bolt(images: Path) -> tuple[object, ...]:
    return "--dataset", f"folder:{images}", "--target-class", "bolt", "--shots", 1


def truncate(root: Path) -> None:
    path = root / "bolt/test/dent/1.png"
    path.write_bytes(path.read_bytes()[:200])


def empty(root: Path) -> None:
    (root / "bolt/train/good/1.png").write_bytes(b"")
    for index in (0, 2, 3):
        (root / f"bolt/train/good/{index}.png").unlink()


def shrink_mask(root: Path) -> None:
    Image.new("L", (20, 20), 255).save(root / "bolt/ground_truth/dent/1_mask.png")


def empty_class(root: Path) -> None:
    for path in sorted((root / "bolt").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated image": (truncate, "dent/1.png cannot be read"),
    "empty image": (empty, "good/1.png cannot be read as an image: the file is empty"),
    "mask of another size": (shrink_mask, "1_mask.png is 20x20 pixels"),
    "empty class folder": (empty_class, "holds no images"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(name, cli, images, tmp_path):
    damage, words = DAMAGES[name]
    damage(images)
    refused(cli, tmp_path, words, *NEAREST, *bolt(images))


OPTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "negative shots": (("--shots", "-1"), "--shots"),
    "words for shots": (("--shots", "four"), "--shots"),
    "more shots than normals": (("--shots", 5), "4 train normals"),
    "fewer shots than the method needs": (("--shots", 0), "at least 1"),
    "negative anomalous shots": (("--anomalous-shots", "-1"), "anomalous shots"),
    "no seeds": (("--seeds", 0), "--seeds"),
    "words for seeds": (("--seeds", "many"), "--seeds"),
    "zero eval size": (("--eval-size", 0), "--eval-size"),
    "unknown method": (("--method", "patchcor"), "'patchcore'"),
    "unknown class of methods": (("--method", "strangers:Nearest"), "Nearest"),
    "unknown target class": (("--target-class", "blot"), "'bolt'"),
    "unknown parameter": (("--set", "cel=4"), "'cell'"),
    "unknown nested parameter": (("--set", "preprocess.sise=4"), "'size'"),
    "value of another type": (("--set", "cell=many"), "whole number"),
    "no value": (("--set", "cell"), "name=value"),
    "unknown choice": (("--set", "preprocess.geometry=crap"), "'crop'"),
    "unknown device": (("--device", "gpu"), "device"),
    "unknown option": (("--shot", 4), "--shots"),
    "unknown manifest": (("--manifest", "mvtek_ad.json"), "mvte"),
    "backbone for a method without": (("--backbone", "resnet18"), "--backbone"),
    "zero query limit": (("--query-limit", 0), "query limit"),
    "no such dataset": (("--dataset", "foldr:."), "'folder'"),
    "no such root": (("--dataset", "folder:nowhere"), "does not exist"),
    "no root": (("--dataset", "folder"), "folder:ROOT"),
    "a root for drawn images": (("--dataset", "synthetic:images"), "no folder"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_cannot_be_is_refused(name, cli, images, tmp_path):
    options, words = OPTIONS[name]
    refused(cli, tmp_path, words, *NEAREST, *bolt(images), *options)


def test_anomalies_for_a_method_that_ignores_them_are_told(cli, images, tmp_path):
    args = ("--anomalous-shots", 1, "--no-overlays", "--out", tmp_path)
    result = cli("eval", *NEAREST, *bolt(images), *args)
    assert "strangers:NearestEdges: --anomalous-shots 1 is ignored" in result.stderr
    assert "warning" not in cli("eval", *NEAREST, *bolt(images), "--out", tmp_path / "b").stderr


def test_a_forgotten_target_class_names_the_classes(cli, images, tmp_path):
    refused(cli, tmp_path, "bolt, nut", *NEAREST, "--dataset", f"folder:{images}")


def test_the_target_among_the_known_is_refused(cli, images, tmp_path):
    words, known = "folder/bolt is among the known", f"folder:{images}:bolt+nut"
    refused(cli, tmp_path, words, *SCALED, *bolt(images), "--known", known)


def test_a_copy_of_a_target_image_among_the_known_is_refused(cli, images, tmp_path):
    (images / "nut/train/good/9.png").write_bytes((images / "bolt/test/dent/0.png").read_bytes())
    refused(cli, tmp_path, "bolt/test/dent/0.png", *SCALED, *bolt(images))


def test_an_output_folder_that_is_a_file_is_refused(cli, images, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = cli("eval", *NEAREST, *bolt(images), "--out", tmp_path / "file" / "out")
    assert_one_line(result, "is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_manifest_that_leaves_the_root_is_refused(cli, images, tmp_path):
    manifest = tmp_path / "mine.json"
    support = {"0": {"bolt": ["../secret.png"]}}
    content = {
        "format": 1,
        "dataset": "folder",
        "query": "test",
        "max_shots": 1,
        "support": support,
    }
    manifest.write_text(json.dumps(content))
    refused(cli, tmp_path, "../secret.png", *NEAREST, *bolt(images), "--manifest", manifest)


def test_features_that_are_not_numbers_are_refused(cli, images, tmp_path):
    backbone = ("--backbone", "strangers:broken_network")
    refused(cli, tmp_path, "NaN", *PATCHCORE, *bolt(images), *backbone)


def test_a_pickle_in_place_of_weights_is_refused(cli, images, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    with (weights / "resnet18.tv_in1k.pth").open("wb") as file:
        pickle.dump({"conv1.weight": Bomb()}, file)
    backbone = ("--backbone", "resnet18", "--weights-dir", weights)
    refused(cli, tmp_path, "pickle", *PATCHCORE, *bolt(images), *backbone)
    assert not Bomb.exploded


def test_weights_that_are_not_here_are_told_of(cli, images, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    backbone = ("--backbone", "resnet18", "--weights-dir", tmp_path)
    refused(cli, tmp_path, "--weights-dir", *PATCHCORE, *bolt(images), *backbone)


CHECKPOINTS = {
    "another network": ("backbone=strangers:network", ()),
    "another configuration": ("steps=2", ("--set", "steps=3")),
    "damaged": ("damaged", ()),
    "another file": ("not a checkpoint", ()),
    "not there": ("no checkpoint", ()),
}


@pytest.fixture(scope="module")
def checkpoint(cli, tmp_path_factory) -> Path:
    """What ``train`` makes of ResAD in two steps, on a backbone that is not the default."""
    path = tmp_path_factory.mktemp("trained") / "resad.safetensors"
    known = ("--known", "synthetic:gear+washer", "--known-limit", 2)
    result = cli("train", *RESAD, *known, "--backbone", "strangers:network", "--out", path)
    assert result.exit_code == 0, result.stderr
    return path


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit_is_refused(name, cli, checkpoint, images, tmp_path):
    words, options = CHECKPOINTS[name]
    path = tmp_path / "resad.safetensors"
    content = checkpoint.read_bytes()
    if name == "damaged":
        path.write_bytes(content[: len(content) // 2])
    elif name == "another file":
        save_file({"weight": torch.zeros(3)}, path)
    elif name != "not there":
        path.write_bytes(content)
    backbone = "strangers:twin_network" if name == "another network" else "strangers:network"
    refused(cli, tmp_path, words, *RESAD, *bolt(images), "--seeds", 1, "--checkpoint", path,
            "--backbone", backbone, *options)  # fmt: skip


def test_a_checkpoint_is_no_use_to_a_method_without_training(cli, images, tmp_path):
    checkpoint = ("--checkpoint", tmp_path / "some")
    refused(cli, tmp_path, "--checkpoint", *NEAREST, *bolt(images), *checkpoint)


@pytest.mark.parametrize("mode", ["I;16", "P", "RGBA", "CMYK", "L", "1"])
def test_every_kind_of_pixel_is_read(mode, cli, images, tmp_path):
    for path in (images / "bolt").rglob("good/*.png"):
        path.unlink()
        suffix = ".tif" if mode == "CMYK" else ".png"
        draw(path.with_suffix(suffix), mode=mode)
    result = judged(cli, images, tmp_path)
    assert result.stderr == ""


def test_a_mask_for_a_normal_image_is_left_aside(cli, images, tmp_path):
    plain = judged(cli, images, tmp_path / "plain").stdout
    draw(images / "bolt/ground_truth/good/0_mask.png", mode="L")
    assert metrics(judged(cli, images, tmp_path / "again").stdout) == metrics(plain)


def test_a_missing_mask_empties_the_pixel_metrics_alone(cli, images, tmp_path):
    (images / "bolt/ground_truth/dent/1_mask.png").unlink()
    result = judged(cli, images, tmp_path)
    (row,) = json.loads(result.stdout)
    assert row["i_auroc"] is not None
    assert row["p_auroc"] is None
    assert row["aupro"] is None
    assert row["n_missing_masks"] == 1
    assert "1" in warning(result)


def test_no_anomalous_test_image_empties_every_metric(cli, images, tmp_path):
    for path in (images / "bolt/test/dent").iterdir():
        path.unlink()
    result = judged(cli, images, tmp_path)
    (row,) = json.loads(result.stdout)
    assert all(value is None for value in metrics(result.stdout).values())
    assert set(row["reasons"]) >= {"i_auroc", "p_auroc", "aupro"}
    assert "anomal" in warning(result)


class Bomb:
    """Unpickling this would be running a stranger's code."""

    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def refused(cli, tmp_path: Path, words: str, *arguments: object) -> None:
    out = tmp_path / "out"
    assert_one_line(cli("eval", *arguments, "--out", out), words)
    assert not out.exists()


def assert_one_line(result, words: str) -> None:
    errors = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert result.exit_code == 2, result.output
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert words in errors[0]


def judged(cli, images: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = cli("eval", *NEAREST, *bolt(images), "--out", out, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    return result


def metrics(stdout: str) -> dict[str, float | None]:
    (row,) = json.loads(stdout)
    return {name: row[name] for name in row if name[:2] in ("i_", "p_", "au")}


def warning(result) -> str:
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("warning: ") for line in lines)
    return "\n".join(lines)
