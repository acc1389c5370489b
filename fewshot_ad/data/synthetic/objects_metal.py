"""Metal objects: screw, washer, gear, bottle cap, zipper."""

import numpy as np

from fewshot_ad.data.synthetic.canvas import (
    SIZE,
    Field,
    Pose,
    box,
    bump,
    cover,
    grain,
    noise,
    polygon,
    text,
)
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _table(it: Item, *choices: tuple[float, float, float]) -> Surface:
    """The sheet that objects lie on."""
    sheet = Surface.of(it.colour(*choices, spread=0.03))
    sheet.tint(1 + 0.02 * noise(it.rng, (6, 6)) + 0.02 * grain(it.rng))
    return sheet


@recipe("bent_tip", "thread_damage", "scratch")
def screw(it: Item) -> Surface:
    """A countersunk wood screw."""
    u, v = it.pose(shift=12).local()
    u = u * np.float32(it.rng.uniform(0.97, 1.03))
    v = v - it.when("bent_tip", 0.006, 0.012) * it.flaw.choice((-1, 1)) * np.maximum(u - 35, 0) ** 2
    core = np.interp(u, (-80, -77, -62, -20, 55, 80), (17, 18.5, 8, 8, 7, 0.2)).astype(np.float32)
    thread = 3.2 * np.clip((u + 24) / 6, 0, 1) * np.clip((78 - u) / 14, 0, 1)
    worn = bump(u, it.flaw.uniform(-10, 50), 14) if it.defect == "thread_damage" else 0.0
    side = np.clip(v / 9, -1, 1)
    phase = 2 * np.pi * u / 8.2 + 0.5 * np.pi * side + it.rng.uniform(0, 2 * np.pi)
    radius = core + thread * (1 - worn) * (0.5 + 0.5 * np.cos(phase))
    body = cover(np.maximum(np.abs(v) - radius, np.abs(u) - 80))
    sheet = _table(it, (0.78, 0.78, 0.77), (0.72, 0.73, 0.75))
    sheet.cast_shadow(body)
    steel = it.colour((0.62, 0.61, 0.58), (0.66, 0.58, 0.40), (0.5, 0.5, 0.52))
    sheet.put(body, steel, np.sqrt(np.maximum(radius**2 - v**2, 0)) * 0.8, 0.3, metal=0.8)
    sheet.tint(1 + 0.05 * body * grain(it.rng))
    sheet.body = cover(np.abs(v) - core + 2) * body
    return sheet


@recipe("scratch", "nick", "rust")
def washer(it: Item) -> Surface:
    """A flat stamped ring, bright, brass or blackened."""
    u, v = it.pose(shift=12, zoom=0.06).local()
    r = np.hypot(u, v)
    nick = np.full_like(r, 1e3)
    if it.defect == "nick":
        a, edge = it.flaw.uniform(0, 2 * np.pi), it.flaw.choice((40, 88))
        nick = np.hypot(u - edge * np.cos(a), v - edge * np.sin(a)) - it.flaw.uniform(4, 8)
        nick = nick + noise(it.flaw, (60, 60))
    edge = np.maximum(np.maximum(r - 86, 41 - r), -nick)
    body = cover(edge)
    sheet = _table(it, (0.25, 0.27, 0.3), (0.6, 0.6, 0.58))
    sheet.cast_shadow(body)
    metal = it.colour((0.7, 0.7, 0.7), (0.72, 0.6, 0.36), (0.33, 0.33, 0.35))
    height = 3 + np.clip(-edge, 0, 4) * 0.8 + 0.5 * noise(it.rng, (5, 5))
    sheet.put(body, metal, height, 0.3, metal=0.75)
    turned = noise(it.rng, (SIZE, 1))[:, 0]
    rings = np.interp(r, np.arange(SIZE) / 2, turned).astype(np.float32)
    sheet.tint(1 + body * (0.05 * rings + 0.04 * grain(it.rng)))
    sheet.body = cover(edge + 4)
    return sheet


@recipe("broken_tooth", "crack", "dent")
def gear(it: Item) -> Surface:
    """A spur gear with a keyed bore and five holes."""
    u, v = it.pose(shift=10).local()
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    tooth = np.clip(1.7 * np.cos(18 * angle) + 0.3, -1, 1)
    if it.defect == "broken_tooth":
        middle = it.flaw.integers(-8, 9) * np.pi / 9
        tooth = tooth - it.flaw.uniform(0.9, 2.0) * bump(angle, middle, 0.2) * (tooth > -1)
    outline = r - 82 - 7 * np.maximum(tooth, -1)
    bore = np.minimum(r - 17, box(u - 15, v, (9, 5)))
    holes = np.min([np.hypot(u - 48 * np.cos(a), v - 48 * np.sin(a)) - 10
                    for a in np.arange(5) * 2 * np.pi / 5 + 0.3], 0)  # fmt: skip
    edge = np.max([outline, -bore, -holes], 0)
    body = cover(edge)
    sheet = _table(it, (0.82, 0.81, 0.78), (0.35, 0.37, 0.4))
    sheet.cast_shadow(body)
    metal = it.colour((0.6, 0.6, 0.62), (0.55, 0.52, 0.47))
    hub = 3 * np.clip((29 - r) / 3, 0, 1) + 2 * np.clip((r - 66) / 3, 0, 1)
    sheet.put(body, metal, 4 + np.clip(-edge, 0, 3) + hub, 0.25, metal=0.65)
    turned = np.interp(r, np.arange(SIZE) / 2, noise(it.rng, (SIZE, 1))[:, 0]).astype(np.float32)
    sheet.tint(1 + body * (0.04 * turned + 0.05 * grain(it.rng) + 0.03 * noise(it.rng, (20, 20))))
    sheet.body = cover(edge + 4)
    return sheet


def _star(points: int, outer: float, inner: float) -> np.ndarray:
    angle = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, outer)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


@recipe("dent", "scratch", "misprint")
def bottle_cap(it: Item) -> Surface:
    """A crown cap with a printed star, seen from above."""
    pose = it.pose(turn=0.06, shift=4, zoom=0.02)
    u, v = pose.local()
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    flute = np.cos(21 * angle + it.rng.normal(0, 0.05))
    edge = r - 103 - 4 * flute
    body = cover(edge)
    skirt = np.clip((r - 78) / 26, 0, 1)
    sheet = _table(it, (0.2, 0.2, 0.21), (0.3, 0.29, 0.28))
    sheet.cast_shadow(body)
    red = it.colour((0.62, 0.13, 0.12), spread=0.05)
    sheet.put(body, red, 14 - 14 * skirt**2 + 2.5 * skirt * flute, 0.45, metal=0.1)
    cream = it.colour((0.88, 0.84, 0.72), spread=0.03)
    sheet.paint(cover(np.abs(r - 66) - 2.5), cream)
    gold = it.colour((0.78, 0.6, 0.25), spread=0.04)
    slip = np.array([it.when("misprint", 4, 8), it.when("misprint", -5, 5)])
    sheet.paint(polygon(pose.points(_star(5, 44, 19) + slip)), cream)
    sheet.paint(polygon(pose.points(_star(5, 26, 12))), gold)
    sheet.paint(pose.place(text("1876", 11, 2, y=52)), cream)
    sheet.tint(1 + 0.02 * grain(it.rng) * body)
    sheet.body = cover(edge + 14)
    return sheet


def _teeth(it: Item, v: Field, offset: float, pitch: float) -> tuple[Field, Field]:
    """The number of the nearest tooth of one side, and the distance across it."""
    row = np.round((v - offset) / pitch)
    return row, v - offset - row * pitch


@recipe("missing_tooth", "split", "frayed")
def zipper(it: Item) -> Surface:
    """A closed metal zipper on woven tape."""
    u, v = it.pose(turn=0.05, shift=4, zoom=0.03).local()
    u = u + noise(it.rng, (3, 3)) * 0.8
    v = v + it.rng.uniform(-6, 6)
    tape = it.colour((0.16, 0.18, 0.25), (0.2, 0.2, 0.2), (0.35, 0.14, 0.15), spread=0.04)
    sheet = Surface.of(tape)
    weave = np.cos(2 * np.pi * (v + np.abs(u)) / 6) * np.cos(2 * np.pi * u / 6)
    sheet.height += 0.7 * weave + 0.3 * noise(it.rng, (90, 90))
    sheet.tint(1 + 0.08 * grain(it.rng) + 0.06 * noise(it.rng, (128, 30)))
    sheet.height += 4 * bump(np.abs(u), 26, 7)
    metal = it.colour((0.75, 0.62, 0.36), (0.68, 0.68, 0.68))
    bad, where = it.flaw.integers(-5, 6), it.flaw.choice((-1, 1))
    opened = it.when("split", 5, 9) * bump(v, it.flaw.uniform(-70, 70), 40)
    for side in (-1, 1):
        row, across = _teeth(it, v, 4.5 * side, 18.0)
        along = u * side - 5.5 - opened
        lost = (row == bad) & (where == side) & (it.defect == "missing_tooth")
        wobble = 0.4 * np.sin(row * 12.9 + side)
        tooth = cover(box(along, across + wobble, (12.5, 4.6), 3.0)) * ~lost
        sheet.cast_shadow(tooth, 3.0, 0.4)
        round_ = 4 * np.sqrt(np.clip(1 - (across / 5) ** 2, 0, 1)) + 2 * bump(along, -8, 6)
        sheet.put(tooth, metal, 4 + round_, 0.4, metal=0.8)
    if it.defect == "frayed":
        _fray(sheet, it)
    return sheet


def _fray(sheet: Surface, it: Item) -> None:
    """A tuft of tape fibres beside the chain."""
    from fewshot_ad.data.synthetic.canvas import stroke, wander

    x, y = it.flaw.choice((-1, 1)) * it.flaw.uniform(45, 95), it.flaw.uniform(-90, 90)
    hairs = [wander(it.flaw, (x + dx, y + dy), 18, it.flaw.uniform(0, 6.3), 0.35)
             for dx, dy in it.flaw.normal(0, 6, (9, 2))]  # fmt: skip
    tuft = stroke(*hairs, width=1.2)
    light = [min(1.0, 0.25 + 1.4 * float(c)) for c in sheet.colour[128, 10]]
    sheet.put(0.8 * tuft, (light[0], light[1], light[2]), sheet.height + 1)
