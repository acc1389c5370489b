import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_ad.api import FewShotError
from fewshot_ad.methods import list_methods, load_method
from fewshot_ad.parts.published_weights import PINNED, PUBLISHED, release_digest
from fewshot_ad.parts.weight_catalog import (
    published_weights,
    require_weights,
    search_order,
)

E31, E32 = "ViT-B-16-plus-240.laion400m_e31", "ViT-B-16-plus-240.laion400m_e32"
MAE = "facebook/vit-mae-base"
ENTRIES = {entry.name: entry for entry in PUBLISHED}


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches; returns that of the Hugging Face hub."""
    monkeypatch.delenv("FEWSHOT_AD_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def cached(hub: Path, repository: str, file: str) -> Path:
    """A file in the hub's cache, as the hub's own library lays it out."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    return put(folder / "snapshots" / "abc" / file)


def error_of(name: str, weights_dir: Path | None = None) -> str:
    with pytest.raises(FewShotError) as caught:
        require_weights(name, weights_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------ where they are searched


def test_the_places_are_searched_in_the_order_that_is_promised(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEWSHOT_AD_WEIGHTS", str(tmp_path / "named"))
    places = [
        put(tmp_path / "given" / f"{E31}.safetensors"),
        put(tmp_path / "named" / f"{E31}.pt"),
        cached(hub, ENTRIES[E31].repository, "open_clip_model.safetensors"),
        put(tmp_path / "torch/hub/checkpoints/vit_b_16_plus_240-laion400m_e31-8fb26589.pt"),
    ]
    for place in places:
        assert require_weights(E31, tmp_path / "given") == place
        place.unlink()
    assert "not on this machine" in error_of(E31, tmp_path / "given")
    folders = [*search_order(tmp_path / "given").values()]
    assert all(folder in place.parents for folder, place in zip(folders, places, strict=True))


def test_the_cache_of_the_hub_follows_its_environment_variable(tmp_path: Path):
    path = cached(tmp_path / "home" / "hub", MAE, "pytorch_model.bin")
    script = (
        "from fewshot_ad.parts.weight_catalog import require_weights\n"
        f"print(require_weights({MAE!r}, None))"
    )
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, env=environment
    )
    assert found.stdout.decode().strip() == str(path)


def test_safetensors_are_preferred_in_a_repository(hub: Path):
    cached(hub, MAE, "pytorch_model.bin")
    path = cached(hub, MAE, "model.safetensors")
    assert require_weights(MAE, None) == path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (E32, f"{E32}.safetensors"),
        (E32, "vit_b_16_plus_240-laion400m_e32-699c4b84.pt"),
        (E31, "vit_base_patch16_plus_clip_240.laion400m_e31/open_clip_pytorch_model.bin"),
        (MAE, "vit-mae-base.safetensors"),
        (MAE, "vit-mae-base/pytorch_model.bin"),
        ("resnet18", "resnet18-f37072fd.pth"),
        ("resnet18", "resnet18.tv_in1k.bin"),
        ("someone/vit-thing", "vit-thing/model.safetensors"),
    ],
)
def test_a_file_in_a_folder_goes_by_our_name_or_as_it_was_published(
    name: str, file: str, tmp_path: Path
):
    path = put(tmp_path / file)
    assert require_weights(name, tmp_path) == path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (E32, f"{E31}.safetensors"),
        (MAE, "vit-mae-large.safetensors"),
        ("ViT-L-14.laion2b_s32b_b82k", "ViT-L-14-336.openai.safetensors"),
        (MAE, "vit-mae-base.txt"),
    ],
)
def test_a_file_of_another_name_is_not_taken(name: str, file: str, tmp_path: Path):
    put(tmp_path / file)
    assert "not on this machine" in error_of(name, tmp_path)


def test_e32_is_never_taken_from_the_repository_of_e31(hub: Path):
    cached(hub, ENTRIES[E31].repository, "open_clip_model.safetensors")
    message = error_of(E32)
    assert "vit_b_16_plus_240-laion400m_e32-699c4b84.pt" in message
    assert "huggingface.co" not in message


# ------------------------------------------------------------ what is said where they are not


@pytest.mark.parametrize(
    "entry", [each for each in PUBLISHED if not each.embedded], ids=lambda entry: entry.name
)
def test_absent_weights_are_answered_with_file_size_source_place_and_command(entry):
    message = error_of(entry.name)
    for part in (
        entry.file_name,
        f"{entry.megabytes:.0f} MB",
        entry.repository or entry.url,
        "--weights-dir, $FEWSHOT_AD_WEIGHTS, the Hugging Face cache or the torch cache",
        f"`fewshot-ad weights fetch {entry.name}`",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-16-plus-240.laion400m_e33", f"expected one of .*{E31}, {E32}"),
        ("ViT-B-16-plus-240", f"expected one of {E31}, {E32}"),
        ("resnet18.nonsense", "resnet18.tv_in1k"),
        ("facebook/vit-mae-gigantic", "size unknown, from https://huggingface.co/facebook"),
        ("../weights/net.pth", "there is no file ../weights/net.pth"),
        ("a/b/c", "no set of weights is called 'a/b/c'"),
        ("", "no set of weights is called ''"),
        ("resnet18.tv_in1l", "resnet18.tv_in1k"),
    ],
)
def test_names_that_stand_for_nothing_here(name: str, expected: str):
    with pytest.raises(FewShotError, match=expected):
        require_weights(name, None)


def test_a_folder_that_is_none_is_an_error(tmp_path: Path):
    assert "which is no folder" in error_of(E31, tmp_path / "no")
    with pytest.raises(FewShotError, match="which is no folder"):
        search_order(tmp_path / "no")


# ------------------------------------------------------------ the entries


def test_names_are_unique_and_every_entry_says_where_from():
    assert len(ENTRIES) == len(PUBLISHED)
    for entry in PUBLISHED:
        assert entry.embedded or entry.source.startswith("https://")
        assert bool(entry.files) == bool(entry.repository)
        assert all(suffix.startswith(".") for suffix in entry.sha256)


@pytest.mark.parametrize("name", list_methods())
def test_the_default_backbone_of_every_method_is_in_the_catalogue(name: str):
    backbone: str = getattr(load_method(name), "backbone", "tiny")  # an ensemble joins those of its
    assert all("default" in ENTRIES[each].purpose for each in backbone.split(" + "))  # members


def test_the_trap_is_pinned():
    assert ENTRIES[E31].sha256[".pt"] == "8fb26589"
    assert ENTRIES[E31].sha256[".bin"].startswith("fa8eec9aff58e921")
    assert (ENTRIES[E32].repository, ENTRIES[E32].sha256[".pt"]) == ("", "699c4b84")


def test_open_clip_has_no_second_trap():
    """Two tags of one architecture in one repository: only those that the catalogue overrides."""
    pretrained = pytest.importorskip("open_clip.pretrained")
    shared = {
        frozenset({f"{model}.{tag}", f"{model}.{other}"})
        for model, tags in pretrained._PRETRAINED.items()
        for tag, entry in tags.items()
        for other, another in tags.items()
        if tag != other and entry.get("hf_hub") and entry.get("hf_hub") == another.get("hf_hub")
    }
    assert shared <= {frozenset({E31, E32})}


@pytest.mark.parametrize("architecture", PINNED)
def test_what_is_written_of_networks_of_timm_is_what_timm_says(architecture: str):
    from fewshot_ad.parts.library_weights import of_timm

    told = of_timm(architecture)
    entry = published_weights(architecture)
    assert told is not None
    assert told.megabytes == pytest.approx(entry.megabytes, abs=0.06)
    for name in ("name", "family", "licence", "repository", "files", "sha256"):
        assert getattr(told, name) == getattr(entry, name)
    assert told.url.rpartition("/")[2] == entry.url.rpartition("/")[2]


@pytest.mark.parametrize(
    "entry", [each for each in PUBLISHED if each.family == "clip"], ids=lambda entry: entry.name
)
def test_what_is_written_of_models_of_open_clip_is_what_it_says(entry):
    from fewshot_ad.parts.library_weights import of_open_clip

    told = of_open_clip(entry.name)
    assert told is not None
    assert told.megabytes == pytest.approx(entry.megabytes, abs=0.06)
    assert told.tensor == entry.tensor
    if entry.name != E32:
        assert told.repository == entry.repository


def test_weights_that_the_catalogue_does_not_list_are_known_by_their_library():
    resnet = published_weights("resnet101.tv_in1k")
    assert (resnet.repository, resnet.sha256) == ("timm/resnet101.tv_in1k", {".pth": "63fe2227"})
    clip = published_weights("ViT-B-32.laion400m_e31")
    assert clip.repository == "timm/vit_base_patch32_clip_224.laion400m_e31"
    assert clip.megabytes == pytest.approx(605.1, abs=0.1)
    assert published_weights("ViT-B-32.openai").url == ""  # TorchScript, which is code
    assert published_weights("roberta-ViT-B-32.laion2b_s12b_b32k").megabytes is None


def test_a_release_says_how_its_digest_begins():
    assert release_digest("https://x/vit-e31-8fb26589.pt") == {".pt": "8fb26589"}
    assert release_digest("https://x/resnet18.pth") == {}


def test_nothing_is_read_or_fetched_to_import_the_catalogue():
    script = (
        "import sys, fewshot_ad.parts.published_weights, fewshot_ad.parts.weight_catalog\n"
        "assert not {'timm', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
