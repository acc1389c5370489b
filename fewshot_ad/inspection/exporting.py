"""An inspector as one graph that onnxruntime, OpenVINO or torch runs without this package.

The graph holds all of ``predict``; see ``predict_path`` for what it takes and ``graph_files`` for
the formats. Before a file is kept, the engine that it is for judges normals and altered copies of
them, and every score and map must be that of the method. A graph in 8 bits cannot keep that; what
it changes is measured instead.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.writing import write_whole
from fewshot_ad.inspection.exported import SUFFIXES, Exported, Format, library, open_exported
from fewshot_ad.inspection.graph_files import (
    Files,
    graph_files,
    onnx_graph,
    torch_files,
    traced,
)
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.parity import (
    Loss,
    Parity,
    as_colours,
    check_parity,
    measure_loss,
    normals_and_copies,
)
from fewshot_ad.inspection.predict_path import predict_path
from fewshot_ad.inspection.quantising import quantised

DEFAULT_FORMAT: Format = "onnx"
ENGINES: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


class Export(NamedTuple):
    """What was written, and how it compares.

    Attributes:
        files: the last is the one that is opened.
        parity: of the graph in float32 with the method.
        loss: of eight bits; None without.
    """

    files: tuple[Path, ...]
    parity: Parity
    loss: Loss | None


def export(
    inspector: Inspector, path: Path, form: Format = DEFAULT_FORMAT, *, int8: bool = False
) -> Export:
    """Write the graph of an inspector's ``predict``, once its engine has judged as the method does.

    Args:
        inspector: on the CPU.
        path: of the file; its suffix is that of the format.
        form: for whom.
        int8: quantise the backbone, see ``quantising``; what that changes is measured, and warned
            of where decisions differ.

    Raises:
        FewShotError: a library is not installed, the method cannot be exported, the suffix is
            another, the graph judges otherwise, or the file cannot be written.
    """
    _check(path, form, int8)
    program = traced(predict_path(inspector.method))
    facts = about(inspector)
    if form == "torch":
        return _kept(path, torch_files(program, facts), inspector)
    graph = onnx_graph(program)
    files = graph_files(graph, form, facts)
    if not int8:
        return _kept(path, files, inspector)
    parity = check_parity(_opened(files), inspector)
    images = as_colours(normals_and_copies(inspector), inspector.method)
    small = graph_files(quantised(graph, images), form, facts | {"int8": True})
    loss = measure_loss(_opened(small), inspector)
    if loss.decisions:
        warnings.warn(
            f"THE 8-BIT GRAPH DECIDES OTHERWISE: {loss.decisions} of {loss.parity.images} images; "
            "do not use it with this threshold, export without int8",
            stacklevel=2,
        )
    return Export(_written(path, small), parity, loss)


def about(inspector: Inspector) -> dict[str, Any]:
    """What decides, beside the graph."""
    return {
        "part": inspector.name,
        "method": method_name(inspector.method),
        "threshold": inspector.threshold,
        "scale": inspector.scale._asdict(),
        "promise": inspector.promise,
        "input": "RGB in [0, 1], [b 3 s s], resized as the geometry says (bicubic, antialiased)",
        "size": inspector.method.preprocess.size,
        "geometry": inspector.method.preprocess.geometry,
    }


def _check(path: Path, form: Format, int8: bool) -> None:
    """Refuse what is known to fail before minutes are spent."""
    if path.suffix != SUFFIXES[form]:
        raise FewShotError(
            f"{path} does not end with {SUFFIXES[form]}, as files for {form} do; name it "
            f"{path.with_suffix(SUFFIXES[form])}, or choose another --format"
        )
    if int8 and form == "torch":
        raise FewShotError("torch runs no 8-bit graph here: choose --format onnx or openvino")
    needed = {"onnx", "onnxscript", ENGINES[form]} if form != "torch" else set()
    for name in sorted(needed | ({"onnxruntime"} if int8 else set())):
        library(name)


def _kept(path: Path, files: Files, inspector: Inspector) -> Export:
    parity = check_parity(_opened(files), inspector)
    return Export(_written(path, files), parity, None)


def _opened(files: Files) -> Exported:
    """The files, opened before they are kept."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"part{suffix}" for suffix in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        return open_exported(paths[-1])


def _written(path: Path, files: Files) -> tuple[Path, ...]:
    paths = tuple(path.with_suffix(suffix) for suffix in files)
    for place, content in zip(paths, files.values(), strict=True):
        write_whole(place, content)
    return paths
