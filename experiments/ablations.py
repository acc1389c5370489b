"""What each piece of ResAD is worth: the same episodes with one piece changed at a time.

    python experiments/ablations.py --out results/ablations -- --target-class all

What follows ``--`` goes to ``fewshot-ad eval``. All variants run in one process, so features and
matches are computed once; every variant has a folder of its own, so a broken run goes on where it
stopped.
"""

import argparse
import sys
from pathlib import Path

from fewshot_ad.cli import app

VARIANTS = {
    "resad": ["--method", "resad"],
    "distance_only": ["--method", "residual_distance"],
    "learned_only": ["--method", "resad", "--set", "learned_share=1.0"],
    "no_constraintor": ["--method", "resad", "--set", "constraintor=none"],
    "trained_constraintor": ["--method", "resad", "--set", "constraintor=identity"],
    "conv_constraintor": ["--method", "resad", "--set", "constraintor=conv"],
    "wide": ["--method", "resad", "--set", "constrained_channels=none"],
    "no_flow": ["--method", "resad", "--set", "flow_blocks=0"],
    "no_noise": ["--method", "resad", "--set", "noise=0"],
    "no_boundary": ["--method", "resad", "--set", "boundary_weight=0"],
    "squared": ["--method", "resad", "--set", "form=squared"],
    "position_code": ["--method", "resad", "--set", "position_dims=256"],
    "raw_features": ["--method", "resad", "--set", "unit_length=false"],
    "raw_distance_only": ["--method", "residual_distance", "--set", "unit_length=false"],
}


def main() -> None:
    """Run the variants one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder per variant goes here")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    arguments, options = parser.parse_known_args()
    for name in arguments.variants:
        print(f"== {name}", flush=True)
        out = ["--out", str(arguments.out / name), "--no-overlays"]
        try:
            app(["eval", *[option for option in options if option != "--"], *VARIANTS[name], *out])
        except SystemExit as finished:
            if finished.code:
                sys.exit(finished.code)


if __name__ == "__main__":
    main()
