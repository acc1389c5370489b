"""Promised against observed false alarms, and F1 at our threshold against the best possible F1.

    python experiments/false_alarms.py --dataset synthetic --classes screw,pill --method patchcore

An inspector is fitted on N normals of each class, for several draws of them. Its threshold is then
held against normals of the train split that were not drawn, which are exchangeable with them as the
promise asks, and against those of the test split, which may have been taken on another day. The
best F1 needs labels of the test images and is what no honest threshold reaches.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewshot_ad import load_dataset
from fewshot_ad.api import Dataset, Preprocess, Sample
from fewshot_ad.episodes import episodes
from fewshot_ad.images import prepare
from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.calibrating import predict_all
from fewshot_ad.inspection.thresholds import Rule, least_rate

SHOTS = (1, 2, 4, 8, 16)
HEADER = (
    "| shots | wanted | in force | observed, same split | observed, test | worst draw | F1 | "
    "best F1 | tail: same split | tail: F1 |\n| --- | --- | --- | --- | --- | --- | --- | --- | "
    "--- | --- |"
)


@dataclass(frozen=True)
class Trial:
    """One draw of the normals of one class."""

    shots: int
    in_force: float | None
    same_split: float
    test: float
    f1: float
    best_f1: float
    tail_same_split: float | None
    tail_f1: float | None


def f1(scores: np.ndarray, is_anomalous: np.ndarray, threshold: float) -> float:
    """Of the decision that what is above the threshold is anomalous."""
    found = scores > threshold
    hits = float((found & is_anomalous).sum())
    return 2 * hits / max(float(found.sum() + is_anomalous.sum()), 1.0)


def best_f1(scores: np.ndarray, is_anomalous: np.ndarray) -> float:
    """The greatest F1 that any threshold has on these labels."""
    cuts = [float("-inf"), *scores.tolist()]
    return max(f1(scores, is_anomalous, cut) for cut in cuts)


def trials(
    dataset: Dataset,
    class_name: str,
    options: argparse.Namespace,
    params: dict[str, Any],
) -> Iterator[Trial]:
    """All draws of one class."""
    draw = {"shots": SHOTS, "seeds": list(range(options.seeds)), "query_limit": options.limit}
    for episode in episodes(dataset, class_name, **draw):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of normals that stand out, in hundreds of draws
            inspector = Inspector.from_normals(
                [dataset.read_image(sample) for sample in episode.support],
                options.method,
                far=options.far,
                tail=True,
                name=class_name,
                **params,
            )
        drawn = {*episode.support}
        others = [sample for sample in dataset.train(class_name) if sample not in drawn]
        others = others[:: max(1, len(others) // options.limit)]
        same, test = (_scores(inspector, dataset, each) for each in (others, episode.query))
        is_anomalous = np.array([sample.is_anomalous for sample in episode.query])
        yield _trial(inspector, episode.shots, same, test, is_anomalous)


def _trial(
    inspector: Inspector, shots: int, same: np.ndarray, test: np.ndarray, is_anomalous: np.ndarray
) -> Trial:
    scores, altered = inspector.calibration.scores, inspector.calibration.altered_scores
    far = inspector.rule.far
    plain, tail = (Rule(far, tail=is_tail).threshold(scores, altered) for is_tail in (False, True))
    is_promised = inspector.calibration.source != "copies"
    return Trial(
        shots,
        max(far, least_rate(len(scores))) if is_promised else None,
        float((same > plain).mean()),
        float((test[~is_anomalous] > plain).mean()),
        f1(test, is_anomalous, plain),
        best_f1(test, is_anomalous),
        float((same > tail).mean()),
        f1(test, is_anomalous, tail),
    )


def _scores(inspector: Inspector, dataset: Dataset, samples: Sequence[Sample]) -> np.ndarray:
    preprocess = inspector.method.preprocess
    images = torch.stack([prepare(dataset.read_image(each), preprocess) for each in samples])
    return predict_all(inspector.method, images).image_score.numpy()


def line(found: Sequence[Trial], far: float) -> str:
    """One row of the table: means over draws and classes."""
    first = found[0]

    def mean(name: str) -> str:
        return f"{100 * np.mean([getattr(one, name) for one in found]):.1f}"

    in_force = "none" if first.in_force is None else f"{100 * first.in_force:.1f}"
    worst = f"{100 * max(one.test for one in found):.0f}"
    cells = [str(first.shots), f"{100 * far:g}", in_force, mean("same_split"), mean("test"), worst]
    cells += [mean("f1"), mean("best_f1"), mean("tail_same_split"), mean("tail_f1")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a table in percent, a row for each number of shots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--data", help="a folder of real classes, short for --dataset folder:DIR")
    parser.add_argument("--classes", help="joined by commas; all of them by default")
    parser.add_argument("--method", default="residual_distance")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--weights-dir")
    parser.add_argument("--size", type=int, default=224, help="side of the images, in pixels")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=24, help="images of each kind to judge")
    parser.add_argument("--far", type=float, default=0.01)
    options = parser.parse_args()
    dataset = load_dataset(f"folder:{options.data}" if options.data else options.dataset)
    params = {"backbone": options.backbone, "preprocess": Preprocess(size=options.size)}
    if options.weights_dir:
        params["weights_dir"] = options.weights_dir
    found: list[Trial] = []
    for name in options.classes.split(",") if options.classes else dataset.classes:
        found += trials(dataset, name, options, params)
    print(HEADER)
    for shots in SHOTS:
        print(line([one for one in found if one.shots == shots], options.far))


if __name__ == "__main__":
    main()
