"""What choosing the best step on the test set would add, in points of I-AUROC and P-AUROC.

    python experiments/selection_on_test.py --target-class screw washer --seeds 3

Open ResAD code evaluates the target every epoch, which invites quoting the best one. Here one run
of meta-training is judged on the target at every fifth of its budget: the step that held-out known
classes choose, which is what ``resad`` does, beside the step that the test set would have chosen.
"""

import argparse
from collections import defaultdict
from contextlib import contextmanager
from copy import deepcopy
from statistics import mean
from typing import ClassVar

from fewshot_ad.cli.settings import with_settings
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.known import known_images, parse_known
from fewshot_ad.methods import load_method
from fewshot_ad.parts import residual_learning
from fewshot_ad.parts.meta_training import Course, LevelModels

METRICS = ("i_auroc", "p_auroc")


def main() -> None:
    """Print a line per target class and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--known", help="as for fewshot-ad eval")
    parser.add_argument("--target-class", nargs="+", required=True)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    gains = defaultdict(list)
    for target_class in arguments.target_class:
        honest, best = compare(arguments, target_class)
        for metric in METRICS:
            gains[metric].append(100 * (best[metric] - honest[metric]))
        print(target_class, {m: f"{100 * honest[m]:.1f} +{gains[m][-1]:.2f}" for m in METRICS})
    print("mean gain in points", {metric: round(mean(of), 2) for metric, of in gains.items()})


def compare(arguments, target_class):
    """Metrics of the honest choice, and for each metric the best over the steps on the test set."""
    dataset = load_dataset(arguments.dataset)
    target = (dataset.name, target_class)
    known = (
        parse_known(arguments.known, exclude=target)
        if arguments.known
        else known_images([(dataset, dataset.classes)], exclude=target)
    )
    method = with_settings(load_method("resad"), arguments.settings)
    trials = list(
        episodes(dataset, target_class, shots=[arguments.shots], seeds=range(arguments.seeds))
    )
    with WatchedCourse.watching() as tried:
        honest = scored(method.meta_train(known), dataset, trials, known)
    rows = [honest]
    for models in tried:
        models.share.copy_(method.models_.share)  # one choice at a time
        method.models_ = models.eval()
        rows.append(scored(method, dataset, trials, known))
    return honest, {metric: max(row[metric] for row in rows) for metric in METRICS}


class WatchedCourse(Course):
    """Keeps a copy of the models at every selection."""

    tried: ClassVar[list[LevelModels]] = []

    @classmethod
    @contextmanager
    def watching(cls):
        """Stand in for the course that ``meta_train`` takes."""
        cls.tried.clear()
        residual_learning.Course = cls
        try:
            yield cls.tried
        finally:
            residual_learning.Course = Course

    def _judge(self, step):
        super()._judge(step)
        self.tried.append(deepcopy(self.models))


def scored(method, dataset, trials, known):
    """Means over the seeds."""
    rows = [outcome.row for outcome in evaluate(method, dataset, trials, known=known)]
    return {metric: mean(getattr(row, metric) or 0.0 for row in rows) for metric in METRICS}


if __name__ == "__main__":
    main()
