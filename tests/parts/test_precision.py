import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import load_backbone
from fewshot_ad.parts.precision import quickened, split_precision

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))

VIT = """
import timm, torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.vit = timm.create_model("vit_tiny_patch16_224", depth=2, dynamic_img_size=True)

    def forward(self, images):
        return [self.vit.forward_intermediates(images, [1], intermediates_only=True)[0]]
"""


def off(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet18", (None, "resnet18")),
        ("bf16:resnet18", ("bf16", "resnet18")),
        ("openvino:random:tiny", ("openvino", "random:tiny")),
        ("openvino-bf16:path/to/file.py:f", ("openvino-bf16", "path/to/file.py:f")),
        ("random:tiny", (None, "random:tiny")),
        ("bf16.py:factory", (None, "bf16.py:factory")),
        ("bf16:", (None, "bf16:")),
    ],
)
def test_the_precision_is_the_first_part_of_a_name(name: str, parts: tuple[str | None, str]):
    assert split_precision(name) == parts


@pytest.mark.parametrize("name", ["tiny", "random:resnet18"])
def test_bfloat16_is_near_and_says_what_it_is(name: str):
    plain, half = load_backbone(name), load_backbone(f"bf16:{name}")
    found, wanted = half(IMAGES), plain(IMAGES)
    assert all(level.dtype == torch.float32 and level.is_contiguous() for level in found)
    assert 0 < off(found, wanted) < 0.05
    assert half.name == f"bf16:{name}"
    assert half.digest != plain.digest
    assert half.digest == load_backbone(f"bf16:{name}").digest
    assert (half.channels, half.strides) == (plain.channels, plain.strides)
    assert half.parameters == plain.parameters
    assert torch.equal(half(IMAGES[1:2])[0], found[0][1:2])


def test_a_network_of_tokens_can_be_had_in_bfloat16(tmp_path: Path):
    (tmp_path / "vit.py").write_text(VIT)
    name = f"{tmp_path}/vit.py:Tokens"
    found = load_backbone(f"bf16:{name}", levels=(1,))(IMAGES)
    assert 0 < off(found, load_backbone(name, levels=(1,))(IMAGES)) < 0.05


def test_without_openvino_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FewShotError, match="pip install openvino"):
        load_backbone("openvino:tiny")


def test_openvino_has_no_other_device():
    with pytest.raises(FewShotError, match="not on cuda:1"):
        quickened(torch.nn.Identity(), "openvino", "cuda:1")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A library with the calls of OpenVINO that runs the network itself and tells what it met."""
    told: list[object] = []

    class Compiled:
        def __init__(self, network: torch.nn.Module) -> None:
            self.network = network

        def infer_new_request(self, inputs: list[np.ndarray]) -> dict[int, np.ndarray]:
            levels = self.network(torch.from_numpy(inputs[0]))
            return {number: level.numpy() for number, level in enumerate(levels)}

    class Core:
        def compile_model(self, model: object, _: str, settings: dict[str, object]) -> Compiled:
            told.append(settings["INFERENCE_PRECISION_HINT"])
            return Compiled(model)

    def convert_model(traced: torch.jit.ScriptModule, **shape: object) -> object:
        told.append(shape["input"])
        return traced

    library = ModuleType("openvino")
    library.Core, library.convert_model = Core, convert_model
    monkeypatch.setitem(sys.modules, "openvino", library)
    return told


def test_openvino_compiles_once_for_every_shape(stand_in: list[object]):
    backbone = load_backbone("openvino-bf16:random:tiny")
    assert stand_in == [[1, 3, 224, 224], "bf16"]
    assert off(backbone(IMAGES), load_backbone("random:tiny")(IMAGES)) == 0
    assert stand_in[2:] == [[1, 3, 64, 64], "bf16"]
    backbone(IMAGES)
    assert len(stand_in) == 4


@pytest.mark.usefixtures("stand_in")
def test_what_openvino_cannot_compile_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such\n operator")

    monkeypatch.setattr(sys.modules["openvino"], "convert_model", refuse)
    with pytest.raises(FewShotError, match=r"no such operator.*without openvino"):
        load_backbone("openvino:tiny")


def test_openvino_itself_gives_the_same_features():
    pytest.importorskip("openvino", reason="OpenVINO is optional and not installed")
    wanted = load_backbone("random:tiny")(IMAGES)
    assert off(load_backbone("openvino:random:tiny")(IMAGES), wanted) < 1e-4
    assert 0 < off(load_backbone("openvino-bf16:random:tiny")(IMAGES), wanted) < 0.05
