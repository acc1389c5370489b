"""How well each kind of defect is found, and kinds that were shown apart from those that were not.

A method that learns from a few anomalies can be good at their kind and blind to others; one number
over all kinds hides that.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from fewshot_ad.api import Sample
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.metrics import Maps, Metrics, image_metrics, pixel_metrics
from fewshot_ad.evaluation.queries import Query

SEEN, UNSEEN = "(seen kinds)", "(unseen kinds)"
UNNAMED = "(unnamed)"


class KindMetrics(TypedDict):
    """Metrics of all normal query images against the anomalous ones of some kinds."""

    n: int
    i_auroc: float | None
    p_auroc: float | None
    aupro: float | None


def groups_of_kinds(
    samples: Sequence[Sample], shown: Collection[str]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which anomalous samples are of each kind; where kinds were shown, of those and of the others.

    Args:
        samples: the query.
        shown: kinds of the labelled anomalies in the support.
    """
    kinds = np.array([_kind(sample) for sample in samples])
    groups = {kind: kinds == kind for kind in sorted({*kinds.tolist()} - {""})}
    if shown:
        is_seen = np.isin(kinds, sorted(shown))
        groups |= {SEEN: is_seen & (kinds != ""), UNSEEN: ~is_seen & (kinds != "")}
    return {name: group for name, group in groups.items() if group.any()}


def kind_metrics(
    scores: Float[np.ndarray, " n"], maps: Maps | None, query: Query, shown: Sequence[Sample]
) -> Mapping[str, KindMetrics]:
    """Metrics of every group of ``groups_of_kinds``.

    Args:
        scores: of the query images.
        maps: theirs, at the size of the truth; None leaves the metrics of pixels empty.
        query: with labels and masks.
        shown: the labelled anomalies of the support.
    """
    groups = groups_of_kinds(query.samples, {_kind(sample) for sample in shown})
    masks = [] if maps is None else [*query.masks()]
    found: dict[str, KindMetrics] = {}
    for name, group in groups.items():
        rows = np.flatnonzero(group | ~query.is_anomalous)
        of_images = image_metrics(scores[rows], query.is_anomalous[rows])
        of_pixels = Metrics() if maps is None else _of_pixels(maps, masks, rows)
        found[name] = KindMetrics(
            n=int(group.sum()),
            i_auroc=of_images.i_auroc,
            p_auroc=of_pixels.p_auroc,
            aupro=of_pixels.aupro,
        )
    return found


def _of_pixels(
    maps: Maps, masks: Sequence[Bool[np.ndarray, "_ _"] | None], rows: Int[np.ndarray, " k"]
) -> Metrics:
    chosen: list[int] = rows.tolist()
    truth = prepare_truth([masks[row] for row in chosen])
    return pixel_metrics([np.asarray(maps[row]) for row in chosen], truth)


def _kind(sample: Sample) -> str:
    return (sample.defect or UNNAMED) if sample.is_anomalous else ""
