"""Quicker backbones: how much quicker, and what that does to scores.

    python benchmarks/precision.py --dataset folder:PATH --target-class bottle --backbone resnet18

Every way runs the same episodes with PatchCore. Differences of AUROC are in points.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measuring import in_turns, table
from torch import Tensor

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import Outcome, evaluate
from fewshot_ad.methods import load_method
from fewshot_ad.parts.backbones import Backbone
from fewshot_ad.parts.feature_cache import load_features

WAYS = ("", "bf16:", "openvino:", "openvino-bf16:")


def extractor(method: Method, weights_dir: str | None) -> Backbone:
    """What the method extracts features with."""
    folder = None if weights_dir is None else Path(weights_dir)
    fields = method.params()
    return load_features(fields["backbone"], fields["levels"], weights_dir=folder).backbone


def apart(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest relative difference of a level."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


def ranks_agree(one: Outcome, other: Outcome) -> float:
    """Spearman's correlation of the image scores."""
    ranks = [np.argsort(np.argsort(each.prediction.image_score.numpy())) for each in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="backbones in other precisions")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--target-class", nargs="+", default=["screw"])
    parser.add_argument("--backbone", nargs="+", default=["tiny"])
    parser.add_argument("--weights-dir", default=None)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--query-limit", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    lines = [line for name in options.backbone for line in lines_of(name, options)]
    head = ("backbone", "class", "ms", "times as quick", "features off", "I-AUROC", "P-AUROC",
            "rank correlation")  # fmt: skip
    print(table(head, lines))


def lines_of(backbone: str, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """What every way of a backbone costs and changes, for every class."""
    methods = dict(usable(backbone, options.weights_dir))
    networks = [extractor(method, options.weights_dir) for method in methods.values()]
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seconds = in_turns([lambda n=n: n(image) for n in networks], options.repeats)
    wanted = networks[0](image)
    lines: list[tuple[str, ...]] = []
    for target in options.target_class:
        plain: list[Outcome] = []
        for (name, method), network, each in zip(methods.items(), networks, seconds, strict=True):
            outcomes = run(method, target, options)
            plain = plain or outcomes
            cost = f"{each * 1e3:.1f}", f"{seconds[0] / each:.2f}"
            change = effect(list(zip(outcomes, plain, strict=True)))
            off = f"{apart(network(image), wanted):.2%}"
            lines.append((name.rpartition("/")[2], target, *cost, off, *change))
    return lines


def usable(backbone: str, weights_dir: str | None) -> Iterator[tuple[str, Method]]:
    """PatchCore on every way of a backbone that this machine has."""
    for way in WAYS:
        name = f"{way}{backbone}"
        method = load_method("patchcore").variant(
            device="cpu", backbone=name, weights_dir=weights_dir
        )
        try:
            extractor(method, weights_dir)
        except FewShotError as error:
            print(f"{name} is left out: {error}\n")
        else:
            yield name, method


def run(method: Method, target: str, options: argparse.Namespace) -> list[Outcome]:
    """The outcomes of all seeds."""
    dataset = load_dataset(options.dataset)
    trials = episodes(
        dataset,
        target,
        shots=[options.shots],
        seeds=range(options.seeds),
        query_limit=options.query_limit,
    )
    return list(evaluate(method, dataset, trials))


def effect(pairs: list[tuple[Outcome, Outcome]]) -> tuple[str, ...]:
    """Mean shifts of two metrics, in points, and how well the image scores agree."""
    shifts: list[str] = []
    for metric in ("i_auroc", "p_auroc"):
        values = [[getattr(each.row, metric) or 0.0 for each in pair] for pair in pairs]
        shifts.append(f"{100 * np.mean([one - other for one, other in values]):+.2f}")
    return *shifts, f"{np.mean([ranks_agree(*pair) for pair in pairs]):.4f}"


if __name__ == "__main__":
    main()
