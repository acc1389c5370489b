"""One self-contained page of a store: headline, tables, charts, pictures, and every row.

The page asks for nothing from outside, and everything that comes from rows is escaped.
"""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fewshot_ad import __version__
from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.summary import METRICS
from fewshot_ad.report import holes, origins
from fewshot_ad.report.chapters import chapter, league_names
from fewshot_ad.report.entrants import League, leagues, target
from fewshot_ad.report.gallery import gallery
from fewshot_ad.report.labels import METRIC_NAMES
from fewshot_ad.report.material import Kept, Material, kept_for
from fewshot_ad.report.published import beside, metrics_of
from fewshot_ad.report.row_list import RowList
from fewshot_ad.report.transfer import transfers

__all__ = ["Material", "html_page"]


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
    names = league_names(found)
    kept = kept_for(found, names, rows, material)
    chapters = [chapter(n, one, names[n], rows, kept, material) for n, one in enumerate(found)]
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
        published=beside(material.published, material.rows),
        published_names=[METRIC_NAMES[name] for name in metrics_of(material.published)],
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
