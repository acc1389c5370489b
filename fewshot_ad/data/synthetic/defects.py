"""Defects that can happen to any surface: each changes it in place, somewhere on its body."""

from collections.abc import Callable
from functools import partial
from math import pi

import numpy as np
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import (
    Field,
    Pose,
    blob,
    blur,
    bump,
    grain,
    noise,
    pick,
    stroke,
    wander,
)
from fewshot_ad.data.synthetic.light import Colour, Surface, planes

Defect = Callable[[Surface, Generator], None]


def _colour_under(surface: Surface, alpha: Field) -> np.ndarray:
    return (surface.colour * alpha).sum((1, 2)) / max(float(alpha.sum()), 1e-6)


def _darker(surface: Surface, alpha: Field, share: float) -> Colour:
    """The mean colour under a shape, with only a share of its brightness left."""
    red, green, blue = (share * _colour_under(surface, alpha)).tolist()
    return red, green, blue


def _contrasting(surface: Surface, alpha: Field, contrast: float) -> Colour:
    """The mean colour under a shape, moved towards black or white, whichever is farther."""
    ground = _colour_under(surface, alpha)
    end = 0.0 if ground.mean() > 0.4 else 1.0
    red, green, blue = (ground + contrast * (end - ground)).tolist()
    return red, green, blue


def scratch(surface: Surface, rng: Generator) -> None:
    """A thin groove or two, nearly parallel."""
    x, y = pick(rng, surface.body)
    angle, lengths = rng.uniform(0, pi), rng.uniform(22, 65, rng.integers(1, 3)).tolist()
    grooves = [
        wander(rng, (x + 6 * i, y - 4 * i), length, angle, 0.06) for i, length in enumerate(lengths)
    ]
    alpha = stroke(*grooves, width=rng.uniform(0.9, 1.8)) * surface.body
    surface.paint(0.8 * alpha, _contrasting(surface, alpha, rng.uniform(0.35, 0.6)))
    surface.height -= rng.uniform(0.3, 1.0) * blur(alpha, 0.7)


def crack(surface: Surface, rng: Generator) -> None:
    """A jagged dark line that branches."""
    angle = rng.uniform(0, 2 * pi)
    main = wander(rng, pick(rng, surface.body), rng.uniform(30, 70), angle, 0.35)
    fork = wander(rng, (0.0, 0.0), rng.uniform(10, 25), angle + rng.choice((-0.9, 0.9)), 0.3)
    branch = stroke(fork - fork[0] + main[len(main) // 2], width=0.8)
    alpha = np.maximum(stroke(main, width=rng.uniform(1.1, 1.9)), branch) * surface.body
    surface.paint(0.8 * alpha, _darker(surface, alpha, 0.25), gloss=0.0)
    surface.height -= 1.2 * blur(alpha, 0.8)


def dent(surface: Surface, rng: Generator) -> None:
    """A shallow pit with a raised rim, seen by its shading only."""
    u, v = Pose(rng.uniform(0, pi), *pick(rng, surface.body)).local()
    radius = rng.uniform(6, 13)
    distance = np.hypot(u, v * rng.uniform(1, 1.6)) / radius
    pit = 0.3 * bump(distance, 1.1, 0.5) - bump(distance, 0, 1.1)
    surface.height += radius * rng.uniform(0.15, 0.35) * pit * surface.body


def stain(
    surface: Surface, rng: Generator, colour: Colour, strength: float, gloss: float | None = None
) -> None:
    """Something spilt: soft, uneven, stronger at its edge."""
    spot = blob(rng, pick(rng, surface.body), rng.uniform(6, 15), 0.35, rng.uniform(1, 2))
    spot = blur(spot, 0.8) * surface.body
    edge = np.clip(spot - blur(spot, 2.5), 0, 1)
    uneven = np.clip(0.8 + 0.2 * noise(rng, 48, 48, 2), 0.3, 1) + edge
    alpha = np.clip(rng.uniform(0.6, 1) * strength * spot * uneven, 0, 1)
    surface.paint(alpha, colour, gloss)


def rust(surface: Surface, rng: Generator) -> None:
    """A cluster of rough brown spots that eat the polish."""
    x, y = pick(rng, surface.body)
    spread, radii = rng.uniform(4, 9), rng.uniform(1.5, 5, 5).tolist()
    offsets = rng.normal(0, spread, (5, 2)).tolist()
    spots = [
        blob(rng, (x + dx, y + dy), r, 0.45) for (dx, dy), r in zip(offsets, radii, strict=True)
    ]
    alpha = np.max(spots, 0) * surface.body * rng.uniform(0.35, 0.8)
    rough = np.clip(1 + 0.25 * grain(rng), 0.3, 1.7)
    surface.paint(alpha, planes((0.42, 0.26, 0.15)) * rough, gloss=0.0)
    surface.metal *= 1 - alpha
    surface.height += 0.5 * alpha * grain(rng)


def hole(surface: Surface, rng: Generator) -> None:
    """A round hole with a ragged lip."""
    pit = blob(rng, pick(rng, surface.body), rng.uniform(4, 8), 0.2) * surface.body
    surface.paint(rng.uniform(0.5, 0.85) * pit, _darker(surface, pit, 0.25), gloss=0.0)
    surface.height -= 4 * blur(pit, 1.2)
    surface.metal *= 1 - pit


def fibre(surface: Surface, rng: Generator) -> None:
    """A loose thread that lies on the surface and casts a shadow."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(30, 75), rng.uniform(0, 2 * pi), 0.18)
    thread = stroke(line, width=rng.uniform(1.4, 2.2))
    colour = _contrasting(surface, thread, rng.uniform(0.5, 0.85))
    surface.tint(1 - 0.3 * blur(np.roll(thread, (2, 2), (0, 1)), 1.2))
    surface.put(0.9 * thread, colour, surface.height + 1.5)


def cut(surface: Surface, rng: Generator) -> None:
    """A straight slit whose lips stand up."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(20, 45), rng.uniform(0, pi), 0.03)
    slit = stroke(line, width=rng.uniform(1.2, 2.4)) * surface.body
    surface.height += 2 * blur(slit, 2.5) - 3 * blur(slit, 0.8)
    surface.paint(0.75 * slit, _darker(surface, slit, 0.3), gloss=0.0)


def fold(surface: Surface, rng: Generator) -> None:
    """A soft crease."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(45, 80), rng.uniform(0, pi), 0.05)
    crease = blur(stroke(line, width=3.0), 1.5) * surface.body
    surface.height += float(rng.choice((-1, 1))) * rng.uniform(5, 8) * crease


def fray(surface: Surface, rng: Generator) -> None:
    """A tuft of torn fibres, a little lighter than the cloth."""
    x, y = pick(rng, surface.body, margin=20)
    hairs = [
        wander(rng, (x + dx, y + dy), 18, rng.uniform(0, 2 * pi), 0.35)
        for dx, dy in rng.normal(0, 5, (8, 2)).tolist()
    ]
    tuft = stroke(*hairs, width=1.1)
    surface.put(0.8 * tuft, _contrasting(surface, tuft, rng.uniform(0.3, 0.45)), surface.height + 1)


DEFECTS: dict[str, Defect] = {
    "crack": crack,
    "cut": cut,
    "dent": dent,
    "fibre": fibre,
    "fold": fold,
    "frayed": fray,
    "hole": hole,
    "rust": rust,
    "scratch": scratch,
    "bleach": partial(stain, colour=(0.8, 0.8, 0.78), strength=0.5),
    "colour_spot": partial(stain, colour=(0.6, 0.2, 0.15), strength=0.65),
    "dirt": partial(stain, colour=(0.2, 0.16, 0.11), strength=0.9),
    "glue": partial(stain, colour=(0.82, 0.79, 0.7), strength=0.45, gloss=0.4),
    "ink": partial(stain, colour=(0.15, 0.16, 0.32), strength=0.5),
    "oil": partial(stain, colour=(0.12, 0.10, 0.07), strength=0.65, gloss=0.5),
}
