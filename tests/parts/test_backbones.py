import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import digest_of, list_backbones, load_backbone
from fewshot_ad.parts.weight_fetching import fetch_weights

SHARED = Path(os.environ.get("FEWSHOT_AD_SHARED", Path(__file__).parents[2].parent / "shared"))
SMALL = "resnet10t"  # the smallest residual network of timm
IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))

needs_weights = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="the real weights of shared/weights are not here"
)


@pytest.fixture(autouse=True)
def _no_weights_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor a hub cache answers for the folder under test."""
    monkeypatch.delenv("FEWSHOT_AD_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(SMALL, pretrained=False).state_dict()


def load_error(name: str, **options: object) -> str:
    with pytest.raises(FewShotError) as caught:
        load_backbone(name, **options)  # pyright: ignore[reportArgumentType]
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------ the promise of every backbone


@pytest.mark.parametrize("name", ["random:tiny", f"random:{SMALL}", "random:mobilenetv2_035"])
def test_levels_have_the_strides_and_channels_they_announce(name: str):
    backbone = load_backbone(name)
    assert backbone.strides == (4, 8, 16)
    for maps, stride, channels in zip(
        backbone(IMAGES), backbone.strides, backbone.channels, strict=True
    ):
        assert maps.shape == (3, channels, 64 // stride, 64 // stride)
        assert maps.dtype == torch.float32
        assert maps.is_contiguous()
        assert not maps.requires_grad


@pytest.mark.parametrize("name", ["random:tiny", f"random:{SMALL}"])
def test_an_image_alone_has_the_features_it_has_in_any_batch(name: str):
    backbone = load_backbone(name)
    together = backbone(IMAGES)
    alone = backbone(IMAGES[1:2])
    turned = backbone(IMAGES.flip(0))
    assert all(torch.equal(a, t[1:2]) for a, t in zip(alone, together, strict=True))
    assert all(torch.equal(a, t.flip(0)) for a, t in zip(together, turned, strict=True))


def test_no_images_have_no_features():
    assert [maps.shape[0] for maps in load_backbone("random:tiny")(IMAGES[:0])] == [0, 0, 0]


@pytest.mark.parametrize("name", ["random:tiny", f"random:{SMALL}"])
def test_some_levels_are_those_of_all_levels(name: str):
    every, some = load_backbone(name), load_backbone(name, levels=(2, 3))
    assert some.channels == every.channels[1:]
    for one, other in zip(every(IMAGES)[1:], some(IMAGES), strict=True):
        assert torch.equal(one, other)


def test_nan_in_an_image_is_an_error():
    image = IMAGES[:1].clone()
    image[0, 0, 5, 5] = torch.nan
    with pytest.raises(FewShotError, match="NaN or infinite features"):
        load_backbone("random:tiny")(image)


@pytest.mark.parametrize("levels", [(), (2, 1), (1, 1), (0, 1)])
def test_levels_must_rise_from_one(levels: tuple[int, ...]):
    assert "rising" in load_error("random:tiny", levels=levels)


# ------------------------------------------------------------ random weights


def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_backbone(f"random:{SMALL}")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert load_backbone(f"random:{SMALL}").digest == first.digest
    assert load_backbone("random:tiny").digest != first.digest


def test_random_residual_blocks_are_not_mere_shortcuts():
    network = load_backbone(f"random:{SMALL}").network
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert all(part.weight.any() for part in norms)


# ------------------------------------------------------------ names


def test_a_misspelt_name_is_answered_with_the_nearest():
    assert "'resnet18'" in load_error("resnett18")


def test_a_name_without_a_pinned_tag_is_refused_with_the_tags():
    message = load_error("resnet101")
    assert "resnet101.tv_in1k" in message
    assert "resnet101.a1_in1k" in message


def test_an_unknown_tag_is_refused_with_the_tags():
    assert "resnet18.tv_in1k" in load_error("resnet18.nonsense")


def test_absent_weights_name_tag_size_source_and_command():
    message = load_error("wide_resnet50_2")
    for part in (
        "wide_resnet50_2.racm_in1k.safetensors",
        "276 MB",
        "https://huggingface.co/timm/wide_resnet50_2.racm_in1k",
        "fewshot-ad weights fetch wide_resnet50_2.racm_in1k",
    ):
        assert part in message


def test_a_network_without_the_strides_is_refused():
    assert "levels (4, 5) need strides [32, 64]" in load_error(f"random:{SMALL}", levels=(4, 5))


def test_a_fetch_without_network_fails_at_once(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(FewShotError, match=r"47 MB.*huggingface.co/timm/resnet18.tv_in1k"):
        fetch_weights("resnet18", None)


def test_fetched_weights_are_copied_under_their_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cached = tmp_path / "model.safetensors"
    cached.write_bytes(b"weights")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: cached)
    path = fetch_weights("resnet18", tmp_path / "new")
    assert path == tmp_path / "new" / "resnet18.tv_in1k.safetensors"
    assert path.read_bytes() == b"weights"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FewShotError, match="cannot write"):
        fetch_weights("resnet18", tmp_path / "file")


def test_the_list_says_what_is_here(tmp_path: Path):
    (tmp_path / "resnet18.tv_in1k.safetensors").touch()
    rows = {row.name: row for row in list_backbones(tmp_path)}
    assert rows["tiny"].where == "embedded"
    assert rows["resnet18.tv_in1k"].where.startswith(str(tmp_path))
    assert rows["wide_resnet50_2.racm_in1k"].where == "not here"


# ------------------------------------------------------------ files of weights


@pytest.mark.parametrize("file_name", [f"{SMALL}.c3_in1k.safetensors", f"{SMALL}_c3_in1k-x.pth"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_weights_from_a_folder_give_the_features_of_the_whole_network(
    state: dict[str, Tensor],
    tmp_path: Path,
    file_name: str,
    by_variable: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    write = save_file if file_name.endswith("safetensors") else torch.save
    write(state, tmp_path / file_name)
    if by_variable:
        monkeypatch.setenv("FEWSHOT_AD_WEIGHTS", str(tmp_path))
    backbone = load_backbone(f"{SMALL}.c3_in1k", weights_dir=None if by_variable else tmp_path)
    assert backbone.source == str(tmp_path / file_name)
    whole = timm.create_model(SMALL, pretrained=False).eval()
    whole.load_state_dict(state)
    with torch.no_grad():
        maps = whole.maxpool(whole.act1(whole.bn1(whole.conv1(IMAGES))))
        for found, stage in zip(
            backbone(IMAGES), (whole.layer1, whole.layer2, whole.layer3), strict=True
        ):
            maps = stage(maps)
            assert torch.allclose(found, maps, atol=1e-5)


def test_the_tag_typed_must_be_the_tag_of_the_file(state: dict[str, Tensor], tmp_path: Path):
    save_file(state, tmp_path / "resnet18.a1_in1k.safetensors")
    assert "not on this machine" in load_error("resnet18.tv_in1k", weights_dir=tmp_path)


def test_layers_beyond_the_last_level_may_be_absent(state: dict[str, Tensor], tmp_path: Path):
    kept = {name: value for name, value in state.items() if not name.startswith(("layer4", "fc"))}
    save_file(kept, tmp_path / f"{SMALL}.c3_in1k.safetensors")
    assert load_backbone(f"{SMALL}.c3_in1k", weights_dir=tmp_path).levels == (1, 2, 3)


def break_state(state: dict[str, Tensor], kind: str) -> None:
    """Spoil a state dict before it is written."""
    if kind == "layer missing":
        del state["layer2.0.conv1.weight"]
    elif kind == "layer unknown":
        state["input_norm.weight"] = torch.ones(3)
    elif kind == "shape":
        state["layer1.0.conv1.weight"] = torch.ones(3, 3)
    elif kind == "NaN":
        state["conv1.0.weight"][0] = torch.nan


def break_file(path: Path, kind: str) -> None:
    """Spoil a file of weights."""
    contents = {
        "cut off": path.read_bytes()[:5000],
        "empty": b"",
        "web page": b"<!DOCTYPE html><html>404</html>",
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "checkpoint":
        torch.save({}, path)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("layer missing", "1 are missing, as layer2.0.conv1.weight"),
        ("layer unknown", "1 are unknown, as input_norm_weight"),
        ("shape", r"layer1.0.conv1.weight is \[3, 3\], not \[64, 64, 3, 3\]"),
        ("NaN", "NaN or infinite values in conv1.0.weight"),
        ("cut off", "damaged or cut off"),
        ("empty", "empty"),
        ("web page", "web page"),
        ("checkpoint", "torch checkpoint with the wrong suffix"),
    ],
)
def test_broken_weights_are_an_error_in_one_line(
    state: dict[str, Tensor], tmp_path: Path, kind: str, expected: str
):
    path = tmp_path / f"{SMALL}.c3_in1k.safetensors"
    break_state(state, kind)
    save_file(state, path)
    break_file(path, kind)
    assert re.search(expected, load_error(f"{SMALL}.c3_in1k", weights_dir=tmp_path))


class Bomb:
    """What a malicious pickle holds."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # pyright: ignore[reportReturnType]


def test_a_pickle_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{SMALL}.c3_in1k.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    assert "pickle that runs code" in load_error(f"{SMALL}.c3_in1k", weights_dir=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_two_files_that_fit_are_not_guessed_between(state: dict[str, Tensor], tmp_path: Path):
    for suffix in ("c3_in1k-a", "c3_in1k-b"):
        save_file(state, tmp_path / f"{SMALL}_{suffix}.safetensors")
    assert "several weights" in load_error(f"{SMALL}.c3_in1k", weights_dir=tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    assert str(tmp_path / "no") in load_error("resnet18", weights_dir=tmp_path / "no")


@needs_weights
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_real_weights_give_the_features_of_their_own_loader(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    folder = SHARED / "weights"
    found = load_backbone(name, weights_dir=folder)(IMAGES)
    monkeypatch.syspath_prepend(str(folder))
    wanted = load_backbone(f"{folder / 'load.py'}:build_{name}")(IMAGES)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


# ------------------------------------------------------------ networks of users

FACTORIES = """
import torch
from torch import nn


class Maps(nn.Module):
    def __init__(self, *sizes, value=1.0):
        super().__init__()
        self.sizes = sizes
        self.weight = nn.Parameter(torch.tensor(value))

    def forward(self, images):
        means = images.mean((1, 2, 3)).view(-1, 1, 1, 1)
        return [(means * self.weight).expand(len(images), *size) for size in self.sizes]


class Single(nn.Module):
    def forward(self, images):
        return images


class Flat(nn.Module):
    def forward(self, images):
        return [images[:, 0]]


def good(): return Maps((8, 28, 28), (16, 14, 14))
def rising(): return Maps((8, 14, 14), (16, 28, 28))
def flat(): return Flat()
def nan(): return Maps((8, 28, 28), value=float("nan"))
def single(): return Single()
def raising(): raise KeyError("weights")
def text(): return "network"
def needs(argument): return Maps((8, 28, 28))
"""


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    path = tmp_path / "stranger_factories.py"
    path.write_text(FACTORIES)
    return path


def test_a_users_network_enters_by_file_and_by_module(
    factories: Path, monkeypatch: pytest.MonkeyPatch
):
    by_file = load_backbone(f"{factories}:good", levels=(1, 2))
    monkeypatch.syspath_prepend(str(factories.parent))
    by_module = load_backbone("stranger_factories:good", levels=(2,))
    del sys.modules["stranger_factories"]
    assert (by_file.channels, by_file.strides) == ((8, 16), (8, 16))
    assert by_module.channels == (16,)
    assert by_file.digest == by_module.digest
    assert torch.equal(by_file(IMAGES)[1], by_module(IMAGES)[0])


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("rising", "largest first"),
        ("flat", "expected \\[b c h w\\]"),
        ("nan", "NaN or infinite"),
        ("single", "returned a Tensor: expected a list of maps"),
        ("raising", "raised KeyError"),
        ("text", "returned a str"),
        ("needs", "raised TypeError"),
        ("absent", "has no factory 'absent'; it has .*good"),
        ("good", "2 levels"),
    ],
)
def test_a_factory_that_breaks_its_promise_is_an_error(
    factories: Path, factory: str, expected: str
):
    assert re.search(expected, load_error(f"{factories}:{factory}"))


def test_files_and_modules_that_are_not_there_are_named(tmp_path: Path):
    assert "no file" in load_error(f"{tmp_path / 'no.py'}:build")
    assert "cannot import 'no_such_package'" in load_error("no_such_package:build")
    (tmp_path / "broken.py").write_text("1 / 0")
    assert "ZeroDivisionError" in load_error(f"{tmp_path / 'broken.py'}:build")


# ------------------------------------------------------------ digests


def test_the_digest_changes_with_one_weight_and_with_nothing_else():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    before = digest_of(network)
    network[1].num_batches_tracked += 1
    assert digest_of(network) == before
    with torch.no_grad():
        network[0].weight[0, 0] += 1e-6
    assert digest_of(network) != before
