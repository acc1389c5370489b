"""What carries current: cable, connector, circuit board."""

from functools import lru_cache
from math import cos, pi, sin

import numpy as np

from fewshot_ad.data.synthetic.canvas import (
    Field,
    Points,
    around,
    blob,
    box,
    cells,
    cover,
    dome,
    grain,
    lattice,
    mottle,
    noise,
    stream,
    stroke,
    text,
)
from fewshot_ad.data.synthetic.light import Surface, planes
from fewshot_ad.data.synthetic.recipe import Item, recipe

_JACKETS = ((0.4, 0.25, 0.15), (0.16, 0.25, 0.48), (0.58, 0.56, 0.18))


@recipe("cut_insulation", "fibre", "missing_strand")
def cable(it: Item) -> Surface:
    """The cut face of a three-core cable."""
    u, v = it.pose(turn=pi / 9, shift=8, zoom=0.04).local()
    r = np.hypot(u, v)
    sheet = it.table((0.18, 0.18, 0.19), (0.28, 0.28, 0.28))
    sheath = cover(r - 104 + 1.2 * noise(it.rng, 5, 5))
    sheet.put(sheath, it.colour((0.5, 0.5, 0.51)), 6.0, gloss=0.15)
    sheet.put(cover(r - 92), it.colour((0.2, 0.2, 0.2)))
    depth, strand = cells(lattice(it.rng, (10, 8.8), 0.12))
    copper = planes(it.colour((0.76, 0.5, 0.33))) * mottle(it.rng, strand, 0.08)
    flawed = int(it.flaw.integers(3))
    for number, jacket in enumerate(_JACKETS):
        du, dv = u - 46 * sin(number * 2 * pi / 3), v + 46 * cos(number * 2 * pi / 3)
        core = np.hypot(du, dv) + 0.8 * noise(it.rng, 8, 8)
        ring, wires = cover(core - 42), cover(core - 31) * cover(depth - 4.6)
        if number == flawed:
            ring, wires = _flawed_core(it, du, dv, ring, wires, strand)
        sheet.put(ring, it.colour(jacket), 8 - 0.1 * (core - 36) ** 2, gloss=0.2)
        sheet.put(cover(core - 31), (0.1, 0.08, 0.07))
        sheet.put(wires, copper, 4 + 0.6 * dome(depth, 5.5), gloss=0.35, metal=0.55)
    sheet.tint(1 + 0.03 * grain(it.rng))
    sheet.body = cover(r - 80)
    return sheet


def _flawed_core(
    it: Item, u: Field, v: Field, ring: Field, wires: Field, strand: np.ndarray
) -> tuple[Field, Field]:
    """Insulation and wires of the core that a defect happens to."""
    angle = it.flaw.uniform(0, 2 * pi)
    if it.has("cut_insulation"):
        notch = cover(np.hypot(u - 38 * cos(angle), v - 38 * sin(angle)) - it.flaw.uniform(5, 9))
        ring = ring * (1 - notch)
    if it.has("missing_strand"):
        reach = it.flaw.uniform(0, 18)
        near = np.hypot(u - reach * cos(angle), v - reach * sin(angle)) < it.flaw.uniform(1.5, 5)
        wires = wires * ~np.isin(strand, np.unique(strand[near]))
    return ring, wires


@recipe("bent_pin", "crack", "missing_pin")
def connector(it: Item) -> Surface:
    """A moulded housing with two rows of gold pins."""
    u, v = it.pose(turn=0.2, shift=10, zoom=0.04).local()
    edge = box(u, v, (100, 44), 7)
    body = cover(edge)
    sheet = it.table((0.68, 0.68, 0.69), (0.58, 0.59, 0.57))
    sheet.cast_shadow(body)
    nylon = it.colour((0.75, 0.73, 0.68))
    sheet.put(body, nylon, 8 + 0.5 * np.clip(-edge, 0, 4), gloss=0.25)
    well = cover(box(u, v, (92, 36), 4))
    sheet.height -= 5 * well
    sheet.tint((1 - 0.25 * well) * (1 - 0.4 * cover(box(u, v + 41, (12, 5))) * body))
    column = np.clip(np.floor((u + 88) / 22), 0, 7)
    faulty = (column == float(it.flaw.integers(8))) & (v * it.either() > 0)
    lean = (it.either() * it.when("bent_pin", 2, 5), it.when("bent_pin", -3, 3))
    du, dv = u + 77 - 22 * column, np.abs(v) - 17
    sheet.paint(cover(box(du, dv, (8, 11), 1)), (0.05, 0.05, 0.05), gloss=0.0)
    du, dv = du - lean[0] * faulty + 0.3 * np.sin(9 * column), dv - lean[1] * faulty
    pin = cover(box(du, dv, (4, 6), 1.5)) * (1 - faulty * float(it.has("missing_pin")))
    sheet.put(pin, it.colour((0.78, 0.65, 0.36)), 6 - 0.15 * du * du, gloss=0.4, metal=0.7)
    sheet.tint(1 + 0.03 * body * noise(it.rng, 80, 80) + 0.01 * grain(it.rng))
    sheet.body = cover(edge + 4)
    return sheet


_CHIPS = ((-40, -30, 30, 30, 7), (62, 48, 16, 26, 4))
"""x, y, half width, half height, pins on a side."""

_PARTS = (
    *((20, -95, 0), (45, -95, 0), (70, -95, 0), (95, -70, 1), (95, -40, 1), (60, -50, 0)),
    *((60, -25, 0), (-95, 40, 1), (-70, 40, 1), (-95, 75, 1), (-70, 75, 1), (-30, 60, 0)),
    *((-30, 85, 0), (5, 95, 0)),
)
"""x, y, whether upright."""

_TIN = (0.76, 0.75, 0.71)


@lru_cache(maxsize=1)
def _traces() -> tuple[Points, ...]:
    """The copper of the board, the same on every specimen."""
    rng = stream("circuit_board", "layout")
    traces = []
    for x, y in rng.uniform(-110, 110, (34, 2)).round(-1).tolist():
        across, down = rng.choice((-60, -40, 40, 60)), rng.choice((-50, 50))
        bend = (x + across + np.sign(across) * 12, y + np.sign(down) * 12)
        traces.append(np.array([(x, y), (x + across, y), bend, (bend[0], bend[1] + down)]))
    return tuple(traces)


@recipe("cut_trace", "missing_part", "shifted_part", "solder_bridge")
def circuit_board(it: Item) -> Surface:
    """A small assembled board: traces, two chips, chip resistors and capacitors."""
    pose = it.pose(turn=0.04, shift=4, zoom=0.015)
    u, v = pose.local()
    mask = it.colour((0.08, 0.31, 0.18), spread=0.03)
    sheet = Surface.of(mask, gloss=0.15)
    sheet.tint(1 + 0.03 * noise(it.rng, 40, 40) + 0.02 * grain(it.rng))
    traces = [pose.points(trace) for trace in _traces()]
    copper = stroke(*traces, width=3)
    if it.has("cut_trace"):
        x, y = traces[it.flaw.integers(len(traces))][:2].mean(0).tolist()
        copper = copper * (1 - blob(it.flaw, (x, y), it.flaw.uniform(5, 8)))
    sheet.paint(0.75 * copper, (mask[0] + 0.2, mask[1] + 0.3, mask[2] + 0.14))
    sheet.height += 0.8 * copper
    via, _ = cells(np.stack([trace[0] for trace in traces]))
    sheet.put(cover(via - 4), _TIN, 1.0, gloss=0.4, metal=0.5)
    sheet.paint(cover(via - 1.8), (0.05, 0.05, 0.05), gloss=0.0)
    sheet.paint(0.85 * pose.place(text("PC8-07", 9, 1.3, (-70, 112))), (0.85, 0.86, 0.82))
    for x, y, *size in _CHIPS:
        where = around((x + pose.x, y + pose.y), 50)
        _mount_chip(sheet.part(where), it, u[where] - x, v[where] - y, *size)
    flawed = int(it.flaw.integers(len(_PARTS)))
    for number, (x, y, upright) in enumerate(_PARTS):
        where = around((x + pose.x, y + pose.y), 28)
        along, across = u[where] - x, v[where] - y
        if upright:
            along, across = across, along
        _mount_part(sheet.part(where), it, along, across, number % 2, number == flawed)
    return sheet


def _mount_chip(sheet: Surface, it: Item, u: Field, v: Field, w: int, h: int, pins: int) -> None:
    """A black package with a row of pins on either side."""
    dx, dy = it.rng.normal(0, 0.7, 2).tolist()
    u, v, pitch = u + dx, v + dy, 2 * h / pins
    row = np.clip(np.floor((v + h) / pitch), 0, pins - 1)
    across = v + h - (row + 0.5) * pitch
    pin = cover(box(np.abs(u) - w - 4, across, (6, 2.2), 1))
    sheet.put(pin, _TIN, 2 - 0.2 * across**2, gloss=0.4, metal=0.6)
    if it.has("solder_bridge") and pins == 7:
        gap = float(it.flaw.integers(1, pins)) * pitch - h
        solder = box(u - it.either() * (w + 5), v - gap, (4, it.flaw.uniform(3.5, 5)), 3)
        sheet.put(cover(solder), _TIN, 4.0, gloss=0.5, metal=0.6)
    edge = box(u, v, (w, h), 2)
    package = cover(edge)
    sheet.cast_shadow(package, 3, 0.3)
    sheet.put(package, it.colour((0.09, 0.09, 0.1)), 5 + np.clip(-edge, 0, 2), gloss=0.2)
    sheet.paint(cover(np.hypot(u + w - 7, v + h - 7) - 2.5), (0.2, 0.2, 0.2))


def _mount_part(sheet: Surface, it: Item, u: Field, v: Field, kind: int, flawed: bool) -> None:
    """A resistor or a capacitor on its two pads."""
    sheet.put(cover(box(np.abs(u) - 8.5, v, (3.5, 4.5), 1)), _TIN, 1.2, gloss=0.4, metal=0.5)
    turn, (dx, dy) = it.rng.normal(0, 0.02), it.rng.normal(0, 0.4, 2).tolist()
    core = it.colour(((0.5, 0.4, 0.28), (0.1, 0.1, 0.11))[kind])
    if flawed and it.has("missing_part"):
        return
    if flawed and it.has("shifted_part"):
        turn, dy = it.either() * it.flaw.uniform(0.2, 0.6), it.flaw.uniform(-3, 3)
    u, v = u - dx + turn * v, v - dy - turn * u
    shell = cover(box(u, v, (9, 4.4), 0.8))
    sheet.cast_shadow(shell, 2, 0.3)
    sheet.put(shell, _TIN, 3.5, gloss=0.3, metal=0.5)
    sheet.put(cover(box(u, v, (5.5, 4.4))), core, 3.8, gloss=0.2)
