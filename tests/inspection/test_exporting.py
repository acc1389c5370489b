"""Exported graphs judge as the method does, for any number of images; refusals in one line."""

import io
import json
import zipfile

import pytest
import torch
from small_inspectors import FLOW, MADE, assert_same, colours, made, shaken

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.inspection.exported import open_exported
from fewshot_ad.inspection.exporting import export
from fewshot_ad.inspection.predict_path import predict_path
from fewshot_ad.methods import load_method

OTHERS = {
    "a rotation of channels": ("padim", {"reduction": "orthogonal", "channels": 8}),
    "projected channels": ("residual_distance", {"channels": 4}),
    "a sum of levels": ("patchcore", {"levels": (1, 2, 3)}),
    "no blur": ("residual_distance", {"blur": 0.0}),
    "squared Euclid": ("resad", FLOW | {"form": "squared", "neighbourhood": 3}),
    "positions": ("resad", FLOW | {"position_dims": 8, "constraintor": "conv"}),
    "no flow": ("resad", FLOW | {"flow_blocks": 0, "constraintor": "none"}),
    "signed angles": ("resad_pp", FLOW | {"form": "signed", "unit_length": False}),
}


@pytest.mark.parametrize(
    ("name", "changes"), [*MADE.items(), *OTHERS.values()], ids=[*MADE, *OTHERS]
)
def test_the_path_is_the_method(name, changes):
    inspector = made(name, **changes)
    assert_same(inspector, *predict_path(inspector.method)(torch.from_numpy(colours())))


def test_the_method_is_left_as_it_is():
    method = made("resad", **FLOW).method
    models, level = method.models_, method.models_.levels[0]
    kinds = [type(each) for each in models.modules()]
    path = predict_path(method)
    assert [type(each) for each in models.modules()] == kinds
    assert not {*map(id, path.parameters())} & {*map(id, models.parameters())}
    assert level.method is method
    assert any(value.requires_grad for value in level.flow.parameters())


@pytest.mark.parametrize("name", ["patchcore", "resad"])
def test_torch_reads_its_file_without_pickled_weights(name, tmp_path):
    inspector = made(name, **MADE[name])
    found = export(inspector, tmp_path / "part.pt2", "torch")
    assert max(found.parity.score, found.parity.map) <= 1e-4
    assert found.parity.images == 6
    opened = open_exported(tmp_path / "part.pt2")
    assert opened.about["threshold"] == inspector.threshold
    assert_same(inspector, *opened.judge(colours()))
    with zipfile.ZipFile(tmp_path / "part.pt2") as archive:
        names = archive.namelist()
        for config in (each for each in names if each.endswith("_config.json")):
            held = json.loads(archive.read(config))["config"].values()
            assert not any(each["use_pickle"] for each in held)
        (pickled,) = [each for each in names if zipfile.is_zipfile(io.BytesIO(archive.read(each)))]
        torch.load(io.BytesIO(archive.read(pickled)), weights_only=True)


def test_nothing_is_kept_of_a_graph_that_judges_otherwise(tmp_path, monkeypatch):
    inspector = made("residual_distance")
    path = predict_path(inspector.method)
    path.std += 0.01
    monkeypatch.setattr("fewshot_ad.inspection.exporting.predict_path", lambda method: path)
    with pytest.raises(FewShotError, match="judges otherwise") as told:
        export(inspector, tmp_path / "part.pt2", "torch")
    assert "\n" not in str(told.value)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("patchcore", {"n_neighbors": 3}, "n_neighbors=1"),
        ("patchcore", {"backbone": "bf16:random:tiny"}, "fit with random:tiny"),
        ("resad_pp", FLOW | {"keep": 0.4}, "keep=1"),
        ("spade", {}, "cannot be exported; patchcore"),
    ],
)
def test_what_cannot_be_exported_says_so(name, changes, words):
    method = load_method(name, **{"backbone": "random:tiny", "device": "cpu"} | changes)
    if name.startswith("resad"):
        method.models_ = shaken(method._build())
    method.fit(Support("plate", torch.rand(2, 3, 32, 32)))
    with pytest.raises(FewShotError, match=words) as told:
        predict_path(method)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "form", "int8", "words"),
    [
        ("part.onnx", "torch", False, "name it .*part.pt2"),
        ("part.onnx", "openvino", False, "name it .*part.xml"),
        ("part.pt2", "torch", True, "choose --format onnx or openvino"),
    ],
)
def test_what_does_not_go_together_says_so(name, form, int8, words, tmp_path):
    with pytest.raises(FewShotError, match=words) as told:
        export(made("residual_distance"), tmp_path / name, form, int8=int8)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("gone", "name", "form", "extra"),
    [
        ("onnx", "part.onnx", "onnx", r"fewshot-ad\[export\]"),
        ("openvino", "part.xml", "openvino", r"fewshot-ad\[export,openvino\]"),
    ],
)
def test_a_missing_library_names_the_extra(gone, name, form, extra, tmp_path, monkeypatch):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(__import__("sys").modules, library, io)  # never asked for anything
    monkeypatch.setitem(__import__("sys").modules, gone, None)
    with pytest.raises(FewShotError, match=extra):
        export(made("residual_distance"), tmp_path / name, form)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["part.onnx", "part.pt2", "part.txt", "gone.onnx"])
def test_what_is_no_exported_file_is_refused_in_one_line(name, tmp_path):
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
    if not name.startswith("gone"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(FewShotError, match=r"cannot be opened|no exported file") as told:
        open_exported(tmp_path / name)
    assert "\n" not in str(told.value)
