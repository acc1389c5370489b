"""What onnxruntime and OpenVINO say of photos, beside what the inspector says; long, so slow."""

import numpy as np
import pytest
from small_inspectors import MADE, PLATES, assert_same, colours, made

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection import parity as measured
from fewshot_ad.inspection.exported import SUFFIXES, Exported, open_exported
from fewshot_ad.inspection.exporting import about, export
from fewshot_ad.inspection.parity import check_parity, measure_loss, rank_correlation
from fewshot_ad.inspection.quantising import backbone_nodes, quantised

REASON = "the extra [export] is not installed"


def needed(form):
    pytest.importorskip("onnxscript", reason=REASON)
    pytest.importorskip("onnxruntime", reason=REASON)
    if form == "openvino":
        pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


def method_alone(inspector, factor=1.0):
    """An engine that says what the method says, times a number."""

    def run(images):
        mean, std = measured._moments(inspector.method)
        found = inspector.method.predict((mean.new_tensor(images) - mean) / std)
        return factor * found.image_score.numpy(), factor * found.anomaly_map.numpy()

    return Exported(about(inspector), run)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("name", MADE)
def test_an_engine_judges_new_photos_as_the_inspector_does(name, form, tmp_path):
    needed(form)
    inspector = made(name, **MADE[name])
    path = tmp_path / f"part{SUFFIXES[form]}"
    found = export(inspector, path, form)
    assert max(found.parity.score, found.parity.map) <= 1e-4
    assert sorted(found.files) == sorted(tmp_path.iterdir())
    opened = open_exported(found.files[-1])
    score, anomaly_map = opened.judge(colours())
    assert_same(inspector, score, anomaly_map)
    assert opened.about == about(inspector)
    photos = [PLATES.read_image(sample) for sample in PLATES.test("plate")]
    decisions = [verdict.is_anomalous for verdict in inspector.predict(photos)]
    assert decisions == [*(score > opened.about["threshold"])]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_eight_bits_are_in_the_backbone_alone_and_their_loss_is_told(form, tmp_path):
    needed(form)
    inspector = made("resad", **MADE["resad"])
    path = tmp_path / f"part{SUFFIXES[form]}"
    whole = export(inspector, tmp_path / "whole.onnx", "onnx")
    found = export(inspector, path, form, int8=True)
    assert found.parity.score <= 1e-4
    assert found.loss is not None
    assert 1e-4 < found.loss.parity.map < 0.5
    assert found.loss.parity.images == 9
    assert found.loss.ranks > 0.7
    opened = open_exported(path)
    assert opened.about["int8"] is True
    score, _ = opened.judge(colours())
    wanted = open_exported(whole.files[-1]).judge(colours()).image_score
    assert rank_correlation(score, wanted) > 0.7
    if form == "onnx":
        assert path.stat().st_size < 0.8 * (tmp_path / "whole.onnx").stat().st_size


@pytest.mark.slow
def test_what_is_quantised_reads_and_writes_what_the_head_does_not(tmp_path):
    needed("onnx")
    onnx = pytest.importorskip("onnx")
    export(made("resad", **MADE["resad"]), tmp_path / "part.onnx", "onnx")
    model = onnx.load(tmp_path / "part.onnx")
    chosen = {*backbone_nodes(model)}
    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(chosen) == 14  # of Tiny: two in the stem, nine in blocks, three heads
    assert len(products) > len(chosen)
    small = onnx.load_from_string(quantised(model.SerializeToString(), colours()[:2]))
    rounded = {n.output[0] for n in small.graph.node if n.op_type == "DequantizeLinear"}
    behind = [n for n in small.graph.node if n.name in {n.name for n in products} - chosen]
    assert behind
    assert not rounded & {name for node in behind for name in node.input}
    kept = {node.name: [*node.input] for node in small.graph.node if node.op_type == "MatMul"}
    assert kept == {node.name: [*node.input] for node in products if node.op_type == "MatMul"}


def test_parity_is_of_the_greatest_value_and_has_a_limit():
    inspector = made("residual_distance")
    assert check_parity(method_alone(inspector), inspector).score < 1e-6
    with pytest.raises(FewShotError, match=r"scores differ by 0\.02"):
        check_parity(method_alone(inspector, 1.02), inspector)
    with pytest.raises(FewShotError, match="nan"):
        check_parity(method_alone(inspector, float("nan")), inspector)


def test_a_factor_changes_no_rank_but_decisions():
    inspector = made("residual_distance")
    assert measure_loss(method_alone(inspector), inspector).decisions == 0
    found = measure_loss(method_alone(inspector, 1e6), inspector)
    assert found.ranks == pytest.approx(1.0)
    assert found.parity.images == 9
    images = measured.normals_and_copies(inspector), measured.with_defects(inspector)
    scores = [score for each in images for score in inspector.method.predict(each).image_score]
    scores = np.array(scores)
    changed = (scores <= inspector.threshold) & (1e6 * scores > inspector.threshold)
    assert found.decisions == changed.sum() > 0


def test_ranks_share_ties():
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([1.0, 1, 2])) == pytest.approx(1.0)
    ranks = np.array([1.5, 1.5, 3]), np.array([3.0, 2, 1])
    wanted = np.corrcoef(*ranks)[0, 1]
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([9.0, 5, 2])) == pytest.approx(wanted)


def test_different_decisions_are_said_loudly(tmp_path, monkeypatch):
    inspector = made("residual_distance")
    engines = iter([method_alone(inspector), method_alone(inspector, 1e6)])
    place = "fewshot_ad.inspection.exporting."
    for name, answer in {
        "library": lambda name: None,
        "onnx_graph": lambda program: b"",
        "graph_files": lambda graph, form, facts: {".onnx": b"x"},
        "quantised": lambda graph, images: b"",
        "_opened": lambda files: next(engines),
    }.items():
        monkeypatch.setattr(place + name, answer)
    with pytest.warns(UserWarning, match="DECIDES OTHERWISE") as told:
        export(inspector, tmp_path / "part.onnx", "onnx", int8=True)
    assert len(told) == 1
