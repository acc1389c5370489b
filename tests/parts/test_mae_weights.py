import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import published_weights
from fewshot_ad.parts.mae_weights import (
    DRAWN,
    POSITIONS,
    PUBLISHED,
    RENAMED,
    TINY,
    build_network,
    resize_positions,
    wave_positions,
)

SIZE = 32
FORMER = {current: former for former, current in reversed(RENAMED.items())}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build_network("random:tiny", SIZE)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def drawn(network: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        return network(images, noise=torch.rand(2, 16, generator=generator)).logits


def write(folder: Path, weights: dict[str, Tensor], **settings: object) -> Path:
    save_file(weights, folder / "model.safetensors")
    config = {"model_type": "vit_mae", **TINY, "image_size": SIZE, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refusal(name: object, size: int = SIZE) -> str:
    with pytest.raises(FewShotError) as caught:
        build_network(str(name), size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_and_a_file_are_read(network: nn.Module, tmp_path: Path) -> None:
    folder = write(tmp_path, state(network))
    for name in (folder, folder / "model.safetensors"):
        assert torch.equal(drawn(build_network(str(name), SIZE)), drawn(network))


def test_names_of_either_release_are_read(network: nn.Module, tmp_path: Path) -> None:
    former = {}
    for name, value in state(network).items():
        for current, old in FORMER.items():
            name = name.replace(current, old)  # noqa: PLW2901
        former[name] = value
    assert "vit.encoder.layer.0.attention.attention.query.weight" in former
    assert "decoder.decoder_layers.0.output.dense.bias" in former
    torch.save(former, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit_mae", **TINY}))
    assert torch.equal(drawn(build_network(str(tmp_path), SIZE)), drawn(network))


def test_the_configuration_says_what_was_drawn(network: nn.Module, tmp_path: Path) -> None:
    found = build_network(str(write(tmp_path, state(network), norm_pix_loss=True)), SIZE)
    assert found.config.norm_pix_loss
    assert not network.config.norm_pix_loss


def test_published_sizes_are_those_of_the_published_files() -> None:
    megabytes = {each.name: each.megabytes for each in published_weights.PUBLISHED}
    with torch.device("meta"):
        for name, settings in PUBLISHED.items():
            network = ViTMAEForPreTraining(ViTMAEConfig(**settings))
            size = 4e-6 * sum(value.numel() for value in network.state_dict().values())
            assert size == pytest.approx(megabytes[name], rel=1e-3)


def test_drawn_networks_are_the_same_twice_and_leave_randomness_alone(network: nn.Module) -> None:
    before = torch.get_rng_state()
    again = build_network("random:tiny", SIZE)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(again.state_dict()[name], v) for name, v in state(network).items())
    assert {"tiny", "base", "large", "huge"} == {*DRAWN}


def test_waves_are_those_of_transformers(network: nn.Module) -> None:
    decoder = network.decoder
    expected = torch.nn.Parameter(torch.zeros_like(decoder.decoder_pos_embed))
    ours, decoder.decoder_pos_embed = decoder.decoder_pos_embed, expected
    decoder.initialize_weights(16)
    decoder.decoder_pos_embed = ours
    torch.testing.assert_close(wave_positions(4, 32), expected.detach(), rtol=0, atol=1e-6)
    assert all(state(network)[key].any() for key in POSITIONS)


def test_positions_are_resized_in_both_directions() -> None:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    grid = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    positions = torch.cat([torch.full((1, 2), -7.0), grid])[None]
    assert torch.equal(resize_positions(positions, 64), positions)
    larger = resize_positions(positions, 256)
    assert torch.equal(larger[:, :1], positions[:, :1])
    square = larger[0, 1:].view(16, 16, 2)
    inner = (torch.arange(16.0) + 0.5) / 2 - 0.5
    near = {"rtol": 0, "atol": 0.1}  # PyTorch's bicubic bends a ramp a little
    torch.testing.assert_close(square[4:12, 5, 0], inner[4:12], **near)
    torch.testing.assert_close(square[5, 4:12, 1], inner[4:12], **near)
    torch.testing.assert_close(square[:, :, 0], square[:, :, 1].T)


def test_weights_serve_images_of_another_size(network: nn.Module, tmp_path: Path) -> None:
    folder = write(tmp_path, state(network))
    larger = build_network(str(folder), 2 * SIZE)
    assert larger(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 64, 192)


def test_published_weights_need_no_configuration(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "facebook/vit-mae-base", TINY)
    save_file(state(network), tmp_path / "vit-mae-base.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "of another file"}')
    found = build_network("facebook/vit-mae-base", SIZE, tmp_path)
    assert torch.equal(drawn(found), drawn(network))
    (tmp_path / "config.json").unlink()
    by_width = build_network(str(tmp_path / "vit-mae-base.safetensors"), SIZE)
    assert torch.equal(drawn(by_width), drawn(network))


def test_weights_of_another_network_are_refused(network: nn.Module, tmp_path: Path) -> None:
    weights = state(network)
    without = {name: v for name, v in weights.items() if not name.startswith("decoder.")}
    assert "are missing, as decoder.decoder_embed.bias" in refusal(write(tmp_path, without))
    extra = weights | {"head.weight": torch.ones(2)}
    assert "1 are unknown, as head.weight" in refusal(write(tmp_path, extra))
    narrow = write(tmp_path, weights, decoder_hidden_size=16)
    assert "decoder.mask_token is [1, 1, 32], not [1, 1, 16]" in refusal(narrow)


def test_broken_folders_are_refused(network: nn.Module, tmp_path: Path) -> None:
    assert "holds no weights: expected model.safetensors" in refusal(tmp_path)
    weights = write(tmp_path, state(network)) / "model.safetensors"
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "vit"}')
    assert "describes a vit: expected a vit_mae" in refusal(weights)
    config.write_text("{")
    assert "is no configuration of a network" in refusal(weights)
    config.write_text('{"model_type": "vit_mae", "hidden_size": "wide"}')
    assert "is refused" in refusal(weights)
    config.unlink()
    assert "put its config.json beside it" in refusal(weights)
    weights.write_bytes(b"")
    assert "is empty" in refusal(weights)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("facebook/vit-mae-larg", 224, "did you mean 'facebook/vit-mae-large'?"),
        ("random:tin", 32, "did you mean 'tiny'?"),
        ("random:tiny", 36, "cannot be cut into patches of 8"),
        ("facebook/vit-mae-base", 224, "fewshot-ad weights fetch facebook/vit-mae-base"),
    ],
)
def test_what_cannot_be_built_is_refused(
    name: str, size: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert words in refusal(name, size)
