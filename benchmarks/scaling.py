"""How seconds and memory grow with query images, bank and image size.

    python benchmarks/scaling.py                     # minutes
    python benchmarks/scaling.py --images 100 10000  # the whole span

The last column is the growth of the cost over the growth of the size, from one line to the next: 1
is linear. Every line is a process of its own; memory is its peak, on Linux without pages of files,
which the system takes back when it wants them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from time import sleep

import torch
from measuring import now, table
from nearest import draw_rows

from fewshot_ad.api import Dataset, Episode, Sample
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.provenance import provenance
from fewshot_ad.methods import load_method
from fewshot_ad.parts.search import nearest

CLASS, SHOTS, DEFECT_SHARE = "carpet", 4, 4
QUERIES, CHANNELS = 784, 512


def many(dataset: Dataset, count: int) -> tuple[Sample, ...]:
    """As many drawn test images as asked for, one in four anomalous."""
    listed = dataset.test(CLASS)
    normal, anomalous = listed[0], listed[-1]
    found: list[Sample] = []
    for index in range(count):
        model = normal if index % DEFECT_SHARE else anomalous
        old, new = "/000.png" if model is normal else f"/{model.path[-7:]}", f"/{index:03d}.png"
        mask = model.mask_path and f"{model.mask_path.rpartition('/')[0]}/{index:03d}_mask.png"
        found.append(
            Sample(model.path.replace(old, new), CLASS, model.is_anomalous, mask, model.defect)
        )
    return tuple(found)


def judge(count: int) -> float:
    """Seconds to judge so many images with a four-shot PatchCore."""
    dataset = load_dataset("synthetic")
    support = dataset.train(CLASS)[:SHOTS]
    episode = Episode("synthetic", CLASS, 0, support, many(dataset, count))
    method = load_method("patchcore").variant(device="cpu")
    start = now()
    list(evaluate(method, dataset, [episode]))
    return now() - start


def search(count: int) -> float:
    """Seconds to search a bank of so many rows, made ready before."""
    bank, queries = draw_rows(count, CHANNELS, 1), draw_rows(QUERIES, CHANNELS, 2)
    nearest(queries[:1], bank)
    start = now()
    nearest(queries, bank)
    return now() - start


def enlarge(side: int) -> float:
    """Seconds of PatchCore on 24 images of this size, in pixels."""
    dataset = load_dataset("synthetic")
    method = load_method("patchcore")
    method = method.variant(device="cpu", preprocess=type(method.preprocess)(size=side))
    episode = Episode("synthetic", CLASS, 0, dataset.train(CLASS)[:1], many(dataset, 24))
    start = now()
    list(evaluate(method, dataset, [episode]))
    return now() - start


class PeakMemory(Thread):
    """Looks at the memory of this process several times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0

    def run(self) -> None:
        """Until the process ends."""
        while (now_held := held()) is not None:
            self.megabytes = max(self.megabytes, now_held)
            sleep(0.2)


def held() -> float | None:
    """Megabytes of memory that no file backs; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)


KINDS: dict[str, Callable[[int], float]] = {"judge": judge, "search": search, "enlarge": enlarge}


def measured(kind: str, size: int) -> tuple[float, float]:
    """Seconds and peak megabytes in a fresh process."""
    command = [sys.executable, __file__, "--alone", kind, str(size)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, megabytes = json.loads(answer.splitlines()[-1])
    return seconds, megabytes


def show(title: str, unit: str, kind: str, sizes: Sequence[int], power: int = 1) -> None:
    """Print one table; the cost should grow with ``size ** power``."""
    lines: list[tuple[object, ...]] = []
    before: tuple[int, float] | None = None
    for size in sizes:
        seconds, megabytes = measured(kind, size)
        growth = ""
        if before is not None:
            growth = f"{seconds / before[1] / (size / before[0]) ** power:.2f}"
        lines.append((f"{size:,}", f"{seconds:.2f}", f"{megabytes:.0f}", growth))
        before = size, seconds
    print(f"\n{title}\n")
    print(table((unit, "s", "peak MB", "growth, 1 is linear"), lines))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="how cost grows")
    parser.add_argument("--images", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--banks", type=int, nargs="*", default=[3136, 12544, 50176])
    parser.add_argument("--sizes", type=int, nargs="*", default=[224, 448, 896])
    parser.add_argument("--alone", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        torch.manual_seed(0)
        memory = PeakMemory()
        memory.start()
        seconds = KINDS[options.alone[0]](int(options.alone[1]))
        peak = memory.megabytes or provenance("cpu")["peak_memory_mb"]
        sys.stdout.write(json.dumps([seconds, peak]))
        return
    show("Query images, PatchCore, 4 shots, drawn images, tiny", "images", "judge", options.images)
    show(f"Bank rows x {CHANNELS}, {QUERIES} queries, exact", "rows", "search", options.banks)
    show("Side of 24 images in pixels, PatchCore, 1 shot; the search grows with its fourth power,"
         " all else with its square", "side", "enlarge", options.sizes, power=2)  # fmt: skip


if __name__ == "__main__":
    main()
