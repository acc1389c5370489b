import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from fewshot_ad.api import (
    FewShotError,
    Method,
    NotFittedError,
    Prediction,
    Preprocess,
    Support,
    Track,
)
from fewshot_ad.assets import asset
from fewshot_ad.evaluation.leaks import seen_by
from fewshot_ad.methods import load_method
from fewshot_ad.methods.ensemble import Ensemble
from fewshot_ad.parts.calibration import calibrate

SMALL = Preprocess(size=32)
UNIT = Preprocess(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
PAIR = ("patchcore", "residual_distance")


def small(**changes) -> Ensemble:
    settings = {
        "members": PAIR,
        "parameters": {name: {"backbone": "random:tiny"} for name in changes.get("members", PAIR)},
        "device": "cpu",
        "preprocess": SMALL,
    }
    return Ensemble(**(settings | changes))


def refusal(**changes) -> str:
    with pytest.raises(FewShotError) as caught:
        Ensemble(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def member(name: str, **changes) -> Method:
    return load_method(name, backbone="random:tiny", device="cpu", preprocess=SMALL, **changes)


@dataclass(kw_only=True, eq=False)
class Bright(Method):
    """How bright a pixel is, in a frame of its own."""

    track: ClassVar[Track] = "synthetic"
    min_shots: ClassVar[int] = 0
    recipe: ClassVar[int] = 3
    preprocess: Preprocess = UNIT

    def fit(self, support: Support) -> "Bright":
        assert support.images.shape[1:] == (3, 16, 16)
        return self

    def predict(self, images: Tensor) -> Prediction:
        maps = images.mean(dim=1)
        return Prediction(maps.flatten(1).amax(dim=1), maps)


class Plain(Bright):
    recipe = 1


class WholeBatch(Bright):
    track = "batched"


class Labelled(Bright):
    track = "supervised"


class Learned(Bright):
    track = "meta_trained"


def stranger(kind: type[Method]) -> str:
    return f"{__name__}:{kind.__name__}"


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("weights", [(), (3.0, 1.0)])
@pytest.mark.parametrize("shots", [1, 3])
def test_it_is_the_weighted_mean_of_z_scores(
    images: Tensor, shots: int, weights: tuple[float, ...]
) -> None:
    support = Support("noise", images[:shots])
    found = small(weights=weights).fit(support).predict(images[3:])
    image_score, anomaly_map = torch.zeros(3), torch.zeros(3, 32, 32)
    for name, share in zip(PAIR, (0.75, 0.25) if weights else (0.5, 0.5), strict=True):
        scale = calibrate(member(name), support)
        said = member(name).fit(support).predict(images[3:])
        image_score += share * (said.image_score - scale.image.mean) / scale.image.deviation
        anomaly_map += share * (said.anomaly_map - scale.pixel.mean) / scale.pixel.deviation
    torch.testing.assert_close(found.image_score, image_score)
    torch.testing.assert_close(found.anomaly_map, anomaly_map)


def test_one_member_ranks_as_it_does_alone(images: Tensor) -> None:
    support = Support("noise", images[:2])
    found = small(members=("patchcore",)).fit(support).predict(images)
    alone = member("patchcore").fit(support).predict(images)
    assert torch.equal(found.image_score.argsort(), alone.image_score.argsort())


def test_a_scale_does_not_depend_on_units(images: Tensor) -> None:
    """Features a hundred times as long change nothing."""
    support = Support("noise", images[:3])
    found = [
        small(parameters={name: {"backbone": f"{__name__}:{maker}"} for name in PAIR})
        .fit(support)
        .predict(images)
        for maker in ("plain_network", "loud_network")
    ]
    torch.testing.assert_close(found[0].image_score, found[1].image_score, rtol=1e-3, atol=1e-3)


def test_without_calibration_scores_are_added_as_they_are(images: Tensor) -> None:
    support = Support("noise", images[:1])
    found = small(calibration="none").fit(support).predict(images)
    said = [member(name).fit(support).predict(images).image_score for name in PAIR]
    torch.testing.assert_close(found.image_score, (said[0] + said[1]) / 2)


def test_a_member_keeps_a_frame_of_its_own() -> None:
    images = torch.zeros(2, 3, 32, 32)
    method = small(members=(stranger(Bright),), parameters={}, calibration="none")
    found = method.fit(Support("grey", images[:0])).predict(images)
    mean_colour = sum(SMALL.mean) / 3
    torch.testing.assert_close(found.anomaly_map, torch.full((2, 32, 32), mean_colour))


def test_without_support_there_is_no_scale(images: Tensor) -> None:
    none = Support("noise", images[:0])
    method = small(members=("maeday",))
    assert method.min_shots == 1
    with pytest.raises(FewShotError, match="noise: 0 support images, at least 1 are needed"):
        method.fit(none)
    raw = method.variant(calibration="none")
    assert raw.min_shots == 0
    assert raw.fit(none).predict(images).image_score.isfinite().all()
    assert small(calibration="none").min_shots == 1


@pytest.mark.parametrize(
    ("members", "track"),
    [
        (PAIR, "training_free"),
        (("maeday", "patchcore"), "target_tuned"),
        (("patchcore", stranger(Bright)), "synthetic"),
        ((stranger(Bright), "maeday"), "target_tuned"),
        ((stranger(Labelled), "maeday", "patchcore"), "supervised"),
        (("patchcore", stranger(WholeBatch)), "batched"),
    ],
)
def test_the_track_is_the_most_demanding_one(members: tuple[str, ...], track: Track) -> None:
    assert Ensemble(members=members).track == track


def test_a_row_tells_everything_of_the_members() -> None:
    method = small(parameters={"patchcore": {"backbone": "random:tiny", "levels": [1, 2]}})
    given = method.params()["parameters"]
    assert given["patchcore"]["levels"] == (1, 2)
    assert given["patchcore"]["blur"] == 4.0
    assert given["residual_distance"]["backbone"] == "tiny"
    assert not {"seed", "device", "preprocess"} & {*given["patchcore"]}
    json.dumps(method.params())
    assert method.backbone == "random:tiny + tiny"
    digests = [m.weights_digest for m in (member("patchcore"), load_method("patchcore"))]
    assert method.weights_digest == " + ".join(digests)
    again = Ensemble(**method.params() | {"preprocess": SMALL})
    assert again.params() == method.params()


def test_what_is_known_of_no_member_is_empty() -> None:
    method = Ensemble(members=(stranger(Bright),))
    assert (method.backbone, method.weights_digest) == (None, None)


def test_a_new_recipe_of_a_member_is_one_of_the_ensemble() -> None:
    assert Ensemble(members=(stranger(Plain),)).recipe == 1
    assert Ensemble(members=(stranger(Plain), stranger(Bright))).recipe == 3


def test_it_reads_nothing_before_it_is_fitted(images: Tensor) -> None:
    with pytest.raises(NotFittedError):
        Ensemble().predict(images)
    fitted = small().fit(Support("noise", images[:1]))
    with pytest.raises(NotFittedError):
        fitted.variant().predict(images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"members": ()}, "members are (): expected names of methods, each of them once"),
        ({"members": ("patchcore", "patchcore")}, "each of them once"),
        ({"members": ("patchcor",)}, "did you mean 'patchcore'?"),
        ({"members": ("patchcore", "resad")}, "resad must be meta-trained"),
        ({"members": (stranger(Learned),)}, "must be meta-trained"),
        ({"members": ("maeday", stranger(WholeBatch))}, "target_tuned, batched have no track"),
        ({"members": PAIR, "weights": (1.0,)}, "weights are (1.0,): expected 2 numbers"),
        ({"members": PAIR, "weights": (0.0, 0.0)}, "0 or more and not all 0"),
        ({"members": PAIR, "weights": (-1.0, 2.0)}, "0 or more and not all 0"),
        ({"members": PAIR, "weights": (float("nan"), 1.0)}, "expected 2 numbers"),
        ({"members": PAIR, "parameters": {"resad": {}}}, "parameters are given for resad"),
        ({"members": PAIR, "parameters": {"patchcore": {"blurr": 1}}}, "did you mean 'blur'?"),
        ({"members": PAIR, "parameters": {"patchcore": {"blur": -1}}}, "blur is -1"),
        (
            {"members": PAIR, "parameters": {"patchcore": {"levels": [2.5]}}},
            "levels is (2.5,)",
        ),
        ({"members": PAIR, "parameters": {"patchcore": {"seed": 1}}}, "hold seed: set that of"),
    ],
)
def test_what_cannot_be_combined_is_refused_at_once(changes: dict[str, object], words: str) -> None:
    assert words in refusal(**changes)


def plain_network() -> torch.nn.Module:
    return _Loud(1.0)


def loud_network() -> torch.nn.Module:
    return _Loud(100.0)


class _Loud(torch.nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, images: Tensor) -> list[Tensor]:
        pool = torch.nn.functional.avg_pool2d
        return [self.gain * pool(images, stride) for stride in (4, 8, 16)]


def test_classes_that_prompts_were_chosen_on_are_no_targets(tmp_path):
    path = tmp_path / "searched.yaml"
    text = asset("prompts", "minimal.yaml").read_text()
    path.write_text(f"{text}\nknown: [synthetic/screw]\n")
    parameters = {"winclip": {"backbone": "random:tiny", "prompts": str(path)}}
    joined = Ensemble(members=("residual_distance", "winclip"), parameters=parameters)
    assert joined.prompts == str(path)
    assert seen_by(joined).names == ("synthetic/screw",)
    assert small().prompts is None
