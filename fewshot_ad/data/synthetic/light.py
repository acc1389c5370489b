"""From a surface (what it is made of) to an image (how a camera sees it)."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import SIZE, Colour, Field, X, Y, blur, noise

Picture = Float[np.ndarray, "h w 3"]


@dataclass
class Surface:
    """Colour, height in pixels, gloss (strength of highlights) and metal (0 painted, 1 mirror) of every pixel."""

    colour: Picture
    height: Field
    gloss: Field
    metal: Field
    body: Field
    """Where the object lies: defects happen there."""

    @classmethod
    def of(cls, colour: Colour, gloss: float = 0.0, metal: float = 0.0) -> "Surface":
        """A flat, even sheet."""
        ones = np.ones((SIZE, SIZE), np.float32)
        sheet = ones[..., None] * np.float32(colour)
        return cls(sheet, 0 * ones, gloss * ones, metal * ones, ones)

    def paint(self, alpha: Field, colour: Colour | Picture, gloss: float | None = None) -> None:
        """Cover with a colour; the material beneath keeps its shape."""
        self.colour += alpha[..., None] * (np.float32(colour) - self.colour)
        if gloss is not None:
            self.gloss += alpha * (np.float32(gloss) - self.gloss)

    def tint(self, factor: Field) -> None:
        """Brighten or darken each pixel."""
        self.colour *= factor[..., None]

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
        self.metal += alpha * (np.float32(metal) - self.metal)
        self.height += alpha * (np.float32(height) - self.height)

    def cast_shadow(self, alpha: Field, softness: float = 6.0, depth: float = 0.35) -> None:
        """Darken what lies around an object that will be put there."""
        self.tint(1 - np.float32(depth) * blur(alpha, softness))


@dataclass(frozen=True)
class Light:
    """The lamp, the room that metal mirrors, and the camera, as one photograph has them."""

    toward: tuple[float, float, float]
    ambient: float
    tone: Colour
    vignette: Field
    room: Field
    softness: float
    noise: float

    @classmethod
    def draw(cls, rng: Generator) -> "Light":
        """A random but ordinary light."""
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.65, 1.15)
        flat = np.cos(elevation)
        toward = (flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation))
        tone = rng.uniform(0.86, 1.08) * rng.normal(1, 0.015, 3)
        slope = rng.normal(0, 0.06, 2) / SIZE
        vignette = 1 + slope[0] * X + slope[1] * Y
        vignette = vignette - rng.uniform(0.02, 0.14) * (X**2 + Y**2) / (SIZE / 2) ** 2
        return cls(
            toward=toward,
            ambient=rng.uniform(0.4, 0.6),
            tone=(float(tone[0]), float(tone[1]), float(tone[2])),
            vignette=vignette.astype(np.float32),
            room=_room(rng, azimuth),
            softness=rng.uniform(0.45, 0.8),
            noise=rng.uniform(0.006, 0.016),
        )


def _room(rng: Generator, azimuth: float) -> Field:
    """What a mirror sees, by the slope of its surface: a sky, a dark horizon, two soft boxes."""
    x, y = X / (SIZE / 2), Y / (SIZE / 2)
    side = np.cos(azimuth) * x + np.sin(azimuth) * y
    room = 0.5 + 0.3 * side + 0.08 * noise(rng, (5, 5))
    for _ in range(2):
        cx, cy = rng.uniform(-0.55, 0.55, 2)
        room = room + rng.uniform(0.2, 0.4) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.06)
    room = room - 0.35 * np.clip((x**2 + y**2 - 0.5) / 0.5, 0, 1)
    return np.clip(room, 0.05, 1.2).astype(np.float32)


def shade(surface: Surface, light: Light) -> Picture:
    """The noise-free photograph, 0 to 1: Lambert and Blinn-Phong for paint, a mirrored room for metal."""
    along = -cv2.Sobel(surface.height, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = -cv2.Sobel(surface.height, cv2.CV_32F, 0, 1, scale=1 / 8)
    upright = 1 / np.sqrt(1 + along**2 + down**2)
    lx, ly, lz = (np.float32(axis) for axis in light.toward)
    lit = np.clip((lx * along + ly * down + lz) * upright / lz, 0, 1.6)
    half = (lz + 1) / np.float32(np.sqrt(2 + 2 * lz))
    tilt = half / (lz + 1)
    shine = np.clip((tilt * (lx * along + ly * down) + half) * upright, 0, 1)
    shine = shine**2
    for _ in range(4):
        shine = shine * shine
    middle = np.float32(SIZE / 2 - 0.5)
    mirrored = cv2.remap(
        light.room,
        middle + middle * along * upright,
        middle + middle * down * upright,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    paint = np.float32(light.ambient) + np.float32(1 - light.ambient) * lit
    crevice = np.clip(1 - 0.06 * (blur(surface.height, 4.0) - surface.height), 0.55, 1.05)
    strength = (paint + surface.metal * (mirrored * 1.3 - paint)) * crevice
    image = surface.colour * strength[..., None] + (surface.gloss * shine)[..., None]
    image *= (light.vignette[..., None]) * np.float32(light.tone)
    return np.clip(blur(image, light.softness), 0, 1)


def develop(picture: Picture, light: Light, rng: Generator) -> np.ndarray:
    """The bytes that the camera stores: sensor noise, then rounding."""
    sensor = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(light.noise)
    return np.round(255 * np.clip(picture + sensor, 0, 1)).astype(np.uint8)
