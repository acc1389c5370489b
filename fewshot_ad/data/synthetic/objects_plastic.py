"""Moulded, pressed and assembled objects: capsule, pill, cable, connector, circuit board."""

from functools import lru_cache

import numpy as np
from numpy.random import PCG64, Generator

from fewshot_ad.data.synthetic.canvas import (
    Field,
    blob,
    box,
    bump,
    cells,
    cover,
    grain,
    lattice,
    noise,
    stroke,
    text,
)
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.objects_metal import _table
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _imprint(it: Item, words: str, height: float) -> Field:
    """Printed letters, drawn upright; a faulty imprint has lost some of its ink."""
    ink = text(words, height, 2.2)
    if it.defect == "faulty_imprint":
        width = len(words) * height * 0.4
        at = (it.flaw.uniform(-width, width), it.flaw.uniform(-3, 3))
        ink = ink * (1 - blob(it.flaw, at, it.flaw.uniform(7, 12), 0.3))
    return ink * np.clip(0.85 + 0.1 * noise(it.rng, (64, 64)), 0, 1)


@recipe("faulty_imprint", "dent", "crack")
def capsule(it: Item) -> Surface:
    """A two-coloured gelatin capsule with a printed strength."""
    pose = it.pose(shift=12)
    u, v = pose.local()
    radius = 30 + 1.5 * np.clip(u + 4, 0, 1)
    edge = np.hypot(np.maximum(np.abs(u) - 52, 0), v) - radius
    body = cover(edge)
    sheet = _table(it, (0.85, 0.85, 0.84), (0.75, 0.78, 0.8))
    sheet.cast_shadow(body)
    shell = it.colour((0.75, 0.28, 0.12), (0.2, 0.35, 0.6), (0.25, 0.5, 0.35))
    height = np.sqrt(np.maximum(radius**2 - (edge + radius) ** 2, 0))
    sheet.put(body, shell, height, 0.55)
    sheet.paint(body * np.clip(u + 4, 0, 1), it.colour((0.85, 0.83, 0.76)))
    sheet.paint(body * pose.place(_imprint(it, "A250", 15)), (0.1, 0.1, 0.12))
    sheet.tint(1 + 0.03 * body * noise(it.rng, (30, 30)))
    sheet.body = cover(edge + 8)
    return sheet


@recipe("faulty_imprint", "chip", "red_spot")
def pill(it: Item) -> Surface:
    """A pressed, speckled tablet with an imprint."""
    pose = it.pose(shift=10)
    u, v = pose.local()
    edge = box(u, v, (72, 46), 46.0)
    if it.defect == "chip":
        a = it.flaw.uniform(0, 2 * np.pi)
        at = (70 * np.cos(a), 45 * np.sin(a))
        bite = np.hypot(u - at[0], v - at[1]) - it.flaw.uniform(7, 13) - 2 * noise(it.flaw, (50, 50))
        edge = np.maximum(edge, -bite)
    body = cover(edge)
    sheet = _table(it, (0.12, 0.13, 0.15), (0.25, 0.3, 0.36))
    sheet.cast_shadow(body)
    pressed = it.colour((0.86, 0.84, 0.8), (0.85, 0.78, 0.62), (0.8, 0.72, 0.7))
    sheet.put(body, pressed, 5 + 0.5 * np.clip(-edge, 0, 14), 0.08)
    ink = pose.place(_imprint(it, "FL5", 24))
    sheet.height -= 2.0 * ink
    sheet.tint(1 - 0.12 * ink)
    speck = np.clip(noise(it.rng, (110, 110)) - 1.6, 0, 1) * body
    sheet.paint(0.5 * speck, (0.55, 0.4, 0.3))
    sheet.height += 0.25 * body * noise(it.rng, (128, 128))
    sheet.body = cover(edge + 8)
    return sheet


@recipe("missing_strand", "cut_insulation", "dirt")
def cable(it: Item) -> Surface:
    """The cut face of a three-core cable."""
    pose = it.pose(turn=np.pi / 9, shift=8, zoom=0.04)
    u, v = pose.local()
    r = np.hypot(u, v)
    sheath = r - 104 + 1.2 * noise(it.rng, (5, 5))
    sheet = _table(it, (0.16, 0.16, 0.17), (0.3, 0.3, 0.3))
    sheet.put(cover(sheath), it.colour((0.45, 0.45, 0.46), (0.6, 0.6, 0.6)), 6.0, 0.15)
    sheet.put(cover(r - 92), it.colour((0.2, 0.2, 0.2)), 0.0)
    depth, label = cells(lattice(it.rng, (10.0, 8.8), 0.12))
    if it.defect == "missing_strand":
        core = it.flaw.integers(3) * 2 * np.pi / 3
        x, y = 46 * np.sin(core) + it.flaw.normal(0, 8), -46 * np.cos(core) + it.flaw.normal(0, 8)
        near = np.hypot(u - x, v - y) < it.flaw.uniform(2, 6)
        depth = np.where(np.isin(label, np.unique(label[near])), np.float32(9), depth)
    tone = it.rng.normal(1, 0.08, label.max() + 1).astype(np.float32)[label]
    jackets = ((0.4, 0.24, 0.14), (0.15, 0.25, 0.5), (0.62, 0.6, 0.15))
    copper = it.colour((0.78, 0.5, 0.32), spread=0.03)
    gouge = it.flaw.uniform(0, 2 * np.pi), it.flaw.integers(3)
    for number, jacket in enumerate(jackets):
        a = number * 2 * np.pi / 3
        du, dv = u - 46 * np.sin(a), v + 46 * np.cos(a)
        rc = np.hypot(du, dv) + 0.8 * noise(it.rng, (8, 8))
        ring = cover(rc - 42)
        if it.defect == "cut_insulation" and number == gouge[1]:
            bite = (du - 38 * np.cos(gouge[0]), dv - 38 * np.sin(gouge[0]))
            ring = ring * (1 - cover(np.hypot(*bite) - it.flaw.uniform(6, 10)))
        sheet.put(ring, it.colour(jacket, spread=0.03), 8 - 0.1 * (rc - 36) ** 2, 0.2)
        inner = cover(rc - 31)
        sheet.put(inner, (0.1, 0.08, 0.07), 0.0)
        wire = inner * cover(depth - 4.6)
        face = np.sqrt(np.clip(30 - depth**2, 0, None))
        sheet.put(wire, tone[..., None] * np.float32(copper), 4 + face * 0.6, 0.35, metal=0.55)
    sheet.tint(1 + 0.03 * grain(it.rng))
    sheet.body = cover(r - 80)
    return sheet


@recipe("missing_pin", "bent_pin", "crack")
def connector(it: Item) -> Surface:
    """A moulded housing with two rows of gold pins."""
    u, v = it.pose(turn=0.2, shift=10, zoom=0.04).local()
    edge = box(u, v, (100, 44), 7.0)
    body = cover(edge)
    sheet = _table(it, (0.7, 0.71, 0.72), (0.6, 0.6, 0.55))
    sheet.cast_shadow(body)
    nylon = it.colour((0.12, 0.12, 0.13), (0.82, 0.8, 0.74), (0.15, 0.2, 0.35))
    well = cover(box(u, v, (92, 36), 4.0))
    sheet.put(body, nylon, 8 + 0.5 * np.clip(-edge, 0, 4), 0.25)
    sheet.paint(cover(box(u, v + 41, (12, 5))) * body, tuple(0.6 * c for c in nylon))
    sheet.height -= 5 * well
    sheet.tint(1 - 0.25 * well)
    bad = it.flaw.integers(8), it.flaw.choice((-1, 1))
    lean = (it.when("bent_pin", 3, 6) * it.flaw.choice((-1, 1)), it.when("bent_pin", -3, 3))
    column = np.clip(np.floor((u + 88) / 22), 0, 7)
    for side in (-1, 1):
        faulty = ((column == bad[0]) & (side == bad[1])).astype(np.float32)
        du, dv = u + 77 - 22 * column, v - 17 * side
        sheet.paint(cover(box(du, dv, (8, 11), 1.0)), (0.05, 0.05, 0.05), 0.0)
        du, dv = du - lean[0] * faulty + 0.3 * np.sin(9 * column), dv - lean[1] * faulty
        pin = cover(box(du, dv, (4, 6), 1.5)) * (1 - faulty * (it.defect == "missing_pin"))
        sheet.put(pin, it.colour((0.8, 0.65, 0.33)), 6 - 0.15 * du**2, 0.4, metal=0.7)
    sheet.tint(1 + 0.03 * body * noise(it.rng, (80, 80)) + 0.01 * grain(it.rng))
    sheet.body = cover(edge + 4)
    return sheet


@lru_cache(maxsize=1)
def _layout() -> tuple[list[np.ndarray], np.ndarray]:
    """The traces and vias of the board, the same on every specimen."""
    rng = Generator(PCG64(7))
    starts, traces = rng.uniform(-110, 110, (34, 2)).round(-1), []
    for x, y in starts:
        dx, diagonal, dy = rng.choice((-60, -40, 40, 60)), rng.choice((8, 16)), rng.choice((-50, 50))
        bend = (x + dx + np.sign(dx) * diagonal, y + np.sign(dy) * diagonal)
        traces.append(np.array([(x, y), (x + dx, y), bend, (bend[0], bend[1] + dy)]))
    return traces, starts


_CHIPS = ((-40.0, -30.0, 30.0, 30.0, 7), (62.0, 48.0, 16.0, 26.0, 4))
_PARTS = ((20, -95, 0), (45, -95, 0), (70, -95, 0), (95, -70, 1), (95, -40, 1), (60, -50, 0), (60, -30, 0),
          (-95, 40, 1), (-70, 40, 1), (-95, 75, 1), (-70, 75, 1), (-30, 60, 0), (-30, 80, 0), (0, 95, 0))  # fmt: skip


@recipe("missing_part", "solder_bridge", "shifted_part", "cut_trace")
def circuit_board(it: Item) -> Surface:
    """A small assembled board: traces, two chips, chip resistors and capacitors."""
    pose = it.pose(turn=0.04, shift=4, zoom=0.015)
    u, v = pose.local()
    mask = it.colour((0.08, 0.32, 0.18), (0.07, 0.27, 0.2), spread=0.04)
    sheet = Surface.of(mask, gloss=0.15)
    sheet.tint(1 + 0.03 * noise(it.rng, (40, 40)) + 0.02 * grain(it.rng))
    traces, vias = _layout()
    copper = stroke(*(pose.points(trace) for trace in traces), width=3.0)
    if it.defect == "cut_trace":
        trace = pose.points(traces[it.flaw.integers(len(traces))][:2]).mean(0)
        copper = copper * (1 - blob(it.flaw, (trace[0], trace[1]), it.flaw.uniform(5, 8)))
    sheet.paint(0.75 * copper, (mask[0] + 0.12, mask[1] + 0.2, mask[2] + 0.08))
    sheet.height += 0.8 * copper
    for x, y in vias:
        ring = np.hypot(u - x, v - y)
        sheet.put(cover(ring - 4.0), (0.75, 0.72, 0.6), 1.0, 0.4, metal=0.5)
        sheet.paint(cover(ring - 1.8), (0.05, 0.05, 0.05), 0.0)
    silk = pose.place(text("PC8-07", 9, 1.3, x=-70, y=112))
    sheet.paint(0.85 * silk, (0.85, 0.86, 0.82))
    for chip in _CHIPS:
        _chip(sheet, it, u, v, *chip)
    bad = it.flaw.integers(len(_PARTS))
    for number, (x, y, upright) in enumerate(_PARTS):
        du, dv = (v - y, u - x) if upright else (u - x, v - y)
        _part(sheet, it, du, dv, number, number == bad)
    return sheet


def _chip(
    sheet: Surface, it: Item, u: Field, v: Field, x: float, y: float, w: float, h: float, pins: int
) -> None:
    """A black package with a row of pins on either side."""
    du, dv = u - x + it.rng.normal(0, 0.7), v - y + it.rng.normal(0, 0.7)
    pitch = 2 * h / pins
    row = np.clip(np.floor((dv + h) / pitch), 0, pins - 1)
    across = dv + h - (row + 0.5) * pitch
    leads = cover(box(np.abs(du) - w - 4, across, (6, 2.2), 1.0))
    sheet.put(leads, (0.72, 0.72, 0.7), 2.0 - 0.2 * across**2, 0.4, metal=0.6)
    package = cover(box(du, dv, (w, h), 2.0))
    if it.defect == "solder_bridge" and pins == 7:
        side, gap = it.flaw.choice((-1, 1)), (it.flaw.integers(1, pins) * pitch) - h
        blobbed = cover(box(du - side * (w + 5), dv - gap, (4.0, 4.5), 3.0) + noise(it.flaw, (60, 60)) * 0.5)
        sheet.put(blobbed, (0.75, 0.75, 0.74), 4.0, 0.5, metal=0.6)
    sheet.cast_shadow(package, 3.0, 0.3)
    sheet.put(package, it.colour((0.09, 0.09, 0.1)), 5 + np.clip(-box(du, dv, (w, h)), 0, 2), 0.2)
    sheet.tint(1 + 0.06 * package * grain(it.rng))
    sheet.paint(cover(np.hypot(du + w - 7, dv + h - 7) - 2.5), (0.2, 0.2, 0.2))


def _part(sheet: Surface, it: Item, du: Field, dv: Field, number: int, bad: bool) -> None:
    """A two-terminal chip on its pads, resistor or capacitor by its number."""
    pads = cover(box(np.abs(du) - 8.5, dv, (3.5, 4.5), 1.0))
    sheet.put(pads, (0.78, 0.77, 0.72), 1.2, 0.4, metal=0.5)
    turn, slip = it.rng.normal(0, 0.02), it.rng.normal(0, 0.4, 2)
    body = it.colour((0.1, 0.1, 0.11) if number % 2 else (0.55, 0.42, 0.28))
    if bad and it.defect == "missing_part":
        return
    if bad and it.defect == "shifted_part":
        turn, slip = it.flaw.choice((-1, 1)) * it.flaw.uniform(0.35, 0.7), slip + it.flaw.normal(0, 2, 2)
    a, b = du - slip[0] + turn * dv, dv - slip[1] - turn * du
    shell = cover(box(a, b, (9, 4.4), 0.8))
    sheet.cast_shadow(shell, 2.0, 0.3)
    sheet.put(shell, (0.7, 0.7, 0.68), 3.5, 0.3, metal=0.5)
    sheet.put(cover(box(a, b, (5.5, 4.4))), body, 3.8, 0.2)


_ = bump
