"""Tables of studies that ask more of an episode than its metrics: see ``studies.analyses``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from fewshot_ad.studies.analyses import Finding

SHOWN = ("i_auroc", "p_auroc", "p_ap", "aupro")
NOTHING = "–"


def finding_tables(findings: Sequence[Finding]) -> Iterator[Table]:
    """One table for every dataset and number of shots; means over seeds, and over classes last."""
    groups: dict[tuple[str, int], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.dataset, one.shots), []).append(one)
    for (dataset, shots), found in groups.items():
        kind = found[0].asked["analysis"]
        yield TABLES[kind](f"{dataset}, {shots} shots", found)


def _influence_table(title: str, findings: Sequence[Finding]) -> Table:
    """I-AUROC of the support, what one of its images can do, and supports beside each other."""
    table = Table(
        "method",
        "class",
        "I-AUROC",
        "without one: worst, best",
        "one swapped: worst, best",
        "drawn: worst, mean, best",
        "k-centre",
        "better than",
        title=f"{title}; I-AUROC in percent, effects in points, means over seeds",
        title_justify="left",
    )
    for (method, target_class), found in _by_class(findings):
        facts = [one.facts for one in found]
        drawn = [each for each in facts if "drawn_i_auroc" in each]
        table.add_row(
            method,
            target_class,
            _percent(each["i_auroc"] for each in facts),
            _ends(each["left_out_i_auroc"] for each in facts),
            _ends(each["swapped_i_auroc"] for each in facts),
            _percent(*([f(each["drawn_i_auroc"]) for each in drawn] for f in (min, fmean, max))),
            _percent(each["chosen_i_auroc"] for each in drawn),
            _percent(each["share_below"] for each in drawn),
        )
    return table


def _sizes_table(title: str, findings: Sequence[Finding]) -> Table:
    """Quartiles of the defects, the smallest first, with images whole and in tiles."""
    table = Table(
        "method",
        "tiles",
        "quartile",
        "share of the image",
        *SHOWN,
        title=f"{title}; percent, means over classes and seeds",
        title_justify="left",
    )
    for method, found in _by_method(findings):
        lines: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for one in found:
            for factor, groups in _by_tiles(one.facts["groups"]).items():
                for number, group in enumerate(groups, start=1):
                    lines.setdefault((factor, number), []).append(group)
        for (factor, number), groups in lines.items():
            smallest, largest = (
                fmean(100 * each[end] for each in groups) for end in ("smallest", "largest")
            )
            metrics = [_percent(each[name] for each in groups) for name in SHOWN]
            share = f"{smallest:.2f} to {largest:.2f} %"
            table.add_row(method, f"x{factor}", str(number), share, *metrics)
    return table


TABLES: dict[str, Callable[[str, Sequence[Finding]], Table]] = {
    "influence": _influence_table,
    "sizes": _sizes_table,
}


def _by_method(findings: Iterable[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Findings of one method and setting, named apart where a method has several."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        found.setdefault((one.method, str(sorted(one.params.items()))), []).append(one)
    names = [name for name, _ in found]
    for number, ((name, _), group) in enumerate(found.items()):
        is_alone = names.count(name) == 1
        yield name if is_alone else f"{name} ({names[: number + 1].count(name)})", group


def _by_class(findings: Iterable[Finding]) -> Iterator[tuple[tuple[str, str], list[Finding]]]:
    for method, found in _by_method(findings):
        classes = dict.fromkeys(one.target_class for one in found)
        for name in classes:
            yield (method, name), [one for one in found if one.target_class == name]


def _by_tiles(groups: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for group in groups:
        found.setdefault(group["tiles"], []).append(group)
    return found


def _percent(*columns: Iterable[float | None]) -> str:
    """Means of what is there, side by side."""
    kept = [[each for each in column if each is not None] for column in columns]
    return ", ".join(f"{100 * fmean(column):.1f}" if column else NOTHING for column in kept)


def _ends(effects: Iterable[Sequence[float]]) -> str:
    """Means of the least and the greatest effect."""
    kept = list(effects)
    return ", ".join(f"{100 * fmean(end(each) for each in kept):+.1f}" for end in (min, max))
