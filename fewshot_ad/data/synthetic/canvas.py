"""What everything is drawn with: coordinates, noise, shapes, strokes, and the surface that collects them.

Lengths are pixels of the 256 px frame and shapes are anti-aliased by distance, so nothing is drawn twice as large.
"""

from dataclasses import dataclass
from hashlib import sha256

import cv2
import numpy as np
from jaxtyping import Float
from numpy.random import PCG64, Generator

SIZE = 256
Field = Float[np.ndarray, "h w"]
Colour = tuple[float, float, float]
Points = Float[np.ndarray, "n 2"]

_OVERSAMPLING = 4
_SHIFT = 4  # cv2 reads points as fixed-point numbers with this many fractional bits

Y, X = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2).astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """Where an object lies: turned by ``angle`` radians, scaled, then moved by ``x``, ``y`` pixels."""

    angle: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0

    def local(self) -> tuple[Field, Field]:
        """For each pixel, its coordinates along and across the object."""
        cos, sin = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        dx, dy = X - np.float32(self.x), Y - np.float32(self.y)
        return np.float32(cos) * dx + np.float32(sin) * dy, np.float32(cos) * dy - np.float32(
            sin
        ) * dx

    def matrix(self) -> Float[np.ndarray, "2 3"]:
        """The affine map from a canvas drawn upright to the posed one, in array indices."""
        middle = (SIZE - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), -np.degrees(self.angle), self.scale)
        matrix[:, 2] += self.x, self.y
        return matrix

    def place(self, field: Field) -> Field:
        """Pose a field that was drawn upright in the middle of the frame."""
        return cv2.warpAffine(field, self.matrix(), (SIZE, SIZE), flags=cv2.INTER_LINEAR)

    def points(self, points: Points) -> Points:
        """Pose points given along and across the object."""
        cos, sin = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        return points @ np.array([[cos, sin], [-sin, cos]]) + (self.x, self.y)


def cover(distance: Field) -> Field:
    """How much of each pixel lies inside a shape, from the signed distance to its edge."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    """A smooth bell that is 1 at ``centre`` and almost 0 at ``width`` from it."""
    return np.exp(-4.0 * ((x - centre) / width) ** 2).astype(np.float32)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur."""
    return cv2.GaussianBlur(field, (0, 0), sigma)


def box(u: Field, v: Field, half: tuple[float, float], radius: float = 0.0) -> Field:
    """Signed distance to a rectangle with rounded corners, by its half width and half height."""
    du, dv = np.abs(u) - half[0] + radius, np.abs(v) - half[1] + radius
    outside = np.hypot(np.maximum(du, 0.0), np.maximum(dv, 0.0))
    return outside + np.minimum(np.maximum(du, dv), 0.0) - radius


def noise(rng: Generator, cells: tuple[int, int], octaves: int = 1) -> Field:
    """Smooth random field, about N(0, 1), with so many cells down and across; each octave halves the cell."""
    total, weight, power = np.zeros((SIZE, SIZE), np.float32), 1.0, 0.0
    for octave in range(octaves):
        shape = [min(n * 2**octave, SIZE) for n in cells]
        lattice = rng.standard_normal(shape, dtype=np.float32)
        total += weight * cv2.resize(lattice, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        power, weight = power + weight**2, weight / 2
    return total / np.float32(0.75 * power**0.5)


def grain(rng: Generator) -> Field:
    """White noise, N(0, 1) in every pixel."""
    return rng.standard_normal((SIZE, SIZE), dtype=np.float32)


def _fixed(points: Points) -> np.ndarray:
    centred = (points + SIZE / 2) * _OVERSAMPLING - 0.5
    return np.round(centred * 2**_SHIFT).astype(np.int32)


def _reduced(canvas: np.ndarray) -> Field:
    small = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _canvas() -> np.ndarray:
    return np.zeros((SIZE * _OVERSAMPLING,) * 2, np.uint8)


def stroke(*lines: Points, width: float) -> Field:
    """Polylines of a width in pixels, through points measured from the middle of the frame."""
    thickness = max(1, round(width * _OVERSAMPLING))
    canvas = _canvas()
    cv2.polylines(canvas, [_fixed(line) for line in lines], False, 255, thickness, shift=_SHIFT)
    return _reduced(canvas)


def polygon(*outlines: Points) -> Field:
    """Filled polygons, through points measured from the middle of the frame."""
    canvas = _canvas()
    cv2.fillPoly(canvas, [_fixed(outline) for outline in outlines], 255, shift=_SHIFT)
    return _reduced(canvas)


_CORNERS = {"a": (0, 1), "b": (1, 3), "c": (3, 5), "d": (4, 5), "e": (2, 4), "f": (0, 2), "g": (2, 3)}
_SEGMENTS = {"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc",
             "7": "abc", "8": "abcdefg", "9": "abfgcd", "A": "abcefg", "C": "adef", "E": "adefg", "F": "aefg",
             "H": "bcefg", "L": "def", "P": "abefg", "U": "bcdef", "-": "g"}  # fmt: skip


def text(words: str, height: float, weight: float, x: float = 0.0, y: float = 0.0) -> Field:
    """Words in seven-segment letters around ``x``, ``y``: the same on every machine, unlike a font."""
    corners = np.array([(i % 2 * 0.55, i // 2 * 0.5 - 0.5) for i in range(6)]) * height
    lines = []
    for column, letter in enumerate(words):
        left = x + (column - len(words) / 2 + 0.11) * 0.9 * height
        lines += [corners[list(_CORNERS[name])] + (left, y) for name in _SEGMENTS[letter]]
    return stroke(*lines, width=weight)


def blob(
    rng: Generator, at: tuple[float, float], radius: float, rough: float = 0.3, long: float = 1.0
) -> Field:
    """Coverage of an irregular spot; ``rough`` frays its outline, ``long`` stretches it in a random direction."""
    u, v = Pose(rng.uniform(0, np.pi), *at).local()
    stretch = long**0.5
    distance = np.hypot(u / stretch, v * stretch) - radius
    cells = max(4, round(SIZE / radius))
    return cover(distance + rough * radius * noise(rng, (cells, cells), 2))


def wander(
    rng: Generator, at: tuple[float, float], length: float, angle: float, wiggle: float
) -> Points:
    """A random walk through ``at`` in steps of about 3 px whose heading drifts by ``wiggle`` radians a step."""
    steps = max(2, round(length / 3))
    heading = angle + np.cumsum(rng.normal(0, wiggle, steps))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * (length / steps)
    return path - path[steps // 2] + np.asarray(at)


def cells(points: Points) -> tuple[Field, np.ndarray]:
    """For each pixel, the distance to the nearest point and that point's number (a Voronoi diagram)."""
    index = np.round(points + (SIZE - 1) / 2).astype(int)
    inside = ((index >= 0) & (index < SIZE)).all(1)
    seeds = np.full((SIZE, SIZE), 255, np.uint8)
    seeds[index[inside, 1], index[inside, 0]] = 0
    distance, label = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return distance, label


def lattice(rng: Generator, pitch: tuple[float, float], jitter: float) -> Points:
    """Points on a staggered grid over the whole frame and a margin, each moved by ``jitter`` of the pitch."""
    columns, rows = (np.arange(-SIZE * 0.75, SIZE * 0.75, step) for step in pitch)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += pitch[0] / 2
    points = np.stack([x.ravel(), y.ravel()], 1)
    return points + rng.uniform(-jitter, jitter, points.shape) * pitch


def pick(rng: Generator, region: Field) -> tuple[float, float]:
    """A random point well inside a region."""
    inside = np.flatnonzero(region > 0.6)
    y, x = divmod(int(inside[rng.integers(len(inside))]), SIZE)
    return x - (SIZE - 1) / 2, y - (SIZE - 1) / 2


def stream(*key: object) -> Generator:
    """The random stream of a key: the same numbers on every machine, in any order."""
    name = "/".join(map(str, key)).encode()
    return Generator(PCG64(int.from_bytes(sha256(name).digest(), "big")))
