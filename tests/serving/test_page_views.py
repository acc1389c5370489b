"""The HTML of the page: numbers where they belong, names escaped, the curve where p-values lie."""

import io
import re
from base64 import b64decode
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from painted import MeanColour, Painted
from PIL import Image

from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.photos import Unreadable
from fewshot_ad.inspection.thresholds import conformal_p_value
from fewshot_ad.serving import page_chart
from fewshot_ad.serving.page_session import Session, Setup
from fewshot_ad.serving.page_views import findings, headline, rows

PLATES = Painted(n_train=8)
NASTY = "<img src=x onerror=alert(1)> {{1+1}} ${1+1}"


def judged_session(far=0.2, n=6):
    normals = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:n]]
    session = Session(Setup(method=MeanColour()))
    session.inspector = Inspector.from_normals(normals, MeanColour(), far=far, name=NASTY)
    photos = [PLATES.read_image(sample) for sample in PLATES.test("plate")]
    session._seen = {one.name: one for one in session.inspector.predict(photos)}
    session._seen["x"] = Unreadable(NASTY, NASTY)
    return session


class Tags(HTMLParser):
    """Counts tags and keeps what addresses they hold."""

    def __init__(self, html):
        super().__init__()
        self.count, self.addresses = {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def test_names_are_text_and_every_picture_is_in_the_page():
    session = judged_session()
    session.part_notes = (NASTY,)
    below = Tags(findings(session))
    assert below.count["img"] == 8 + 6
    assert all(address.startswith("data:image/jpeg;base64,") for address in below.addresses)
    for html in (headline(session), findings(session)):
        assert "<img src=x" not in html
        assert "{{" not in html
        assert "${" not in html
        assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_the_headline_counts_decisions_and_says_the_promise():
    session = judged_session()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", headline(session)))
    n_not_ok = sum(one.decision == "NOT OK" for one in session.judged)
    assert n_not_ok == 4
    assert "4 of 9 not ok, 1 unreadable" in text
    assert session.inspector.promise in text
    assert "Four normal photos will do" in headline(Session(session.setup))
    assert findings(Session(session.setup)) == ""


def test_the_rows_have_what_the_verdicts_say():
    session = judged_session()
    first, second = rows(session)[:2]
    assert (first["decision"], first["score"]) == ("UNREADABLE", "")
    best = session.judged[1]
    assert second == {
        "name": best.name,
        "decision": "NOT OK",
        "score": f"{best.score:.4g}",
        "p_value": "14.3 %",
        "n_regions": str(len(best.regions)),
        "reason": "",
    }


def test_overlays_are_those_of_the_verdicts():
    session = judged_session()
    painted = [one.overlay().astype(float) for one in session.judged if hasattr(one, "overlay")]
    for n, address in enumerate(Tags(findings(session)).addresses[:8]):
        with Image.open(io.BytesIO(b64decode(address.split(",")[1]))) as image:
            shown = np.asarray(image)
        far_off = [np.abs(shown - each).mean() for each in painted]
        assert np.argmin(far_off) == n


def test_a_normal_that_stands_out_is_marked():
    session = judged_session()
    assert "stands out" not in findings(session)
    normals = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:6]]
    odd = PLATES.read_image(PLATES.test("plate")[7])
    with pytest.warns(UserWarning, match="stands out"):
        session.inspector = Inspector.from_normals([*normals, odd], MeanColour())
    assert findings(session).count("stands out") == 1


def test_the_curve_is_the_p_value_with_both_ends_of_each_step():
    inspector = judged_session().inspector
    scores = inspector.calibration.scores
    x = page_chart.score_axis(scores)
    points = page_chart.curve(inspector, x)
    assert all(p == conformal_p_value(score, scores) for score, p in points)
    assert [score for score, _ in points] == sorted(score for score, _ in points)
    heights = [p for _, p in points]
    assert sorted({*heights}, reverse=True) == pytest.approx([n / 7 for n in range(7, 0, -1)])
    falls = [(a, b) for a, b in pairwise(points) if b[1] < a[1]]
    assert len(falls) == 6
    assert all(b[0] - a[0] < 1e-6 for a, b in falls)


def test_the_chart_marks_every_normal_and_every_photo_once():
    session = judged_session()
    verdicts = [one for one in session.judged if hasattr(one, "score")]
    drawn = page_chart.calibration_chart(session.inspector, verdicts)
    dots = [re.findall(rf'class="dot s{style}"', drawn) for style in range(3)]
    assert [len(each) for each in dots] == [6, 4, 4]
    assert f"array-7: score {verdicts[0].score:.4g}, p-value 14.3 %" in drawn


@pytest.mark.parametrize(
    "scores", [[0.1, 0.12, 0.5], [0.5], [1e-6, 3.0], [-2.0, 5.0], [0.0, 0.0], [1234.5, 1235.5]]
)
def test_axes_hold_all_scores_and_have_some_round_ticks(scores):
    axis = page_chart.score_axis(scores)
    assert axis.low < min(scores) <= max(scores) < axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(axis.low <= value <= axis.high for value, _ in axis.ticks)
    assert len({word for _, word in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize("lowest", [0.5, 0.2, 0.01, 0.001, 1e-5, 1e-12])
def test_the_axis_of_rates_ends_at_all(lowest):
    axis = page_chart.rate_axis(lowest)
    assert axis.ticks[-1] == (1.0, "100")
    assert len(axis.ticks) <= 7
    assert axis.low < max(lowest, 1e-6)
    places = [value for value, _ in axis.ticks]
    assert places == sorted({*places})
