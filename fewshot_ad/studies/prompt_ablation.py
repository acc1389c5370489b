"""What each word of a prompt set is worth: the metric with it, less the metric without it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

from fewshot_ad.prompts import LISTS, PromptSet, Strings
from fewshot_ad.studies.prompt_scoring import EmbeddedClass

KINDS = dict(zip(LISTS, ("template", "normal state", "anomalous state"), strict=True))
GROUP = "group"


@dataclass(frozen=True, slots=True)
class Drop:
    """What is left out at once.

    Attributes:
        kind: ``template``, ``normal state``, ``anomalous state`` or ``group``.
        name: of the group, or the string itself.
        strings: what goes.
    """

    kind: str
    name: str
    strings: Strings


@dataclass(frozen=True, slots=True)
class Worth:
    """What a class, and the mean over classes, loses without some strings; negative is a gain.

    Attributes:
        by_class: in units of the metric. Classes whose sentences do not change are left out, and
            those that would have no sentence left for normal or for anomalous.
    """

    drop: Drop
    by_class: dict[str, float]

    @property
    def mean(self) -> float | None:
        """Over the classes that have a value; None where none has."""
        return fmean(self.by_class.values()) if self.by_class else None


@dataclass(frozen=True, slots=True)
class Ablation:
    """What a set is worth, and its strings.

    Attributes:
        full: the metric of the whole set by class.
        worths: of its strings, the most first.
        image_seconds: spent until the images of all classes were embedded.
        variant_seconds: spent on sentences, variants and their metrics.
    """

    full: dict[str, float]
    worths: tuple[Worth, ...]
    image_seconds: float
    variant_seconds: float


def drops(prompts: PromptSet) -> tuple[Drop, ...]:
    """Every string alone, then every group."""
    singles = [Drop(_kind(prompts, text), text, (text,)) for text in prompts.strings]
    groups = [Drop(GROUP, name, prompts.group(name)) for name in prompts.groups]
    return (*singles, *groups)


def ablate(
    prompts: PromptSet,
    classes: Iterable[EmbeddedClass],
    metric: str,
    on_variant: Callable[[], None] = lambda: None,
) -> Ablation:
    """Leave out one string at a time, and one group at a time.

    Args:
        prompts: the whole set.
        classes: taken one after another, so that a generator holds one in memory.
        metric: name of a metric of ``evaluation.metrics``.
        on_variant: called after every variant of every class.

    Raises:
        FewShotError: a class has no value of the metric.
    """
    full: dict[str, float] = {}
    lost: dict[Drop, dict[str, float]] = {drop: {} for drop in drops(prompts)}
    began, variant_seconds = time.perf_counter(), 0.0
    for one in classes:
        embedded = time.perf_counter()
        full[one.name] = one.measure(prompts, metric)
        for drop, by_class in lost.items():
            variant = prompts.without(drop.strings)
            if _is_other(prompts, variant, one.name):
                by_class[one.name] = full[one.name] - one.measure(variant, metric)
            on_variant()
        variant_seconds += time.perf_counter() - embedded
    worths = sorted((Worth(*each) for each in lost.items()), key=_most_first)
    image_seconds = time.perf_counter() - began - variant_seconds
    return Ablation(full, tuple(worths), image_seconds, variant_seconds)


def _is_other(prompts: PromptSet, variant: PromptSet, class_name: str) -> bool:
    """Whether a class reads other sentences, and has some of both kinds left."""
    lists = variant.of_class(class_name)
    return all(lists.values()) and lists != prompts.of_class(class_name)


def _kind(prompts: PromptSet, text: str) -> str:
    lists = [prompts.of_class(class_name) for class_name in ("", *prompts.overrides)]
    return next(kind for name, kind in KINDS.items() if any(text in each[name] for each in lists))


def _most_first(worth: Worth) -> tuple[bool, float]:
    mean = worth.mean
    return mean is None, -(mean or 0.0)
