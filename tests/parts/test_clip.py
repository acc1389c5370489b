import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, resize_pos_embed
from safetensors.torch import save_file
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import clip_networks
from fewshot_ad.parts.clip import MEAN, STD, Clip, class_prototypes, count_tokens, load_clip
from fewshot_ad.parts.clip_networks import TINY, Source, build, find_source

SENTENCES = ("a photo of a flawless screw", "a photo of a damaged screw", "a screw")


@pytest.fixture
def clip() -> Clip:
    """A copy of its own: nothing is known to it yet."""
    return Clip("tiny", build(find_source("random:tiny", None), 64, False))


def drawn_weights(seed: int = 7, **vision: Any) -> dict[str, Tensor]:
    config = deepcopy(TINY)
    config["vision_cfg"] |= vision
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(**config).state_dict()


def test_a_name_has_one_copy_and_random_weights_are_always_the_same(clip: Clip) -> None:
    of_torch = torch.get_rng_state()
    first, second = load_clip("random:tiny", 64), load_clip("random:tiny", 64)
    assert first is second
    assert first.digest == clip.digest != load_clip("random:tiny", 80).digest
    assert torch.equal(of_torch, torch.get_rng_state())


def test_text_is_what_the_model_makes_of_the_tokens(clip: Clip) -> None:
    tokens = open_clip.tokenize([*SENTENCES])
    with torch.no_grad():
        expected = clip.network.encode_text(tokens)
    found = clip.embed_sentences(SENTENCES)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_every_sentence_is_embedded_once_and_alone_as_in_company(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    encode = clip.network.encode_text
    monkeypatch.setattr(
        clip.network, "encode_text", lambda tokens: asked.append(len(tokens)) or encode(tokens)
    )
    together = clip.embed_sentences([*SENTENCES, SENTENCES[0]])
    assert torch.equal(together[0], together[3])
    assert torch.equal(clip.embed_sentences(SENTENCES[1:2])[0], together[1])
    assert len(asked) == 1
    other = Clip("tiny", build(find_source("random:tiny", None), 64, False))
    assert torch.equal(other.embed_sentences(SENTENCES[1:2])[0], together[1])
    assert clip.embed_sentences([f"number {n}" for n in range(40)]).shape == (40, 32)
    assert len(asked) == 3


def test_more_tokens_than_the_context_are_refused(clip: Clip) -> None:
    fits, long = "a " * 75, "a " * 76
    assert count_tokens(fits) == 77
    clip.embed_sentences([fits.strip()])
    with pytest.raises(FewShotError, match="has 78 tokens, tiny reads 77: shorten it"):
        clip.embed_sentences([long])


def test_prototypes_weigh_sentences_alike_or_by_length() -> None:
    normal, anomalous = torch.tensor([[3.0, 0], [0, 1]]), torch.tensor([[0.0, 2]])
    each = class_prototypes(normal, anomalous)
    mean = class_prototypes(normal, anomalous, "mean")
    half = 0.5**0.5
    torch.testing.assert_close(each, torch.tensor([[half, half], [0, 1]]))
    torch.testing.assert_close(mean[0], torch.tensor([3.0, 1]) / 10**0.5)


def test_features_are_remembered_and_shared(clip: Clip) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = clip.features()
    assert clip.features((2, 3)) is features
    assert clip.features((2,)) is not features
    first, again = features(images), clip.features()(images[1:])
    assert (features.stats.hits, features.stats.misses) == (1, 2)
    assert [tuple(each.shape[1:]) for each in first] == [
        (32, 1, 1),
        (32, 3, 3),
        (32, 2, 2),
        (64, 4, 4),
    ]
    assert all(torch.equal(one[1], other[0]) for one, other in zip(first, again, strict=True))
    backbone = features.backbone
    assert [each.shape[1] for each in first] == list(backbone.channels)
    assert backbone.strides == (64, 16, 16, 16)


def test_images_of_another_normalisation_are_refused(clip: Clip) -> None:
    clip.check_normalisation((0, 0, 0), (1, 1, 1))  # random weights take anything
    clip.mean, clip.std = MEAN, STD
    clip.check_normalisation((0.4815, 0.4578, 0.4082), STD)
    with pytest.raises(
        FewShotError, match=r"trained with a std of .*type --set preprocess\.std=0\.26"
    ):
        clip.check_normalisation(MEAN, (0.229, 0.224, 0.225))


@pytest.mark.parametrize("file_name", ["ViT-tiny-16.mine.safetensors", "vit_tiny_16-laion-12ab.pt"])
def test_a_file_is_called_after_its_architecture(
    file_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(known, "ViT-tiny-16", deepcopy(TINY))
    monkeypatch.setitem(known, "ViT-tiny", {"embed_dim": 8})  # the longest name counts
    stored, path = drawn_weights(), tmp_path / file_name
    old = {f"module.{key}": value for key, value in stored.items()}
    if path.suffix == ".pt":
        torch.save({"state_dict": old | {"module.attn_mask": torch.zeros(77, 77)}}, path)
    else:
        save_file(stored, path)
    clip = load_clip(str(path), 64)
    assert clip.name == file_name
    kept = clip.network.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in stored.items())


def test_a_name_with_a_tag_is_looked_for_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ViT-B-32.openai.safetensors"
    path.write_bytes(b"")
    monkeypatch.setattr(clip_networks, "require_weights", lambda name, folder: path)
    source = find_source("ViT-B-32.openai", tmp_path)
    assert (source.path, source.mean, source.std) == (path, MEAN, STD)
    assert source.config["quick_gelu"] is True
    other = find_source("ViT-B-32.laion2b_e16", tmp_path)
    assert not other.config.get("quick_gelu")
    with pytest.raises(FewShotError, match="is empty or cannot be read"):
        build(other, 224, False)


@pytest.mark.parametrize(
    ("file_name", "quick"),
    [
        ("ViT-B-16.openai.safetensors", True),
        ("vit_b_16-openai-5806e77c.pt", True),
        ("ViT-B-16-quickgelu.mine.safetensors", True),
        ("ViT-B-16.laion2b_s34b_b88k.safetensors", False),
        ("ViT-B-16.mine.safetensors", False),
    ],
)
def test_the_tag_in_a_file_name_tells_the_activation(
    file_name: str, quick: bool, tmp_path: Path
) -> None:
    (tmp_path / file_name).write_bytes(b"")
    source = find_source(str(tmp_path / file_name), None)
    assert bool(source.config.get("quick_gelu")) == quick
    assert source.mean == (None if "mine" in file_name else MEAN)


def test_a_folder_of_the_hub_describes_itself(tmp_path: Path) -> None:
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    written = {"model_cfg": deepcopy(TINY), "preprocess_cfg": preprocess}
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(
        FewShotError, match="mine is no folder of open_clip: expected open_clip_conf"
    ):
        load_clip(str(folder), 64)
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    with pytest.raises(
        FewShotError, match="mine holds no weights: expected one of open_clip_model"
    ):
        load_clip(str(folder), 64)
    save_file(drawn_weights(), folder / "open_clip_model.safetensors")
    clip = load_clip(str(folder), 64)
    assert (clip.name, clip.mean) == ("mine", (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"layers": 3},
            "12 tensors are unknown, as visual.transformer.resblocks.2.attn.in_proj_bias",
        ),
        (
            {"layers": 1},
            "12 tensors are missing, as visual.transformer.resblocks.1.attn.in_proj_bias",
        ),
        ({"image_size": 96}, r"visual.positional_embedding is \[37, 64\], not \[17, 64\]"),
        ({"patch_size": 8}, r"visual.conv1.weight is \[64, 3, 8, 8\], not \[64, 3, 16, 16\]"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: dict[str, Any], line: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(drawn_weights(**change), path)
    with pytest.raises(FewShotError, match=f"weights.safetensors is not of mine: {line}"):
        build(Source("mine", TINY, path), 64, False)


def test_another_size_is_taken_only_when_asked_for(tmp_path: Path) -> None:
    path, stored = tmp_path / "weights.safetensors", drawn_weights()
    save_file(stored, path)
    source = Source("mine", TINY, path)
    with pytest.raises(FewShotError, match=r"mine was trained at 64 px.* resize_positions=true"):
        build(source, 96, False)
    with pytest.raises(FewShotError, match=r"patches of 16 px, and 90 px is no multiple: type"):
        build(source, 90, True)
    larger = build(source, 96, True)
    resize_pos_embed(stored, larger)  # as open_clip does it
    found = larger.state_dict()["visual.positional_embedding"]
    assert found.shape == (37, 64)
    assert torch.equal(found, stored["visual.positional_embedding"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("RN50.openai", "its image tower is a ResNet"),
        ("ViT-B-16-SigLIP.webli", "its image tower comes from timm"),
        ("coca_ViT-B-32.laion2b_s13b_b90k", "it pools by attention"),
        ("roberta-ViT-B-32.laion2b_s12b_b32k", "its text tower comes from Hugging Face"),
        ("random:ViT-H-14-CLIPA", "its tokens come from Hugging Face"),
        ("ViT-B-16-plus-24.laion400m_e32", "no model of open_clip is called.*did you mean"),
        ("ViT-B-16-plus-240.laion", "no set of weights of ViT-B-16-plus-240 .* laion400m_e31"),
        ("ViT-B-16-plus-240", "no set of weights of ViT-B-16-plus-240 is called ''"),
        ("random:tinny", "no model of open_clip is called 'tinny'"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, line: str) -> None:
    with pytest.raises(FewShotError, match=line):
        load_clip(name, 224)


def test_a_file_that_says_nothing_of_its_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(
        FewShotError, match=r"does not say which network .* ViT-B-16-plus-240\.mine"
    ):
        load_clip(str(path), 240)


def test_absent_weights_are_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewshot_ad.parts.weight_catalog.in_caches", lambda entry: None)
    with pytest.raises(FewShotError, match=r"laion400m_e32 is not on this machine: expected .* MB"):
        load_clip("ViT-B-16-plus-240.laion400m_e32", 240, weights_dir=tmp_path)
