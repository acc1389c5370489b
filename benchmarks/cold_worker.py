"""One process of ``edge.py`` and ``cold_start.py``: from its start to decisions on photos.

    python benchmarks/cold_worker.py KIND FILE PHOTO...

KIND is fsad (this package), onnx or openvino (their engine, NumPy and Pillow alone). Prints CPU
seconds from the start of the process to the first decision, the median of those that follow, and
the peak memory. Only what a kind needs is imported, and on the clock.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Decide = Callable[[str], bool]


def measured(opened: Callable[[], Decide], photos: list[str]) -> dict[str, float]:
    """CPU seconds to the first decision and of a later one, and megabytes."""
    decide = opened()
    decide(photos[0])
    first = time.process_time()  # counts from the start of the process
    times = []
    for photo in photos[1:]:
        start = time.process_time()
        decide(photo)
        times.append(time.process_time() - start)
    return {"first": first, "steady": statistics.median(times), "peak": peak_megabytes()}


def peak_megabytes() -> float:
    """Of this program; what ``getrusage`` tells begins with the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) / 1024


def open_fsad(path: str) -> Decide:
    """This package."""
    from fewshot_ad import Inspector

    inspector = Inspector.load(path, device="cpu")
    return lambda photo: inspector.predict(photo)[0].is_anomalous


def open_onnx(path: str) -> Decide:
    """The engine onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fewshot_ad"])
    return decider(about, lambda images: session.run(None, {"images": images}))


def open_openvino(path: str) -> Decide:
    """The engine OpenVINO."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    about = json.loads(model.get_rt_info(["fewshot_ad"]).value)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    return decider(about, lambda images: tuple(compiled([images]).values()))


def decider(about: dict[str, Any], run: Callable[[Any], Any]) -> Decide:
    """Photo to square to score to decision."""
    import numpy as np
    from PIL import Image

    def decide(photo: str) -> bool:
        side = about["size"], about["size"]
        pixels = Image.open(photo).convert("RGB").resize(side, Image.Resampling.BICUBIC)
        images = (np.asarray(pixels, np.float32) / 255).transpose(2, 0, 1)[None].copy()
        return bool(run(images)[0][0] > about["threshold"])

    return decide


KINDS = {"fsad": open_fsad, "onnx": open_onnx, "openvino": open_openvino}


def main() -> None:
    """Run one."""
    kind, path, *photos = sys.argv[1:]
    print(json.dumps(measured(lambda: KINDS[kind](path), photos)))


if __name__ == "__main__":
    main()
