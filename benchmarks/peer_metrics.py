"""Runs inside the environment of the peers: their pixel metrics on one set of maps.

    FOLDER/bin/python benchmarks/peer_metrics.py JOB REPEATS

JOB is a folder with ``maps.npy`` and ``masks.npy``; ``metrics.json`` is written beside them: by
name the seconds, the megabytes beyond what was held before, and the values.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from adeval import EvalAccumulator
from anomalib.metrics.aupro import _AUPRO
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)

THRESHOLDS = 200
Values = dict[str, float]


def adeval(maps: np.ndarray, masks: np.ndarray) -> Values:
    """A histogram over scores whose range is known."""
    vars(np).setdefault("trapz", np.trapezoid)  # which it calls by the old name
    low, high = float(maps.min()), float(maps.max())
    counted = EvalAccumulator(low, high, low, high)
    for scores, mask in zip(maps, masks, strict=True):
        counted.add_anomap(scores, mask.astype(np.uint8))
        counted.add_image(float(scores.max()), bool(mask.any()))
    found = counted.summary()
    return {"p_auroc": found["p_auroc"], "p_ap": found["p_aupr"], "aupro": found["p_aupro"]}


def anomalib_aupro(maps: np.ndarray, masks: np.ndarray) -> Values:
    """anomalib's, exact but for float32."""
    metric = _AUPRO()
    metric.update(torch.from_numpy(squeezed(maps)), torch.from_numpy(masks.astype(np.int64)))
    return {"aupro": float(metric.compute())}


def torchmetrics_auroc(maps: np.ndarray, masks: np.ndarray, thresholds: int | None) -> Values:
    """torchmetrics', exact or by thresholds; what anomalib's is made of."""
    return {"p_auroc": float(binary_auroc(*flat(maps, masks), thresholds=thresholds))}


def torchmetrics_ap(maps: np.ndarray, masks: np.ndarray) -> Values:
    """torchmetrics', exact."""
    return {"p_ap": float(binary_average_precision(*flat(maps, masks)))}


def torchmetrics_f1_max(maps: np.ndarray, masks: np.ndarray) -> Values:
    """The best F1 on torchmetrics' curve, as anomalib has it."""
    precision, recall, _ = binary_precision_recall_curve(*flat(maps, masks))
    return {"p_f1_max": float((2 * precision * recall / (precision + recall + 1e-10)).max())}


def squeezed(maps: np.ndarray) -> np.ndarray:
    """In [0, 1]: outside, torchmetrics would push scores through a sigmoid."""
    return (maps - maps.min()) / (maps.max() - maps.min())


def flat(maps: np.ndarray, masks: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pixel."""
    scores = torch.from_numpy(squeezed(maps)).flatten()
    return scores, torch.from_numpy(masks.astype(np.int64)).flatten()


EVERYONE: dict[str, Callable[[np.ndarray, np.ndarray], Values]] = {
    "adeval, AUROC, AP and AUPRO": adeval,
    "anomalib AUPRO": anomalib_aupro,
    "anomalib AUROC, of torchmetrics": lambda maps, masks: torchmetrics_auroc(maps, masks, None),
    f"torchmetrics AUROC, {THRESHOLDS} steps": lambda maps, masks: torchmetrics_auroc(
        maps, masks, THRESHOLDS
    ),
    "anomalib AP, of torchmetrics": torchmetrics_ap,
    "anomalib F1 curve, of torchmetrics": torchmetrics_f1_max,
}


def peak() -> float:
    """Megabytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the job; each in turn, the peak of memory growing with the hungriest so far."""
    folder, repeats = Path(sys.argv[1]), int(sys.argv[2])
    maps, masks = np.load(folder / "maps.npy"), np.load(folder / "masks.npy")
    told: dict[str, tuple[float, float, Values]] = {}
    for name, call in EVERYONE.items():
        seconds: list[float] = []
        before, values = peak(), {}
        for _ in range(repeats):
            start = time.process_time()
            values = call(maps, masks)
            seconds.append(time.process_time() - start)
        told[name] = float(np.median(seconds)), peak() - before, values
    (folder / "metrics.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
