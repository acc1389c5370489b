"""Lines below the tables: defects by kind, shown or not shown to the method, and boxes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fewshot_ad.evaluation.boxes import IOU
from fewshot_ad.evaluation.defect_kinds import SEEN, UNSEEN
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.summary import spread_of
from fewshot_ad.report.labels import METRIC_NAMES
from fewshot_ad.report.table import percent


def kind_lines(rows: Iterable[ResultRow]) -> list[str]:
    """A line for every class, method and support that held anomalies; means over seeds."""
    cells: defaultdict[tuple[str, ...], list[ResultRow]] = defaultdict(list)
    for row in rows:
        if SEEN in row.kinds or UNSEEN in row.kinds:
            shots = f"{row.shots} shots + {row.anomalous_shots} anomalous"
            cells[f"{row.dataset}/{row.target_class}", row.method, shots].append(row)
    return [
        f"{', '.join(cell)}: {_group(of_cell, SEEN)}; {_group(of_cell, UNSEEN)}"
        for cell, of_cell in cells.items()
    ]


def box_lines(rows: Iterable[ResultRow]) -> list[str]:
    """A line for every class, method and number of shots whose boxes were judged."""
    cells: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.box_ap is not None:
            cell = f"{row.dataset}/{row.target_class}, {row.method}, {row.shots} shots"
            cells[cell].append(row.box_ap)
    return [
        f"{cell}: boxes AP at an overlap of {IOU:g}: {percent(spread_of(values))}"
        for cell, values in cells.items()
    ]


def _group(rows: Sequence[ResultRow], name: str) -> str:
    groups = [row.kinds[name] for row in rows if name in row.kinds]
    words = [f"{METRIC_NAMES[metric]} {_mean(groups, metric)}" for metric in ("i_auroc", "p_auroc")]
    return f"{name.strip('()')} {', '.join(words)}" if groups else f"no {name.strip('()')}"


def _mean(groups: Sequence[dict[str, float | None]], metric: str) -> str:
    return percent(spread_of([value for each in groups if (value := each[metric]) is not None]))
