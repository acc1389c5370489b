"""What the page shows of a session, as HTML: everything that has a name is escaped."""

import io
from base64 import b64encode
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.thresholds import percent, standing_out
from fewshot_ad.inspection.verdicts import Verdict
from fewshot_ad.report.svg import swatch
from fewshot_ad.serving import page_chart
from fewshot_ad.serving.page_session import Session
from fewshot_ad.serving.page_verdicts import Judged

NORMALS_SHOWN = 24
THUMBNAIL = 160
JPEG_QUALITY = 88
LEGEND = (
    ("a normal that was left out", page_chart.NORMAL),
    ("new photo, OK", page_chart.OK),
    ("new photo, NOT OK", page_chart.NOT_OK),
)

_TEMPLATES = Environment(
    loader=PackageLoader("fewshot_ad.serving", "template"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def headline(session: Session) -> str:
    """The count of decisions, the promise, and what was warned of."""
    counts = Counter(judged.decision for judged in session.judged)
    return _render(
        "headline.html",
        inspector=session.inspector,
        promise=session.inspector.promise if session.inspector else "",
        n_not_ok=counts["NOT OK"],
        n_unreadable=counts["UNREADABLE"],
        n_judged=counts.total(),
        notes=(*session.part_notes, *session.photo_notes),
    )


def findings(session: Session) -> str:
    """The table, the overlays, the calibration and the normals."""
    inspector = session.inspector
    if inspector is None:
        return ""
    verdicts = [one for one in session.judged if isinstance(one, Verdict)]
    return _render(
        "findings.html",
        rows=rows(session),
        tiles=[_tile(verdict) for verdict in verdicts],
        chart=page_chart.calibration_chart(inspector, verdicts),
        legend=[(words, swatch(style)) for words, style in LEGEND],
        threshold=f"{inspector.threshold:.4g}",
        wanted=percent(inspector.rule.far),
        normals=_normals(inspector),
        n_normals=len(inspector.normals),
        about=_about(inspector),
    )


def rows(session: Session) -> list[dict[str, str]]:
    """A line of the table for every photo, the most urgent first."""
    return [_row(judged) for judged in session.judged]


def head() -> str:
    """What goes into the head of the document: the look of the page."""
    style = Markup(_TEMPLATES.get_template("page.css").render())
    return _TEMPLATES.get_template("head.html").render(style=style)


def masthead() -> str:
    """The head of the page."""
    return _render("masthead.html")


def step_head(number: str, title: str, note: str) -> str:
    """The head of a step."""
    return _render("step.html", number=number, title=title, note=note)


def _row(judged: Judged) -> dict[str, str]:
    named = {"name": judged.name, "decision": judged.decision}
    if not isinstance(judged, Verdict):
        return named | {"score": "", "p_value": "", "n_regions": "", "reason": judged.reason}
    return named | {
        "score": f"{judged.score:.4g}",
        "p_value": percent(judged.p_value),
        "n_regions": str(len(judged.regions)),
        "reason": "",
    }


def _tile(verdict: Verdict) -> dict[str, str]:
    return _row(verdict) | {"picture": picture(verdict.overlay())}


def _normals(inspector: Inspector) -> list[dict[str, Any]]:
    """The normals with their own scores, where they were left out one by one."""
    calibration, count = inspector.calibration, len(inspector.normals)
    is_own = calibration.source in ("leave_one_out", "folds") and len(calibration.scores) == count
    odd = standing_out(calibration.scores) if is_own else []
    return [
        {
            "name": inspector.normals[n],
            "picture": picture(np.asarray(Image.fromarray(square).resize((THUMBNAIL, THUMBNAIL)))),
            "score": f"{calibration.scores[n]:.4g}" if is_own else "",
            "is_odd": n in odd,
        }
        for n, square in enumerate(inspector.squares[:NORMALS_SHOWN])
    ]


def _about(inspector: Inspector) -> str:
    method = inspector.method
    backbone = getattr(method, "backbone", None)
    made_of = type(method).__name__ + (f" on {backbone}" if backbone else "")
    side = method.preprocess.size
    return f"{made_of}, {side}x{side} pixels; photos of {', '.join(map(str, inspector.views))}"


def picture(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """A photo as an address that holds it whole, so that nobody else can ask for it."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + b64encode(content.getvalue()).decode()


def _render(name: str, **values: Any) -> str:
    """The template; Gradio would read braces of a name as a template of its own."""
    html = _TEMPLATES.get_template(name).render(**values)
    return html.replace("{", "&#123;").replace("$", "&#36;")
