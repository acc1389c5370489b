"""The calibration as a chart: how rarely a normal photo scores as high, and where photos lie."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.thresholds import percent
from fewshot_ad.inspection.verdicts import Verdict
from fewshot_ad.report.svg import Axis, Point, Series, chart

NORMAL, NOT_OK, OK, CURVE, THRESHOLD, WANTED = 0, 1, 2, 6, 8, 13  # styles of report.svg
STEPS = 96
WIDE = 8.0  # ratio of scores from which on equal steps of the axis are equal ratios
RATES = tuple(digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5) if power < 0)


def calibration_chart(inspector: Inspector, verdicts: Sequence[Verdict]) -> Markup:
    """P-values against scores: the curve, the normals, the photos, threshold and wanted rate."""
    scores, threshold, far = inspector.calibration.scores, inspector.threshold, inspector.rule.far
    x = score_axis([*scores, threshold, *(verdict.score for verdict in verdicts)])
    y = rate_axis(min(far, p_value(inspector, x.high)))
    normals = [("a normal", score) for score in scores]
    passed = [(one.name, one.score) for one in verdicts if not one.is_anomalous]
    refused = [(one.name, one.score) for one in verdicts if one.is_anomalous]
    marked = [
        Series("wanted rate", WANTED, [(x.low, far), (x.high, far)]),
        Series("threshold", THRESHOLD, [(threshold, y.low), (threshold, 1.0)]),
        Series("p-value", CURVE, curve(inspector, x)),
        _dots(inspector, NORMAL, normals),
        _dots(inspector, OK, passed),
        _dots(inspector, NOT_OK, refused),
    ]
    return chart("p-value against score", x, y, marked)


def curve(inspector: Inspector, x: Axis) -> list[Point]:
    """The p-value over the axis, with both ends of the step at every calibration score."""
    spread = np.geomspace if x.is_log else np.linspace
    grid = {*spread(x.low, x.high, STEPS).tolist(), *inspector.calibration.scores}
    steps = [math.nextafter(score, math.inf) for score in inspector.calibration.scores]
    return [(score, p_value(inspector, score)) for score in sorted({*grid, *steps})]


def p_value(inspector: Inspector, score: float) -> float:
    """How rarely a normal image scores as high, by the inspector's rule."""
    calibration = inspector.calibration
    return inspector.rule.p_value(score, calibration.scores, calibration.altered_scores)


def score_axis(scores: Sequence[float]) -> Axis:
    """Round numbers around the scores; ratios where these are far apart."""
    low, high = min(scores), max(scores)
    if low > 0 and high > WIDE * low:
        ends = low / 1.15, high * 1.15
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        rounds = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return Axis("score", *ends, _ticks(_thinned(_within(rounds, *ends))), is_log=True)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    ends = low - margin, high + margin
    step = _round_step((ends[1] - ends[0]) / 5)
    count = math.ceil((ends[1] - ends[0]) / step) + 1
    first = math.floor(ends[0] / step)
    return Axis("score", *ends, _ticks(_within([(first + n) * step for n in range(count)], *ends)))


def rate_axis(lowest: float) -> Axis:
    """From just below the lowest rate to all, equal steps being equal ratios."""
    low = max(lowest, RATES[0]) / 1.3
    marks = [*_thinned([rate for rate in RATES if rate >= low]), 1.0]
    ticks = tuple((mark, f"{100 * mark:.3g}") for mark in marks)
    return Axis("p-value, %", low, 1.0, ticks, is_log=True)


def _dots(inspector: Inspector, style: int, named: Iterable[tuple[str, float]]) -> Series:
    points: list[Point] = []
    words: list[str] = []
    for name, score in named:
        points.append((score, p_value(inspector, score)))
        words.append(f"{name}: score {score:.4g}, p-value {percent(points[-1][1])}")
    return Series("", style, points, (), words, "dots")


def _within(values: Sequence[float], low: float, high: float) -> list[float]:
    return [value for value in values if low <= value <= high]


def _thinned(values: list[float], most: int = 6) -> list[float]:
    """All of them, or every n-th counted from the end."""
    every = math.ceil(len(values) / most) or 1
    return values[::-1][::every][::-1]


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= about * 0.999)


def _ticks(values: Iterable[float]) -> tuple[tuple[float, str], ...]:
    return tuple((value, f"{0.0 if abs(value) < 1e-12 else value:.4g}") for value in values)
