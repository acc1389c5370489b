"""Every embedded class as an unseen one: each half of them is judged after learning the other.

    python experiments/two_halves.py --out results/two_halves

Two meta-trainings serve all eighteen targets, where leaving one class out at a time needs eighteen.
Rows are kept as they finish; a second run goes on where the first stopped, and prints the table.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from fewshot_ad.cli import app
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.results import load
from fewshot_ad.report.table import markdown

METHODS = ("resad", "residual_distance", "patchcore")
SHOTS = "1,2,4,8"


def main() -> None:
    """Run one half, or both, and print all rows there are as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder per half goes here")
    parser.add_argument("--half", type=int, choices=(0, 1), help="only this one")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    arguments = parser.parse_args()
    classes = load_dataset("synthetic").classes
    for half in (0, 1) if arguments.half is None else (arguments.half,):
        targets, known = classes[half::2], classes[1 - half :: 2]
        options = ["--known", f"synthetic:{'+'.join(known)}", "--shots", SHOTS, "--no-overlays"]
        options += [word for name in targets for word in ("--target-class", name)]
        options += [word for name in arguments.methods for word in ("--method", name)]
        run(["eval", *options, "--out", str(arguments.out / str(half))])
    files = sorted(arguments.out.glob("*/results.jsonl"))
    rows = [row for file in files for row in load(file)]
    # The known classes differ between the halves; the table asks only what was unseen.
    Console(soft_wrap=True).print(markdown(rows))


def run(words: list[str]) -> None:
    """One command line, in this process; its failure is ours."""
    try:
        app(words)
    except SystemExit as finished:
        if finished.code:
            sys.exit(finished.code)


if __name__ == "__main__":
    main()
