"""From a dataset, a class, shots and seeds to frozen episodes."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

from fewshot_ad.api import Dataset, Episode, FewShotError, Sample
from fewshot_ad.episodes.drawing import check_count, draw, draw_anomalous, draw_query
from fewshot_ad.episodes.manifest import Manifest
from fewshot_ad.episodes.resolution import listed_support

Shots = int | Literal["full"]
"""How many normal images a method is shown; ``full`` is the whole train split."""


def episodes(
    dataset: Dataset,
    target_class: str,
    *,
    shots: Sequence[Shots],
    seeds: Sequence[int],
    anomalous_shots: int = 0,
    manifest: Manifest | None = None,
    query_limit: int | None = None,
) -> Iterator[Episode]:
    """Freeze one episode per seed and number of shots, seed by seed.

    No image is both shown and judged: anomalous shots, and the test images that a manifest is known
    to use as support, are left out of the query, at every number of shots alike. All is checked
    before the first episode is handed out, so that a wrong number costs no computing.

    Args:
        dataset: where samples are listed.
        target_class: the class under test.
        shots: numbers of normal images; 0 is zero-shot, ``"full"`` the whole train split.
        seeds: one draw each.
        anomalous_shots: labelled anomalies shown besides, drawn from the test split.
        manifest: lists to take supports from in place of a draw; ``"full"`` is always drawn.
        query_limit: at most so many normal and so many anomalous query samples, the same for every
            seed unless anomalous shots take some away; `Episode.manifest` records it.

    Raises:
        FewShotError: unknown class or seed, more shots than normals, or a manifest that does not
            fit the dataset.
    """
    if not seeds or not shots:
        raise FewShotError("no episode to run: expected at least one seed and one number of shots")
    leaked = manifest.leaks.get(target_class, ()) if manifest else ()
    frozen: list[Episode] = []
    for seed in seeds:
        anomalous = draw_anomalous(dataset, target_class, seed, anomalous_shots)
        shown = {*leaked, *(sample.path for sample in anomalous)}
        query = draw_query(dataset, target_class, without=shown, limit=query_limit)
        for number in shots:
            listed = None if number == "full" else manifest
            frozen.append(
                Episode(
                    dataset=dataset.name,
                    target_class=target_class,
                    seed=seed,
                    support=_support(dataset, target_class, seed, number, listed),
                    query=query,
                    anomalous_support=anomalous,
                    manifest=_provenance(listed, query_limit),
                )
            )
    return iter(frozen)


def digest_samples(dataset: Dataset, samples: Sequence[Sample]) -> str:
    """Digest of the images of a list, in order, with their labels: equal for two copies."""
    total = hashlib.sha256()
    for sample in samples:
        total.update(f"{dataset.digest(sample)} {sample.is_anomalous:d}\n".encode())
    return total.hexdigest()


def _support(
    dataset: Dataset, target_class: str, seed: int, number: Shots, manifest: Manifest | None
) -> tuple[Sample, ...]:
    if number == "full":
        everything = len(dataset.train(target_class))
        return draw(dataset, target_class, seed, max(everything, 1))
    check_count("shots", number)
    if manifest is None:
        return draw(dataset, target_class, seed, number)
    return listed_support(manifest, dataset, target_class, seed, number)


def _provenance(manifest: Manifest | None, query_limit: int | None) -> str:
    name = manifest.name if manifest else "drawn"
    return name if query_limit is None else f"{name}, query limit {query_limit}"
