"""The rule of the draw: random orders that depend on names and a seed, and on nothing else.

Neither the order of the classes, nor that of the file system, nor the release of NumPy changes
what is drawn.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import zip_longest

import numpy as np

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.assets import unknown_name

RULE = (
    "train normals sorted by path, in the stable order of as many raw PCG64 draws, "
    "PCG64 seeded with the SHA-256, as a big-endian number, of the JSON list [dataset, class, seed]"
)


def permuted(paths: Iterable[str], *key: str | int) -> list[str]:
    """A random order of distinct paths, the same in whatever order they come.

    Args:
        paths: what to put in order.
        key: names and numbers that pick the order; support draws use dataset, class and seed.
    """
    listed = sorted(set(paths))
    entropy = hashlib.sha256(json.dumps(key).encode()).digest()
    bits = np.random.PCG64(int.from_bytes(entropy, "big"))
    # NumPy promises that the raw draws of PCG64 never change, but not `Generator.permutation`.
    ranks = np.argsort(bits.random_raw(len(listed)), kind="stable")
    return [listed[rank] for rank in ranks]


def draw(dataset: Dataset, target_class: str, seed: int, max_shots: int) -> tuple[Sample, ...]:
    """Draw a nested support from the train normals: the first N samples are the N-shot support.

    Raises:
        FewShotError: the class is unknown, or has fewer train normals than shots.
    """
    check_class(dataset, target_class)
    check_count("shots", max_shots)
    check_count("seed", seed)
    normals = {sample.path: sample for sample in dataset.train(target_class)}
    if max_shots and not normals:
        raise FewShotError(
            f"class '{target_class}' of {dataset.name} has no train normals: only 0 shots can run"
        )
    if max_shots > len(normals):
        raise FewShotError(
            f"class '{target_class}' of {dataset.name} has {len(normals)} train normals and "
            f"{max_shots} shots were asked for: ask for at most {len(normals)}, or for 'full'"
        )
    order = permuted(normals, dataset.name, target_class, seed)
    return tuple(normals[path] for path in order[:max_shots])


def draw_anomalous(
    dataset: Dataset, target_class: str, seed: int, shots: int
) -> tuple[Sample, ...]:
    """Draw labelled anomalies from the test split, kind after kind of defect; nested as in `draw`.

    Raises:
        FewShotError: the class is unknown, or no anomaly would be left to judge.
    """
    check_class(dataset, target_class)
    check_count("anomalous shots", shots)
    check_count("seed", seed)
    if shots == 0:
        return ()
    anomalies = [sample for sample in dataset.test(target_class) if sample.is_anomalous]
    if shots >= len(anomalies):
        raise FewShotError(
            f"class '{target_class}' of {dataset.name} has {len(anomalies)} anomalous test images "
            f"and {shots} anomalous shots were asked for: leave at least one for the query"
        )
    return tuple(_kind_by_kind(anomalies, dataset.name, target_class, seed, "anomalous")[:shots])


def draw_query(
    dataset: Dataset, target_class: str, *, without: Collection[str] = (), limit: int | None = None
) -> tuple[Sample, ...]:
    """The test samples to judge, in the order of the dataset, less the paths in ``without``.

    Args:
        dataset: where the test split is listed.
        target_class: the class under test.
        without: paths that a support shows, which therefore are not judged.
        limit: keep at most this many normal and this many anomalous samples, the same for every
            seed and nested over limits; anomalies are taken one defect kind after another.

    Raises:
        FewShotError: the class is unknown, has no test images, or the limit is below 1.
    """
    check_class(dataset, target_class)
    test = dataset.test(target_class)
    if not test:
        raise FewShotError(
            f"class '{target_class}' of {dataset.name} has no test images: nothing to judge"
        )
    kept = [sample for sample in test if sample.path not in without]
    if limit is None:
        return tuple(kept)
    if limit < 1:
        raise FewShotError(f"query limit is {limit}: expected at least 1")
    chosen: set[str] = set()
    for is_anomalous in (False, True):
        side = [sample for sample in test if sample.is_anomalous is is_anomalous]
        order = _kind_by_kind(side, dataset.name, target_class, "query")
        left = [sample.path for sample in order if sample.path not in without]
        chosen.update(left[:limit])
    return tuple(sample for sample in kept if sample.path in chosen)


def check_class(dataset: Dataset, target_class: str) -> None:
    """Refuse a class that the dataset does not have, and name the nearest one."""
    if target_class not in dataset.classes:
        raise unknown_name(f"class of {dataset.name}", target_class, dataset.classes)


def check_count(what: str, number: int) -> None:
    """Refuse a number below 0."""
    if number < 0:
        raise FewShotError(f"{what} is {number}: expected 0 or more")


def _kind_by_kind(samples: Iterable[Sample], *key: str | int) -> list[Sample]:
    """In random order, one of each kind of defect in turn, so that any prefix is balanced."""
    kinds: defaultdict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        kinds[sample.defect or ""][sample.path] = sample
    lanes = [
        [kinds[kind][path] for path in permuted(kinds[kind], *key, kind)]
        for kind in permuted(kinds, *key)
    ]
    return [sample for turn in zip_longest(*lanes) for sample in turn if sample is not None]
