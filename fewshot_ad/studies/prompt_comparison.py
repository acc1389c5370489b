"""Prompt sets side by side on the same episodes: differences with intervals, class by class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Bool, Float

from fewshot_ad.api import Dataset, Episode, Method
from fewshot_ad.evaluation.bootstrap import (
    Pairs,
    differences,
    image_pairs,
    interval,
    pixel_pairs,
)
from fewshot_ad.evaluation.evaluator import OnImage, Outcome, evaluate
from fewshot_ad.evaluation.leaks import KnownNames
from fewshot_ad.evaluation.queries import Query
from fewshot_ad.images import EvalSize

COMPARED = ("i_auroc", "p_auroc")

Mask = Bool[np.ndarray, "_ _"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A prompt set against the first one, on one class or on the mean over the classes.

    Attributes:
        prompts: the set.
        metric: ``i_auroc`` or ``p_auroc``.
        target_class: None for the mean over the classes.
        value: of the set, the mean over supports.
        difference: to the first set; zero for that one itself.
        low, high: the 95 % interval of the difference.
    """

    prompts: str
    metric: str
    target_class: str | None
    value: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class _Judged:
    """A set on a class: by metric, the values and the pairs of every support."""

    values: dict[str, list[float]]
    pairs: dict[str, list[Pairs]]


@dataclass(frozen=True, eq=False)
class _Resampled:
    """A value, and how its difference to the first set swings."""

    value: float
    difference: float
    swings: Float[np.ndarray, " b"]


def compare(
    method: Method,
    names: Sequence[str],
    dataset: Dataset,
    trials: Sequence[Sequence[Episode]],
    *,
    eval_size: EvalSize = 256,
    known: KnownNames | None = None,
    on_image: OnImage | None = None,
    seed: int = 0,
) -> list[Difference]:
    """Run the same episodes under every prompt set.

    Values are those of the evaluator. Intervals come from drawing test images anew, normal and
    anomalous apart, and supports where there are several; classes stay as they are, so that the
    interval of the mean speaks of these classes and of no others.

    Args:
        method: any that has a field ``prompts``.
        names: names or paths of prompt sets; the first is what the others are compared with.
        dataset: where the episodes come from.
        trials: the episodes of each class, which judge the same images.
        eval_size: side in pixels at which maps meet masks, or ``native``.
        known: classes that the choice of the prompts has seen; the leak guard keeps them out.
        on_image: told of every judged image.
        seed: of the resamples.

    Returns:
        Class by class and metric by metric, set by set; after all classes their mean.

    Raises:
        FewShotError: as ``evaluate``.
    """
    found: list[Difference] = []
    by_set: dict[tuple[str, str], list[_Resampled]] = {}
    for index, episodes in enumerate(trials):
        query = Query(dataset, episodes[0].query, method.preprocess, eval_size)
        masks = [*query.masks()]
        judged = [
            _judge(
                evaluate(
                    method.variant(prompts=name),
                    dataset,
                    episodes,
                    eval_size=eval_size,
                    known=known,
                    on_image=on_image,
                ),
                query,
                masks,
            )
            for name in names
        ]
        for key, resampled in _resampled(names, judged, query.is_anomalous, [seed, index]).items():
            by_set.setdefault(key, []).append(resampled)
            found.append(_difference(*key, episodes[0].target_class, [resampled]))
    means = [
        _difference(*key, None, of_classes)
        for key, of_classes in by_set.items()
        if len(of_classes) == len(trials) > 1
    ]
    return found + means


def _judge(outcomes: Iterable[Outcome], query: Query, masks: Sequence[Mask | None]) -> _Judged:
    """The values of each support, and the pairs they are made of."""
    judged = _Judged({metric: [] for metric in COMPARED}, {metric: [] for metric in COMPARED})
    for outcome in outcomes:
        scores = outcome.prediction.image_score.numpy().astype(np.float64)
        if outcome.row.i_auroc is not None:
            judged.values["i_auroc"].append(outcome.row.i_auroc)
            judged.pairs["i_auroc"].append(image_pairs(scores, query.is_anomalous))
        if outcome.row.p_auroc is not None:
            maps = [*query.align(outcome.prediction.anomaly_map)]
            judged.values["p_auroc"].append(outcome.row.p_auroc)
            there = [mask for mask in masks if mask is not None]  # all, where there is a value
            judged.pairs["p_auroc"].append(pixel_pairs(maps, there))
    return judged


def _resampled(
    names: Sequence[str],
    judged: Sequence[_Judged],
    is_anomalous: Bool[np.ndarray, " n"],
    seed: Sequence[int],
) -> dict[tuple[str, str], _Resampled]:
    """By metric and set; every set sees the same draws."""
    first, found = judged[0], dict[tuple[str, str], _Resampled]()
    for metric in (name for name in COMPARED if first.values[name]):
        for name, one in zip(names, judged, strict=True):
            generator = np.random.Generator(np.random.PCG64(seed))
            swings = differences(first.pairs[metric], one.pairs[metric], is_anomalous, generator)
            value = fmean(one.values[metric])
            difference = value - fmean(first.values[metric])
            found[metric, name] = _Resampled(value, difference, swings)
    return found


def _difference(
    metric: str, name: str, target_class: str | None, of_classes: Sequence[_Resampled]
) -> Difference:
    """Classes are drawn independently of each other, so their swings average one by one."""
    low, high = interval(np.mean([one.swings for one in of_classes], axis=0))
    value = fmean(one.value for one in of_classes)
    difference = fmean(one.difference for one in of_classes)
    return Difference(name, metric, target_class, value, difference, low, high)
