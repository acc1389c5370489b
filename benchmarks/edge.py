"""Every engine that an inspector can be exported to: latency, memory, and what 8 bits cost.

    python benchmarks/edge.py --backbone random:resnet18

One image at a time, in turns, on one thread. The first line of every method is this package;
ratios are to it. ``first s`` is CPU time from the start of a process to its first decision, with
all imports; ``MB`` is the peak of that process. Weights are random where they can be, which changes
no time; losses of 8 bits are of these weights, too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import in_turns, table
from PIL import Image

from fewshot_ad import Inspector
from fewshot_ad.api import FewShotError, MetaTrained, Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.inspection.exported import SUFFIXES, Format, open_exported
from fewshot_ad.inspection.exporting import export
from fewshot_ad.methods import load_method
from fewshot_ad.parts.passing import passing_once

HERE = Path(__file__).parent
METHODS = ("resad", "patchcore", "padim", "simplenet")
QUICK = {"resad": {"steps": 2, "held_out": 0.0}, "simplenet": {"steps": 2}}
KNOWN = ("washer", "pill")  # of which ResAD learns what changes no time
WAYS: tuple[tuple[Format, bool], ...] = (
    ("torch", False),
    ("onnx", False),
    ("openvino", False),
    ("onnx", True),
    ("openvino", True),
)


def fitted(name: str, backbone: str, size: int, shots: int, target: str) -> Inspector:
    """An inspector of drawn photos; what it learned is of no account."""
    drawn = load_dataset("synthetic")
    changes = {"backbone": backbone, "preprocess": Preprocess(size=size), "device": "cpu"}
    method = load_method(name, **changes, **QUICK.get(name, {}))
    if isinstance(method, MetaTrained):
        known: Any = known_images([(drawn, KNOWN)])
        method.meta_train(known)
    photos = [drawn.read_image(sample) for sample in drawn.train(target)[:shots]]
    return Inspector.from_normals(photos, method)


def photo_files(folder: Path, target: str, count: int = 12) -> list[str]:
    """Photos that were not fitted on."""
    drawn = load_dataset("synthetic")
    paths = [folder / f"photo-{number}.png" for number in range(count)]
    for path, sample in zip(paths, drawn.test(target), strict=False):
        Image.fromarray(drawn.read_image(sample)).save(path)
    return [str(path) for path in paths]


def in_process(*arguments: object) -> dict[str, float]:
    """What a worker prints last."""
    command = [*map(str, arguments)]
    away = tempfile.gettempdir()  # some leave caches where they are
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=away)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def exports(inspector: Inspector, folder: Path) -> dict[str, tuple[Path, str]]:
    """Files by way, with what 8 bits cost in words."""
    found: dict[str, tuple[Path, str]] = {}
    for form, int8 in WAYS:
        name = f"{form} int8" if int8 else form
        file = folder / f"{name.replace(' ', '-')}{SUFFIXES[form]}"
        try:
            written = export(inspector, file, form, int8=int8)
        except FewShotError as error:
            print(f"{name} is left out: {error}\n")
            continue
        loss, parity = written.loss, written.parity
        words = f"parity {max(parity.score, parity.map):.0e}"
        if loss is not None:
            off, ranks = loss.parity, f"{loss.ranks:.3f}"
            words = f"score {off.score:.1%}, map {off.map:.1%}, ranks {ranks}, "
            words += f"{loss.decisions} of {off.images} decisions"
        found[name] = file, words
    return found


def judges(inspector: Inspector, files: dict[str, tuple[Path, str]]) -> list[Callable[[], object]]:
    """One image through every way, always another one; this package as an inspector calls it."""
    shape = 3, inspector.method.preprocess.size, inspector.method.preprocess.size
    generator = np.random.default_rng()
    images = (generator.random(shape, np.float32) for _ in count())

    def predict() -> object:
        with passing_once():
            return inspector.method.predict(torch.from_numpy(next(images))[None])

    calls: list[Callable[[], object]] = [predict]
    for file, _ in files.values():
        opened = open_exported(file, threads=1)
        calls.append(lambda run=opened.judge: run(next(images)[None]))
    return calls


def lines_of(name: str, options: argparse.Namespace, folder: Path) -> list[tuple[str, ...]]:
    """The table of one method."""
    target = options.target_class
    inspector = fitted(name, options.backbone, options.size, options.shots, target)
    saved = folder / "part.fsad"
    inspector.save(saved)
    files = exports(inspector, folder)
    seconds = in_turns(judges(inspector, files), options.repeats)
    photos = photo_files(folder, target)
    lines: list[tuple[str, ...]] = []
    ways = {"this package": (saved, ""), **files}
    for (way, (file, words)), each in zip(ways.items(), seconds, strict=True):
        kind = {".fsad": "fsad", ".onnx": "onnx", ".xml": "openvino"}.get(file.suffix)
        cold = (
            in_process(sys.executable, HERE / "cold_worker.py", kind, file, *photos) if kind else {}
        )
        costs = [
            f"{cold[key]:{form}}" if cold else ""
            for key, form in (("first", ".2f"), ("peak", ".0f"))
        ]
        lines.append((name, way, f"{each * 1e3:.1f}", f"{seconds[0] / each:.2f}", *costs, words))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="engines side by side at batch 1")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--target-class", default="screw")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of 8 bits: the table says it
    lines: list[tuple[str, ...]] = []
    for name in options.methods:
        with tempfile.TemporaryDirectory() as folder:
            lines += lines_of(name, options, Path(folder))
    print(f"{options.backbone}, {options.size} px, {options.shots} shots, one image\n")
    head = ("method", "engine", "ms", "times as quick", "first s", "MB", "off")
    print(table(head, lines))


if __name__ == "__main__":
    main()
