"""Detection: boxes around what stands out in an anomaly map, and how well they meet the defects.

Any map gives boxes. An image is cut at a level between its own median and maximum, and every region
above it is a box whose confidence is the highest value within. So no threshold is taken from other
images; between images, confidences rank the boxes as maps rank pixels.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from fewshot_ad.api import FewShotError

LEVEL = 0.5
IOU = 0.5


class Box(NamedTuple):
    """A rectangle of pixels, right and bottom not included, with its confidence."""

    left: int
    top: int
    right: int
    bottom: int
    confidence: float = 0.0

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


def find_boxes(anomaly_map: Float[np.ndarray, "h w"], level: float = LEVEL) -> list[Box]:
    """Boxes of the regions of a map above a level, the most confident first; none of a flat map.

    Args:
        anomaly_map: higher is more anomalous.
        level: between the median of the map (0) and its maximum (1).

    Raises:
        FewShotError: the level is not in [0, 1).
    """
    if not 0 <= level < 1:
        raise FewShotError(f"the level of boxes is {level}: expected 0 or more and less than 1")
    middle, highest = float(np.median(anomaly_map)), float(anomaly_map.max())
    above = anomaly_map > middle + level * (highest - middle)
    boxes = [
        box._replace(confidence=float(anomaly_map[region].max())) for box, region in regions(above)
    ]
    return sorted(boxes, key=lambda box: -box.confidence)


def mask_boxes(mask: Bool[np.ndarray, "h w"]) -> list[Box]:
    """A box around every region of a mask."""
    return [box for box, _ in regions(mask)]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(0, width) * max(0, height)
    return shared / (one.area + other.area - shared)


def box_average_precision(
    found: Sequence[Sequence[Box]], truth: Sequence[Sequence[Box]], iou: float = IOU
) -> float | None:
    """Average precision of boxes over all images; None where there is no true box.

    Boxes are taken in the order of their confidence; one is right if a true box of its image, not
    met before, overlaps it by ``iou`` or more. Precision is summed over the recalls reached, and
    not interpolated.

    Args:
        found: boxes of every image.
        truth: true boxes of every image, none for a normal one.
        iou: least intersection over union.
    """
    n_true = sum(len(boxes) for boxes in truth)
    if not n_true:
        return None
    ranked = sorted(
        ((box, image) for image, boxes in enumerate(found) for box in boxes),
        key=lambda pair: -pair[0].confidence,
    )
    left = [list(boxes) for boxes in truth]
    hits = np.zeros(len(ranked))
    for place, (box, image) in enumerate(ranked):
        best = max(left[image], key=lambda true: overlap(box, true), default=None)
        if best is not None and overlap(box, best) >= iou:
            left[image].remove(best)
            hits[place] = 1
    precision = hits.cumsum() / np.arange(1, len(ranked) + 1)
    return float((precision * hits).sum() / n_true)


def box_ap(
    aligned: Iterable[Float[np.ndarray, "_ _"]], truth: Sequence[Sequence[Box]] | None
) -> float | None:
    """Average precision of the boxes of maps; None where a mask is missing."""
    if truth is None:
        return None
    return box_average_precision([find_boxes(one) for one in aligned], truth)


def regions(mask: Bool[np.ndarray, "h w"]) -> list[tuple[Box, Bool[np.ndarray, "h w"]]]:
    """Connected regions with the boxes around them, 8-neighbour as in AUPRO."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    found: list[tuple[Box, Bool[np.ndarray, "h w"]]] = []
    for label in range(1, count):  # 0 is the background
        left, top, width, height = (int(value) for value in stats[label][:4])
        found.append((Box(left, top, left + width, top + height), labels == label))
    return found
