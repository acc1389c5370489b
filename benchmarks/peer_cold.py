"""anomalib's inferencers for ``cold_start.py``, in the environment of the peers.

    FOLDER/bin/python benchmarks/peer_cold.py make JOB
    FOLDER/bin/python benchmarks/peer_cold.py torch|openvino FILE PHOTO...

JOB is a folder with ``job.json``, ``support.npy`` (RGB in [0, 1]) and ``weights.safetensors``;
``make`` writes what anomalib's own ``to_torch`` and ``to_openvino`` write.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cold_worker import Decide, measured


def make(folder: Path) -> None:
    """Fit on the support and export, as its engine would."""
    import torch
    from safetensors.torch import load_file

    job = json.loads((folder / "job.json").read_text())
    model = untrained(job)
    inner: Any = model.model
    weights = load_file(folder / "weights.safetensors")
    inner.feature_extractor.feature_extractor.load_state_dict(weights, strict=False)
    inner.train()
    inner.feature_extractor.eval()
    support = model.pre_processor(torch.from_numpy(np.load(folder / "support.npy")))
    for image in support:
        inner(image[None])
    if job["method"] == "patchcore":
        inner.memory_bank = torch.vstack(inner.embedding_store)  # every patch, as ours
        inner.embedding_store.clear()
    else:
        inner.fit()
    model.eval()
    model.to_torch(folder)
    side = job["size"], job["size"]
    model.to_openvino(folder, input_size=side, onnx_kwargs={"dynamic_axes": {}})  # one image


def untrained(job: dict[str, Any]) -> Any:
    """The model of a job."""
    from anomalib.models import Padim, Patchcore

    kind = {"patchcore": Patchcore, "padim": Padim}[job["method"]]
    frame = kind.configure_pre_processor(image_size=(job["size"], job["size"]))
    own = {"num_neighbors": 1} if kind is Patchcore else {"n_features": 100}
    settings = {"backbone": job["backbone"], "layers": job["layers"], "pre_trained": False}
    return kind(**settings, **own, pre_processor=frame, visualizer=False, evaluator=False)


def open_torch(path: str) -> Decide:
    """Its TorchInferencer."""
    os.environ["TRUST_REMOTE_CODE"] = "1"
    from anomalib.deploy import TorchInferencer

    inferencer = TorchInferencer(path, device="cpu")
    return lambda photo: bool(inferencer.predict(photo).pred_label)


def open_openvino(path: str) -> Decide:
    """Its OpenVINOInferencer, in float32 on one thread as ours."""
    from anomalib.deploy import OpenVINOInferencer

    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    inferencer = OpenVINOInferencer(path, device="CPU", config=settings)
    return lambda photo: bool(inferencer.predict(photo).pred_label)


def main() -> None:
    """Make or run."""
    kind, path, *photos = sys.argv[1:]
    if kind == "make":
        make(Path(path))
        return
    opened = {"torch": open_torch, "openvino": open_openvino}[kind]
    print(json.dumps(measured(lambda: opened(path), photos)))


if __name__ == "__main__":
    main()
