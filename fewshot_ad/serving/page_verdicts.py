"""Verdicts as the page keeps them: no larger than a screen, decided anew when the rule moves."""

from dataclasses import replace

import numpy as np
from PIL import Image

from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.photos import Unreadable
from fewshot_ad.inspection.verdicts import Verdict, find_regions

SHOWN_SIDE = 800

Judged = Verdict | Unreadable


def decided(verdict: Verdict, inspector: Inspector) -> Verdict:
    """The same photo and score under the rule as it is now."""
    calibration, scale = inspector.calibration, inspector.scale
    is_anomalous = verdict.score > inspector.threshold
    p_value = inspector.rule.p_value(verdict.score, calibration.scores, calibration.altered_scores)
    return replace(
        verdict,
        is_anomalous=is_anomalous,
        p_value=p_value,
        regions=find_regions(verdict.anomaly_map, scale.level, is_anomalous),
        scale=scale,
    )


def as_shown(verdict: Verdict) -> Verdict:
    """No larger than a screen shows it."""
    height, width = verdict.pixels.shape[:2]
    ratio = min(1.0, SHOWN_SIDE / max(height, width))
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    heat = Image.fromarray(verdict.anomaly_map.astype(np.float32))
    return replace(
        verdict,
        pixels=np.asarray(Image.fromarray(verdict.pixels).resize(size)),
        anomaly_map=np.asarray(heat.resize(size, Image.Resampling.BILINEAR)),
    )


def urgency(judged: Judged) -> tuple[bool, float]:
    """Sorts what cannot be read first, then the highest scores."""
    is_verdict = isinstance(judged, Verdict)
    return is_verdict, -judged.score if is_verdict else 0.0
