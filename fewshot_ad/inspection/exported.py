"""What ``fewshot-ad export`` wrote, opened in the engine that it was written for."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from fewshot_ad.api import FewShotError

Format = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
ABOUT = "fewshot_ad"
EXTRA = 'pip install "fewshot-ad[export]"'
EXTRAS = {"openvino": 'pip install "fewshot-ad[export,openvino]"'}

Images = Float32[np.ndarray, "b 3 s s"]


class Judged(NamedTuple):
    """What a graph says of images."""

    image_score: Float32[np.ndarray, " b"]
    anomaly_map: Float32[np.ndarray, "b s s"]


@dataclass(frozen=True)
class Exported:
    """A graph that is ready to judge.

    Attributes:
        about: threshold, scale and size, see ``exporting.about``.
    """

    about: dict[str, Any]
    run: Callable[[Images], tuple[np.ndarray, ...]] = field(repr=False)

    def judge(self, images: Images) -> Judged:
        """Squares of RGB in [0, 1], any number of them."""
        return Judged(*self.run(np.ascontiguousarray(images)))


def open_exported(path: Path, threads: int = 0) -> Exported:
    """Open a file by its suffix: ``.onnx``, ``.xml`` (its ``.bin`` beside it) or ``.pt2``.

    A graph is a program. Open only files that you trust: what is safe to open from anybody is
    ``part.fsad``.

    Args:
        path: of the file.
        threads: of the engine; 0 leaves it the choice. torch has one number for the process.

    Raises:
        FewShotError: another suffix, the engine is not installed, or the file cannot be read.
    """
    open_it = next(
        (_OPEN[form] for form, suffix in SUFFIXES.items() if suffix == path.suffix), None
    )
    if open_it is None or not path.is_file():
        wanted = ", ".join(SUFFIXES.values())
        raise FewShotError(f"{path} is no exported file; expected one that ends with {wanted}")
    try:
        return open_it(path, threads)
    except FewShotError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise FewShotError(f"{path} cannot be opened ({reason}); export it again") from error


def library(name: str) -> Any:
    """An optional library.

    Raises:
        FewShotError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        way = EXTRAS.get(name, EXTRA)
        raise FewShotError(f"export needs {name}, which is not installed: {way}") from error


def _open_onnx(path: Path, threads: int) -> Exported:
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])
    return Exported(about, lambda images: session.run(None, {"images": images}))


def _open_openvino(path: Path, threads: int) -> Exported:
    core = library("openvino").Core()
    model = core.read_model(path)
    about = json.loads(model.get_rt_info([ABOUT]).value)
    # Where a processor has bfloat16 OpenVINO would use it, and be a percent off.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    settings |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    compiled = core.compile_model(model, "CPU", settings)
    return Exported(about, lambda images: tuple(compiled([images]).values()))


def _open_torch(path: Path, threads: int) -> Exported:
    told = {f"{ABOUT}.json": ""}
    module = torch.export.load(path, extra_files=told).module()

    @torch.no_grad()
    def run(images: Images) -> tuple[np.ndarray, ...]:
        return tuple(found.numpy() for found in module(torch.from_numpy(images)))

    return Exported(json.loads(told[f"{ABOUT}.json"]), run)


_OPEN: dict[Format, Callable[[Path, int], Exported]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_torch,
}
