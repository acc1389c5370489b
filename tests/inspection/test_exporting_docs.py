"""What docs/inspection.md says of exported files runs as it stands, beside the inspector."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_inspectors import PLATES, made

from fewshot_ad.inspection.exported import open_exported
from fewshot_ad.inspection.exporting import export
from fewshot_ad.inspection.photos import View

PAGE = (Path(__file__).parents[2] / "docs" / "inspection.md").read_text()


def example(engine):
    """The block of the page that imports the engine."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (block,) = [each for each in blocks if f"import {engine}\n" in each]
    return block


@pytest.fixture
def inspector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "new").mkdir(parents=True)
    for number, sample in enumerate(PLATES.test("plate")):
        pixels = Image.fromarray(PLATES.read_image(sample)).resize((50, 40))
        pixels.save(tmp_path / "photos" / "new" / f"{number}.png")
    inspector = made("residual_distance")
    inspector.views = (View(50, 40, is_grey=False),)
    return inspector


def test_ten_lines_of_onnxruntime_decide_as_the_inspector_does(inspector, tmp_path):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason="the extra [export] is not installed")
    export(inspector, tmp_path / "part.onnx", "onnx")
    lines = example("onnxruntime")
    assert len([line for line in lines.split("\n\n")[1].splitlines() if line]) <= 10
    for number in range(len(PLATES.test("plate"))):
        names: dict[str, object] = {}
        exec(lines.replace("7.png", f"{number}.png"), names)
        (verdict,) = inspector.predict(f"photos/new/{number}.png")
        assert names["decision"] == verdict.decision
        assert names["score"] == pytest.approx(verdict.score, rel=1e-4)
        assert names["anomaly_map"].shape == (32, 32)


@pytest.mark.slow
def test_the_lines_for_openvino_open_what_it_judges(inspector, tmp_path):
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    export(inspector, tmp_path / "part.xml", "openvino")
    names: dict[str, object] = {}
    exec(example("openvino"), names)
    assert names["about"]["threshold"] == inspector.threshold
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    wanted = open_exported(tmp_path / "part.xml").judge(images)
    for found, one in zip(names["judge"]([images]).values(), wanted, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-5)
