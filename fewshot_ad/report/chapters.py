"""What a page says of one league: its tables, charts and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fewshot_ad.api import Track
from fewshot_ad.evaluation.average_ranks import AverageRanks
from fewshot_ad.evaluation.curves import CURVES, Curve
from fewshot_ad.report.charts import (
    COSTS,
    cost_chart,
    curve_chart,
    mean_curves,
    ranks_chart,
    shot_chart,
)
from fewshot_ad.report.differences import Comparison, Leader, comparisons, leader, ranks
from fewshot_ad.report.entrants import League
from fewshot_ad.report.material import Kept, Material
from fewshot_ad.report.row_list import RowList
from fewshot_ad.report.standings import Heat, Standing, by_mean, heat, standings
from fewshot_ad.report.svg import swatch

EXPLANATIONS: Mapping[Track, str] = {
    "training_free": "Nothing is trained: the support is compared with the query as it is.",
    "meta_trained": "Trained once on labelled classes that are known, never on the target class.",
    "batched": "All query images are seen together before any of them is judged.",
    "target_tuned": "Trained on the support of the target class, normal images alone.",
    "supervised": "Shown labelled anomalies of the target class besides.",
    "synthetic": "Trained on the support and on anomalies made up from it.",
}


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


def chapter(
    number: int, league: League, name: str, rows: RowList, kept: Kept, material: Material
) -> Chapter:
    """Everything about a league, from its rows and from what was kept with them.

    Args:
        number: of the league on the page.
        league: whose chapter it is.
        name: its heading.
        rows: where the rows stand.
        kept: curves and pictures.
        material: of the page.
    """
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
        leader=leader(league, metric, pairs),
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


def league_names(found: Sequence[League]) -> list[str]:
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


def _star(lines: Sequence[Standing]) -> list[str]:
    notes = sorted({line.note for line in lines if line.note and line.interval != "–"})
    found = [f"* {'; '.join(notes)}."] if notes else []
    if any(line.rank.value is None and line.metrics[0].value is not None for line in lines):
        found.append("A dash for a rank: the mean is over other classes than those of the rest.")
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
