"""AUROC, AP, F1-max and AUPRO of images and pixels, all from one ranking.

Raw scores go in: nothing is clamped, rescaled or thresholded on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.aupro import PreparedTruth, aupro
from fewshot_ad.evaluation.counting import rank_by_counting
from fewshot_ad.evaluation.curves import Curve, image_curves, pixel_curves
from fewshot_ad.evaluation.ranking import Ranking, rank

IMAGE_METRICS = ("i_auroc", "i_ap", "i_f1_max")
PIXEL_METRICS = ("p_auroc", "p_ap", "p_f1_max", "aupro")

Maps = Sequence[Float[np.ndarray, "_ _"]] | Float[np.ndarray, "_ _ _"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Values in [0, 1]; ``reasons`` says why one is empty, unless it was not asked for.

    ``curves`` are those the areas were taken under, see ``curves.GRID``.
    """

    i_auroc: float | None = None
    i_ap: float | None = None
    i_f1_max: float | None = None
    p_auroc: float | None = None
    p_ap: float | None = None
    p_f1_max: float | None = None
    aupro: float | None = None
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve], compare=False, repr=False)

    def values(self) -> dict[str, float | None]:
        """The seven values by name, without the reasons."""
        return {name: getattr(self, name) for name in IMAGE_METRICS + PIXEL_METRICS}

    def __or__(self, other: "Metrics") -> "Metrics":
        """Both together, as in ``image_metrics(...) | pixel_metrics(...)``."""
        found = {name: value for name, value in other.values().items() if value is not None}
        both = self.curves | other.curves
        return replace(self, **found, reasons=self.reasons | other.reasons, curves=both)


def image_metrics(scores: Float[np.ndarray, " n"], is_anomalous: Bool[np.ndarray, " n"]) -> Metrics:
    """AUROC, average precision and F1-max of image scores; definitions as in ``Ranking``.

    Raises:
        FewShotError: a score is NaN or infinite.
    """
    check_finite(scores[:, np.newaxis], "image scores")
    n_anomalous = int(is_anomalous.sum())
    reason = why_empty(len(scores), n_anomalous, "image")
    if reason:
        return Metrics(reasons=dict.fromkeys(IMAGE_METRICS, reason))
    ranking = rank(scores, np.flatnonzero(is_anomalous), np.zeros(n_anomalous))
    return Metrics(
        i_auroc=ranking.auroc(),
        i_ap=ranking.average_precision(),
        i_f1_max=ranking.f1_max(),
        curves=image_curves(ranking),
    )


def pixel_metrics(maps: Maps, truth: PreparedTruth, *, fpr_limit: float = 0.3) -> Metrics:
    """Exact AUROC, average precision, F1-max and AUPRO over the pixels of all images.

    A map has the size of its mask; sizes may differ between images. Definitions as in ``Ranking``
    and ``aupro``.

    Raises:
        FewShotError: maps and masks differ in number or size, a value is NaN or infinite, or the
            limit is not in (0, 1].
    """
    check_fpr_limit(fpr_limit)
    check_sizes(maps, truth.shapes)
    reason = why_no_pixels(truth.n_missing, truth.n_pixels, len(truth.positives))
    if reason:
        return Metrics(reasons=dict.fromkeys(PIXEL_METRICS, reason))
    check_finite(maps, "anomaly maps")
    ranking = rank_by_counting(_end_to_end(maps), truth.positives, truth.region_share)
    return pixel_values(ranking, truth.n_regions, fpr_limit)


def _end_to_end(maps: Maps) -> Float[np.ndarray, " n"]:
    if isinstance(maps, np.ndarray):
        return maps.reshape(-1)
    return np.concatenate([one.ravel() for one in maps])


def pixel_values(ranking: Ranking, n_regions: int, fpr_limit: float) -> Metrics:
    """The four pixel metrics of a ranking of pixels."""
    return Metrics(
        p_auroc=ranking.auroc(),
        p_ap=ranking.average_precision(),
        p_f1_max=ranking.f1_max(),
        aupro=aupro(ranking, n_regions, fpr_limit),
        curves=pixel_curves(ranking, n_regions),
    )


def why_no_pixels(n_missing: int, n_pixels: int, n_anomalous: int) -> str | None:
    """Why the pixel metrics of a class would be meaningless, or None if they are not."""
    if n_missing:
        return f"a mask is missing for {n_missing} image{'s' if n_missing > 1 else ''}"
    return why_empty(n_pixels, n_anomalous, "pixel")


def why_empty(n_all: int, n_anomalous: int, unit: str) -> str | None:
    """Why anomalous and normal cannot be ranked against each other, or None if they can."""
    if not n_all:
        return f"no {unit}"
    if not n_anomalous:
        return f"no anomalous {unit}"
    return f"no normal {unit}" if n_anomalous == n_all else None


def check_fpr_limit(fpr_limit: float) -> None:
    """Refuse a limit that is not in (0, 1]."""
    if not 0.0 < fpr_limit <= 1.0:
        raise FewShotError(
            f"The false-positive limit is {fpr_limit}; expected above 0 and at most 1, such as 0.3."
        )


def check_sizes(maps: Maps, shapes: Sequence[tuple[int, int] | None]) -> None:
    """Refuse maps that do not lie on their masks; a missing mask fits any map."""
    if len(maps) != len(shapes):
        raise FewShotError(f"{len(maps)} anomaly maps for {len(shapes)} masks; pass one for each.")
    for index, (one, shape) in enumerate(zip(maps, shapes, strict=True)):
        if shape is not None and one.shape != shape:
            raise FewShotError(
                f"The anomaly map of image {index} has {one.shape[0]} x {one.shape[1]} pixels, its "
                f"mask {shape[0]} x {shape[1]}; bring both to one size."
            )


def check_finite(rows: Sequence[np.ndarray] | np.ndarray, what: str, first_image: int = 0) -> None:
    """Refuse NaN and infinities, saying how many and in which images."""
    faulty = [np.size(row) - np.count_nonzero(np.isfinite(row)) for row in rows]
    where = [first_image + index for index, count in enumerate(faulty) if count]
    if where:
        named = ", ".join(map(str, where[:10])) + (", ..." if len(where) > 10 else "")
        raise FewShotError(
            f"NaN or infinity in the {what}: {sum(faulty)} values, in {len(where)} of {len(rows)} "
            f"images (counted from 0: {named}); expected finite ones: mend the method or its input."
        )
