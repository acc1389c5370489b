"""The tables of methods: tracks, published numbers with their source, ours, ours beside others'.

    python experiments/methods_table.py --drawn results/drawn --real results/real
    python experiments/methods_table.py --baselines results/baselines --easy results/easy
    python experiments/methods_table.py --beside results/beside

takes our numbers from the rows of evaluations and keeps them in ``measured.json``; without options
the pages are rewritten from that file and from ``published.yaml``. The commands of the evaluations
stand above the tables.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.summary import TableRow, summarise
from fewshot_ad.methods import list_methods, load_method
from fewshot_ad.studies.store import load_rows

HERE = Path(__file__).parent
MEASURED, PUBLISHED = HERE / "measured.json", HERE / "published.yaml"
BLOCKS = {
    "methods": HERE.parent / "README.md",
    "trained": HERE.parent / "README.md",
    "bottle": HERE.parent / "docs" / "baselines.md",
    "beside": HERE.parent / "docs" / "baselines.md",
}
COLUMNS = ("method", "track", "published: MVTec AD, I / P", "drawn, I / P", "real, I / P")
SHOTS = ("1", "4", "16", "full")
EASY = {shots: f"`washer`, {shots} shots" for shots in ("4", "16")}
SECONDS = ("fit s", "s per image")
BOTTLE_COLUMNS = ("method", "track", "4 shots, I / P")
BESIDE_COLUMNS = ("class", "ours", "I / P", "anomalib's", "I / P", "gap, I", "gap, P")
BESIDE = {
    "patchcore": "Patchcore",
    "padim": "Padim",
    "stfpm": "Stfpm",
    "rd4ad": "ReverseDistillation",
    "fastflow": "Fastflow",
    "cflow": "Cflow",
    "draem": "Draem",
}
NOTHING = "–"

Values = list[float | None]


def main() -> None:
    """Take in new rows, where some are given, and rewrite the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawn", type=Path, help="folder of the rows on drawn classes")
    parser.add_argument("--real", type=Path, help="folder of the rows on real classes")
    parser.add_argument("--baselines", type=Path, help="folder of full_shot_baselines.yaml")
    parser.add_argument("--easy", type=Path, help="folder of a part of it, a single class")
    parser.add_argument("--bottle", type=Path, help="folder of the rows of full_shot_bottle.yaml")
    parser.add_argument("--beside", type=Path, help="folder of the rows of beside_anomalib.yaml")
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name, folder in vars(parser.parse_args()).items():
        if folder is not None:
            measured[name] = merged(measured.get(name, {}), TAKEN[name](load_rows(folder)))
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    for name, page in BLOCKS.items():
        page.write_text(with_table(page.read_text(), name, table(name)))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old numbers with the new ones in their places; what was not measured anew stays."""
    return old | {
        name: merged(old.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in new.items()
    }


def by_method(rows: Iterable[ResultRow]) -> dict[str, Values]:
    """The means of every method over seeds and classes."""
    return means(summarise(list(rows)))


def by_shots(rows: Iterable[ResultRow]) -> dict[str, dict[str, Values]]:
    """The means of every method, for each number of shots."""
    found: dict[str, list[ResultRow]] = {}
    for row in rows:
        found.setdefault("full" if row.full_shot else str(row.shots), []).append(row)
    return {shots: by_method(some) for shots, some in found.items()}


def by_shots_of_all(rows: Iterable[ResultRow]) -> dict[str, dict[str, Values]]:
    """The same of a whole grid; means of some of the classes could not be compared.

    Raises:
        SystemExit: a method has not met a class with some number of shots.
    """
    kept = list(rows)
    cells = {(row.method, row.full_shot or row.shots, row.target_class) for row in kept}
    axes = [sorted(set(axis), key=str) for axis in zip(*cells, strict=True)]
    if missing := set(product(*axes)) - cells:
        raise SystemExit(
            f"{len(missing)} cells of the grid are missing, as {min(missing, key=str)}"
        )
    return by_shots(kept)


def by_class(rows: Iterable[ResultRow]) -> dict[str, dict[str, Values]]:
    """The means of every method, for each class."""
    kept = list(rows)
    names = sorted({row.target_class for row in kept})
    return {name: by_method(row for row in kept if row.target_class == name) for name in names}


TAKEN: dict[str, Callable[[Iterable[ResultRow]], dict[str, Any]]] = {
    "drawn": by_method,
    "real": by_method,
    "baselines": by_shots_of_all,
    "easy": by_shots,
    "bottle": by_method,
    "beside": by_class,
}


def means(lines: Iterable[TableRow]) -> dict[str, Values]:
    """Image and pixel AUROC and seconds of every method: mean over seeds, then over classes."""
    of_classes = [line for line in lines if line.target_class is not None]
    found: dict[str, Values] = {}
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
    elif block == "trained":
        whole, easy = measured.get("baselines", {}), measured.get("easy", {})
        shots = [each for each in SHOTS if each in whole]
        heads = (f"{each} shots, I / P" if each.isdigit() else f"{each}, I / P" for each in shots)
        columns = "method", "track", *heads, *EASY.values(), *SECONDS
        lines = [
            _trained_line(name, track, [whole[each] for each in shots], easy)
            for track, name in cards
            if any(name in found for found in easy.values())
        ]
    elif block == "bottle":
        columns, bottle = BOTTLE_COLUMNS, measured.get("bottle", {})
        lines = [
            [f"`{name}`", track.replace("_", "-"), _pair(bottle[name][:2], 100)]
            for track, name in cards
            if name in bottle
        ]
    else:
        columns = BESIDE_COLUMNS
        lines = [
            _beside_line(name, ours, found)
            for name, found in measured.get("beside", {}).items()
            for ours, theirs in BESIDE.items()
            if ours in found and f"anomalib:{theirs}" in found
        ]
    grid = (columns, ["---"] * len(columns), *lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in grid)


def with_table(text: str, block: str, new: str) -> str:
    """The text with the table between its marks replaced."""
    begin, end = f"<!-- {block}: begin -->\n", f"<!-- {block}: end -->\n"
    before, rest = text.split(begin)
    return before + begin + new + end + rest.split(end)[1]


def _trained_line(
    name: str, track: str, whole: list[dict[str, Values]], easy: dict[str, dict[str, Values]]
) -> list[str]:
    of_easy = [easy.get(shots, {}).get(name, []) for shots in EASY]
    seconds = [_short(value) for value in (of_easy[0] or of_easy[1])[2:]]
    found = [*(each.get(name, []) for each in whole), *of_easy]
    pairs = [_pair(values[:2], 100) for values in found]
    return [f"`{name}`", track.replace("_", "-"), *pairs, *seconds]


def _beside_line(target: str, name: str, found: dict[str, Values]) -> list[str]:
    ours, theirs = found[name], found[f"anomalib:{BESIDE[name]}"]
    gaps = [
        NOTHING if one is None or other is None else f"{100 * (one - other):+.1f}"
        for one, other in zip(ours[:2], theirs[:2], strict=True)
    ]
    cells = f"`{name}`", _pair(ours[:2], 100), f"`{BESIDE[name]}`", _pair(theirs[:2], 100)
    return [target, *cells, *gaps]


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2g}" if value < 100 else f"{value:.0f}"


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
