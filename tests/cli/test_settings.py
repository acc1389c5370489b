"""The values of options, typed by the fields they go to."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.cli.settings import (
    configured_method,
    parse_eval_size,
    parse_seeds,
    parse_shots,
    typed,
    with_settings,
)
from fewshot_ad.methods.resad import ResAD
from fewshot_ad.methods.residual_distance import ResidualDistance


@dataclass(kw_only=True)
class Fields:
    steps: int = 1
    rate: float = 0.1
    exact: bool = False
    levels: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    rule: Literal["mean", "max"] = "mean"
    preprocess: Preprocess = field(default_factory=Preprocess)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("pair", "name", "value"),
    [
        ("steps=30", "steps", 30),
        ("rate=1e-4", "rate", 1e-4),
        ("exact=true", "exact", True),
        ("exact=no", "exact", False),
        ("levels=2,3,4", "levels", (2, 3, 4)),
        ("levels=(2,)", "levels", (2,)),
        ("pair=1,2.5", "pair", (1.0, 2.5)),
        ("limit=7", "limit", 7),
        ("limit=none", "limit", None),
        ("rule=max", "rule", "max"),
        ("preprocess.size=256", "preprocess", Preprocess(size=256)),
        ("preprocess.mean=0,0,0", "preprocess", Preprocess(mean=(0.0, 0.0, 0.0))),
        ("parameters.maeday.steps=10", "parameters", {"maeday": {"steps": 10}}),
        (
            "parameters.maeday.backbone=random:tiny",
            "parameters",
            {"maeday": {"backbone": "random:tiny"}},
        ),
    ],
)
def test_a_setting_has_the_type_of_its_field(pair, name, value):
    found = getattr(with_settings(Fields(), [pair]), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("step=3", "did you mean 'steps'"),
        ("steps=3.5", "whole number"),
        ("exact=maybe", "true or false"),
        ("pair=1", "2 values"),
        ("rule=most", "choice"),
        ("preprocess=224", "preprocess.size"),
        ("steps.size=1", "has no parts"),
        ("=3", "parameter"),
    ],
)
def test_what_is_no_value_is_refused(pair, words):
    with pytest.raises(FewShotError, match=words):
        with_settings(Fields(), [pair])


def test_entries_of_a_mapping_add_up():
    pairs = ["parameters.a.x=1", "parameters.a.y=[1, 2]", "parameters.b.x=word"]
    found = with_settings(Fields(), pairs).parameters
    assert found == {"a": {"x": 1, "y": [1, 2]}, "b": {"x": "word"}}


def test_settings_leave_the_original_alone():
    original = Fields()
    with_settings(original, ["steps=5", "preprocess.size=32"])
    assert original == Fields()


def test_an_optional_number_is_no_text():
    with pytest.raises(FewShotError, match="whole number"):
        typed("many", int | None, "limit")


def test_shots_keep_their_order_and_lose_repeats():
    assert parse_shots("4, 1,full,4") == [4, 1, "full"]


def test_seeds_are_a_count_or_a_list():
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("7,") == [7]
    assert parse_seeds("0,3,9,3") == [0, 3, 9]


def test_eval_size_is_pixels_or_native():
    assert parse_eval_size("128") == 128
    assert parse_eval_size("native") == "native"


def test_the_papers_settings_lie_below_those_that_are_set():
    method = configured_method("resad", ["steps=3"], "cpu", None, None, paper=True)
    paper = {**ResAD.PAPER, "steps": 3}
    assert {name: getattr(method, name) for name in paper} == paper
    assert method.params() != ResAD(**{"steps": 3}).params()


def test_a_method_at_the_papers_values_has_no_others():
    method = configured_method("residual_distance", [], "cpu", None, None, paper=True)
    assert method.params() == ResidualDistance(device="cpu").params()


@pytest.mark.parametrize("precision", ["bf16", "openvino", "openvino-bf16"])
def test_the_precision_becomes_part_of_the_backbone(precision):
    method = configured_method("patchcore", (), "cpu", "resnet18", None, precision=precision)
    assert method.backbone == f"{precision}:resnet18"
    assert configured_method("patchcore", (), "cpu", None, None).backbone == "tiny"


def test_a_precision_is_told_once():
    with pytest.raises(FewShotError, match="says its own already"):
        configured_method("patchcore", (), "cpu", "bf16:tiny", None, precision="openvino")


def test_a_method_without_a_backbone_has_no_precision():
    with pytest.raises(FewShotError, match="takes no --precision"):
        configured_method("ensemble", (), "cpu", None, None, precision="bf16")
