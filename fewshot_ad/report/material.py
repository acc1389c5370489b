"""What a page is made from, and what of the kept evidence it can show."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest

from fewshot_ad.evaluation.curves import Curve
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.report.entrants import Entrant, League, target
from fewshot_ad.report.gallery import MOST_ENTRANTS, Judged, readable
from fewshot_ad.report.published import Published
from fewshot_ad.report.row_list import RowList
from fewshot_ad.report.standings import by_mean


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a page is made from.

    Attributes:
        rows: of the store, at least one.
        metric: the one that ranks.
        evidence: what was kept with a row, by its key; None where nothing was.
        failures: cells that failed, each with the reason.
        studies: the files that the rows were asked for by.
        published: numbers of others to stand beside ours.
    """

    rows: Sequence[ResultRow]
    title: str = "Few-shot anomaly detection"
    metric: str = "i_auroc"
    evidence: Callable[[str], bytes | None] = lambda _: None
    failures: Sequence[tuple[str, str]] = ()
    studies: Sequence[str] = ()
    published: Sequence[Published] = ()


@dataclass
class Kept:
    """What the evidence of a store gives to a page; only pictures that may be shown are held."""

    curves: dict[tuple[int, str], list[Mapping[str, Curve]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    judged: list[Judged] = field(default_factory=list[Judged])
    broken: list[str] = field(default_factory=list[str])


def kept_for(
    found: Sequence[League], names: Sequence[str], rows: RowList, material: Material
) -> Kept:
    """Evidence of the main number of shots; the best of every league come first."""
    kept = Kept()
    by_place = zip_longest(*([(n, one, e) for e in by_mean(one, material.metric)]
                             for n, one in enumerate(found)))  # fmt: skip
    pictured: set[tuple[int, str]] = set()
    for place in filter(None, chain.from_iterable(by_place)):
        number, league, entrant = place
        judged = _judged(number, league, entrant, rows, kept, material)
        if judged and len(pictured) < MOST_ENTRANTS:
            if _is_shared(entrant.label, found):
                judged = {where: _named(one, names[number]) for where, one in judged.items()}
            pictured.add((number, entrant.label))
            kept.judged += judged.values()
    return kept


def _is_shared(label: str, found: Sequence[League]) -> bool:
    return sum(each.label == label for one in found for each in one.entrants) > 1


def _named(judged: Judged, league: str) -> Judged:
    return replace(judged, label=f"{judged.label}, {league}")


def _judged(
    number: int, league: League, entrant: Entrant, rows: RowList, kept: Kept, material: Material
) -> dict[str, Judged]:
    """The pictures of an entrant by class, of the first seed that has any; notes the curves."""
    found: dict[str, Judged] = {}
    for row in sorted(entrant.at(league.main_shots), key=lambda row: row.seed):
        evidence = readable(material.evidence, row_key(row), kept.broken)
        if evidence is None:
            continue
        kept.curves[number, entrant.label].append(evidence.curves)
        where = target(row)
        if evidence.pictures and where not in found:
            anchor = rows.anchor(number, entrant.label, where, league.main_shots)
            found[where] = Judged(entrant.label, where, anchor, evidence)
    return found
