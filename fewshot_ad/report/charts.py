"""The charts of a league: shots, curves, cost, and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from fewshot_ad.evaluation.average_ranks import AverageRanks
from fewshot_ad.evaluation.curves import CURVES, GRID, Curve
from fewshot_ad.evaluation.statistics import estimate
from fewshot_ad.report.entrants import Entrant, League
from fewshot_ad.report.labels import METRIC_NAMES
from fewshot_ad.report.svg import (
    WIDTH,
    Canvas,
    Series,
    chart,
    marker,
    named_axis,
    percent_axis,
    seconds_axis,
    share_axis,
)

PRO_LIMIT = 0.3
MOST_BANDS = 3
COSTS = {
    "fit_seconds": "seconds to fit",
    "predict_seconds_per_image": "seconds per image, without reading it",
}
Styles = Mapping[str, int]


def shot_chart(league: League, metric: str, styles: Styles) -> Markup | None:
    """The metric against the number of shots, with intervals; None where there is one number."""
    shots = league.shots
    if len(shots) < 2:
        return None
    series = [_shot_series(entrant, league, metric, styles) for entrant in league.entrants]
    if len(series) > MOST_BANDS:
        series = [_apart(one, place, len(series)) for place, one in enumerate(series)]
    values = [v for one in series for point in one.points for v in [point[1]]]
    ends = [v for one in series for band in one.band if band for v in band]
    if not values:
        return None
    name = METRIC_NAMES[metric]
    x = named_axis("shots", [str(n) for n in shots])
    return chart(f"{name} against shots", x, percent_axis(f"{name}, %", values + ends), series)


def mean_curves(curves: Sequence[Mapping[str, Curve]]) -> dict[str, Curve]:
    """The height at every point of the grid, averaged over cells that have the curve."""
    found: dict[str, Curve] = {}
    for name in CURVES:
        heights = [one[name] for one in curves if name in one]
        if heights:
            found[name] = np.mean(heights, axis=0)
    return found


def curve_chart(name: str, curves: Mapping[str, Curve], styles: Styles) -> Markup:
    """One kind of curve of several entrants; that of regions up to the limit of AUPRO."""
    title, x_name, y_name = CURVES[name]
    limit = PRO_LIMIT if name == "pro" else 1.0
    across = [*GRID[limit > GRID].tolist(), limit]
    series = [
        Series(label, styles[label], [(x, float(np.interp(x, GRID, curve))) for x in across])
        for label, curve in curves.items()
    ]
    return chart(title, share_axis(x_name, limit), share_axis(y_name), series[::-1])


def cost_chart(league: League, metric: str, seconds: str, styles: Styles) -> Markup | None:
    """The metric against seconds, a dot for each entrant, at the main number of shots."""
    series: list[Series] = []
    for entrant in league.entrants:
        rows = entrant.at(league.main_shots)
        found = estimate(entrant.scores(metric, league.main_shots))
        if found is None:
            continue
        cost = max(float(np.mean([getattr(row, seconds) for row in rows])), 1e-5)
        words = f"{entrant.label}: {100 * found.mean:.1f} %, {cost:.3g} s"
        points = [(cost, found.mean)]
        series.append(Series(entrant.label, styles[entrant.label], points, (), [words], "dots"))
    if not series:
        return None
    costs, values = zip(*(one.points[0] for one in series), strict=True)
    title = COSTS[seconds]
    y = percent_axis(f"{METRIC_NAMES[metric]}, %", values)
    return chart(f"{METRIC_NAMES[metric]} against {title}", seconds_axis(title, costs), y, series)


def ranks_chart(ranks: AverageRanks, styles: Styles) -> Markup:
    """Average ranks, best on top; a bracket joins those that do not differ."""
    names = list(ranks.ranks)
    canvas = Canvas("average ranks over classes", height=26 * len(names) + 44)
    left, right = 168, WIDTH - 16 - 9 * len(ranks.cliques)
    span = max(len(names) - 1, 1)
    for n in range(1, len(names) + 1, 1 + len(names) // 9):
        x = left + (n - 1) / span * (right - left)
        canvas.path([(x, 22), (x, canvas.height - 12)], "grid")
        canvas.text(x, 14, str(n), "middle")
    for place, (name, rank) in enumerate(ranks.ranks.items()):
        y = 36 + 26 * place
        x = left + (rank - 1) / span * (right - left)
        canvas.path([(left, y), (x, y)], "stem")
        canvas.text(left - 10, y + 4, _shortened(name), "end label")
        marker(canvas, (x, y), styles[name], f"{name}: average rank {rank:.2f}")
    for number, clique in enumerate(ranks.cliques):
        x = right + 16 + 9 * number
        ends = [36 + 26 * names.index(name) for name in (clique[0], clique[-1])]
        canvas.path([(x - 3, ends[0]), (x, ends[0]), (x, ends[1]), (x - 3, ends[1])], "clique")
    return canvas.markup()


def _shot_series(entrant: Entrant, league: League, metric: str, styles: Styles) -> Series:
    points: list[tuple[float, float]] = []
    band: list[tuple[float, float] | None] = []
    words: list[str] = []
    for place, shots in enumerate(league.shots):
        found = estimate(entrant.scores(metric, shots))
        if found is None:
            continue
        points.append((float(place), found.mean))
        has_ends = found.low is not None and found.high is not None
        band.append((found.low, found.high) if has_ends else None)  # pyright: ignore[reportArgumentType]
        words.append(f"{entrant.label}, {shots} shots: {100 * found.mean:.1f} %")
    return Series(entrant.label, styles[entrant.label], points, band, words, "both")


def _apart(one: Series, place: int, count: int) -> Series:
    """Whiskers side by side in place of bands, of which many would hide each other."""
    shift = 0.3 * ((place + 0.5) / count - 0.5)
    return replace(one, points=[(x + shift, y) for x, y in one.points], is_filled=False)


def _shortened(name: str, letters: int = 24) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"
