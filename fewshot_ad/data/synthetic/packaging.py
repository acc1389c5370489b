"""What is pressed, filled and closed: capsule, pill, bottle cap, zipper."""

from math import cos, pi, sin

import numpy as np

from fewshot_ad.data.synthetic.canvas import (
    Field,
    blob,
    box,
    bump,
    cover,
    dome,
    grain,
    noise,
    polygon,
    ramp,
    star,
    text,
)
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _imprint(it: Item, words: str, height: float) -> Field:
    """Letters, drawn upright; a faulty imprint lacks a piece."""
    ink = text(words, height, 2.2) * np.clip(0.85 + 0.1 * noise(it.rng, 64, 64), 0, 1)
    if it.has("faulty_imprint"):
        reach = 0.4 * len(words) * height
        at = (it.flaw.uniform(-reach, reach), it.flaw.uniform(-3, 3))
        ink = ink * (1 - blob(it.flaw, at, it.flaw.uniform(7, 12)))
    return ink


@recipe("crack", "dent", "faulty_imprint")
def capsule(it: Item) -> Surface:
    """A two-coloured gelatin capsule with a printed strength."""
    pose = it.pose(turn=0.35, shift=12)
    u, v = pose.local()
    cap = ramp(u, -4, -3)
    radius = 30 + 1.5 * cap
    axis = np.hypot(np.maximum(np.abs(u) - 52, 0), v)
    body = cover(axis - radius)
    sheet = it.table((0.8, 0.8, 0.79), (0.73, 0.75, 0.77))
    sheet.cast_shadow(body)
    sheet.put(body, it.colour((0.72, 0.3, 0.14)), dome(axis, radius), gloss=0.55)
    sheet.paint(body * cap, it.colour((0.83, 0.8, 0.73)))
    sheet.paint(body * pose.place(_imprint(it, "A250", 15)), (0.1, 0.1, 0.12))
    sheet.tint(1 + 0.03 * body * noise(it.rng, 30, 30))
    sheet.body = cover(axis - radius + 8)
    return sheet


@recipe("chip", "colour_spot", "faulty_imprint")
def pill(it: Item) -> Surface:
    """A pressed, speckled tablet with an imprint."""
    pose = it.pose(turn=0.5, shift=10)
    u, v = pose.local()
    edge = box(u, v, (72, 46), 46)
    if it.has("chip"):
        angle, end = it.flaw.uniform(-1.7, 1.7), it.either()
        at = (end * (26 + 47 * cos(angle)), 47 * sin(angle))
        bite = np.hypot(u - at[0], v - at[1]) - it.flaw.uniform(5, 9)
        edge = np.maximum(edge, -bite - noise(it.flaw, 36, 36))
    body = cover(edge)
    sheet = it.table((0.14, 0.15, 0.17), (0.25, 0.28, 0.33))
    sheet.cast_shadow(body)
    sheet.put(body, it.colour((0.84, 0.81, 0.75)), 5 + 0.5 * np.clip(-edge, 0, 14), gloss=0.08)
    imprint = pose.place(_imprint(it, "FL5", 24)) * body
    sheet.height -= 2 * imprint
    sheet.tint(1 - 0.12 * imprint)
    sheet.paint(0.6 * body * ramp(noise(it.rng, 110, 110), 1.6, 2.6), (0.55, 0.4, 0.3))
    sheet.height += 0.25 * body * noise(it.rng, 128, 128)
    sheet.body = cover(edge + 8)
    return sheet


@recipe("dent", "misprint", "scratch")
def bottle_cap(it: Item) -> Surface:
    """A crown cap with a printed star."""
    pose = it.pose(turn=0.06, shift=4, zoom=0.02)
    u, v = pose.local()
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    flute = np.cos(21 * angle + it.rng.normal(0, 0.05))
    edge = r - 103 - 4 * flute
    body = cover(edge)
    sheet = it.table((0.22, 0.22, 0.23), (0.3, 0.29, 0.28))
    sheet.cast_shadow(body)
    skirt = ramp(r, 78, 104)
    dished = 14 - 14 * skirt**2 + 2.5 * skirt * flute
    sheet.put(body, it.colour((0.6, 0.14, 0.13), spread=0.03), dished, gloss=0.45, metal=0.1)
    cream = it.colour((0.86, 0.82, 0.72))
    sheet.paint(cover(np.abs(r - 66) - 2.5), cream)
    slip = (it.either() * it.when("misprint", 3, 6), it.when("misprint", -4, 4))
    sheet.paint(polygon(pose.points(star(5, 44, 19) + slip)), cream)
    sheet.paint(polygon(pose.points(star(5, 26, 12))), it.colour((0.75, 0.6, 0.28)))
    sheet.paint(pose.place(text("1876", 11, 2, (0, 52))), cream)
    sheet.tint(1 + 0.02 * body * grain(it.rng))
    sheet.body = cover(edge + 14)
    return sheet


@recipe("frayed", "missing_tooth", "split")
def zipper(it: Item) -> Surface:
    """A closed metal zipper on woven tape."""
    u, v = it.pose(turn=0.05, shift=4, zoom=0.03).local()
    u, v = u + 0.8 * noise(it.rng, 3, 3), v + it.rng.uniform(-6, 6)
    sheet = Surface.of(it.colour((0.17, 0.18, 0.23), (0.2, 0.2, 0.21), spread=0.04))
    weave = np.cos(2 * pi / 6 * (v + np.abs(u))) * np.cos(2 * pi / 6 * u)
    sheet.height += 0.7 * weave + 0.3 * noise(it.rng, 90, 90) + 4 * bump(np.abs(u), 26, 7)
    sheet.tint(1 + 0.08 * grain(it.rng) + 0.06 * noise(it.rng, 128, 30))
    metal = it.colour((0.72, 0.64, 0.46))
    lost, lost_side = int(it.flaw.integers(-5, 6)), it.either()
    gap = it.when("split", 2, 4) * bump(v, it.flaw.uniform(-70, 70), 34)
    for side in (-1, 1):
        row = np.round((v - 4.5 * side) / 18)
        along = side * u - 5.5 - gap
        across = v - 4.5 * side - 18 * row + 0.4 * np.sin(12.9 * row + side)
        tooth = cover(box(along, across, (12.5, 4.6), 3))
        if it.has("missing_tooth") and side == lost_side:
            tooth = tooth * (row != lost)
        sheet.cast_shadow(tooth, 3, 0.4)
        relief = 4 + 0.8 * dome(across, 5.0) + 2 * bump(along, -8, 6)
        sheet.put(tooth, metal, relief, gloss=0.4, metal=0.8)
    sheet.body = cover(38 - np.abs(u))
    return sheet
