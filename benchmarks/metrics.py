"""The pixel metrics side by side with their peers, all in one run.

    python benchmarks/metrics.py                          100 maps of 256 x 256
    python benchmarks/metrics.py --images 83 --size 900   minutes for some of the peers

adeval, anomalib and torchmetrics take part where ``install_peers.sh`` has made their environment.
Read the ratios: seconds depend on the machine. NumPy's sort uses AVX-512 where it can, which is
several times slower than its AVX2 path on AMD Zen 4 (numpy/x86-simd-sort, issue 6); there,
``NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL"`` shows what another machine would.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from measuring import table
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import PIXEL_METRICS, pixel_metrics
from fewshot_ad.evaluation.streaming import StreamingPixelMetrics

PEERS = Path(__file__).parent / ".peers" / "bin" / "python"
EXACT, SORT = "ours, exact, all four", "np.sort of the values alone"

Values = Mapping[str, float | None]


def draw_case(images: int, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Smooth noise; blobs, in seven images of ten, that raise it a little."""
    rng = np.random.default_rng(0)
    maps = np.empty((images, size, size), np.float32)
    masks: list[np.ndarray] = []
    for index in range(images):
        noise, field = rng.standard_normal((2, size, size), dtype=np.float32)
        blobs = cv2.GaussianBlur(field, (0, 0), size / 32)
        masks.append((blobs > 2.0 * blobs.std()) & (index % 10 < 7))
        smooth = cv2.GaussianBlur(noise, (0, 0), 4.0)
        maps[index] = smooth / smooth.std() + 1.5 * masks[-1]
    return maps, masks


def plain_aupro(maps: np.ndarray, masks: list[np.ndarray], limit: float = 0.3) -> float:
    """The definition with one argsort over all pixels, as evaluation scripts have it."""
    normal, overlap = np.zeros(maps.shape), np.zeros(maps.shape)
    n_regions = 0
    for index, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        n_regions += count - 1
        normal[index] = ~mask
        for region in range(1, count):
            inside = labels == region
            overlap[index][inside] = 1.0 / inside.sum()
    scores = maps.ravel()
    order = np.argsort(scores)[::-1]
    fpr = np.cumsum(normal.ravel()[order]) / normal.sum()
    pro = np.cumsum(overlap.ravel()[order]) / n_regions
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    fpr, pro = np.append(0.0, fpr[last_of_tie]), np.append(0.0, pro[last_of_tie])
    end = np.searchsorted(fpr, limit, side="right")
    fpr_cut = np.append(fpr[:end], limit)
    pro_cut = np.append(pro[:end], np.interp(limit, fpr[end - 1 : end + 1], pro[end - 1 : end + 1]))
    return float(np.sum(np.diff(fpr_cut) * (pro_cut[1:] + pro_cut[:-1]) / 2.0) / limit)


def sklearn_f1_max(truth: np.ndarray, scores: np.ndarray) -> float:
    """The best F1 on scikit-learn's curve."""
    precision, recall, _ = precision_recall_curve(truth, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def streamed(maps: np.ndarray, masks: list[np.ndarray]) -> Values:
    """The same from a histogram."""
    stream = StreamingPixelMetrics()
    stream.update(maps, masks)
    return stream.result().values()


def sorted_only(scores: np.ndarray) -> Values:
    """No metric at all: the floor under every exact answer."""
    np.sort(scores)
    return {}


def contestants(maps: np.ndarray, masks: list[np.ndarray]) -> dict[str, Callable[[], Values]]:
    """What is compared, by name; the first one is the yardstick."""
    truth, scores = np.stack(masks).ravel(), maps.ravel()
    prepared = prepare_truth(masks)
    return {
        EXACT: lambda: pixel_metrics(maps, prepared).values(),
        "ours, masks prepared anew": lambda: pixel_metrics(maps, prepare_truth(masks)).values(),
        "ours, streaming, all four": lambda: streamed(maps, masks),
        SORT: lambda: sorted_only(scores),
        "scikit-learn AUROC": lambda: {"p_auroc": float(roc_auc_score(truth, scores))},
        "scikit-learn AP": lambda: {"p_ap": float(average_precision_score(truth, scores))},
        "scikit-learn F1 curve": lambda: {"p_f1_max": sklearn_f1_max(truth, scores)},
        "plain AUPRO": lambda: {"aupro": plain_aupro(maps, masks)},
    }


def measure(call: Callable[[], Values], repeats: int) -> tuple[Values, float, float]:
    """Values, median CPU seconds (all are single-threaded), and MB of extra memory (untimed)."""
    tracemalloc.start()
    values = call()
    megabytes = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return values, float(np.median(seconds)), megabytes


def difference(values: Values, ours: Values) -> str:
    """The largest over the metrics that both have."""
    both = [(values.get(name), ours.get(name)) for name in PIXEL_METRICS]
    apart = [abs(a - b) for a, b in both if a is not None and b is not None]
    return f"{max(apart):.1e}" if apart else "-"


def peers(
    python: Path, maps: np.ndarray, masks: list[np.ndarray], repeats: int
) -> dict[str, tuple[float, float, Values]]:
    """Seconds, megabytes and values of those that live in an environment of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "maps.npy", maps)
        np.save(folder / "masks.npy", np.stack(masks))
        worker = Path(__file__).with_name("peer_metrics.py")
        subprocess.run([python, worker, folder, str(repeats)], check=True, stdout=sys.stderr)
        return json.loads((folder / "metrics.json").read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="pixel metrics against their peers")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", type=Path, default=PEERS, help="of the peers' environment")
    parser.add_argument("--no-peers", action="store_true", help="leave out what needs hours")
    options = parser.parse_args()
    maps, masks = draw_case(options.images, options.size)
    share = np.mean([mask.mean() for mask in masks])
    print(
        f"{len(maps)} maps of {options.size} x {options.size}, {share:.1%} of the pixels "
        "anomalous; CPU seconds, megabytes beside the maps\n"
    )
    found = {
        name: measure(call, options.repeats) for name, call in contestants(maps, masks).items()
    }
    if options.no_peers:
        print("adeval, anomalib and torchmetrics were left out\n")
    elif options.python.exists():
        told = peers(options.python, maps, masks, options.repeats)
        found |= {name: (values, seconds, size) for name, (seconds, size, values) in told.items()}
    else:
        print(f"no {options.python}: adeval, anomalib and torchmetrics are left out\n")
    (ours, first, _), sort = found[EXACT], found[SORT][1]
    print(
        table(
            ("", "s", "times ours", "MB", "largest difference from ours, exact"),
            [
                (
                    name,
                    f"{each:.3f}",
                    f"{each / first:.1f}",
                    f"{size:.0f}",
                    difference(values, ours),
                )
                for name, (values, each, size) in found.items()
            ],
        )
    )
    print(f"\nOurs, exact, take {first / sort:.2f} times one sort of all values.")
    for peer in ("scikit-learn", "adeval", "anomalib"):
        together = sum(each for name, (_, each, _) in found.items() if name.startswith(peer))
        if together:
            print(f"What {peer} has takes {together / first:.1f} times as long as ours, exact.")


if __name__ == "__main__":
    main()
