"""Run the benchmarks one after another and write benchmarks/RESULTS.md: what ``make bench`` does.

    make bench                         # on a quiet machine; about an hour
    make bench BENCH="--only metrics"  # one section; the others of the page stay as they are
    make bench BENCH="--quick"         # a few minutes, to see that all runs; writes nothing

One thread unless OMP_NUM_THREADS says otherwise, so that CPU seconds can be compared. The page is
written anew after every section, so that nothing finished is lost.
"""

import argparse
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
REAL = HERE.parent.parent / "shared"  # real images and weights, where somebody put them
RESNET18 = "--dataset folder:../shared/data --backbone resnet18 --weights-dir ../shared/weights"
ON_EDGES = list(
    product(["random:resnet18", "tiny"], ["resad", "patchcore", "padim", "simplenet"])
)  # every method in a process of its own, since what one makes warm another would have for nothing

FULL = {
    "A study of one class": [
        "study.py",
        "study.py --backbone random:wide_resnet50_2 --query-limit 20 --methods patchcore",
    ],
    "Nearest neighbours": [
        "nearest.py --channels 256 512 1024 --approximate",
        "nearest.py --queries 3136 --bank 50176",
    ],
    "Pixel metrics": [
        "metrics.py",
        "NPY_DISABLE_CPU_FEATURES='X86_V4 AVX512_ICL' metrics.py",  # why: see metrics.py
        "metrics.py --images 83 --size 900 --repeats 1 --no-peers",
    ],
    "Growth": ["scaling.py --images 100 1000 10000"],
    "Backbones in other precisions": [
        "precision.py --seeds 5 --target-class bottle_cap capsule connector grid pill washer screw",
        f"precision.py {RESNET18} --target-class bottle magnetic_tile kolektorsdd brats_brain "
        "--query-limit 30",
    ],
    "Windows": ["windows.py"],
    "At the edge": [
        *[f"edge.py --backbone {name} --repeats 5 --methods {method}" for name, method in ON_EDGES],
        "overhead.py --repeats 15",
    ],
}
QUICK = {
    "A study of one class": ["study.py --shots 1 2 --seeds 2 --query-limit 4"],
    "Nearest neighbours": ["nearest.py --queries 196 --bank 2000 --channels 256 --repeats 1"],
    "Pixel metrics": ["metrics.py --images 10 --size 128 --repeats 1"],
    "Growth": ["scaling.py --images 10 20 --banks 1000 2000 --sizes 64 128"],
    "Backbones in other precisions": ["precision.py --seeds 1 --query-limit 4 --repeats 1"],
    "Windows": ["windows.py --model ViT-B-32 --size 64 --repeats 1"],
    "At the edge": [
        "edge.py --size 64 --repeats 1 --methods patchcore",
        "overhead.py --backbone random:tiny --size 64 --repeats 1",
    ],
}
PEERS = {
    "anomalib": [
        "peers.py --query-limit 20",
        "peers.py --methods patchcore --shots 1 2 4 8 16 --seeds 5 --query-limit 20",
        "peers.py --methods patchcore --shots 1 2 4 8 16 --seeds 5 --query-limit 8 "
        "--backbone random:wide_resnet50_2",
        f"peers.py {RESNET18} --target-class bottle --query-limit 20",
    ],
    "Cold starts beside anomalib": ["cold_start.py"],
}

FAILED = "failed:\n"


def runnable(commands: list[str]) -> list[str]:
    """Those whose images and weights are here."""
    return [command for command in commands if RESNET18 not in command or REAL.is_dir()]


def parts_of(command: str) -> tuple[dict[str, str], str, list[str]]:
    """Settings of the environment, the script, its arguments."""
    words = shlex.split(command)
    at = next(number for number, word in enumerate(words) if word.endswith(".py"))
    return dict(word.split("=", 1) for word in words[:at]), words[at], words[at + 1 :]


def outcome(command: str) -> str:
    """What a benchmark prints, with the command; a failure in its place."""
    sys.stderr.write(f"{command}\n")
    settings, script, arguments = parts_of(command)
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments],
        env=os.environ | settings,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout.strip() if done.returncode == 0 else f"{FAILED}{done.stderr.strip()}"
    is_markdown = "| ---" in text and done.returncode == 0
    shown = command.replace(script, f"python benchmarks/{script}")
    return f"`{shown}`\n\n" + (text if is_markdown else f"```\n{text}\n```")


def sections(page: str) -> dict[str, str]:
    """What stands below every heading of an earlier page."""
    parts = page.split("\n## ")[1:]
    return {head: text.strip() for head, _, text in (part.partition("\n") for part in parts)}


def write_page(head: str, found: dict[str, str]) -> None:
    """Write all sections, whole or not at all."""
    page = head + "".join(f"\n\n## {title}\n\n{text}" for title, text in found.items())
    temporary = RESULTS.with_suffix(".part")
    temporary.write_text(page + "\n")
    temporary.replace(RESULTS)


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description="all benchmarks into one page")
    parser.add_argument("--quick", action="store_true", help="small, printed, not written")
    parser.add_argument("--peers", action="store_true", help="anomalib too: see install_peers.sh")
    parser.add_argument("--only", default="", help="sections with this word in their title")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from measuring import machine  # after the number of threads is settled

    head = "\n".join(["# Benchmarks\n", "Written by `make bench`. Read the ratios.\n", *machine()])
    chosen = (QUICK if options.quick else FULL) | (PEERS if options.peers else {})
    for title, commands in chosen.items():
        if options.only.lower() not in title.lower():
            continue
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        text = "\n\n".join([f"Measured {stamp}.", *map(outcome, runnable(commands))])
        if options.quick:
            print(f"## {title}\n\n{text}\n")
            continue
        earlier = sections(RESULTS.read_text()) if RESULTS.exists() else {}
        if FAILED in text and title in earlier:
            print(f"## {title}\n\n{text}\n\nThe page keeps what was measured before.")
            continue
        write_page(head, earlier | {title: text})


if __name__ == "__main__":
    main()
