"""One self-contained page of a store: headline, tables, charts, pictures, and every row.

The page asks for nothing from outside, and everything that comes from rows is escaped.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewshot_ad import __version__
from fewshot_ad.api import FewShotError, Track
from fewshot_ad.evaluation.average_ranks import AverageRanks
from fewshot_ad.evaluation.curves import CURVES, Curve
from fewshot_ad.evaluation.results import ResultRow, row_key
from fewshot_ad.evaluation.summary import METRICS
from fewshot_ad.report import holes, origins
from fewshot_ad.report.charts import (
    COSTS,
    cost_chart,
    curve_chart,
    mean_curves,
    ranks_chart,
    shot_chart,
)
from fewshot_ad.report.entrants import Entrant, League, leagues, target
from fewshot_ad.report.gallery import MOST_ENTRANTS, Judged, gallery, readable
from fewshot_ad.report.labels import METRIC_NAMES
from fewshot_ad.report.row_list import RowList
from fewshot_ad.report.standings import (
    Comparison,
    Heat,
    Leader,
    Standing,
    by_mean,
    comparisons,
    heat,
    leader,
    ranks,
    standings,
)
from fewshot_ad.report.svg import swatch
from fewshot_ad.report.transfer import transfers

EXPLANATIONS: Mapping[Track, str] = {
    "training_free": "Nothing is trained: the support is compared with the query as it is.",
    "meta_trained": "Trained once on labelled classes that are known, never on the target class.",
    "batched": "All query images are seen together before any of them is judged.",
    "target_tuned": "Trained on the support of the target class, normal images alone.",
    "supervised": "Shown labelled anomalies of the target class besides.",
    "synthetic": "Trained on the support and on anomalies made up from it.",
}


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a page is made from.

    Attributes:
        rows: of the store, at least one.
        metric: the one that ranks.
        evidence: what was kept with a row, by its key; None where nothing was.
        failures: cells that failed, each with the reason.
        studies: the files that the rows were asked for by.
    """

    rows: Sequence[ResultRow]
    title: str = "Few-shot anomaly detection"
    metric: str = "i_auroc"
    evidence: Callable[[str], bytes | None] = lambda _: None
    failures: Sequence[tuple[str, str]] = ()
    studies: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What the page says of a league."""

    anchor: str
    name: str
    explanation: str
    main_shots: str
    leader: Leader | None
    standings: list[Standing]
    several_datasets: bool
    notes: list[str]
    comparisons: list[Comparison]
    left_out: str
    pair_notes: list[str]
    verdict: str
    ranks: AverageRanks
    ranks_chart: Markup | None
    friedman: str
    heat: Heat
    shot_charts: list[Markup]
    curve_charts: list[tuple[str, Markup]]
    curve_note: str
    cost_charts: list[Markup]
    not_drawn: str
    key: Markup
    marks: Mapping[str, Markup]


@dataclass
class Kept:
    """What the evidence of a store gives to a page; only pictures that may be shown are held."""

    curves: dict[tuple[int, str], list[Mapping[str, Curve]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    judged: list[Judged] = field(default_factory=list[Judged])
    broken: list[str] = field(default_factory=list[str])


def html_page(material: Material) -> str:
    """The page.

    Raises:
        FewShotError: there is no row, or no such metric.
    """
    if not material.rows:
        raise FewShotError("there is no row to report on; run a study or 'fewshot-ad eval' first")
    if material.metric not in METRICS:
        raise FewShotError(f"no metric {material.metric!r}; choose one of {', '.join(METRICS)}")
    found = leagues(material.rows)
    rows = RowList(found)
    names = _names(found)
    kept = _kept(found, names, rows, material)
    chapters = [_chapter(n, one, names[n], rows, kept, material) for n, one in enumerate(found)]
    environment = Environment(
        loader=PackageLoader("fewshot_ad.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(
        version=__version__,
        title=material.title,
        lede=_lede(material.rows, found),
        metric_name=METRIC_NAMES[material.metric],
        metric_names=[METRIC_NAMES[name] for name in METRICS],
        leagues=chapters,
        transfers=transfers(material.rows, material.metric),
        gallery=gallery(kept.judged),
        holes=_holes(found, kept, material),
        protocol=origins.PROTOCOL,
        facts=origins.facts(material.rows),
        settings=origins.settings(found),
        studies=material.studies,
        groups=rows.groups,
        n_rows=len(material.rows),
        devices=", ".join(sorted({row.device for row in material.rows})),
        **_shades(material.metric),
    )


def _chapter(
    number: int, league: League, name: str, rows: RowList, kept: Kept, material: Material
) -> Chapter:
    metric = material.metric
    ordered = by_mean(league, metric)
    styles = {one.label: place for place, one in enumerate(ordered)}
    lines = standings(league, number, rows, metric)
    pairs, left_out = comparisons(league, metric)
    ranked = ranks(league, metric)
    several = len(ranked.ranks) > 1
    return Chapter(
        anchor=f"track-{number + 1}",
        name=name,
        explanation=EXPLANATIONS[league.track],
        main_shots=str(league.main_shots),
        leader=leader(league, metric),
        standings=lines,
        several_datasets=len({line.dataset for line in lines}) > 1,
        notes=_star(lines),
        comparisons=pairs,
        left_out=left_out,
        pair_notes=sorted({pair.note for pair in pairs if pair.note}),
        verdict=_verdict(pairs),
        ranks=ranked,
        ranks_chart=ranks_chart(ranked, styles) if several else None,
        friedman=_p(ranked.friedman_p),
        heat=heat(league, number, rows, metric),
        shot_charts=_shot_charts(league, metric, styles),
        **_curves(number, league, kept, styles),
        cost_charts=_cost_charts(league, metric, styles),
        not_drawn=_not_drawn(league, kept.curves, number),
        key=_key(styles),
        marks={label: swatch(style) for label, style in styles.items()},
    )


def _names(found: Sequence[League]) -> list[str]:
    """The track of each league, and its rules where several leagues have one track."""
    tracks = [one.track for one in found]
    rules: list[str] = []
    for one in found:
        shown = f"{one.anomalous_shots} anomalous shots" if one.anomalous_shots else ""
        same = [other for other in found if other.track == one.track]
        supports = one.manifest if len({other.manifest for other in same}) > 1 else ""
        sizes = f"at {one.eval_size}" if len({other.eval_size for other in same}) > 1 else ""
        rules.append(", ".join(filter(None, (shown, supports, sizes))))
    words = [track.replace("_", "-").capitalize() for track in tracks]
    return [f"{word} ({rule})" if rule else word for word, rule in zip(words, rules, strict=True)]


def _kept(found: Sequence[League], names: Sequence[str], rows: RowList, material: Material) -> Kept:
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


def _curves(number: int, league: League, kept: Kept, styles: Mapping[str, int]) -> dict[str, Any]:
    means: dict[str, dict[str, Curve]] = {}
    counts: set[int] = set()
    for label in styles:
        curves = kept.curves.get((number, label), [])
        counts |= {len(curves)} if curves else set()
        for name, curve in mean_curves(curves).items():
            means.setdefault(name, {})[label] = curve
    charts = [
        (CURVES[name][0], curve_chart(name, means[name], styles))
        for name in CURVES
        if name in means
    ]
    cells = "–".join(str(n) for n in sorted({min(counts), max(counts)})) if counts else "0"
    note = (
        f"Heights averaged over {cells} cells per method at {league.main_shots} shots. AUPRO is "
        "the area below the last one, over 0.3."
    )
    return {"curve_charts": charts, "curve_note": note}


def _shot_charts(league: League, metric: str, styles: Mapping[str, int]) -> list[Markup]:
    wanted = dict.fromkeys((metric, "p_auroc", "aupro"))
    charts = [shot_chart(league, name, styles) for name in wanted]
    return [svg for svg in charts if svg is not None]


def _cost_charts(league: League, metric: str, styles: Mapping[str, int]) -> list[Markup]:
    if len(league.entrants) == 1:
        return []
    charts = [cost_chart(league, metric, name, styles) for name in COSTS]
    return [svg for svg in charts if svg is not None]


def _not_drawn(league: League, curves: Mapping[Any, Any], number: int) -> str:
    """Why parts of a chapter are left out."""
    reasons: list[str] = []
    if len(league.entrants) == 1:
        reasons.append("One method: there is nobody to compare it with.")
    if len(league.shots) == 1:
        reasons.append(f"One number of shots ({league.main_shots}): there is no curve over shots.")
    if not any(curves.get((number, entrant.label)) for entrant in league.entrants):
        reasons.append("No ROC, PR and PRO curves were kept with these rows; a study keeps them.")
    return " ".join(reasons)


def _key(styles: Mapping[str, int]) -> Markup:
    if len(styles) == 1:
        return Markup()
    items = [Markup("<li>{}{}</li>").format(swatch(n), label) for label, n in styles.items()]
    return Markup('<ul class="key">{}</ul>').format(Markup("").join(items))


def _lede(rows: Sequence[ResultRow], found: Sequence[League]) -> str:
    methods = len({entrant.label for one in found for entrant in one.entrants})
    classes = {target(row) for row in rows}
    datasets = {row.dataset for row in rows}
    shots = {str(shots) for one in found for shots in one.shots}
    seeds = {row.seed for row in rows}
    counted = (
        (methods, "method", "methods"),
        (len(classes), "class", "classes"),
        (len(datasets), "dataset", "datasets"),
        (len(seeds), "seed", "seeds"),
    )
    words = [f"{n} {one if n == 1 else many}" for n, one, many in counted]
    numbers = sorted(shots, key=lambda n: float("inf") if n == "full" else int(n))
    single = "shot" if numbers == ["1"] else "shots"
    return f"{', '.join(words)}, at {', '.join(numbers)} {single}: {len(rows)} cells were measured."


def _star(lines: Sequence[Standing]) -> list[str]:
    notes = sorted({line.note for line in lines if line.note and line.interval != "–"})
    found = [f"* {'; '.join(notes)}."] if notes else []
    if any("†" in cell.text for line in lines for cell in line.metrics):
        found.append("† over the classes that have it alone; see what is missing.")
    return found


def _verdict(pairs: Sequence[Comparison]) -> str:
    tested = [pair for pair in pairs if pair.p.value is not None]
    if not tested:
        return (
            "No pair could be tested: " + "; ".join(sorted({pair.verdict for pair in pairs})) + "."
        )
    differ = [pair for pair in tested if pair.p.value is not None and pair.p.value < 0.05]
    return f"{len(differ)} of {len(tested)} tested pairs differ at 5 % after Holm's correction."


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _holes(
    found: Sequence[League], kept: Kept, material: Material
) -> list[tuple[str, list[holes.Hole]]]:
    broken = [holes.Hole(*line.split(": ", 1)) for line in kept.broken]
    groups = [
        ("Cells that failed", holes.failed(material.failures)),
        ("Cells that were not run", [hole for one in found for hole in holes.not_run(one)]),
        ("Metrics that are empty", holes.empty(found)),
        ("Evidence that cannot be read", broken),
    ]
    return [(heading, some) for heading, some in groups if some]


def _shades(metric: str) -> dict[str, Any]:
    """Areas under a ROC curve start at chance, others at nothing."""
    low = 0.5 if metric in ("i_auroc", "p_auroc") else 0.0

    def shade(value: float) -> float:
        return round(min(max((value - low) / (1 - low), 0.0), 1.0), 2)

    return {"shade": shade, "shade_low": f"{100 * low:.0f} or less" if low else "0"}
