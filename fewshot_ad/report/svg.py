"""Small charts as SVG: axes, lines with bands, dots. Colours are the page's, by class name.

Every chart is as wide as a phone, so that its letters keep their size; wide pages set several side
by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 40
STYLES = 14
"""Looks that can be told apart: seven colours, drawn through and dashed. Others are grey."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        ticks: value and word of each mark.
        is_log: whether equal steps are equal ratios.
    """

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1; outside of them at the nearer end."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Series:
    """What is drawn in one style: points, and the band around them where there is one.

    Attributes:
        style: number below ``STYLES``; others are grey.
        band: lower and upper end at each point; filled between points, or as whiskers alone.
        words: of each point, shown when it is pointed at.
    """

    label: str
    style: int
    points: Sequence[Point]
    band: Sequence[Point | None] = ()
    words: Sequence[str] = ()
    kind: Literal["line", "dots", "both"] = "line"
    is_filled: bool = True


@dataclass
class Canvas:
    """An SVG image that is being drawn; text is escaped."""

    title: str
    height: float = HEIGHT
    parts: list[Markup] = field(default_factory=list[Markup])

    def add(self, template: str, *values: object) -> None:
        """Add an element; values are escaped into the places ``{}``."""
        self.parts.append(Markup(template).format(*values))

    def text(self, x: float, y: float, words: str, css: str = "") -> None:
        """Words at a place; ``css`` says how they lie to it."""
        self.add('<text x="{}" y="{}" class="{}">{}</text>', _r(x), _r(y), css, words)

    def path(self, points: Sequence[Point], css: str, *, closed: bool = False) -> None:
        """A line through points, or an area."""
        steps = "L".join(f"{_r(x)} {_r(y)}" for x, y in points)
        self.add('<path class="{}" d="M{}{}"/>', css, steps, "Z" if closed else "")

    def markup(self) -> Markup:
        """The finished image."""
        inner = Markup("").join(self.parts)
        template = (
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" '
            'xmlns="http://www.w3.org/2000/svg">{}</svg>'
        )
        return Markup(template).format(WIDTH, _r(self.height), self.title, inner)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """Axes with everything in them; later series lie on top."""
    canvas = Canvas(title)
    _draw_axes(canvas, x, y)
    for one in series:
        if any(one.band):
            _draw_band(canvas, x, y, one)
    for one in series:
        if one.kind != "dots":
            canvas.path([_place(x, y, point) for point in one.points], f"line {css_of(one.style)}")
        if one.kind != "line":
            _draw_dots(canvas, x, y, one)
    return canvas.markup()


def css_of(style: int) -> str:
    """The class names of a style."""
    if style >= STYLES:
        return "other"
    return f"s{style % 7}" + (" dashed" if style >= 7 else "")


def marker(canvas: Canvas, place: Point, style: int, words: str) -> None:
    """A small shape, another one for every colour, so that colour is not all that tells."""
    shapes = (
        "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        "M-3.5 -3.5h7v7h-7Z",
        "M0 -4.6L4.4 3.4H-4.4Z",
        "M0 -5L4.4 0L0 5L-4.4 0Z",
        "M0 4.6L4.4 -3.4H-4.4Z",
        "M-4.5 -1.4h3v-3h3v3h3v3h-3v3h-3v-3h-3Z",
        "M-4.6 0L-2.3 -4h4.6L4.6 0L2.3 4h-4.6Z",
    )
    shape = shapes[style % 7] if style < STYLES else "M-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0Z"
    hollow = " hollow" if 7 <= style < STYLES else ""
    x, y = place
    canvas.add(
        '<path class="dot {}{}" transform="translate({} {})" d="{}"><title>{}</title></path>',
        css_of(style),
        hollow,
        _r(x),
        _r(y),
        shape,
        words,
    )


def swatch(style: int) -> Markup:
    """The marker of a style, as large as a letter."""
    canvas = Canvas("")
    marker(canvas, (0, 0), style, "")
    inner = Markup("").join(canvas.parts).replace(Markup("<title></title>"), Markup(""))
    template = '<svg class="mark" viewBox="-6 -6 12 12" aria-hidden="true">{}</svg>'
    return Markup(template).format(inner)


def percent_axis(title: str, values: Sequence[float]) -> Axis:
    """From a round number below the lowest share to 100, or to one above the highest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = max(high - low, 0.02)
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if span / s <= 6 or s == 0.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    digits = 1 if step < 0.01 else 0
    ticks = tuple((n * step, f"{100 * n * step:.{digits}f}") for n in range(first, last + 1))
    return Axis(title, first * step, last * step, ticks)


def share_axis(title: str, high: float = 1.0) -> Axis:
    """From 0 to 1, or to some limit below."""
    step = 0.2 if high > 0.5 else 0.1
    ticks = tuple((step * n, f"{step * n:.1f}") for n in range(round(high / step) + 1))
    return Axis(title, 0.0, high, ticks)


def named_axis(title: str, names: Sequence[str]) -> Axis:
    """Equal steps, whatever the names mean; the n-th name lies at n."""
    ticks = tuple((float(place), name) for place, name in enumerate(names))
    return Axis(title, -0.25, len(names) - 0.75, ticks)


def seconds_axis(title: str, values: Sequence[float]) -> Axis:
    """Decades of seconds."""
    positive = [max(value, 1e-6) for value in values if value > 0] or [1.0]
    first = math.floor(math.log10(min(positive)))
    last = max(math.ceil(math.log10(max(positive))), first + 1)
    ticks = tuple((10.0**n, _seconds(10.0**n)) for n in range(first, last + 1))
    return Axis(title, 10.0**first, 10.0**last, ticks, is_log=True)


def _draw_axes(canvas: Canvas, x: Axis, y: Axis) -> None:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value, word in y.ticks:
        _, height = _place(x, y, (x.low, value))
        canvas.path([(LEFT, height), (right, height)], "grid")
        canvas.text(LEFT - 6, height + 4, word, "end")
    for value, word in x.ticks:
        place, _ = _place(x, y, (value, y.low))
        canvas.path([(place, bottom), (place, bottom + 4)], "tick")
        canvas.text(place, bottom + 17, word, "middle")
    canvas.path([(LEFT, bottom), (right, bottom)], "axis")
    canvas.text((LEFT + right) / 2, HEIGHT - 6, x.title, "middle name")
    canvas.add(
        '<text transform="translate(11 {}) rotate(-90)" class="middle name">{}</text>',
        _r((TOP + bottom) / 2),
        y.title,
    )


def _draw_band(canvas: Canvas, x: Axis, y: Axis, one: Series) -> None:
    ends = [(point[0], end) for point, end in zip(one.points, one.band, strict=True) if end]
    lower = [_place(x, y, (at, end[0])) for at, end in ends]
    upper = [_place(x, y, (at, end[1])) for at, end in ends]
    if len(ends) > 1 and one.is_filled:
        canvas.path([*lower, *reversed(upper)], f"band {css_of(one.style)}", closed=True)
    for low, high in zip(lower, upper, strict=True):
        canvas.path([low, high], f"whisker {css_of(one.style)}")


def _draw_dots(canvas: Canvas, x: Axis, y: Axis, one: Series) -> None:
    words = one.words or [one.label] * len(one.points)
    for point, said in zip(one.points, words, strict=True):
        marker(canvas, _place(x, y, point), one.style, said)


def _place(x: Axis, y: Axis, point: Point) -> Point:
    across = LEFT + x.share(point[0]) * (WIDTH - RIGHT - LEFT)
    return across, HEIGHT - BOTTOM - y.share(point[1]) * (HEIGHT - BOTTOM - TOP)


def _seconds(value: float) -> str:
    if value < 1:
        return f"{1000 * value:g} ms"
    return f"{value:g} s" if value < 1e5 else f"{value:.0e} s"


def _r(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
