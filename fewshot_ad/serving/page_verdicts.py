"""Verdicts as the page keeps them: no larger than a screen, the most urgent first."""

from dataclasses import replace

import numpy as np
from PIL import Image

from fewshot_ad.inspection.photos import Unreadable
from fewshot_ad.inspection.verdicts import Verdict

SHOWN_SIDE = 800

Judged = Verdict | Unreadable


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
