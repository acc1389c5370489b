"""A predict path as the files of a format, with what decides beside the graph.

========== ==================== ===================================================================
onnx       ``.onnx``            metadata property ``fewshot_ad``
openvino   ``.xml`` and ``.bin`` runtime info ``fewshot_ad``; made of the ONNX graph
torch      ``.pt2``             extra file ``fewshot_ad.json``; a program of ``torch.export``
========== ==================== ===================================================================

Why ``.pt2`` and not TorchScript: torch has deprecated the latter. A program holds its weights as
plain bytes and its graph as JSON; the one pickle in it, the shapes it was traced with, is read with
``weights_only``. To read the graph torch evaluates expressions in it, so that a stranger's file can
run code, as a stranger's TorchScript can.
"""

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from fewshot_ad.inspection.exported import ABOUT, SUFFIXES, Format, library
from fewshot_ad.inspection.predict_path import PredictPath

OUTPUTS = ["image_score", "anomaly_map"]
Files = dict[str, bytes]
"""Contents by suffix; the last is the one that is opened."""


def traced(path: PredictPath) -> ExportedProgram:
    """The program of a path for any number of images."""
    example = torch.rand(2, 3, path.side, path.side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.export.export(
            path, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )


def onnx_graph(program: ExportedProgram) -> bytes:
    """The program as an ONNX graph, without metadata."""
    library("onnx")
    library("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        graph = torch.onnx.export(
            program, input_names=["images"], output_names=OUTPUTS, dynamo=True, verbose=False
        )
    assert graph is not None
    return graph.model_proto.SerializeToString()


def torch_files(program: ExportedProgram, about: Mapping[str, Any]) -> Files:
    """The program as torch keeps it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.pt2"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that share memory; parity is checked
            torch.export.save(program, file, extra_files={f"{ABOUT}.json": json.dumps(about)})
        return {SUFFIXES["torch"]: file.read_bytes()}


def graph_files(graph: bytes, form: Format, about: Mapping[str, Any]) -> Files:
    """An ONNX graph as the files of ``onnx`` or ``openvino``."""
    onnx = library("onnx")
    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, {ABOUT: json.dumps(about)})
    if form == "onnx":
        return {SUFFIXES["onnx"]: model.SerializeToString()}
    openvino = library("openvino")
    with tempfile.TemporaryDirectory() as folder:
        source, xml = Path(folder) / "part.onnx", Path(folder) / "part.xml"
        source.write_bytes(graph)
        converted = openvino.convert_model(source)
        converted.set_rt_info(json.dumps(about), [ABOUT])
        openvino.save_model(converted, xml, compress_to_fp16=False)
        return {".bin": xml.with_suffix(".bin").read_bytes(), ".xml": xml.read_bytes()}
