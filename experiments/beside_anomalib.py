"""Why ours and anomalib's part on a class: ours again, with what anomalib does otherwise in places.

    python experiments/beside_anomalib.py --data DIR --weights-dir DIR --target-class magnetic_tile

The episodes are those of ``beside_anomalib.yaml``; docs/baselines.md says what came of it.
"""

import argparse
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.methods import load_method

PARTS = "fewshot_ad.parts"
THEIR_SCORE = {"noise": 0.0, "score": "likelihood", "blur": 0.0}
SEEDS = range(5)


class AsTheyAre(nn.Module):
    """In the place of ``Standardiser``: features as the backbone gives them."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()

    def forward(self, maps: Tensor) -> Tensor:
        """The same maps."""
        return maps


class OfEveryImage(AsTheyAre):
    """In the place of ``Standardiser``: mean and deviation of the image itself."""

    def forward(self, maps: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over all of an image."""
        return functional.layer_norm(maps, maps.shape[1:])


def permutation(channels: int, generator: torch.Generator) -> Tensor:
    """In the place of ``draw_rotation``."""
    return torch.eye(channels)[torch.randperm(channels, generator=generator)]


def below_own_peak(_: object, likelihood: Tensor) -> Tensor:
    """In the place of ``LikelihoodPeak.lacking``: from the image's own peak, not the support's."""
    return likelihood.max() - likelihood


@contextmanager
def repeated() -> Generator[None]:
    """Coarse features are repeated, not resized bilinearly; patches in memory do not count."""
    afresh = patch(
        f"{PARTS}.feature_cache.FeatureCache.made", lambda own, one, _, make: make(own(one))
    )
    with afresh, patch(f"{PARTS}.patches.functional") as used:
        used.interpolate = lambda maps, size, **_: functional.interpolate(maps, size)
        yield


PLAIN_FLOWS = partial(patch, f"{PARTS}.flows.draw_rotation", permutation)
OWN_PEAK = partial(patch, f"{PARTS}.level_models.LikelihoodPeak.lacking", below_own_peak)
RAW = partial(patch, "fewshot_ad.methods.cflow.Standardiser", AsTheyAre)
OF_IMAGE = partial(patch, "fewshot_ad.methods.fastflow.Standardiser", OfEveryImage)

Change = Callable[[], Any]
VARIANTS: list[tuple[str, str, dict[str, Any], tuple[Change, ...]]] = [
    *(("padim", "as it is", {"seed": seed}, ()) for seed in SEEDS),
    *(("padim", "coarse features repeated", {"seed": seed}, (repeated,)) for seed in SEEDS),
    *(("padim", "no shrinkage", {"seed": seed, "shrinkage": 0.0}, ()) for seed in SEEDS),
    ("fastflow", "no noise", {"noise": 0.0}, ()),
    ("fastflow", "their score", {"score": "likelihood", "blur": 0.0}, ()),
    ("fastflow", "both", THEIR_SCORE, ()),
    ("fastflow", "both, layer norm", THEIR_SCORE, (OF_IMAGE,)),
    *(("cflow", "as it is", {"seed": seed}, ()) for seed in range(3)),
    ("cflow", "their score, no noise", THEIR_SCORE, ()),
    ("cflow", "besides, raw features", THEIR_SCORE, (RAW,)),
    ("cflow", "besides, permutations", THEIR_SCORE, (RAW, PLAIN_FLOWS)),
    ("cflow", "besides, the image's own peak", THEIR_SCORE, (RAW, PLAIN_FLOWS, OWN_PEAK)),
    (
        "cflow",
        "besides, as many updates",
        THEIR_SCORE | {"steps": 120},
        (RAW, PLAIN_FLOWS, OWN_PEAK),
    ),
]


def main() -> None:
    """Print a line per variant."""
    parser = argparse.ArgumentParser(description="why ours and anomalib's part on a class")
    parser.add_argument("--data", type=Path, required=True, help="folder of the classes")
    parser.add_argument("--weights-dir", required=True, help="folder with resnet18")
    parser.add_argument("--target-class", default="magnetic_tile")
    parser.add_argument("--methods", nargs="+", default=["padim", "fastflow", "cflow"])
    options = parser.parse_args()
    dataset = load_dataset(f"folder:{options.data}")
    drawn = episodes(dataset, options.target_class, shots=[4], seeds=[0], query_limit=30)
    trials = list(drawn)
    for name, what, settings, changes in VARIANTS:
        if name not in options.methods:
            continue
        method = load_method(name).variant(
            backbone="resnet18", weights_dir=options.weights_dir, **settings
        )
        with ExitStack() as stack:
            for change in changes:
                stack.enter_context(change())
            row = next(iter(evaluate(method, dataset, trials))).row
        pair = " / ".join(f"{100 * (value or 0):.1f}" for value in (row.i_auroc, row.p_auroc))
        print(f"{name:10} {what:32} seed {method.seed}  {pair}", flush=True)


if __name__ == "__main__":
    main()
