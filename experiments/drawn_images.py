"""Images drawn by chance: what a feature extractor is distilled on when no photograph may be used.

``draw(index)`` is a pure function of its arguments. A *field* is one grey pattern in [0, 1] (noise,
gratings, cells, weaves, strokes, lettering); a *scene* puts coloured fields together (a plain
texture, dead leaves, an object on a backdrop, a lit relief, soft blobs on black); the *camera* adds
damage, light, blur, noise and compression.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.random import PCG64, Generator

Field = Float32[np.ndarray, "s s"]
Picture = Float32[np.ndarray, "s s 3"]

STREAM = 20240817  # separates these draws from every other use of small integer seeds
GREY_SHARE = 0.35  # many inspection cameras see no colour
LETTERS = "ABCDEFGHKLMNPRSTXYZ0123456789#%&+-/"


def draw(index: int, size: int = 224) -> UInt8[np.ndarray, "s s 3"]:
    """Draw image number ``index`` as RGB bytes; the same index gives the same bytes."""
    rng = Generator(PCG64([STREAM, index]))
    scene = SCENES[int(rng.choice(len(SCENES), p=SCENE_SHARES))]
    picture = scene(rng, size)
    if rng.random() < 0.6:
        picture = damage(rng, picture)
    return camera(rng, picture)


def picked(rng: Generator, stock: Sequence[Any]) -> Any:
    """One of the things in stock."""
    return stock[int(rng.integers(len(stock)))]


# ------------------------------------------------------------ fields


def stretched(values: np.ndarray) -> Field:
    """Shift and scale to [0, 1]."""
    low, high = float(values.min()), float(values.max())
    return ((values - low) / max(high - low, 1e-6)).astype(np.float32)


def coordinates(rng: Generator, size: int) -> tuple[Field, Field]:
    """Pixel coordinates in a turned frame, in sides of the image, from its centre."""
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * line + sin * line[:, None], cos * line[:, None] - sin * line


def clouds(rng: Generator, size: int) -> Field:
    """Octaves of interpolated noise, stretched along one axis at times (wood, brushed metal)."""
    field = np.zeros((size, size), np.float32)
    cells, persistence = rng.uniform(2, 12), rng.uniform(0.35, 0.95)
    squeeze = rng.choice([1.0, 1.0, 0.1, 0.3])
    weight = 1.0
    while cells < size and weight > 0.04:
        grid = rng.standard_normal((max(2, int(cells)), max(2, int(cells * squeeze))), np.float32)
        field += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * persistence
    return stretched(field if rng.random() < 0.5 else field.T.copy())


def power_noise(rng: Generator, size: int) -> Field:
    """Noise with a power-law spectrum, from nearly white to nearly a gradient."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    radius[0, 0] = 1.0
    field = np.fft.irfft2(spectrum * radius ** -rng.uniform(0.3, 2.2), s=(size, size))
    return stretched(np.clip(field, *np.quantile(field[::4, ::4], [0.01, 0.99])))


def gradient(rng: Generator, size: int) -> Field:
    """A linear or radial ramp."""
    across, along = coordinates(rng, size)
    if rng.random() < 0.5:
        return stretched(across)
    shift = rng.uniform(-0.4, 0.4, 2)
    return stretched(np.hypot(across - shift[0], along - shift[1]) ** rng.uniform(0.5, 2))


def wave(rng: Generator, phase: np.ndarray) -> Field:
    """A periodic profile of unit period: sine, hard stripes, thin lines or a saw tooth."""
    kind = rng.integers(4)
    if kind == 0:
        return (0.5 + 0.5 * np.sin(2 * np.pi * phase)).astype(np.float32)
    saw = (phase % 1.0).astype(np.float32)
    if kind == 1:
        return (saw < rng.uniform(0.2, 0.8)).astype(np.float32)
    if kind == 2:
        return np.clip(1 - np.abs(saw - 0.5) / rng.uniform(0.08, 0.4), 0, 1).astype(np.float32)
    return saw


def grating(rng: Generator, size: int) -> Field:
    """Stripes or rings, at times bent by smooth noise."""
    across, along = coordinates(rng, size)
    base = across if rng.random() < 0.75 else np.hypot(across, along)
    frequency = np.exp(rng.uniform(np.log(3), np.log(60)))
    bend = rng.choice([0.0, 0.02, 0.1]) * clouds(rng, size) if rng.random() < 0.5 else 0.0
    return wave(rng, frequency * (base + bend))


def weave(rng: Generator, size: int) -> Field:
    """Two crossed gratings: cloth, mesh, bricks, chequers."""
    across, along = coordinates(rng, size)
    frequency = np.exp(rng.uniform(np.log(4), np.log(40)))
    other = frequency * rng.choice([1.0, 1.0, 0.5, rng.uniform(0.3, 2)])
    rows = np.floor(frequency * across) % 2 * rng.choice([0.0, 0.5])
    first, second = wave(rng, frequency * across), wave(rng, other * along + rows)
    join = rng.integers(3)
    if join == 0:
        return np.maximum(first, second)
    return first * second if join == 1 else np.abs(first - second)


def cells(rng: Generator, size: int) -> Field:
    """Distances to scattered points: grains, pebbles, bubbles, leather, cracked walls."""
    count = int(np.exp(rng.uniform(np.log(8), np.log(900))))
    points = rng.integers(0, size, (count, 2))
    if rng.random() < 0.4:
        pitch = max(5, int(size / np.sqrt(count)))
        lattice = np.stack(np.meshgrid(*[np.arange(pitch // 2, size, pitch)] * 2), -1).reshape(
            -1, 2
        )
        jitter = rng.normal(0, rng.uniform(0, 0.25) * pitch, lattice.shape)
        points = np.clip(lattice + jitter, 0, size - 1).astype(int)
    seeds = np.full((size, size), 255, np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    distance, owner = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    kind = rng.integers(4)
    if kind == 0:
        return stretched(distance)
    if kind == 1:
        radius = rng.uniform(0.2, 0.7) * size / np.sqrt(len(points))
        return np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    tones = rng.random(int(owner.max()) + 1, np.float32)[owner]
    if kind == 2:
        return tones
    edges = cv2.morphologyEx(tones, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    return cv2.GaussianBlur(edges.astype(np.float32), (0, 0), rng.uniform(0.3, 1.5))


def strokes(rng: Generator, size: int) -> Field:
    """Fibres, scratches, wires and arcs."""
    canvas = np.zeros((size, size), np.uint8)
    heading, spread = rng.uniform(0, np.pi), rng.choice([0.05, 0.4, 3.0])
    thickest, curl = int(rng.choice([1, 2, 4, 9])), rng.choice([0.0, 0.05, 0.25])
    length = rng.uniform(0.02, 0.15) * size
    for _ in range(int(np.exp(rng.uniform(np.log(8), np.log(220))))):
        angles = heading + rng.normal(0, spread) + np.cumsum(rng.normal(0, curl, 10))
        steps = length * np.stack([np.cos(angles), np.sin(angles)], -1)
        line = (rng.uniform(-0.1, 1.1, 2) * size + np.cumsum(steps, 0)).astype(np.int32)
        shade, width = int(rng.integers(60, 256)), int(rng.integers(1, thickest + 1))
        cv2.polylines(canvas, [line], False, shade, width, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def lettering(rng: Generator, size: int) -> Field:
    """Rows of print in one of OpenCV's faces."""
    canvas = np.zeros((size, size), np.uint8)
    scale, face = float(np.exp(rng.uniform(np.log(0.3), np.log(3)))), int(rng.integers(0, 8))
    width, pitch = max(1, int(scale * rng.uniform(0.8, 3))), int(scale * rng.uniform(24, 45))
    for row in range(pitch // 2, size + pitch, pitch):
        text = "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), rng.integers(2, 24)))
        start = (int(rng.integers(-40, size // 2)), row)
        cv2.putText(canvas, text, start, face, scale, 255, width, cv2.LINE_AA)
    return turned(rng, canvas.astype(np.float32) / 255)


def turned(rng: Generator, picture: np.ndarray) -> np.ndarray:
    """Rotate, scale and shear about the centre; what comes in from outside is a reflection."""
    size = picture.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.uniform(0, 360), rng.uniform(0.8, 1.5)
    )
    matrix[:, :2] += rng.normal(0, 0.1, (2, 2))
    return cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)


def mixed(rng: Generator, size: int) -> Field:
    """One field, or two blended, multiplied, or switched by a third."""
    first = picked(rng, FIELDS)(rng, size)
    if rng.random() < 0.45:
        return first
    second = picked(rng, FIELDS)(rng, size)
    kind = rng.integers(3)
    if kind == 0:
        share = np.float32(rng.uniform(0.1, 0.9))
        return share * first + (1 - share) * second
    if kind == 1:
        return stretched((first + np.float32(0.15)) * (second + np.float32(0.15)))
    switch = np.clip((clouds(rng, size) - 0.5) * rng.uniform(4, 60) + 0.5, 0, 1).astype(np.float32)
    return switch * first + (1 - switch) * second


FIELDS: list[Callable[[Generator, int], Field]] = [
    clouds, clouds, power_noise, power_noise, gradient, grating, grating,
    weave, weave, cells, cells, strokes, lettering,
]  # fmt: skip


# ------------------------------------------------------------ colour and shape


def coloured(rng: Generator, field: Field) -> Picture:
    """Run the field through a colour ramp of two to four stops of random contrast."""
    stops = rng.random((int(rng.integers(2, 5)), 3), np.float32)
    contrast = np.float32(np.exp(rng.uniform(np.log(0.08), np.log(1.3))))
    stops = np.clip(stops.mean(0) + contrast * (stops - stops.mean(0)), 0, 1)
    tint = np.float32(rng.choice([0.0, 0.3, 1.0]))
    grey = stops.mean(1, keepdims=True)
    stops = grey + tint * (stops - grey)
    ramp = cv2.resize(stops[:, None], (1, 256), interpolation=cv2.INTER_LINEAR)[:, 0]
    return ramp[np.clip(field * 255, 0, 255).astype(np.uint8)]


def outline(rng: Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """A closed contour in 1/16 pixels: ellipse, polygon, gear, box or a smooth blob."""
    count = int(rng.choice([3, 4, 5, 6, 8, 64]))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    reach = np.ones(count)
    if count == 64:
        for order in range(2, 2 + int(rng.integers(0, 5))):
            reach += rng.normal(0, 0.12) * np.cos(order * angles + rng.uniform(0, 6.3))
        if rng.random() < 0.3:
            reach += rng.uniform(0.05, 0.2) * np.sign(np.sin(rng.integers(3, 16) * angles))
    elif rng.random() < 0.4:
        angles, reach = np.sort(rng.uniform(0, 2 * np.pi, count)), rng.uniform(0.4, 1, count)
    points = radius * np.stack(
        [reach * np.cos(angles), reach * np.sin(angles) * rng.uniform(0.25, 1)]
    )
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return ((rotation @ points).T + centre) * 16


def filled(contours: list[np.ndarray], size: int) -> Field:
    """Antialiased coverage of the contours (a contour inside another is a hole)."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [c.astype(np.int32) for c in contours], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def laid(picture: Picture, coat: Picture, cover: Field) -> Picture:
    """``coat`` over ``picture`` where ``cover`` is 1."""
    return picture + cover[..., None] * (coat - picture)


# ------------------------------------------------------------ scenes


def texture(rng: Generator, size: int) -> Picture:
    """One surface that fills the view."""
    return coloured(rng, mixed(rng, size))


def dead_leaves(rng: Generator, size: int) -> Picture:
    """Shapes of all sizes that hide one another, each with a surface from a small stock."""
    stock = [texture(rng, size) for _ in range(int(rng.integers(2, 5)))]
    picture = stock[0]
    for _ in range(int(rng.integers(6, 40))):
        radius = min(0.5, 0.025 * rng.uniform(0.02, 1) ** -0.8) * size
        contour = outline(rng, rng.uniform(0, size, 2), radius)
        coat = picked(rng, stock)
        if rng.random() < 0.5:
            coat = coat * 0 + rng.random(3, np.float32)
        picture = laid(picture, coat, filled([contour], size))
    return picture


def item(rng: Generator, size: int) -> Picture:
    """One object on a backdrop: nested and repeated parts, round shading and a cast shadow."""
    backdrop = np.ones((size, size), np.float32) if rng.random() < 0.4 else mixed(rng, size)
    picture = coloured(rng, backdrop)
    middle = size / 2 + rng.normal(0, 0.05 * size, 2)
    radius = rng.uniform(0.2, 0.5) * size
    parts = [outline(rng, middle, radius)]
    for scale in rng.uniform(0.15, 0.9, rng.integers(0, 4)):
        parts.append((parts[0] / 16 - middle) * scale * 16 + middle * 16)
    fold = int(rng.integers(0, 9))
    for turn in np.linspace(0, 2 * np.pi, fold, endpoint=False):
        seat = middle + rng.uniform(0.3, 0.9) * radius * np.array([np.cos(turn), np.sin(turn)])
        parts.append(outline(rng, seat, 0.1 * radius))
    body = filled(parts[:1], size)
    shadow = cv2.GaussianBlur(
        np.roll(body, rng.integers(-9, 10, 2), (0, 1)), (0, 0), rng.uniform(1, 8)
    )
    picture = picture * (1 - np.float32(rng.uniform(0, 0.6)) * shadow[..., None])
    inside = cv2.distanceTransform((body > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    shade = np.clip(inside / (rng.uniform(0.02, 0.4) * size), 0, 1) ** 0.5
    coat = texture(rng, size) * (0.4 + 0.6 * shade[..., None])
    picture = laid(picture, coat, body)
    for part in parts[1:]:
        picture = laid(picture, texture_or_paint(rng, picture), filled([part], size))
    return picture.astype(np.float32)


def texture_or_paint(rng: Generator, picture: Picture) -> Picture:
    """A flat paint, or the picture itself, darker or lighter."""
    if rng.random() < 0.5:
        return picture * 0 + rng.random(3, np.float32)
    return np.clip(picture * np.float32(rng.uniform(0.4, 1.6)), 0, 1)


def relief(rng: Generator, size: int) -> Picture:
    """A height field under a lamp: embossing, carpet, hammered metal."""
    height = cv2.GaussianBlur(mixed(rng, size), (0, 0), rng.uniform(0.6, 4))
    steep = np.float32(np.exp(rng.uniform(np.log(2), np.log(30))))
    slope_x, slope_y = (
        steep * cv2.Sobel(height, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1))
    )
    angle, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 2)
    facing = rise - slope_x * np.cos(angle) - slope_y * np.sin(angle)
    light = np.clip(facing / np.sqrt(1 + slope_x**2 + slope_y**2) / np.hypot(1, rise), 0, 1)
    gloss = np.float32(rng.uniform(0, 0.8)) * light ** rng.uniform(8, 60)
    base = texture(rng, size) if rng.random() < 0.4 else coloured(rng, height)
    return (base * (0.2 + light[..., None]) + gloss[..., None]).astype(np.float32)


def blobs(rng: Generator, size: int) -> Picture:
    """Soft nested shapes on a dark ground, as in scans."""
    picture = np.zeros((size, size, 3), np.float32)
    middle, radius = size / 2 + rng.normal(0, 0.06 * size, 2), rng.uniform(0.25, 0.48) * size
    for _ in range(int(rng.integers(2, 14))):
        cover = filled([outline(rng, middle, radius)], size)
        cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, 6))
        coat = coloured(rng, picked(rng, [clouds, power_noise])(rng, size))
        picture = laid(picture, coat * np.float32(rng.uniform(0.3, 1)), cover)
        middle = middle + rng.normal(0, 0.3 * radius, 2)
        radius *= rng.uniform(0.5, 1)
    return picture


SCENES: list[Callable[[Generator, int], Picture]] = [texture, dead_leaves, item, relief, blobs]
SCENE_SHARES = [0.25, 0.25, 0.25, 0.15, 0.10]


# ------------------------------------------------------------ damage and camera


def damage(rng: Generator, picture: Picture) -> Picture:
    """A few local oddities: stains, scratches, a moved patch, a bulge."""
    size = picture.shape[0]
    for _ in range(int(rng.integers(1, 6))):
        radius = rng.uniform(0.015, 0.12) * size
        centre = rng.uniform(0, size, 2)
        cover = filled([outline(rng, centre, radius)], size) * np.float32(rng.uniform(0.3, 1))
        kind = rng.integers(4)
        if kind == 0:
            coat = texture_or_paint(rng, picture)
        elif kind == 1:
            coat = np.roll(picture, rng.integers(-size // 3, size // 3, 2), (0, 1))
        elif kind == 2:
            coat = bulged(rng, picture, centre, 2 * radius)
        else:
            width = float(rng.uniform(0.05, 0.25))
            thin = np.array([[1, 0], [0, width]])
            contour = (outline(rng, np.zeros(2), 2 * radius) @ thin) + centre * 16
            cover, coat = filled([contour], size), texture_or_paint(rng, picture)
        picture = laid(picture, coat, cover)
    return picture.astype(np.float32)


def bulged(rng: Generator, picture: Picture, centre: np.ndarray, radius: float) -> Picture:
    """Push the surroundings of ``centre`` in one direction."""
    rows, columns = np.indices(picture.shape[:2], np.float32)
    near = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / radius**2)
    push = rng.normal(0, 0.5 * radius, 2).astype(np.float32)
    at_x, at_y = columns + push[0] * near, rows + push[1] * near
    return cv2.remap(
        picture,
        at_x.astype(np.float32),
        at_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def camera(rng: Generator, picture: Picture) -> UInt8[np.ndarray, "s s 3"]:
    """Uneven light, exposure, blur, noise and compression."""
    size = picture.shape[0]
    if rng.random() < GREY_SHARE:
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.4:
        picture = turned(rng, picture)
    if rng.random() < 0.5:
        picture = picture * (1 - np.float32(rng.uniform(0, 0.7)) * gradient(rng, size)[..., None])
    if rng.random() < 0.5:
        low, high = np.quantile(picture[::4, ::4], [0.02, 0.98]).astype(np.float32)
        picture = (picture - low) / max(high - low, np.float32(0.05))
    gain, black = np.float32(rng.uniform(0.6, 1.3)), np.float32(rng.uniform(-0.1, 0.15))
    picture = np.clip(picture * gain + black, 0, 1) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
    if rng.random() < 0.6:
        noise = rng.standard_normal((size, size, int(rng.choice([1, 3]))), np.float32)
        picture = picture + np.float32(rng.uniform(0.003, 0.05)) * noise
    picture = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.15:
        _, packed = cv2.imencode(
            ".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))]
        )
        picture = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return picture
