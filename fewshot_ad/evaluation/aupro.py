"""The overlap of regions: ground truth prepared once per class, and AUPRO, the area under it."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from fewshot_ad.evaluation.ranking import Ranking


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTruth:
    """The masks of a class as the metrics want them: made once, used for every seed and method.

    Attributes:
        shapes: (height, width) of each mask in order, None where it is missing.
        positives: where the anomalous pixels are in all masks laid end to end, row by row.
        region_share: for each of them 1 / (pixels of its region), so that a region sums to one.
        n_regions: connected components (8 neighbours) of all masks.
    """

    shapes: tuple[tuple[int, int] | None, ...]
    positives: Int[np.ndarray, " p"]
    region_share: Float[np.ndarray, " p"]
    n_regions: int

    @property
    def n_missing(self) -> int:
        """Images without a mask."""
        return self.shapes.count(None)

    @property
    def n_pixels(self) -> int:
        """Pixels of all masks, normal and anomalous."""
        return sum(height * width for height, width in filter(None, self.shapes))


def prepare_truth(masks: Iterable[Bool[np.ndarray, "_ _"] | None]) -> PreparedTruth:
    """Find the regions of every mask; sizes may differ, None stands for a missing mask."""
    shapes: list[tuple[int, int] | None] = []
    positives, region_share = [np.zeros(0, np.int64)], [np.zeros(0)]
    n_regions = offset = 0
    for mask in masks:
        if mask is None:
            shapes.append(None)
            continue
        shapes.append((mask.shape[0], mask.shape[1]))
        where = np.flatnonzero(mask)
        if len(where):
            share, count = _regions(mask, where)
            positives.append(where + offset)
            region_share.append(share)
            n_regions += count
        offset += mask.size
    return PreparedTruth(
        tuple(shapes), np.concatenate(positives), np.concatenate(region_share), n_regions
    )


def _regions(
    mask: Bool[np.ndarray, "h w"], where: Int[np.ndarray, " p"]
) -> tuple[Float[np.ndarray, " p"], int]:
    """The region share of each anomalous pixel, and the number of regions."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    region = labels.ravel()[where].astype(np.int64)
    return 1.0 / np.bincount(region)[region], count - 1  # label 0 is the background


def aupro(ranking: Ranking, n_regions: int, fpr_limit: float) -> float:
    """Area under the mean overlap of the regions up to a false-positive rate, over that rate.

    Definition: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021),
    https://doi.org/10.1007/s11263-020-01400-4. A region counts the same whatever its size, and the
    false-positive rate is over every normal pixel, those of normal images included.
    """
    return ranking.area(ranking.region_shares / n_regions, fpr_limit)
