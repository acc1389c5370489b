"""From the start of a process to its first decision, beside anomalib's inferencers.

    sh benchmarks/install_peers.sh
    python benchmarks/cold_start.py --backbone random:resnet18

The same photos, backbone, weights and bank on both sides, one thread, in turns. anomalib is called
as its documentation says: ``TorchInferencer`` and ``OpenVINOInferencer`` on what its ``to_torch``
and ``to_openvino`` write. CPU seconds, with all imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from edge import HERE, fitted, in_process, photo_files
from measuring import table
from safetensors.torch import save_file

from fewshot_ad import Inspector
from fewshot_ad.inspection.choosing import stacked
from fewshot_ad.inspection.exporting import export
from fewshot_ad.inspection.parity import as_colours

METHODS = ("patchcore", "padim")


def ours(inspector: Inspector, folder: Path) -> list[tuple[str, list[object]]]:
    """Commands of our three ways, without photos."""
    saved = folder / "part.fsad"
    inspector.save(saved)
    files = {"fsad": saved, "onnx": folder / "part.onnx", "openvino": folder / "part.xml"}
    export(inspector, files["onnx"], "onnx")
    export(inspector, files["openvino"], "openvino")
    worker = [sys.executable, HERE / "cold_worker.py"]
    return [(f"ours, {kind}", [*worker, kind, file]) for kind, file in files.items()]


def theirs(
    inspector: Inspector, folder: Path, python: str, backbone: str
) -> list[tuple[str, list[object]]]:
    """Commands of anomalib's two ways, once it has fitted the same."""
    method = inspector.method
    network = method.features.backbone.network  # pyright: ignore[reportAttributeAccessIssue]
    levels = method.params()["levels"]
    job = {
        "method": type(method).__name__.lower(),
        "backbone": backbone.removeprefix("random:").partition(".")[0],
        "layers": [f"layer{level}" for level in levels],
        "size": method.preprocess.size,
    }
    (folder / "job.json").write_text(json.dumps(job))
    np.save(folder / "support.npy", as_colours(stacked(inspector.squares, method), method))
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    worker = [python, HERE / "peer_cold.py"]
    subprocess.run([*worker, "make", folder], check=True, stdout=subprocess.DEVNULL)
    exported = folder / "weights"
    return [
        ("anomalib, TorchInferencer", [*worker, "torch", exported / "torch" / "model.pt"]),
        (
            "anomalib, OpenVINOInferencer",
            [*worker, "openvino", exported / "openvino" / "model.xml"],
        ),
    ]


def lines_of(name: str, options: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """The table of one method."""
    target = options.target_class
    inspector = fitted(name, options.backbone, options.size, options.shots, target)
    ways = ours(inspector, folder) + theirs(inspector, folder, options.python, options.backbone)
    photos = photo_files(folder, target)
    found: dict[str, list[dict[str, float]]] = {who: [] for who, _ in ways}
    for _ in range(options.repeats):
        for who, command in ways:
            found[who].append(in_process(*command, *photos))
    medians = {
        who: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for who, runs in found.items()
    }
    base = medians["ours, fsad"]
    return [
        (
            f"{name}, {who}",
            f"{one['first']:.2f}",
            f"{one['first'] / base['first']:.2f}",
            f"{one['steady'] * 1e3:.1f}",
            f"{one['steady'] / base['steady']:.2f}",
            f"{one['peak']:.0f}",
        )
        for who, one in medians.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="cold starts beside anomalib's inferencers")
    parser.add_argument("--python", default=str(HERE / ".peers" / "bin" / "python"))
    parser.add_argument("--backbone", default="random:resnet18")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--target-class", default="screw")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not Path(options.python).exists():
        sys.exit(f"no {options.python}: sh benchmarks/install_peers.sh first")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines: list[tuple[str, ...]] = []
    for name in options.methods:
        with tempfile.TemporaryDirectory() as folder:
            lines += lines_of(name, options, Path(folder))
    print(f"{options.backbone}, {options.size} px, {options.shots} shots, one photo at a time\n")
    head = ("", "first s", "to ours, fsad", "ms / photo", "to ours, fsad", "peak MB")
    print(table(head, lines))


if __name__ == "__main__":
    main()
