"""What an inspector says of one photo: score, p-value, decision, regions, and the map behind it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fewshot_ad.evaluation.boxes import regions
from fewshot_ad.images import overlay
from fewshot_ad.inspection.thresholds import Calibration, Rule


class Region(NamedTuple):
    """A connected part of the map above the level; right and bottom are not included.

    Attributes:
        area: pixels of the photo that are part of it.
        peak: the highest value of the map in it.
    """

    left: int
    top: int
    right: int
    bottom: int
    area: int
    peak: float


class Scale(NamedTuple):
    """The one scale of all maps of an inspector; no image's own range has a say.

    Attributes:
        low: and below is not painted: half-way from the median of normal pixels to the level.
        level: the threshold of maps; at a third of the scale.
        high: and above is painted brightest.
    """

    low: float
    level: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """One photo, judged.

    Attributes:
        name: its path, or ``array-0`` for an array.
        score: of the image; higher is more anomalous.
        p_value: how rarely a normal image scores as high, see ``thresholds``.
        is_anomalous: the decision.
        regions: where the map is above its level, the highest first.
        anomaly_map: at the photo's own size.
        pixels: of the photo.
    """

    name: str
    score: float
    p_value: float
    is_anomalous: bool
    regions: tuple[Region, ...]
    anomaly_map: Float[np.ndarray, "h w"] = field(repr=False)
    pixels: UInt8[np.ndarray, "h w 3"] = field(repr=False)
    scale: Scale = field(repr=False)

    @property
    def decision(self) -> str:
        """``OK`` or ``NOT OK``."""
        return "NOT OK" if self.is_anomalous else "OK"

    def overlay(self) -> UInt8[np.ndarray, "h w 3"]:
        """The photo with its map painted on it on the inspector's scale, regions outlined."""
        outlined = self.anomaly_map > _cut(self.anomaly_map, self.scale.level, self.is_anomalous)
        return overlay(self.pixels, self.anomaly_map, self.scale.low, self.scale.high, outlined)

    def as_row(self) -> dict[str, Any]:
        """JSON-able, without the map."""
        return {
            "image": self.name,
            "decision": self.decision,
            "score": self.score,
            "p_value": self.p_value,
            "regions": [region._asdict() for region in self.regions],
        }


def scale_of(calibration: Calibration, rule: Rule) -> Scale:
    """The scale of maps that a calibration gives."""
    level = rule.threshold(calibration.peaks, calibration.altered_peaks)
    step = max((level - calibration.floor) / 2, float(np.finfo(np.float32).tiny))
    return Scale(level - step, level, level + 2 * step)


def find_regions(
    anomaly_map: Float[np.ndarray, "h w"], level: float, is_anomalous: bool
) -> tuple[Region, ...]:
    """Regions above the level, the highest first; a NOT OK image has one at least, its peak."""
    found = [
        Region(*box[:4], area=int(inside.sum()), peak=float(anomaly_map[inside].max()))
        for box, inside in regions(anomaly_map > _cut(anomaly_map, level, is_anomalous))
    ]
    return tuple(sorted(found, key=lambda region: -region.peak))


def _cut(anomaly_map: Float[np.ndarray, "h w"], level: float, is_anomalous: bool) -> float:
    """The level, or just below the peak where resizing has flattened the peak of a NOT OK image."""
    below_peak = float(np.nextafter(np.float32(anomaly_map.max()), np.float32(-np.inf)))
    return min(level, below_peak) if is_anomalous else level
