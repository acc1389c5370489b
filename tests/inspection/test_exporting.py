"""The ONNX graph judges as the method does, for any number of images; refusals in one line."""

import json

import numpy as np
import pytest
import torch
from painted import Painted

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.images import prepare
from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.exporting import export_onnx, predict_path
from fewshot_ad.inspection.photos import Photo, square_of

PLATES = Painted()
TINY = Preprocess(size=32)
MADE = {
    "patchcore": {"unit_length": True, "blur": 1.0},
    "padim": {"channels": 20, "levels": (1, 2)},
    "residual_distance": {"neighbourhood": 3},
}


def made(method, **changes):
    params = {"backbone": "random:tiny", "preprocess": TINY, **changes}
    normals = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:3]]
    return Inspector.from_normals(normals, method, **params)


def photos():
    return [PLATES.read_image(sample) for sample in PLATES.test("plate")]


@pytest.mark.parametrize("method", MADE)
def test_the_path_is_the_method(method):
    inspector = made(method, **MADE[method])
    squares = [square_of(Photo("x", each), TINY) for each in photos()]
    colours = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    wanted = inspector.method.predict(torch.stack([prepare(each, TINY) for each in photos()]))
    score, anomaly_map = predict_path(inspector.method)(colours)
    torch.testing.assert_close(score, wanted.image_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(anomaly_map, wanted.anomaly_map, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", MADE)
def test_onnxruntime_judges_new_photos_as_the_inspector_does(method, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    inspector = made(method, **MADE[method])
    parity = export_onnx(inspector, tmp_path / "part.onnx")
    assert max(parity.score, parity.map) <= 1e-4
    assert parity.images == 6
    assert [path.name for path in tmp_path.iterdir()] == ["part.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "part.onnx"))
    squares = np.stack([square_of(Photo("x", each), TINY) for each in photos()])
    images = (squares.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    score, anomaly_map = session.run(None, {"images": images})
    assert anomaly_map.shape == (8, 32, 32)
    verdicts = inspector.predict(photos())
    np.testing.assert_allclose(score, [each.score for each in verdicts], rtol=1e-4)
    props = {p.key: p.value for p in onnx.load(tmp_path / "part.onnx").metadata_props}
    assert json.loads(props["fewshot_ad"])["threshold"] == inspector.threshold


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("patchcore", {"n_neighbors": 3}, "n_neighbors=1"),
        ("residual_distance", {"channels": 4}, "channels=none"),
        ("padim", {"reduction": "orthogonal", "channels": 8}, "reduction=random"),
        ("spade", {}, "cannot be exported"),
    ],
)
def test_what_cannot_be_exported_says_so(method, changes, words):
    with pytest.raises(FewShotError, match=words) as told:
        predict_path(made(method, **changes).method)
    assert "\n" not in str(told.value)


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(FewShotError, match=r"fewshot-ad\[export\]"):
        export_onnx(made("residual_distance"), tmp_path / "part.onnx")
    assert not [*tmp_path.iterdir()]
