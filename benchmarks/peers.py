"""The same episodes with anomalib: seconds, memory, and whether the scores agree.

    sh benchmarks/install_peers.sh
    python benchmarks/peers.py --query-limit 20
    python benchmarks/peers.py --methods patchcore --shots 1 2 4 8 16 --seeds 5   # a whole study

Both sides get the same tensors, backbone, weights and levels, and the same number of threads.
anomalib's models are called without its engine and with everything imported, which leaves out what
a user of it waits for most; its metrics are not timed, ours are not either.

Scores are not expected to be equal. PatchCore: the features are the same to the bit, but anomalib's
image score is the maximum before the blur, ours after it. PaDiM keeps other random channels and
repeats coarse features where ours are resized bilinearly. CFLOW starts from other random weights.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import now, table
from safetensors.torch import save_file
from torch import Tensor

from fewshot_ad.api import Method, Prediction, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import image_metrics, pixel_metrics
from fewshot_ad.evaluation.reading import read_images, read_labelled
from fewshot_ad.methods import load_method
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.timm_networks import build_network  # noqa: F401 - off the clock, as theirs

HERE = Path(__file__).parent
FLOW_BLOCKS, FIBERS = 8, 64  # of CFLOW, on both sides
LEVELS = {"patchcore": (2, 3), "padim": (1, 2, 3), "cflow": (2, 3)}


def our_method(name: str, backbone: str, weights_dir: str | None, support: Tensor) -> Method:
    """Ours, with the settings of the peer where they are settings."""
    changes: dict[str, Any] = {"device": "cpu", "backbone": backbone, "levels": LEVELS[name]}
    if name == "cflow":
        positions = support.shape[-1] ** 2 * len(support) * (1 / 64 + 1 / 256)
        steps = round(positions / len(LEVELS[name]) / FIBERS)
        changes |= {"flow_blocks": FLOW_BLOCKS, "vectors_per_step": FIBERS, "steps": steps}
    return load_method(name).variant(weights_dir=weights_dir, **changes)


def run_ours(
    name: str, options: argparse.Namespace, supports: list[Tensor], query: Tensor
) -> tuple[list[tuple[float, float]], list[Prediction]]:
    """Seconds of every fit and predict, and the predictions."""
    times: list[tuple[float, float]] = []
    found: list[Prediction] = []
    for support in supports:
        method = our_method(name, options.backbone, options.weights_dir, support)
        start = now()
        method.fit(Support(options.target_class, support))
        fitted = now()
        found.append(method.predict(query))
        times.append((fitted - start, now() - fitted))
    return times, found


def run_theirs(
    name: str, options: argparse.Namespace, supports: list[Tensor], query: Tensor
) -> tuple[list[list[float]], float, list[tuple[np.ndarray, np.ndarray]]]:
    """The same, by the worker in the environment of the peers, and its peak megabytes."""
    folder = None if options.weights_dir is None else Path(options.weights_dir)
    backbone = load_features(options.backbone, LEVELS[name], weights_dir=folder).backbone
    job = {
        "method": name,
        "backbone": options.backbone.removeprefix("random:").partition(".")[0],
        "layers": [f"layer{level}" for level in LEVELS[name]],
        "flow_blocks": FLOW_BLOCKS,
        "episodes": len(supports),
    }
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        (work / "job.json").write_text(json.dumps(job))
        np.save(work / "query.npy", query.numpy())
        for number, support in enumerate(supports):
            np.save(work / f"support-{number}.npy", support.numpy())
        save_file(
            {key: value.contiguous() for key, value in backbone.network.state_dict().items()},
            work / "weights.safetensors",
        )
        subprocess.run([options.python, HERE / "peer_worker.py", work], check=True)
        told = json.loads((work / "times.json").read_text())
        pairs = [
            (np.load(work / f"scores-{number}.npy"), np.load(work / f"maps-{number}.npy"))
            for number in range(len(supports))
        ]
    return told["times"], told["peak_memory_mb"], pairs


def compare(name: str, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Two lines of the table."""
    dataset = load_dataset(options.dataset)
    trials = list(
        episodes(
            dataset,
            options.target_class,
            shots=options.shots,
            seeds=range(options.seeds),
            query_limit=options.query_limit,
        )
    )
    preprocess = load_method(name).preprocess
    labelled = read_labelled(dataset, trials[0].query, preprocess)
    supports = [read_images(dataset, trial.support, preprocess) for trial in trials]
    ours, predictions = run_ours(name, options, supports, labelled.images)
    theirs, their_peak, pairs = run_theirs(name, options, supports, labelled.images)
    our_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    truth, is_anomalous = prepare_truth(list(labelled.masks.numpy())), labelled.is_anomalous.numpy()
    our_pairs = [(one.image_score.numpy(), one.anomaly_map.numpy()) for one in predictions]
    lines: list[tuple[str, ...]] = []
    for who, times, peak, found in (
        ("ours", ours, our_peak, our_pairs),
        ("anomalib", theirs, their_peak, pairs),
    ):
        fit, predict = (sum(each) for each in zip(*times, strict=True))
        aurocs = [
            (
                image_metrics(scores, is_anomalous).i_auroc,
                pixel_metrics(list(maps), truth).p_auroc,
            )
            for scores, maps in found
        ]
        means = [
            100 * float(np.mean([value or 0.0 for value in each]))
            for each in zip(*aurocs, strict=True)
        ]
        agreement = np.mean(
            [rank_correlation(a[0], b[0]) for a, b in zip(our_pairs, found, strict=True)]
        )
        lines.append(
            (
                f"{name}, {who}",
                f"{fit:.2f}",
                f"{predict / len(times) / len(labelled.images):.4f}",
                f"{fit + predict:.2f}",
                f"{sum(map(sum, theirs)) / (fit + predict):.2f}",
                f"{peak:.0f}",
                *(f"{mean:.1f}" for mean in means),
                f"{agreement:.4f}",
            )
        )
    return lines


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of scores without ties."""
    ranks = [np.argsort(np.argsort(scores)) for scores in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="anomalib on the same episodes")
    parser.add_argument("--python", default=str(HERE / ".peers" / "bin" / "python"))
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--target-class", default="screw")
    parser.add_argument("--backbone", default="random:resnet18")
    parser.add_argument("--weights-dir", default=None)
    parser.add_argument("--methods", nargs="+", default=[*LEVELS], choices=[*LEVELS])
    parser.add_argument("--shots", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--query-limit", type=int, default=None)
    options = parser.parse_args()
    if not Path(options.python).exists():
        sys.exit(f"no {options.python}: sh benchmarks/install_peers.sh first")
    torch.manual_seed(0)
    lines = [line for name in options.methods for line in compare(name, options)]
    print(
        f"{options.dataset}/{options.target_class}, backbone {options.backbone}, "
        f"{options.seeds} seeds x shots {', '.join(map(str, options.shots))}\n"
    )
    head = ("", "fit s", "s / image", "all s", "anomalib / this", "peak MB", "I-AUROC", "P-AUROC",
            "ranks as ours")  # fmt: skip
    print(table(head, lines))


if __name__ == "__main__":
    main()
