"""What repeats: grid, metal mesh, carpet, denim."""

from math import cos, pi, sin

import numpy as np

from fewshot_ad.data.synthetic.canvas import (
    SIZE,
    Field,
    X,
    Y,
    bump,
    cells,
    cover,
    dome,
    grain,
    lattice,
    mottle,
    noise,
    pick,
)
from fewshot_ad.data.synthetic.light import Surface, planes
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _bulge(it: Item, defect: str, low: float, high: float, width: float) -> Field | float:
    """A local displacement in pixels: zero, unless the specimen has the defect."""
    size = it.either() * it.when(defect, low, high)
    if not size:
        return 0.0
    x, y = pick(it.flaw, np.ones_like(X), margin=30)
    return size * bump(np.hypot(X - x, Y - y), 0, width)


def _unbroken(it: Item, defect: str, line: Field, along: Field, low: float, high: float) -> Field:
    """1 everywhere, except along a piece of one line of a specimen that has the defect."""
    x, y = pick(it.flaw, np.ones_like(X), margin=30)
    here = (round(y + SIZE / 2), round(x + SIZE / 2))
    torn = (line == line[here]) & (np.abs(along - along[here]) < it.flaw.uniform(low, high))
    return 1 - (torn & it.has(defect)).astype(np.float32)


@recipe("bent", "broken", "fibre")
def grid(it: Item) -> Surface:
    """A diamond grid of moulded bars over a lit table."""
    angle = pi / 4 + it.rng.uniform(-0.12, 0.12)
    x, y = it.pose(turn=0, shift=16, zoom=0.04).local()
    u, v = cos(angle) * x + sin(angle) * y, cos(angle) * y - sin(angle) * x
    u, v = u + 0.6 * noise(it.rng, 5, 5), v + 0.6 * noise(it.rng, 5, 5)
    u = u + _bulge(it, "bent", 3, 6, 34)
    half = it.rng.uniform(2.7, 3.3)
    sheet = it.table((0.74, 0.74, 0.72), (0.68, 0.69, 0.7))
    bars, relief = np.zeros_like(u), np.zeros_like(u)
    for across, along, defect in ((u, v, ""), (v, u, "broken")):
        line = np.round(across / 24)
        offset = across - 24 * line
        bar = cover(np.abs(offset) - half) * _unbroken(it, defect, line, along, 4, 9)
        bars, relief = np.maximum(bars, bar), np.maximum(relief, bar * dome(offset, 3.0))
    sheet.cast_shadow(bars, 3, 0.3)
    sheet.put(bars, it.colour((0.29, 0.29, 0.29)), 3 + relief, gloss=0.3)
    return sheet


@recipe("broken_wire", "dirt", "wrong_spacing")
def metal_mesh(it: Item) -> Surface:
    """A wire cloth: each wire runs over and under those it crosses."""
    u, v = it.pose(turn=0.15, shift=10, zoom=0.03).local()
    u, v = u + 0.5 * noise(it.rng, 6, 6), v + 0.5 * noise(it.rng, 6, 6)
    u = u + _bulge(it, "wrong_spacing", 2.5, 5, 26)
    sheet = it.table((0.14, 0.14, 0.14))
    metal = it.colour((0.7, 0.7, 0.69), (0.64, 0.63, 0.6))
    wires = []
    for across, along, side, defect in ((u, v, 1, ""), (v, u, -1, "broken_wire")):
        line = np.round(across / 13)
        offset = across - 13 * line
        over = side * np.cos(pi * (along / 13 + line))
        wire = cover(np.abs(offset) - 3.1) * _unbroken(it, defect, line, along, 8, 22)
        wires.append((wire, 5 + dome(offset, 3.2) + 2.2 * over, over))
    (lower, low, _), (upper, high, over) = wires
    sheet.put(lower, metal, low, gloss=0.3, metal=0.7)
    hidden = lower * np.clip(0.5 - 4.4 * over, 0, 1)
    sheet.put(upper * (1 - hidden), metal, high, gloss=0.3, metal=0.7)
    sheet.tint(1 + 0.06 * grain(it.rng) + 0.04 * noise(it.rng, 12, 12))
    return sheet


@recipe("colour_spot", "cut", "fibre", "hole")
def carpet(it: Item) -> Surface:
    """Short loops of melange yarn in staggered rows."""
    loops = lattice(it.rng, (8, 5), 0.16)
    loops = it.pose(turn=0.1, shift=4).points(
        loops + 1.5 * np.sin(loops[:, ::-1] / 40 + it.rng.uniform(0, 2 * pi, 2))
    )
    depth, loop = cells(loops)
    sheet = Surface.of(it.colour((0.45, 0.44, 0.43), (0.42, 0.42, 0.43), spread=0.03))
    melange = 1 + 0.14 * grain(it.rng) + 0.05 * noise(it.rng, 8, 8)
    sheet.tint(mottle(it.rng, loop, 0.13) * melange)
    sheet.height += dome(depth, 5.1) + 0.5 * noise(it.rng, 128, 128)
    return sheet


@recipe("bleach", "broken_yarn", "fibre")
def denim(it: Item) -> Surface:
    """A twill: indigo warp over pale weft."""
    u, v = it.pose(turn=0.1, shift=10, zoom=0.05).local()
    u, v = (u + 0.7 * noise(it.rng, 5, 5)) / 5, (v + 0.7 * noise(it.rng, 5, 5)) / 5
    warp, weft = np.floor(u), np.floor(v)
    over = ((warp + weft) % 3 != 0) * _unbroken(it, "broken_yarn", warp, v, 2, 6)
    dye, pale = it.rng.normal(1, ((0.09,), (0.06,)), (2, 256)).astype(np.float32)
    indigo = it.colour((0.17, 0.22, 0.37), (0.15, 0.19, 0.31))
    sheet = Surface.of(it.colour((0.64, 0.64, 0.62)))
    sheet.tint(pale[weft.astype(int) % 256])
    streaks = dye[warp.astype(int) % 256] + 0.05 * noise(it.rng, 10, 128)
    sheet.paint(over, planes(indigo) * streaks)
    within = np.where(over > 0.5, u - warp, v - weft) - 0.5
    sheet.height += 1.6 * (1 - 4 * within**2) + 0.8 * over
    sheet.tint(1 + 0.1 * grain(it.rng) + 0.04 * noise(it.rng, 9, 9))
    return sheet
