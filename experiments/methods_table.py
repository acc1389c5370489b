"""The tables of methods in the README: tracks, published numbers with their source, and ours.

    python experiments/methods_table.py --drawn results/drawn --real results/real --short DIR

takes our numbers from the rows of evaluations and keeps them in ``measured.json``; without options
the README is rewritten from that file and from ``published.yaml``. The commands of the evaluations
stand above the tables.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from fewshot_ad.evaluation.results import load
from fewshot_ad.evaluation.summary import TableRow, summarise
from fewshot_ad.methods import list_methods, load_method

HERE = Path(__file__).parent
README, MEASURED, PUBLISHED = (
    HERE.parent / "README.md",
    HERE / "measured.json",
    HERE / "published.yaml",
)
BLOCKS = ("methods", "trained")
COLUMNS = ("method", "track", "published: MVTec AD, I / P", "drawn, I / P", "real, I / P")
TRAINED_COLUMNS = ("method", "track", "I / P", "fit s", "s per image")
NOTHING = "–"


def main() -> None:
    """Take in new rows, where some are given, and rewrite the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawn", type=Path, help="folder of the rows on drawn classes")
    parser.add_argument("--real", type=Path, help="folder of the rows on real classes")
    parser.add_argument("--short", type=Path, help="folder of the rows of full_shot_short.yaml")
    arguments = parser.parse_args()
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name in ("drawn", "real", "short"):
        folder = getattr(arguments, name)
        if folder is not None:
            measured[name] = measured.get(name, {}) | means(
                summarise(load(folder / "results.jsonl"))
            )
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    text = README.read_text()
    for name in BLOCKS:
        text = with_table(text, name, table(name))
    README.write_text(text)


def means(lines: Iterable[TableRow]) -> dict[str, list[float | None]]:
    """Image and pixel AUROC and seconds of every method: mean over seeds, then over classes."""
    of_classes = [line for line in lines if line.target_class is not None]
    found: dict[str, list[float | None]] = {}
    for method in {line.method for line in of_classes}:
        metrics = [_mean(of_classes, method, metric) for metric in ("i_auroc", "p_auroc")]
        seconds = [
            round(fmean(line.seconds[name] for line in of_classes if line.method == method), 3)
            for name in ("fit_seconds", "predict_seconds_per_image")
        ]
        found[method] = [*metrics, *seconds]
    return found


def _mean(lines: Iterable[TableRow], method: str, metric: str) -> float | None:
    found = [line.metrics[metric] for line in lines if line.method == method]
    values = [spread.mean for spread in found if spread is not None]
    return round(fmean(values), 4) if values else None


def table(block: str) -> str:
    """One line per method, tracks one after another, as Markdown."""
    measured = json.loads(MEASURED.read_text())
    published = yaml.safe_load(PUBLISHED.read_text())
    cards = sorted((load_method(name).track, name) for name in list_methods())
    if block == "methods":
        columns = COLUMNS
        lines = [_line(name, track, published.get(name, {}), measured) for track, name in cards]
    else:
        columns, short = TRAINED_COLUMNS, measured.get("short", {})
        lines = [_trained_line(name, track, short[name]) for track, name in cards if name in short]
    grid = (columns, ["---"] * len(columns), *lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in grid)


def with_table(text: str, block: str, new: str) -> str:
    """The text with the table between its marks replaced."""
    begin, end = f"<!-- {block}: begin -->\n", f"<!-- {block}: end -->\n"
    before, rest = text.split(begin)
    return before + begin + new + end + rest.split(end)[1]


def _trained_line(name: str, track: str, values: list[float | None]) -> list[str]:
    seconds = [NOTHING if value is None else f"{value:.2g}" for value in values[2:]]
    return [f"`{name}`", track.replace("_", "-"), _pair(values[:2], 100), *seconds]


def _line(name: str, track: str, published: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    paper = published.get("paper")
    title = f"[`{name}`]({paper})" if paper else f"`{name}`"
    ours = [_pair(measured.get(images, {}).get(name, [])[:2], 100) for images in ("drawn", "real")]
    return [title, track.replace("_", "-"), _published(published.get("numbers", [])), *ours]


def _published(numbers: list[dict[str, Any]]) -> str:
    """What was published on MVTec AD, nearest to four shots."""
    fitting = [one for one in numbers if one["dataset"] == "mvtec_ad"]
    if not fitting:
        return NOTHING
    one = min(fitting, key=_from_four)
    shots = f"{one['shots']} shots" if one["shots"] != "full" else "full"
    return f"{_pair([one.get('i_auroc'), one.get('p_auroc')], 1)} ({shots}; {one['source']})"


def _from_four(one: dict[str, Any]) -> float:
    return float("inf") if one["shots"] == "full" else abs(one["shots"] - 4)


def _pair(values: list[float | None], scale: int) -> str:
    cells = [NOTHING if value is None else f"{scale * value:.1f}" for value in values]
    return " / ".join(cells) or NOTHING


if __name__ == "__main__":
    main()
