"""A graph in 8-bit integers, where that pays and can be borne: in its backbone.

onnxruntime quantises after training, from ranges that it sees on calibration images: weights for
each channel, activations for each tensor, as pairs of QuantizeLinear and DequantizeLinear. OpenVINO
runs the same pairs, so that one quantised graph and one measured loss hold for both engines, and
NNCF, which would make another one for OpenVINO alone, is not needed.

Only convolutions and products of the backbone are quantised. Behind it, distances to a bank and
likelihoods of a flow live on small differences, which 8 bits do not hold.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.exported import library

QUANTISED = ("Conv", "MatMul", "Gemm")
SYMMETRIC = {"ActivationSymmetric": True}  # with other zero points OpenVINO 2026.4 is far off
SCOPES = "pkg.torch.onnx.name_scopes"  # where a node was in the module, innermost last


def quantised(graph: bytes, images: Float32[np.ndarray, "n 3 s s"]) -> bytes:
    """The graph with an 8-bit backbone.

    Args:
        graph: ONNX, as ``graph_files.onnx_graph`` makes it.
        images: of which ranges are taken, as the graph eats them.

    Raises:
        FewShotError: onnxruntime is not installed, or the backbone has nothing to quantise.
    """
    tools = library("onnxruntime.quantization")
    onnx = library("onnx")
    whole = onnx.load_from_string(graph)
    chosen = backbone_nodes(whole)
    if not chosen:
        raise FewShotError("the backbone has no convolutions to quantise; export without --int8")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "whole.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        logging.disable(logging.WARNING)  # it advises a step that the exporter has done already
        try:
            tools.quantize_static(
                str(source),
                str(target),
                _reader(tools, images),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=True,
                activation_type=tools.QuantType.QInt8,
                weight_type=tools.QuantType.QInt8,
                nodes_to_quantize=chosen,
                extra_options=SYMMETRIC,
            )
        finally:
            logging.disable(logging.NOTSET)
        small = onnx.load(target)
    let_through(small, {node.name for node in whole.graph.node if not _inside(node)})
    return small.SerializeToString()


def backbone_nodes(model: Any) -> list[str]:
    """Names of what is quantised: the products that were traced inside of the backbone."""
    return [node.name for node in model.graph.node if node.op_type in QUANTISED and _inside(node)]


def let_through(model: Any, behind: set[str]) -> None:
    """Let the nodes behind the backbone read what it computes before that is rounded for its own.

    It is more exact, and OpenVINO 2026.4 errs where rounded maps are averaged.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name not in behind:
            continue
        for place, name in enumerate(node.input):
            pair = made.get(name)
            if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in made:
                continue
            node.input[place] = made[pair.input[0]].input[0]


def _inside(node: Any) -> bool:
    scopes = next((each.value for each in node.metadata_props if each.key == SCOPES), "")
    return "'network" in scopes and "'head" not in scopes


def _reader(tools: Any, images: np.ndarray) -> Any:
    """Images one after another, as the library asks for them."""

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    return Reader()
