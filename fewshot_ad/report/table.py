"""Result rows as tables: on a terminal, in Markdown, in CSV.

Tracks never share a table: a method that was trained on anomalies is not ranked beside one that was
not.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.summary import SECONDS, Spread, TableRow, summarise
from fewshot_ad.report.labels import EMPTY, METRIC_NAMES, settings_of, telling_labels, with_budget

SECOND_NAMES = dict(zip(SECONDS, ("fit s", "s/image", "metric s"), strict=True))
MEAN = "mean of classes"


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn: text in cells, the lines of a class together, the means last."""

    title: str
    header: tuple[str, ...]
    blocks: tuple[tuple[tuple[str, ...], ...], ...]


def grids(rows: Iterable[ResultRow]) -> list[Grid]:
    """One grid per track, dataset and evaluation size: percent, mean ± std over seeds."""
    lines = [line for line in summarise(rows) if line.target_class or len(line.classes) > 1]
    tables: defaultdict[Hashable, list[TableRow]] = defaultdict(list)
    for line in lines:
        tables[line.dataset, line.track, line.manifest, line.eval_size].append(line)
    return [_grid(table) for table in tables.values()]


def terminal_tables(rows: Iterable[ResultRow]) -> list[Table]:
    """The grids for a terminal."""
    return [_terminal_table(grid) for grid in grids(rows)]


def markdown(rows: Iterable[ResultRow]) -> str:
    """The grids as Markdown."""
    return "\n".join(_markdown_table(grid) for grid in grids(rows))


def to_csv(rows: Iterable[ResultRow]) -> str:
    """Every line of the summary in full precision: metrics in [0, 1], or empty."""
    text = io.StringIO()
    names = [
        "dataset",
        "track",
        "method",
        "preset",
        "backbone",
        "known",
        "shots",
        "anomalous_shots",
        "manifest",
    ]
    names += ["eval_size", "target_class", "n_seeds"]
    names += [f"{name}_{part}" for name in METRIC_NAMES for part in ("mean", "std")]
    writer = csv.DictWriter(text, [*names, *SECONDS], lineterminator="\n")
    writer.writeheader()
    for line in summarise(rows):
        writer.writerow(_csv_line(line))
    return text.getvalue()


def empty_metrics(rows: Iterable[ResultRow]) -> list[str]:
    """Why metrics are empty, one line per class and reason."""
    found: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for row in rows:
        for metric, reason in row.reasons.items():
            name = METRIC_NAMES.get(metric, "boxes AP")
            found[row.dataset, row.target_class, reason][name] = None
    return [
        f"{EMPTY} {dataset}/{target_class}: no {', '.join(metrics)}: {reason}"
        for (dataset, target_class, reason), metrics in found.items()
    ]


def percent(spread: Spread | None) -> str:
    """``98.1 ± 0.4``, or a dash."""
    if spread is None:
        return EMPTY
    deviation = "" if spread.std is None else f" ± {100 * spread.std:.1f}"
    return f"{100 * spread.mean:.1f}{deviation}"


def _grid(lines: Sequence[TableRow]) -> Grid:
    first = lines[0]
    spreads = [spread for line in lines for spread in line.metrics.values() if spread]
    n_seeds = max((spread.n_seeds for spread in spreads), default=0)
    table = [_cells(line, label) for line, label in zip(lines, _labels(lines), strict=True)]
    shared = [name for name in ("method", "shots") if len({cells[name] for cells in table}) == 1]
    title = (
        f"{first.dataset}, {first.track.replace('_', '-')}, "
        + "".join(f"{name}: {table[0][name]}, " for name in shared)
        + f"support: {first.manifest}, maps at {first.eval_size} px; "
        f"percent, mean ± std over {n_seeds} seeds"
    )
    header = tuple(name for name in table[0] if name not in shared)
    blocks: defaultdict[tuple[bool, str], list[tuple[str, ...]]] = defaultdict(list)
    for cells in table:
        key = (cells["class"] == MEAN, cells["class"])
        blocks[key].append(tuple(cells[name] for name in header))
    return Grid(title, header, tuple(tuple(blocks[key]) for key in sorted(blocks)))


def _cells(line: TableRow, label: str) -> dict[str, str]:
    anomalous = f" + {line.anomalous_shots} anomalous" if line.anomalous_shots else ""
    return {
        "class": line.target_class or MEAN,
        "method": label,
        "shots": f"{line.shots}{anomalous}",
        **{title: percent(line.metrics[name]) for name, title in METRIC_NAMES.items()},
        **{title: f"{line.seconds[name]:.2g}" for name, title in SECOND_NAMES.items()},
    }


def _labels(lines: Sequence[TableRow]) -> list[str]:
    """The method of each line, its preset if it trains, and the settings that tell lines apart."""
    names = [with_budget(line.method, line.preset, line.params) for line in lines]
    settings = [
        settings_of({**line.params, **line.extra, "known": "+".join(line.known_datasets)})
        for line in lines
    ]
    return telling_labels(names, settings)


def side(name: str) -> Literal["left", "right"]:
    """To which side a column is set: words left, numbers right."""
    return "left" if name in ("class", "method") else "right"


def _terminal_table(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in grid.header:
        table.add_column(name, justify=side(name), overflow="fold")
    for block in grid.blocks:
        for cells in block:
            table.add_row(*cells)
        table.add_section()
    return table


def _markdown_table(grid: Grid) -> str:
    rules = ["---" if side(name) == "left" else "---:" for name in grid.header]
    body = [cells for block in grid.blocks for cells in block]
    lines = [f"| {' | '.join(cells)} |" for cells in (grid.header, rules, *body)]
    return f"{grid.title}\n\n" + "\n".join(lines) + "\n"


def _csv_line(line: TableRow) -> dict[str, object]:
    values: dict[str, object] = {
        "dataset": line.dataset,
        "track": line.track,
        "method": line.method,
        "preset": line.preset,
        "backbone": line.backbone,
        "known": "+".join(line.known_datasets),
        "shots": line.shots,
        "anomalous_shots": line.anomalous_shots,
        "manifest": line.manifest,
        "eval_size": line.eval_size,
        "target_class": line.target_class or MEAN,
        "n_seeds": max((spread.n_seeds for spread in line.metrics.values() if spread), default=0),
        **line.seconds,
    }
    for name, spread in line.metrics.items():
        if spread is not None:
            values |= {f"{name}_mean": spread.mean, f"{name}_std": spread.std}
    return values
