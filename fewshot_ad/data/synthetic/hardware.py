"""Loose metal parts: screw, washer, gear."""

from math import cos, pi, sin

import numpy as np
from numpy.random import Generator

from fewshot_ad.data.synthetic.canvas import (
    SIZE,
    Field,
    box,
    bump,
    cover,
    dome,
    grain,
    noise,
    ramp,
)
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _turned(rng: Generator, radius: Field) -> Field:
    """The marks that a lathe leaves: noise that depends on the radius only."""
    marks = noise(rng, SIZE, 1)[:, 0]
    return np.interp(radius, np.arange(SIZE) / 2, marks).astype(np.float32)


@recipe("bent_tip", "rust", "thread_damage")
def screw(it: Item) -> Surface:
    """A countersunk wood screw."""
    u, v = (axis / 1.25 for axis in it.pose(turn=0.3, shift=8).local())
    v = v - it.either() * it.when("bent_tip", 0.006, 0.012) * np.maximum(u - 35, 0) ** 2
    core = np.interp(u, (-80, -77, -62, -20, 55, 80), (17, 18.5, 8, 8, 7, 0.2)).astype(np.float32)
    worn = it.when("thread_damage", 0.9, 1.1) * bump(u, it.flaw.uniform(-10, 50), 17)
    thread = 3.2 * ramp(u, -24, -18) * ramp(-u, -78, -64) * (1 - worn)
    phase = 2 * pi * u / 8.2 + 0.5 * pi * np.clip(v / 9, -1, 1) + it.rng.normal(0, 0.5)
    radius = core + thread * (0.5 + 0.5 * np.cos(phase))
    body = cover(np.maximum(np.abs(v) - radius, np.abs(u) - 80))
    sheet = it.table((0.74, 0.74, 0.74))
    sheet.cast_shadow(body)
    steel = it.colour((0.62, 0.61, 0.58))
    sheet.put(body, steel, 0.8 * dome(v, radius), gloss=0.3, metal=0.8)
    sheet.tint(1 + 0.05 * body * grain(it.rng))
    sheet.body = cover(np.abs(v) - core + 2) * body
    return sheet


@recipe("nick", "rust", "scratch")
def washer(it: Item) -> Surface:
    """A flat ring, turned on a lathe."""
    u, v = it.pose(shift=12, zoom=0.06).local()
    r = np.hypot(u, v)
    edge = np.maximum(r - 86, 41 - r)
    if it.has("nick"):
        angle, where = it.flaw.uniform(0, 2 * pi), (40, 88)[it.flaw.integers(2)]
        bite = np.hypot(u - where * cos(angle), v - where * sin(angle)) - it.flaw.uniform(3, 7)
        edge = np.maximum(edge, -bite - noise(it.flaw, 50, 50))
    body = cover(edge)
    sheet = it.table((0.27, 0.28, 0.3), (0.55, 0.55, 0.54))
    sheet.cast_shadow(body)
    metal = it.colour((0.68, 0.68, 0.68), (0.6, 0.58, 0.54))
    height = 3 + 0.8 * np.clip(-edge, 0, 4) + 0.5 * noise(it.rng, 5, 5)
    sheet.put(body, metal, height, gloss=0.3, metal=0.75)
    sheet.tint(1 + body * (0.05 * _turned(it.rng, r) + 0.04 * grain(it.rng)))
    sheet.body = cover(edge + 4)
    return sheet


@recipe("broken_tooth", "crack", "dent")
def gear(it: Item) -> Surface:
    """A spur gear with a keyed bore and five holes."""
    u, v = it.pose(shift=6, zoom=0.03).local()
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    tooth = np.clip(1.7 * np.cos(18 * angle) + 0.3, -1, 1)
    if it.has("broken_tooth"):
        fracture = it.flaw.uniform(-1.4, -0.2) + 0.3 * noise(it.flaw, 50, 50)
        broken = np.abs(angle - float(it.flaw.integers(-8, 9)) * pi / 9) < pi / 18
        tooth = np.where(broken, np.minimum(tooth, fracture), tooth)
    outline = r - 82 - 7 * tooth
    bore = np.minimum(r - 17, box(u - 15, v, (9, 5)))
    spokes = 2 * pi / 5 * np.arange(5) + 0.3
    holes = [np.hypot(u - 48 * cos(a), v - 48 * sin(a)) - 10 for a in spokes.tolist()]
    edge = np.max([outline, -bore, -np.min(holes, 0)], 0)
    body = cover(edge)
    sheet = it.table((0.45, 0.46, 0.48))
    sheet.cast_shadow(body)
    relief = 4 + np.clip(-edge, 0, 3) + 3 * ramp(-r, -29, -26) + 2 * ramp(r, 66, 69)
    sheet.put(body, it.colour((0.6, 0.6, 0.61)), relief, gloss=0.25, metal=0.65)
    marks = 0.04 * _turned(it.rng, r) + 0.03 * noise(it.rng, 20, 20) + 0.05 * grain(it.rng)
    sheet.tint(1 + body * marks)
    sheet.body = cover(edge + 4)
    return sheet
