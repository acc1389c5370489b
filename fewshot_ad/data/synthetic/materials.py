"""What is grown, fired, tanned or rolled: wood, tile, leather, brushed metal."""

from math import pi

import numpy as np

from fewshot_ad.data.synthetic.canvas import blur, cells, grain, lattice, mottle, noise, ramp
from fewshot_ad.data.synthetic.light import Surface
from fewshot_ad.data.synthetic.recipe import Item, recipe


@recipe("hole", "ink", "scratch")
def wood(it: Item) -> Surface:
    """A planed board with its rings, fibres and pores."""
    u, _ = it.pose(turn=0.06, shift=20, zoom=0.1).local()
    bend = 14 * noise(it.rng, 2, 4) + 3 * noise(it.rng, 3, 8)
    phase = 2 * pi * it.rng.uniform(0.03, 0.06) * (u + bend) + 1.5 * noise(it.rng, 2, 12)
    ring = 0.5 + 0.5 * np.sin(phase) * np.abs(np.sin(phase))
    fibre = noise(it.rng, 10, 200)
    pore = np.clip(noise(it.rng, 26, 240) - 1.5, 0, 1)
    sheet = Surface.of(it.colour((0.64, 0.47, 0.31), (0.58, 0.42, 0.27), spread=0.03), gloss=0.06)
    sheet.tint(
        1 - it.rng.uniform(0.15, 0.3) * ring + 0.05 * fibre - 0.4 * pore + 0.03 * grain(it.rng)
    )
    sheet.height += 0.15 * fibre - pore
    return sheet


@recipe("crack", "ink", "oil")
def tile(it: Item) -> Surface:
    """A speckled glazed tile."""
    sheet = Surface.of(it.colour((0.72, 0.71, 0.69), (0.67, 0.67, 0.66)), gloss=0.35)
    for size, level, tone in ((28, 0.7, 0.5), (48, 0.9, 0.36), (80, 1.2, 0.2)):
        fleck = ramp(noise(it.rng, size, size, 2), level, level + 0.4)
        sheet.paint(0.8 * fleck, it.colour((tone, tone, 0.97 * tone)))
    sheet.tint(1 + 0.03 * noise(it.rng, 4, 4) + 0.015 * grain(it.rng))
    sheet.height += 0.3 * noise(it.rng, 10, 10)
    return sheet


@recipe("cut", "fold", "glue", "hole")
def leather(it: Item) -> Surface:
    """Pebbled full-grain leather."""
    points = lattice(it.rng, (9, 7.5), 0.45)
    depth, pebble = cells(points + 4 * np.sin(points[:, ::-1] / 30 + it.rng.uniform(0, 2 * pi, 2)))
    swell = blur(np.clip(1 - (depth / 6.2) ** 2, -0.3, 1), 0.8)
    sheet = Surface.of(it.colour((0.37, 0.23, 0.15), (0.33, 0.2, 0.13)), gloss=0.22)
    tone = mottle(it.rng, pebble, 0.03) * (1 + 0.06 * noise(it.rng, 6, 6))
    sheet.tint(tone * (0.82 + 0.2 * swell))
    sheet.height += 1.8 * swell + 0.8 * noise(it.rng, 24, 24, 2) + 0.12 * grain(it.rng)
    return sheet


@recipe("dent", "rust", "scratch")
def brushed_metal(it: Item) -> Surface:
    """A rolled and brushed sheet."""
    lines = noise(it.rng, 256, 5) + 0.6 * noise(it.rng, 256, 16) + 0.5 * noise(it.rng, 90, 3)
    brushed = it.pose(turn=0.3, shift=0).place(lines)
    sheet = Surface.of(it.colour((0.62, 0.63, 0.64), (0.58, 0.58, 0.57)), gloss=0.2, metal=0.35)
    sheet.tint(1 + it.rng.uniform(0.05, 0.15) * brushed + 0.02 * grain(it.rng))
    sheet.height += 0.06 * brushed + 1.2 * noise(it.rng, 3, 3)
    return sheet
