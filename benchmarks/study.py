"""What a study of one class costs, in single episodes: 5 seeds x shots 1, 2, 4, 8, 16.

    python benchmarks/study.py
    python benchmarks/study.py --dataset folder:PATH --target-class bottle --backbone resnet18

Each line is measured in a process of its own, so that nothing is known before its clock starts;
meta-training and imports come before it. Features, matches and ground truth are shared between
the episodes of a study; what is left per episode is the map, the metrics and, for a trained method,
its network.
"""

import argparse
import json
import subprocess
import sys

from measuring import now, table

from fewshot_ad.api import Episode, MetaTrained, Method
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.methods import load_method

STEPS, KNOWN_CLASSES, KNOWN_LIMIT = 4, 2, 2  # how well a method is trained changes no time


def ready_method(name: str, backbone: str, weights_dir: str | None, target: str) -> Method:
    """The method, meta-trained for a few steps where it needs that."""
    method = load_method(name).variant(device="cpu", backbone=backbone, weights_dir=weights_dir)
    if not isinstance(method, MetaTrained):
        return method
    drawn = load_dataset("synthetic")
    names = [each for each in drawn.classes if each != target][:KNOWN_CLASSES]
    method = method.variant(steps=STEPS)
    return method.meta_train(known_images([(drawn, names)], limit=KNOWN_LIMIT))


def trials(options: argparse.Namespace, shots: list[int], seeds: int) -> list[Episode]:
    """The episodes of a study, or of a part of it."""
    dataset = load_dataset(options.dataset)
    drawn = episodes(
        dataset,
        options.target_class,
        shots=shots,
        seeds=range(seeds),
        query_limit=options.query_limit,
    )
    return list(drawn)


def run_alone(options: argparse.Namespace, shots: list[int], seeds: int) -> None:
    """Print the seconds of these episodes and of their parts, as JSON."""
    method = ready_method(
        options.method, options.backbone, options.weights_dir, options.target_class
    )
    chosen, dataset = trials(options, shots, seeds), load_dataset(options.dataset)
    start = now()
    rows = [outcome.row for outcome in evaluate(method, dataset, chosen)]
    found = {
        "seconds": now() - start,
        "fit": sum(row.fit_seconds for row in rows),
        "predict": sum(row.predict_seconds_per_image * len(chosen[0].query) for row in rows),
        "metrics": sum(row.metric_seconds for row in rows),
        "episodes": len(rows),
        "peak_memory_mb": rows[-1].peak_memory_mb,
        "i_auroc": sum(row.i_auroc or 0.0 for row in rows) / len(rows),
    }
    sys.stdout.write(json.dumps(found))


def measured(arguments: list[str], method: str, shots: list[int], seeds: int) -> dict[str, float]:
    """The same in a fresh process."""
    part = ["--alone", method, ",".join(map(str, shots)), str(seeds)]
    command = [sys.executable, __file__, *arguments, *part]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="a study of one class in single episodes")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--target-class", default="screw")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--weights-dir", default=None)
    parser.add_argument("--methods", nargs="+", default=["patchcore", "resad"])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--query-limit", type=int, default=None)
    parser.add_argument("--alone", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        options.method, shots, seeds = options.alone
        run_alone(options, [int(each) for each in shots.split(",")], int(seeds))
        return
    print(
        f"{options.dataset}/{options.target_class}, backbone {options.backbone}, "
        f"{len(trials(options, [1], 1)[0].query)} query images, {options.seeds} seeds x shots "
        f"{', '.join(map(str, options.shots))}\n"
    )
    lines: list[tuple[object, ...]] = []
    for method in options.methods:
        parts = [([each], 1) for each in options.shots] + [(options.shots, options.seeds)]
        *single, study = (measured(sys.argv[1:], method, *part) for part in parts)
        apart = options.seeds * sum(each["seconds"] for each in single)
        for shots, each in zip(options.shots, single, strict=True):
            lines.append((method, f"one episode, {shots} shots", *_cells(each, study["seconds"])))
        lines.append((method, "the study", *_cells(study, study["seconds"])))
        ratio = f"{study['seconds'] / apart:.2f}"
        lines.append((method, "its episodes apart", f"{apart:.2f}", *[""] * 4, ratio))
    print(
        table(
            ("method", "", "s", "fit s", "predict s", "metrics s", "peak MB", "study / this"), lines
        )
    )


def _cells(found: dict[str, float], study_seconds: float) -> tuple[str, ...]:
    parts = [f"{found[name]:.2f}" for name in ("seconds", "fit", "predict", "metrics")]
    ratio = study_seconds / found["seconds"]
    return *parts, f"{found['peak_memory_mb']:.0f}", f"{ratio:.2f}"


if __name__ == "__main__":
    main()
