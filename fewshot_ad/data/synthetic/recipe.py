"""A recipe draws one class; ``photograph`` makes an image of it and, for a defect, the exact mask.

A defective specimen is drawn twice from the same random streams, with and without its defect, and
in the same light: the mask is where the two noise-free photographs differ to the eye.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import pi

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import Pose, blur, grain, noise, stream, stroke
from fewshot_ad.data.synthetic.defects import DEFECTS
from fewshot_ad.data.synthetic.light import Colour, Light, Surface, develop, shade

AREA = (0.001, 0.04)  # the share of the pixels that a defect covers
VISIBLE = 0.05  # a pixel belongs to a defect that changes it by this much (black to white is 1)
STRIKING = 0.18  # some pixel of a defect changes by this much, or nobody would see it

Photograph = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Item:
    """One specimen: what shapes it by chance, what shapes its flaw, and which flaw, if any."""

    rng: Generator
    flaw: Generator
    defect: str | None = None

    def pose(self, turn: float = pi, shift: float = 10.0, zoom: float = 0.05) -> Pose:
        """How the specimen happens to lie."""
        angle, x, y = self.rng.uniform(-1, 1, 3).tolist()
        return Pose(turn * angle, shift * x, shift * y, self.rng.uniform(1 - zoom, 1 + zoom))

    def colour(self, *choices: Colour, spread: float = 0.02) -> Colour:
        """One of the colours, a little off, as batches differ."""
        chosen = np.array(choices[self.rng.integers(len(choices))])
        chosen = chosen * self.rng.normal(1, 2 * spread) * self.rng.normal(1, spread / 2, 3)
        red, green, blue = np.clip(chosen, 0.02, 0.98).tolist()
        return red, green, blue

    def table(self, *colours: Colour) -> Surface:
        """The matt sheet that an object lies on."""
        sheet = Surface.of(self.colour(*colours, spread=0.025))
        sheet.tint(1 + 0.01 * noise(self.rng, 6, 6) + 0.01 * grain(self.rng))
        return sheet

    def has(self, defect: str) -> bool:
        """Whether this specimen has the defect."""
        return self.defect == defect

    def when(self, defect: str, low: float, high: float) -> float:
        """How strongly this specimen has the defect: 0 when it has not."""
        return self.flaw.uniform(low, high) if self.has(defect) else 0.0

    def either(self) -> int:
        """-1 or 1, for the flaw."""
        return 2 * int(self.flaw.integers(2)) - 1


@dataclass(frozen=True)
class Recipe:
    """How to draw one class, and which defects it can have."""

    draw: Callable[[Item], Surface]
    defects: tuple[str, ...]

    @property
    def name(self) -> str:
        """The class it draws."""
        return self.draw.__name__


def recipe(*defects: str) -> Callable[[Callable[[Item], Surface]], Recipe]:
    """Make a function the recipe of the class it is named after.

    It draws the defects that belong to the class; general ones are added to what it returns.
    """
    return lambda draw: Recipe(draw, tuple(sorted(defects)))


def _settle_dust(surface: Surface, rng: Generator) -> None:
    """Specks too small to be a defect: every specimen has some."""
    specks = rng.uniform(-125, 125, (rng.integers(2, 7), 1, 2)).repeat(2, axis=1)
    tone = float(rng.choice((0.15, 0.8)))
    surface.paint(0.5 * stroke(*specks, width=rng.uniform(1, 1.8)), (tone, tone, tone))


def _take(
    recipe: Recipe, key: tuple[object, ...], light: Light, defect: str | None, attempt: int
) -> Photograph:
    item = Item(stream(*key, "item"), stream(*key, "flaw", attempt), defect)
    surface = recipe.draw(item)
    if defect in DEFECTS:
        DEFECTS[defect](surface, item.flaw)
    _settle_dust(surface, stream(*key, "dust"))
    return shade(surface, light)


def _fair_mask(flawed: Photograph, sound: Photograph) -> Mask | None:
    """Where a defect shows; None if it is too faint, too small or too large to be a fair one."""
    change = blur(np.abs(flawed - sound).max(2), 0.7)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mask = cv2.morphologyEx((change > VISIBLE).astype(np.uint8), cv2.MORPH_CLOSE, disc)
    fair = AREA[0] <= mask.mean() <= AREA[1] and change.max() >= STRIKING
    return mask.astype(bool) if fair else None


def photograph(recipe: Recipe, kind: str, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], Mask]:
    """Draw one image and its mask; ``kind`` is "train", "test" or a defect of the class."""
    key = (recipe.name, kind, index)
    camera = stream(*key, "camera")
    light = Light.draw(stream(recipe.name, "station"), camera)
    sound = _take(recipe, key, light, None, 0)
    if kind not in recipe.defects:
        return develop(sound, light, camera), np.zeros(sound.shape[:2], bool)
    attempts = (_take(recipe, key, light, kind, attempt) for attempt in count())
    judged = ((flawed, _fair_mask(flawed, sound)) for flawed in attempts)
    flawed, mask = next((flawed, mask) for flawed, mask in judged if mask is not None)
    return develop(flawed, light, camera), mask
