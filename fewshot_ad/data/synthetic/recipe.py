"""A recipe draws one class; ``photograph`` turns it into an image and, for a defect, the exact mask."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import Colour, Field, Pose, blob, blur, stream
from fewshot_ad.data.synthetic.defects import DEFECTS
from fewshot_ad.data.synthetic.light import Light, Picture, Surface, develop, shade

AREA = (0.001, 0.04)
"""The share of the pixels that a defect covers."""

VISIBLE = 0.05
"""A pixel belongs to a defect where it changes the noise-free image by more than this, of 1."""

STRIKING = 0.13
"""Somewhere the change is at least this, or nobody would see the defect."""

Image = UInt8[np.ndarray, "256 256 3"]
Mask = Bool[np.ndarray, "256 256"]


@dataclass(frozen=True)
class Item:
    """One specimen: the randomness that shapes it, and what is wrong with it, if anything."""

    rng: Generator
    flaw: Generator
    defect: str | None = None

    def when(self, defect: str, low: float, high: float) -> float:
        """A random size of the named defect, 0 when this specimen does not have it."""
        return float(self.flaw.uniform(low, high)) if self.defect == defect else 0.0

    def pose(self, turn: float = np.pi, shift: float = 10.0, zoom: float = 0.05) -> Pose:
        """How the specimen happens to lie."""
        angle = self.rng.uniform(-turn, turn)
        x, y = self.rng.uniform(-shift, shift, 2)
        return Pose(float(angle), float(x), float(y), float(self.rng.uniform(1 - zoom, 1 + zoom)))

    def colour(self, *choices: Colour, spread: float = 0.02) -> Colour:
        """One of the colours, a little off, as batches differ."""
        chosen = np.array(choices[self.rng.integers(len(choices))])
        chosen = chosen * (1 + self.rng.normal(0, 2 * spread)) + self.rng.normal(0, spread / 2, 3)
        red, green, blue = (float(c) for c in np.clip(chosen, 0.02, 0.98))
        return red, green, blue


@dataclass(frozen=True)
class Recipe:
    """How to draw one class, and which defects it can have."""

    draw: Callable[[Item], Surface]
    defects: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.draw.__name__


def recipe(*defects: str) -> Callable[[Callable[[Item], Surface]], Recipe]:
    """Mark a function as the recipe of the class it is named after; general defects are added to what it draws."""
    return lambda draw: Recipe(draw, defects)


def _dust(surface: Surface, rng: Generator) -> None:
    """Specks too small to be a defect; every specimen has some."""
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-120, 120, 2)
        speck = blob(rng, (float(x), float(y)), rng.uniform(0.5, 1.1), 0.2)
        tone = float(rng.choice((0.15, 0.8)))
        surface.paint(0.5 * speck, (tone, tone, tone))


def _surface(recipe: Recipe, key: tuple[object, ...], defect: str | None, attempt: int) -> Surface:
    item = Item(stream(*key, "item"), stream(*key, "flaw", attempt), defect)
    surface = recipe.draw(item)
    if defect in DEFECTS:
        DEFECTS[defect](surface, item.flaw)
    _dust(surface, stream(*key, "dust"))
    return surface


def _difference(flawed: Picture, sound: Picture) -> Mask | None:
    """Where a defect shows; None if it is too faint, too small or too large to be a fair one."""
    change = blur(np.abs(flawed - sound).max(2), 0.7)
    visible = (change > VISIBLE).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mask = cv2.morphologyEx(visible, cv2.MORPH_CLOSE, disc)
    fair = AREA[0] <= mask.mean() <= AREA[1] and change.max() >= STRIKING
    return mask.astype(bool) if fair else None


def photograph(recipe: Recipe, kind: str, index: int) -> tuple[Image, Mask]:
    """Draw one image and its mask; ``kind`` is "train", "test" or a defect of the class."""
    key = (recipe.name, kind, index)
    camera = stream(*key, "camera")
    light = Light.draw(camera)
    sound = shade(_surface(recipe, key, None, 0), light)
    if kind not in recipe.defects:
        return develop(sound, light, camera), np.zeros(sound.shape[:2], bool)
    for attempt in count():
        flawed = shade(_surface(recipe, key, kind, attempt), light)
        mask = _difference(flawed, sound)
        if mask is not None:
            return develop(flawed, light, camera), mask
    raise AssertionError("unreachable: count() does not end")
