"""What everything is drawn with: coordinates, poses, noise, shapes and strokes.

Lengths are pixels of the 256 px frame, points are measured from its middle, and shapes are
anti-aliased by their distance field, so that nothing is drawn larger than it is shown. Scalars stay
Python floats: a numpy one would turn float32 fields into float64 and halve the speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import cos, pi, sin

import cv2
import numpy as np
from jaxtyping import Float, Int
from numpy.random import PCG64, Generator

SIZE = 256
Field = Float[np.ndarray, "h w"]
Points = Float[np.ndarray, "_ 2"]
Point = tuple[float, float]
Window = tuple[slice, slice]

_MIDDLE = (SIZE - 1) / 2
_OVERSAMPLING = 4
_SHIFT = 4  # cv2 reads points as fixed-point numbers with this many fractional bits

Y, X = (np.mgrid[:SIZE, :SIZE] - _MIDDLE).astype(np.float32)


def stream(*key: object) -> Generator:
    """The random stream of a key: the same numbers on every machine, in any order."""
    name = "/".join(map(str, key)).encode()
    return Generator(PCG64(int.from_bytes(sha256(name).digest(), "big")))


@dataclass(frozen=True)
class Pose:
    """Where an object lies: scaled, turned by ``angle`` radians, then moved by ``x``, ``y``."""

    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0

    def local(self) -> tuple[Field, Field]:
        """For each pixel, its coordinates along and across the object."""
        c, s = cos(self.angle) / self.scale, sin(self.angle) / self.scale
        dx, dy = X - self.x, Y - self.y
        return c * dx + s * dy, c * dy - s * dx

    def points(self, points: Points) -> Points:
        """Where points, given along and across the object, come to lie."""
        c, s = cos(self.angle) * self.scale, sin(self.angle) * self.scale
        return points @ np.array([[c, s], [-s, c]]) + (self.x, self.y)

    def place(self, field: Field) -> Field:
        """Pose a field that was drawn upright in the middle; beyond its border it is mirrored."""
        matrix = cv2.getRotationMatrix2D((_MIDDLE, _MIDDLE), -self.angle * 180 / pi, self.scale)
        matrix[:, 2] += self.x, self.y
        return cv2.warpAffine(field, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)


def noise(rng: Generator, rows: int, columns: int, octaves: int = 1) -> Field:
    """Smooth noise, about N(0, 1), of so many cells; each octave halves their size and weight."""
    total, power = np.zeros((SIZE, SIZE), np.float32), 0.0
    for octave in range(octaves):
        shape = (min(rows << octave, SIZE), min(columns << octave, SIZE))
        cells = rng.standard_normal(shape, dtype=np.float32)
        total += 0.5**octave * cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        power += 0.25**octave
    return total / (0.75 * power**0.5)


def grain(rng: Generator) -> Field:
    """White noise, N(0, 1) in every pixel."""
    return rng.standard_normal((SIZE, SIZE), dtype=np.float32)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur."""
    return cv2.GaussianBlur(field, (0, 0), sigma)


def bump(x: Field, centre: float, width: float) -> Field:
    """A bell that is 1 at ``centre`` and almost 0 at ``width`` from it."""
    return np.exp(-4 * ((x - centre) / width) ** 2)


def ramp(x: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, straight between."""
    return np.clip((x - low) / (high - low), 0, 1)


def dome(x: Field, radius: float | Field) -> Field:
    """The height of a round of that radius, ``x`` from its middle."""
    return np.sqrt(np.maximum(radius * radius - x * x, 0))


def cover(distance: Field) -> Field:
    """How much of each pixel a shape covers, by the signed distance to its edge (inside: < 0)."""
    return np.clip(0.5 - distance, 0, 1)


def box(u: Field, v: Field, half: Point, radius: float = 0.0) -> Field:
    """Signed distance to a rectangle, given by half its sides, with rounded corners."""
    du, dv = np.abs(u) - (half[0] - radius), np.abs(v) - (half[1] - radius)
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return outside + np.minimum(np.maximum(du, dv), 0) - radius


def blob(rng: Generator, at: Point, radius: float, rough: float = 0.3, long: float = 1.0) -> Field:
    """Coverage of a spot; ``rough`` frays its outline, ``long`` stretches it in some direction."""
    u, v = Pose(rng.uniform(0, pi), *at).local()
    distance = np.hypot(u / long**0.5, v * long**0.5) - radius
    cells = max(4, round(SIZE / radius))
    return cover(distance + rough * radius * noise(rng, cells, cells, 2))


def _drawn(draw: str, lines: Sequence[Points], *style: object) -> Field:
    fixed = [
        np.round(((line + SIZE / 2) * _OVERSAMPLING - 0.5) * 2**_SHIFT).astype(np.int32)
        for line in lines
    ]
    canvas = np.zeros((SIZE * _OVERSAMPLING,) * 2, np.uint8)
    getattr(cv2, draw)(canvas, fixed, *style, shift=_SHIFT)
    small = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def stroke(*lines: Points, width: float) -> Field:
    """Coverage of polylines."""
    return _drawn("polylines", lines, False, 255, max(1, round(width * _OVERSAMPLING)))


def polygon(outline: Points) -> Field:
    """Coverage of a filled polygon."""
    return _drawn("fillPoly", [outline], 255)


def star(tips: int, outer: float, inner: float) -> Points:
    """The outline of a star that stands upright."""
    angle = np.arange(2 * tips) * pi / tips - pi / 2
    radius = np.where(np.arange(2 * tips) % 2, inner, outer)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


_ENDS = {"a": (0, 1), "b": (1, 3), "c": (3, 5), "d": (4, 5), "e": (2, 4), "f": (0, 2), "g": (2, 3)}
_SEGMENTS = {"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd",
             "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abfgcd", "A": "abcefg", "C": "adef",
             "F": "aefg", "L": "def", "P": "abefg", "-": "g"}  # fmt: skip


def text(words: str, height: float, width: float, at: Point = (0.0, 0.0)) -> Field:
    """Seven-segment letters around a point, which do not change with cv2 as its fonts do."""
    corners = np.array([(i % 2 * 0.55, i // 2 * 0.5 - 0.5) for i in range(6)]) * height
    lines = []
    for column, letter in enumerate(words):
        left = at[0] + (column - len(words) / 2 + 0.11) * 0.9 * height
        lines += [corners[list(_ENDS[name])] + (left, at[1]) for name in _SEGMENTS[letter]]
    return stroke(*lines, width=width)


def wander(rng: Generator, at: Point, length: float, angle: float, wiggle: float) -> Points:
    """A walk through a point in steps of 3 px whose heading drifts by ``wiggle`` radians a step."""
    steps = max(2, round(length / 3))
    heading = angle + np.cumsum(rng.normal(0, wiggle, steps))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * (length / steps)
    return path - path[steps // 2] + at


def lattice(rng: Generator, pitch: Point, jitter: float) -> Points:
    """A staggered grid over the frame and a margin, moved by up to ``jitter`` of the pitch."""
    x, y = np.meshgrid(*(np.arange(-0.75 * SIZE, 0.75 * SIZE, step) for step in pitch))
    x[1::2] += pitch[0] / 2
    points = np.stack([x.ravel(), y.ravel()], 1)
    return points + rng.uniform(-jitter, jitter, points.shape) * pitch


def cells(points: Points) -> tuple[Field, Int[np.ndarray, "h w"]]:
    """For each pixel, the distance to the nearest point and the number of that point's cell."""
    index = np.round(points + _MIDDLE).astype(int)
    index = index[((index >= 0) & (index < SIZE)).all(1)]
    seeds = np.ones((SIZE, SIZE), np.uint8)
    seeds[index[:, 1], index[:, 0]] = 0
    return cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )


def mottle(rng: Generator, label: Int[np.ndarray, "h w"], spread: float) -> Field:
    """One random brightness, about 1, for each cell."""
    return rng.normal(1, spread, int(label.max()) + 1).astype(np.float32)[label]


def pick(rng: Generator, region: Field, margin: int = 14) -> Point:
    """A random point inside a region and away from the border of the frame."""
    inner = region[margin:-margin, margin:-margin] > 0.6
    y, x = np.nonzero(inner)
    chosen = int(rng.integers(len(x)))
    return float(x[chosen]) + margin - _MIDDLE, float(y[chosen]) + margin - _MIDDLE


def around(at: Point, reach: float) -> Window:
    """The pixels within reach of a point, to draw small things in a small part of the frame."""
    rows, columns = (slice(max(0, round(c + _MIDDLE - reach)), round(c + _MIDDLE + reach) + 1)
                     for c in (at[1], at[0]))  # fmt: skip
    return rows, columns
