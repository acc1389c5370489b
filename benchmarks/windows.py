"""What windows cost: time of WinCLIP's embeddings against one plain forward pass, as ratios.

    python benchmarks/windows.py                    # ViT-B-16-plus-240 at 240 px, random weights
    python benchmarks/windows.py --model ViT-B-32 --size 224 --device cuda

A scale of windows is many short sequences. Its *share* is what its tokens would cost at the price
of a token in the plain pass, class tokens counted; the last column is how far the measured time is
from that. Below 1: short sequences have less attention, and the last block serves the class token
alone. Crops in place of tokens would cost one plain pass per window.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot_ad.parts.clip import load_clip
from fewshot_ad.parts.windows import WindowTower


@dataclass(frozen=True)
class Contestant:
    """What is timed, and how many tokens of one image go through the blocks in it."""

    name: str
    tokens: int
    run: Callable[[Tensor], object]


def contestants(tower: WindowTower, encode: Callable[[Tensor], object]) -> list[Contestant]:
    """The plain pass, each scale, and all together; the first is the yardstick."""
    whole = tower.grid[0] * tower.grid[1] + 1
    found = [Contestant("one plain pass", whole, encode)]
    for side, layout in zip(tower.sides, tower.layouts, strict=True):
        count, size = layout.shape

        def run(images: Tensor, layout: Tensor = layout) -> object:
            return tower.windows(tower.embed(images), layout)

        found.append(Contestant(f"{count} windows {side}x{side}", count * (size + 1), run))
    total = sum(one.tokens for one in found)
    return [*found, Contestant("image, windows and patches", total, tower)]


def one_by_one(tower: WindowTower) -> Contestant:
    """The same windows as a loop would do them."""

    def run(images: Tensor) -> object:
        tokens = tower.embed(images)
        return [tower.windows(tokens, row[None]) for each in tower.layouts for row in each]

    tokens = sum(len(layout) * (layout.shape[1] + 1) for layout in tower.layouts)
    return Contestant("windows, one at a time", tokens, run)


@torch.no_grad()
def seconds(call: Callable[[], object], device: str) -> float:
    """CPU seconds of this process, or wall seconds on an accelerator."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="windows against one plain forward pass")
    parser.add_argument("--model", default="ViT-B-16-plus-240")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--images", type=int, default=1, help="in one batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--loop", action="store_true", help="also time one window at a time")
    options = parser.parse_args()
    clip = load_clip(f"random:{options.model}", options.size, device=options.device)
    tower = WindowTower(clip.network.visual)
    shape = (options.images, 3, options.size, options.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(options.device)
    timed = contestants(tower, clip.network.encode_image)
    timed += [one_by_one(tower)] if options.loop else []
    taken: list[list[float]] = [[] for _ in timed]
    for _ in range(options.repeats + 1):  # in turns, so that a busy machine is busy for all
        for one, times in zip(timed, taken, strict=True):
            times.append(seconds(lambda run=one.run: run(images), options.device))
    best = [float(np.median(times[1:])) / options.images for times in taken]
    print(f"{options.model} at {options.size} px, {options.images} images, {options.device}")
    print(f"{'':28}{'tokens':>8}{'share':>8}{'s':>9}{'ratio':>8}{'ratio / share':>15}")
    for one, each in zip(timed, best, strict=True):
        share, ratio = one.tokens / timed[0].tokens, each / best[0]
        print(
            f"{one.name:28}{one.tokens:8}{share:8.2f}{each:9.3f}{ratio:8.2f}{ratio / share:15.2f}"
        )


if __name__ == "__main__":
    main()
