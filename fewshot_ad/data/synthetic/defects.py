"""Defects that can happen to any surface. Each changes the surface in place, somewhere on its body."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import (
    Colour,
    Field,
    blob,
    blur,
    bump,
    grain,
    noise,
    pick,
    Pose,
    stroke,
    wander,
)
from fewshot_ad.data.synthetic.light import Surface

Defect = Callable[[Surface, Generator], None]


def _near(brightness: float, rng: Generator, contrast: float) -> float:
    """A tone that stands out from a brightness: darker on light ground, lighter on dark ground."""
    down = brightness > 0.45
    return brightness * (1 - contrast) if down else brightness + (1 - brightness) * contrast


def _ground(surface: Surface, alpha: Field) -> Colour:
    """The mean colour under a shape."""
    weight = alpha / max(float(alpha.sum()), 1e-6)
    red, green, blue = (float((surface.colour[..., c] * weight).sum()) for c in range(3))
    return red, green, blue


def scratch(surface: Surface, rng: Generator) -> None:
    """A thin groove or two, brighter or darker than the ground."""
    at, angle = pick(rng, surface.body), rng.uniform(0, np.pi)
    width = rng.uniform(1.0, 2.0)
    lines = [
        wander(rng, (at[0] + rng.normal(0, 5), at[1] + rng.normal(0, 5)), length, angle, 0.06)
        for length in rng.uniform(25, 70, rng.integers(1, 3))
    ]
    alpha = stroke(*lines, width=width) * surface.body
    red, green, blue = _ground(surface, alpha)
    tone = rng.uniform(0.25, 0.5)
    surface.paint(0.8 * alpha, (_near(red, rng, tone), _near(green, rng, tone), _near(blue, rng, tone)))
    surface.height -= 1.2 * blur(alpha, 0.7)


def crack(surface: Surface, rng: Generator) -> None:
    """A jagged dark line that branches."""
    at, angle = pick(rng, surface.body), rng.uniform(0, 2 * np.pi)
    main = wander(rng, at, rng.uniform(35, 80), angle, 0.35)
    fork = wander(rng, (0.0, 0.0), rng.uniform(12, 28), angle + rng.choice((-0.9, 0.9)), 0.3)
    fork = fork - fork[0] + main[len(main) // 2]
    alpha = np.maximum(stroke(main, width=rng.uniform(1.2, 2.2)), stroke(fork, width=1.0)) * surface.body
    red, green, blue = _ground(surface, alpha)
    surface.paint(0.85 * alpha, (0.3 * red, 0.3 * green, 0.3 * blue), gloss=0.0)
    surface.height -= 2.0 * blur(alpha, 0.8)


def dent(surface: Surface, rng: Generator) -> None:
    """A shallow pit with a raised rim: seen by its shading only."""
    at, radius = pick(rng, surface.body), rng.uniform(6, 13)
    u, v = Pose(rng.uniform(0, np.pi), *at).local()
    distance = np.hypot(u, v * rng.uniform(1, 1.6)) / radius
    pit = -bump(distance, 0.0, 1.1) + 0.3 * bump(distance, 1.1, 0.5)
    surface.height += radius * rng.uniform(0.25, 0.45) * pit * surface.body


def stain(
    surface: Surface, rng: Generator, colour: Colour, strength: float = 0.6, gloss: float | None = None
) -> None:
    """Something spilt: soft inside, uneven, a little darker at its edge."""
    shape = blob(rng, pick(rng, surface.body), rng.uniform(6, 16), 0.35, rng.uniform(1, 2))
    shape = blur(shape, 0.8) * surface.body
    rim = np.clip(shape - blur(shape, 2.5), 0, 1)
    uneven = np.clip(0.8 + 0.2 * noise(rng, (48, 48), 2), 0.3, 1) + rim
    surface.paint(np.clip(strength * shape * uneven, 0, 1), colour, gloss)


def corrosion(surface: Surface, rng: Generator) -> None:
    """Rust: a cluster of rough brown spots that eat the polish."""
    at, spread = pick(rng, surface.body), rng.uniform(4, 9)
    spots = [
        blob(rng, (at[0] + dx, at[1] + dy), radius, 0.45)
        for dx, dy, radius in zip(*rng.normal(0, spread, (2, 5)), rng.uniform(2, 6, 5), strict=True)
    ]
    alpha = np.max(spots, 0) * surface.body * rng.uniform(0.6, 0.85)
    rough = np.clip(1 + 0.25 * grain(rng), 0.3, 1.7)[..., None]
    surface.paint(alpha, np.float32((0.45, 0.25, 0.12)) * rough, gloss=0.0)
    surface.metal *= 1 - alpha
    surface.height += 0.5 * alpha * grain(rng)


def hole(surface: Surface, rng: Generator) -> None:
    """A deep round hole with a ragged lip."""
    shape = blob(rng, pick(rng, surface.body), rng.uniform(4, 9), 0.2) * surface.body
    red, green, blue = _ground(surface, shape)
    surface.height -= 5 * blur(shape, 1.2)
    surface.paint(0.85 * shape, (0.2 * red, 0.2 * green, 0.2 * blue), gloss=0.0)
    surface.metal *= 1 - shape


def fibre(surface: Surface, rng: Generator, colour: Colour | None = None) -> None:
    """A loose thread that lies on the surface and casts a shadow."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(35, 80), rng.uniform(0, 6.3), 0.18)
    alpha = stroke(line, width=rng.uniform(1.4, 2.4))
    red, green, blue = _ground(surface, alpha)
    tone = rng.uniform(0.5, 0.8)
    surface.tint(1 - 0.35 * blur(np.roll(alpha, (2, 2), (0, 1)), 1.2))
    own = (_near(red, rng, tone), _near(green, rng, tone), _near(blue, rng, tone))
    surface.put(0.9 * alpha, colour or own, surface.height + 1.5)


def cut(surface: Surface, rng: Generator) -> None:
    """A straight slit whose lips stand up."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(20, 45), rng.uniform(0, np.pi), 0.03)
    slit = stroke(line, width=rng.uniform(1.6, 2.8)) * surface.body
    red, green, blue = _ground(surface, slit)
    surface.height += 2.0 * blur(slit, 2.5) - 4.0 * blur(slit, 0.8)
    surface.paint(0.8 * slit, (0.25 * red, 0.25 * green, 0.25 * blue), gloss=0.0)


def fold(surface: Surface, rng: Generator) -> None:
    """A soft crease."""
    line = wander(rng, pick(rng, surface.body), rng.uniform(45, 80), rng.uniform(0, np.pi), 0.05)
    crease = blur(stroke(line, width=3.0), 1.5) * surface.body
    surface.height += rng.uniform(3.5, 5.5) * crease * rng.choice((-1, 1))


def rough_patch(surface: Surface, rng: Generator) -> None:
    """A patch where the finish is gone: matt and grainy."""
    shape = blur(blob(rng, pick(rng, surface.body), rng.uniform(9, 16), 0.4), 1.0) * surface.body
    surface.height += shape * noise(rng, (110, 110)) * rng.uniform(0.7, 1.1)
    surface.gloss *= 1 - shape


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "dent": dent,
    "rust": corrosion,
    "hole": hole,
    "fibre": fibre,
    "cut": cut,
    "fold": fold,
    "rough": rough_patch,
    "oil": partial(stain, colour=(0.12, 0.10, 0.07), strength=0.45, gloss=0.5),
    "glue": partial(stain, colour=(0.85, 0.82, 0.72), strength=0.5, gloss=0.6),
    "ink": partial(stain, colour=(0.15, 0.16, 0.35), strength=0.6),
    "red_spot": partial(stain, colour=(0.65, 0.15, 0.12), strength=0.55),
    "bleach": partial(stain, colour=(0.8, 0.8, 0.78), strength=0.45),
    "dirt": partial(stain, colour=(0.25, 0.2, 0.14), strength=0.75),
}
