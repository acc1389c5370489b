"""The adapter of anomalib; what needs the library itself is skipped where it is not installed."""

import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fewshot_ad.adapters.anomalib_models import AnomalibModel
from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.methods import load_method
from fewshot_ad.parts.timm_networks import build_network

is_absent = find_spec("anomalib") is None
needs_anomalib = pytest.mark.skipif(is_absent, reason="the extra [anomalib] is not installed")
SMALL = Preprocess(size=64)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5)).clamp(-1.5, 1.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = build_network("resnet18", (1, 2, 3)).state_dict()
    save_file(state, folder / "resnet18.safetensors")
    return folder


def adapted(model: str, weights: Path, **changes) -> AnomalibModel:
    changes = {"steps": 2, "preprocess": SMALL, "backbone": "resnet18"} | changes
    return AnomalibModel(model=model, weights_dir=str(weights), **changes)


def test_a_model_is_named_after_its_library() -> None:
    method = load_method("anomalib:Stfpm", steps=3)
    assert method_name(method) == "anomalib:Stfpm"
    assert method.params()["model"] == "Stfpm"
    assert method_name(method.variant(seed=2)) == "anomalib:Stfpm"


@pytest.mark.parametrize("wrong", ["layer2", "[1]", ""])
def test_arguments_are_an_object(wrong: str) -> None:
    with pytest.raises(FewShotError, match="expected a JSON object"):
        AnomalibModel(arguments=wrong)


def test_images_are_brought_back_to_the_unit_interval(images: Tensor) -> None:
    method, mean, std = AnomalibModel(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = method._unnormalised(images)
    for channel in range(3):
        expected = images[:, channel].numpy() * std[channel] + mean[channel]
        np.testing.assert_allclose(found[:, channel], expected.clip(0, 1), atol=1e-6)


@pytest.mark.skipif(not is_absent, reason="anomalib is installed")
def test_without_the_library_the_extra_is_named(images: Tensor) -> None:
    with pytest.raises(FewShotError, match=r'pip install "fewshot-ad\[anomalib\]"'):
        load_method("anomalib:Padim").fit(Support("part", images))


@needs_anomalib
@pytest.mark.parametrize("model", ["Padim", "Patchcore", "Stfpm", "Fastflow"])
def test_a_model_is_trained_and_judges(model: str, images: Tensor, weights: Path) -> None:
    state, place = (torch.get_rng_state(), np.random.get_state()[1].sum()), Path.cwd()  # noqa: NPY002
    drawn = random.Random(0).random()
    found = adapted(model, weights).fit(Support("part", images)).predict(images)
    assert found.image_score.shape == (4,)
    assert found.anomaly_map.shape == (4, 64, 64)
    again = adapted(model, weights).fit(Support("part", images)).predict(images[2:3])
    torch.testing.assert_close(again.image_score, found.image_score[2:3], rtol=1e-4, atol=1e-5)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].sum()  # noqa: NPY002
    assert (place, drawn) == (Path.cwd(), random.Random(0).random())


@needs_anomalib
def test_scores_are_raw(images: Tensor, weights: Path) -> None:
    method = adapted("Patchcore", weights).fit(Support("part", images))
    bright = method.predict(10 * images).image_score
    assert bright.max() > 1  # a post-processor would have clamped it


@needs_anomalib
@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("Padimm", {}, "did you mean .Padim"),
        ("Padim", {"arguments": '{"colour": 3}'}, "anomalib:Padim cannot be made: .*colour"),
        ("Padim", {"backbone": "resnet50"}, "resnet50"),
    ],
)
def test_what_cannot_be_is_told(model, changes, words, images: Tensor, weights: Path) -> None:
    with pytest.raises(FewShotError, match=words):
        adapted(model, weights, **changes).fit(Support("part", images))
