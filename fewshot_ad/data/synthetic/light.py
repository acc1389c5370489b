"""From a surface (what it is made of) to an image (what a camera sees)."""

from dataclasses import dataclass
from math import cos, pi, sin

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import SIZE, Field, Window, X, Y, blur

Colour = tuple[float, float, float]
Picture = Float[np.ndarray, "3 h w"]

_ROOM = 64
_ROOM_Y, _ROOM_X = (np.mgrid[:_ROOM, :_ROOM] / ((_ROOM - 1) / 2) - 1).astype(np.float32)


def planes(colour: Colour | Picture) -> Picture:
    """A colour as an array that goes with fields; a picture as it is."""
    if isinstance(colour, tuple):
        return np.array(colour, np.float32).reshape(3, 1, 1)
    return colour


@dataclass
class Surface:
    """What every pixel is made of; ``body`` is the object, where general defects happen."""

    colour: Picture
    height: Field  # pixels
    gloss: Field  # strength of highlights
    metal: Field  # 0 painted, 1 a mirror
    body: Field

    @classmethod
    def of(cls, colour: Colour, gloss: float = 0.0, metal: float = 0.0) -> "Surface":
        """A flat, even sheet."""
        sheet = [np.full((SIZE, SIZE), value, np.float32) for value in (0, gloss, metal, 1)]
        return cls(np.tile(planes(colour), (1, SIZE, SIZE)), *sheet)

    def part(self, where: Window) -> "Surface":
        """A view on some pixels: what is drawn there is drawn here."""
        fields = (self.height, self.gloss, self.metal, self.body)
        return Surface(self.colour[:, *where], *(field[where] for field in fields))

    def paint(self, alpha: Field, colour: Colour | Picture, gloss: float | None = None) -> None:
        """Cover with a colour; the material beneath keeps its shape."""
        self.colour += alpha * (planes(colour) - self.colour)
        if gloss is not None:
            self.gloss += alpha * (gloss - self.gloss)

    def tint(self, factor: Field) -> None:
        """Brighten or darken each pixel."""
        self.colour *= factor

    def put(
        self,
        alpha: Field,
        colour: Colour | Picture,
        height: Field | float = 0.0,
        gloss: float = 0.0,
        metal: float = 0.0,
    ) -> None:
        """Cover with another material, which has a height of its own."""
        self.paint(alpha, colour, gloss)
        self.height += alpha * (height - self.height)
        self.metal += alpha * (metal - self.metal)

    def cast_shadow(self, alpha: Field, softness: float = 6.0, depth: float = 0.35) -> None:
        """Darken the surroundings of what will be put there."""
        self.tint(1 - depth * blur(alpha, softness))


@dataclass(frozen=True)
class Light:
    """Lamp, room and lens of one photograph."""

    toward: tuple[float, float, float]
    ambient: float
    tone: Colour
    vignette: Field
    room: Float[np.ndarray, "64 64"]
    softness: float
    noise: float

    @classmethod
    def draw(cls, station: Generator, rng: Generator) -> "Light":
        """The lamps that were screwed down at a station, as they shine in one photograph."""
        azimuth = station.uniform(0, 2 * pi) + rng.normal(0, 0.3)
        elevation = station.uniform(0.75, 1.05) + rng.normal(0, 0.06)
        flat = cos(elevation)
        exposure, cast = rng.uniform(0.84, 1.08), rng.normal(1, 0.012, 3).tolist()
        slope, fall = rng.normal(0, 0.06 / SIZE, 2).tolist(), rng.uniform(0.02, 0.14)
        return cls(
            toward=(flat * cos(azimuth), flat * sin(azimuth), sin(elevation)),
            ambient=rng.uniform(0.4, 0.55),
            tone=(exposure * cast[0], exposure * cast[1], exposure * cast[2]),
            vignette=1 + slope[0] * X + slope[1] * Y - fall * (4 / SIZE**2) * (X * X + Y * Y),
            room=_draw_room(azimuth, station, rng),
            softness=rng.uniform(0.45, 0.8),
            noise=rng.uniform(0.006, 0.016),
        )


def _draw_room(azimuth: float, station: Generator, rng: Generator) -> Float[np.ndarray, "64 64"]:
    """What a mirror shows by its slope: a bright side, a dark horizon, two soft boxes."""
    side = cos(azimuth) * _ROOM_X + sin(azimuth) * _ROOM_Y
    clutter = (station.normal(0, 0.08, (5, 5)) + rng.normal(0, 0.03, (5, 5))).astype(np.float32)
    room = 0.5 + 0.3 * side + cv2.resize(clutter, (_ROOM, _ROOM), interpolation=cv2.INTER_CUBIC)
    boxes = station.uniform((-0.55, -0.55, 0.2), (0.55, 0.55, 0.4), (2, 3))
    for x, y, strength in rng.normal(boxes, (0.08, 0.08, 0.04)).tolist():
        room += strength * np.exp(-((_ROOM_X - x) ** 2 + (_ROOM_Y - y) ** 2) / 0.06)
    room -= 0.35 * np.clip(2 * (_ROOM_X**2 + _ROOM_Y**2) - 1, 0, 1)
    return np.clip(room, 0.05, 1.2)


def _highlight(facing: Field) -> Field:
    """Blinn and Phong's highlight, to the 32nd power."""
    shine = np.clip(facing, 0, 1)
    for _ in range(5):
        shine *= shine
    return shine


def shade(surface: Surface, light: Light) -> Float[np.ndarray, "h w 3"]:
    """The noise-free photograph, 0 to 1: Lambert and Blinn-Phong, and a mirrored room for metal."""
    along = cv2.Sobel(surface.height, cv2.CV_32F, 1, 0, scale=-1 / 8)
    down = cv2.Sobel(surface.height, cv2.CV_32F, 0, 1, scale=-1 / 8)
    upright = 1 / np.sqrt(1 + along * along + down * down)
    along, down = along * upright, down * upright
    lx, ly, lz = light.toward
    facing = lx * along + ly * down
    lit = np.clip((facing + lz * upright) / lz, 0, 1.6)
    half = (2 + 2 * lz) ** 0.5
    shine = _highlight((facing + (lz + 1) * upright) / half)
    middle = (_ROOM - 1) / 2
    mirrored = cv2.remap(
        light.room, middle + middle * along, middle + middle * down, cv2.INTER_LINEAR
    )
    paint = light.ambient + (1 - light.ambient) * lit
    crevice = np.clip(1 - 0.06 * (blur(surface.height, 4) - surface.height), 0.55, 1.05)
    strength = (paint + surface.metal * (1.3 * mirrored - paint)) * crevice * light.vignette
    image = surface.colour * strength + surface.gloss * shine * light.vignette
    image *= planes(light.tone)
    return np.clip(blur(np.ascontiguousarray(np.moveaxis(image, 0, 2)), light.softness), 0, 1)


def develop(
    photograph: Float[np.ndarray, "h w 3"], light: Light, rng: Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The bytes that the camera stores: sensor noise, then rounding."""
    sensor = rng.standard_normal(photograph.shape, dtype=np.float32) * light.noise
    return np.round(255 * np.clip(photograph + sensor, 0, 1)).astype(np.uint8)
