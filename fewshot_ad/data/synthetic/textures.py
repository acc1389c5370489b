"""Textures that fill the frame: woven, grown, fired and rolled."""

import numpy as np

from fewshot_ad.data.synthetic.canvas import (
    Field,
    blob,
    blur,
    bump,
    cells,
    cover,
    grain,
    lattice,
    noise,
    pick,
)
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.recipe import Item, recipe


def _bulge(it: Item, defect: str, low: float, high: float, width: float) -> Field:
    """A local displacement in pixels: zero, unless the specimen has the defect."""
    sheet = Surface.of((0.0, 0.0, 0.0))
    sheet.body[:24], sheet.body[-24:], sheet.body[:, :24], sheet.body[:, -24:] = 0, 0, 0, 0
    x, y = pick(it.flaw, sheet.body)
    from fewshot_ad.data.synthetic.canvas import X, Y

    size = it.when(defect, low, high) * it.flaw.choice((-1, 1))
    return np.float32(size) * bump(np.hypot(X - np.float32(x), Y - np.float32(y)), 0.0, width)


def _gap(it: Item, defect: str, u: Field, line: np.ndarray, reach: tuple[float, float]) -> Field:
    """1 where one line is torn: line number and the place along it are random."""
    if it.defect != defect:
        return np.zeros_like(u)
    number = float(it.flaw.integers(-3, 4))
    torn = np.abs(u - it.flaw.uniform(-60, 60)) < it.flaw.uniform(*reach)
    return ((line == number) & torn).astype(np.float32)


@recipe("broken", "bent", "glue")
def grid(it: Item) -> Surface:
    """A diamond grid of thin moulded bars over a lit table."""
    turn = np.pi / 4 + it.rng.uniform(-0.12, 0.12)
    u, v = it.pose(turn=0.0, shift=16, zoom=0.04).local()
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = cos * u + sin * v, cos * v - sin * u
    u, v = u + 0.6 * noise(it.rng, (5, 5)), v + 0.6 * noise(it.rng, (5, 5))
    u = u + _bulge(it, "bent", 4, 7, 34)
    sheet = Surface.of(it.colour((0.75, 0.75, 0.73), (0.66, 0.67, 0.7), spread=0.03))
    sheet.tint(1 + 0.03 * noise(it.rng, (8, 8)) + 0.02 * grain(it.rng))
    pitch, half = 24.0, 3.0 + it.rng.uniform(-0.3, 0.3)
    bars = []
    for along, across in ((u, v), (v, u)):
        line = np.round(across / pitch)
        distance = np.abs(across - line * pitch)
        whole = 1 - _gap(it, "broken", along, line, (4, 8)) * (along is u)
        bars.append((cover(distance - half) * whole, np.sqrt(np.clip(9 - distance**2, 0, None))))
    body = np.maximum(bars[0][0], bars[1][0])
    sheet.cast_shadow(body, 3.0, 0.3)
    height = np.maximum(bars[0][0] * bars[0][1], bars[1][0] * bars[1][1])
    sheet.put(body, it.colour((0.28, 0.28, 0.29), (0.35, 0.33, 0.3)), 3 + height, 0.3)
    return sheet


@recipe("broken_wire", "wrong_spacing", "dirt")
def metal_mesh(it: Item) -> Surface:
    """A woven wire cloth."""
    u, v = it.pose(turn=0.5, shift=10, zoom=0.06).local()
    u, v = u + 0.5 * noise(it.rng, (6, 6)), v + 0.5 * noise(it.rng, (6, 6))
    u = u + _bulge(it, "wrong_spacing", 3, 5, 26)
    pitch = 13.0
    sheet = Surface.of(it.colour((0.1, 0.1, 0.1), (0.2, 0.19, 0.18)))
    metal = it.colour((0.72, 0.72, 0.7), (0.75, 0.66, 0.45), (0.6, 0.6, 0.62))
    layers = []
    for along, across, flip in ((u, v, 0.0), (v, u, np.pi)):
        line = np.round(across / pitch)
        distance = across - line * pitch
        whole = 1 - _gap(it, "broken_wire", along, line, (9, 24)) * (flip == 0)
        over = 2.2 * np.cos(np.pi * (along / pitch + line) + flip)
        rise = np.sqrt(np.clip(10 - distance**2, 0, None)) + over
        layers.append((cover(np.abs(distance) - 3.1) * whole, 5 + rise, over))
    (wire_a, high_a, over), (wire_b, high_b, _) = layers
    sheet.put(wire_b, metal, high_b, 0.3, metal=0.7)
    top = wire_a * np.where(wire_b > 0.5, np.clip(0.5 + 2 * over, 0, 1), 1)
    sheet.put(top.astype(np.float32), metal, high_a, 0.3, metal=0.7)
    sheet.tint(1 + 0.06 * grain(it.rng) + 0.04 * noise(it.rng, (12, 12)))
    return sheet


@recipe("red_spot", "cut", "fibre", "hole")
def carpet(it: Item) -> Surface:
    """Short loops of melange yarn in staggered rows."""
    loops = lattice(it.rng, (8.0, 5.0), 0.16)
    bent = loops + 1.5 * np.sin(loops[:, ::-1] / 40 + it.rng.uniform(0, 6.3, 2))
    angle = it.rng.uniform(-0.08, 0.08)
    turned = bent @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    depth, label = cells(turned)
    tone = it.rng.normal(1, 0.12, label.max() + 1).astype(np.float32)[label]
    sheet = Surface.of(it.colour((0.48, 0.47, 0.46), (0.42, 0.4, 0.37), (0.38, 0.42, 0.46)))
    sheet.tint(tone * (1 + 0.14 * grain(it.rng) + 0.05 * noise(it.rng, (8, 8))))
    sheet.height += np.sqrt(np.clip(26 - depth**2, 0, None)) + 0.5 * noise(it.rng, (128, 128))
    return sheet


@recipe("broken_yarn", "bleach", "fibre")
def denim(it: Item) -> Surface:
    """An indigo twill: dyed warp over pale weft."""
    u, v = it.pose(turn=0.1, shift=10, zoom=0.05).local()
    u = u + 0.7 * noise(it.rng, (5, 5))
    v = v + 0.7 * noise(it.rng, (5, 5))
    pitch = 5.0
    warp, weft = np.floor(u / pitch), np.floor(v / pitch)
    over = (warp + weft) % 3 != 0
    over &= _gap(it, "broken_yarn", v, warp, (12, 30)) == 0
    yarn = it.rng.normal(0, 1, (2, 256)).astype(np.float32)
    dye = yarn[0][warp.astype(int) % 256] * 0.09 + 0.05 * noise(it.rng, (10, 128))
    pale = yarn[1][weft.astype(int) % 256] * 0.06
    indigo = np.float32(it.colour((0.16, 0.22, 0.38), (0.13, 0.16, 0.25), (0.3, 0.3, 0.33)))
    cotton = np.float32(it.colour((0.66, 0.66, 0.64)))
    sheet = Surface.of((1.0, 1.0, 1.0))
    dyed = np.where(over[..., None], indigo * (1 + dye[..., None]), cotton * (1 + pale[..., None]))
    sheet.colour = dyed.astype(np.float32)
    within = np.where(over, u / pitch - warp, v / pitch - weft) - 0.5
    sheet.height += 1.6 * (1 - (2 * within) ** 2) + 0.8 * over
    sheet.tint(1 + 0.1 * grain(it.rng) + 0.04 * noise(it.rng, (9, 9)))
    return sheet


@recipe("scratch", "hole", "ink")
def wood(it: Item) -> Surface:
    """A planed board with its rings, fibres and pores."""
    u, v = it.pose(turn=0.06, shift=20, zoom=0.1).local()
    bend = 14 * noise(it.rng, (2, 4)) + 3 * noise(it.rng, (3, 8))
    frequency = it.rng.uniform(0.035, 0.055)
    rings = np.sin(2 * np.pi * frequency * (u + bend) + 1.5 * noise(it.rng, (2, 12)))
    ring_tone = 0.5 + 0.5 * rings * np.abs(rings)
    fibre = noise(it.rng, (10, 200), 1)
    pores = np.clip(noise(it.rng, (26, 240)) - 1.7, 0, 1)
    sheet = Surface.of(it.colour((0.66, 0.48, 0.31), (0.58, 0.4, 0.25), (0.72, 0.57, 0.4)), gloss=0.06)
    sheet.tint(1 - 0.2 * ring_tone + 0.045 * fibre - 0.25 * pores + 0.03 * grain(it.rng))
    sheet.height += 0.15 * fibre - 0.8 * pores
    return sheet


@recipe("crack", "oil", "rough")
def tile(it: Item) -> Surface:
    """A speckled glazed tile."""
    sheet = Surface.of(it.colour((0.72, 0.71, 0.69), (0.66, 0.66, 0.66)), gloss=0.35)
    for size, level, tone in ((28, 0.7, 0.5), (48, 0.9, 0.36), (80, 1.2, 0.2)):
        fleck = np.clip(2.5 * (noise(it.rng, (size, size), 2) - level), 0, 1)
        sheet.paint(0.8 * fleck, it.colour((tone, tone, tone * 0.97)))
    sheet.tint(1 + 0.03 * noise(it.rng, (4, 4)) + 0.015 * grain(it.rng))
    sheet.height += 0.5 * noise(it.rng, (12, 12))
    return sheet


@recipe("cut", "fold", "glue", "hole")
def leather(it: Item) -> Surface:
    """Pebbled full-grain leather."""
    points = lattice(it.rng, (9.0, 7.5), 0.45)
    depth, label = cells(points + 4 * np.sin(points[:, ::-1] / 30 + it.rng.uniform(0, 6.3, 2)))
    pebble = blur(np.clip(1 - (depth / 6.2) ** 2, -0.3, 1), 0.8)
    sheet = Surface.of(it.colour((0.38, 0.23, 0.14), (0.3, 0.17, 0.11), (0.45, 0.3, 0.19)), gloss=0.22)
    tone = it.rng.normal(1, 0.03, label.max() + 1).astype(np.float32)[label]
    sheet.tint(tone * (0.82 + 0.2 * pebble) * (1 + 0.06 * noise(it.rng, (6, 6))))
    sheet.height += 1.8 * pebble + 0.8 * noise(it.rng, (24, 24), 2) + 0.12 * grain(it.rng)
    return sheet


@recipe("scratch", "dent", "rust")
def brushed_metal(it: Item) -> Surface:
    """A rolled and brushed sheet."""
    pose = it.pose(turn=0.15, shift=0.0, zoom=0.0)
    lines = noise(it.rng, (256, 5)) + 0.6 * noise(it.rng, (256, 16)) + 0.5 * noise(it.rng, (90, 3))
    brushed = pose.place(np.ascontiguousarray(lines))
    sheet = Surface.of(it.colour((0.62, 0.63, 0.65), (0.66, 0.62, 0.56), (0.5, 0.51, 0.53)), 0.2, 0.6)
    sheet.tint(1 + 0.055 * brushed + 0.02 * grain(it.rng))
    sheet.height += 0.06 * brushed + 1.2 * noise(it.rng, (3, 3))
    return sheet


_ = blob
