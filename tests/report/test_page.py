"""The page as text: numbers, links, escapes, and words where there is nothing to show."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from statistics import mean
from time import process_time

import numpy as np
import pytest
from stored_rows import ROW, some_rows

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.report.page import Material, html_page


class Page(HTMLParser):
    """Ids, links, addresses and the text of every table cell."""

    def __init__(self, html: str):
        super().__init__()
        self.html = html
        self.ids, self.links, self.outside, self.tags = [], [], [], []
        self.words: list[str] = []
        self._silent = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._silent = tag in ("style", "script")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src"):
                (self.links if value.startswith("#") else self.outside).append(value)

    def handle_data(self, data):
        if not self._silent:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page(rows, **more) -> Page:
    return Page(html_page(Material(rows=rows, **more)))


@pytest.fixture(scope="module")
def whole() -> Page:
    rows = some_rows() + some_rows(methods=1, track="batched")
    return page(rows, title="A title")


def test_every_link_leads_somewhere_and_nothing_leads_outside(whole):
    assert len(whole.ids) == len(set(whole.ids))
    targets = {link[1:] for link in whole.links}
    assert len(targets) > 30
    assert targets <= set(whole.ids)
    assert {address.partition(":")[0] for address in whole.outside} <= {"data"}
    assert "default-src 'none'" in whole.html
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", whole.html)


def test_every_row_is_listed(whole):
    rows = some_rows() + some_rows(methods=1, track="batched")
    assert {f"r-{row_key(row)}" for row in rows} <= set(whole.ids)


def test_the_table_has_the_mean_over_classes(whole):
    rows = [row for row in some_rows() if row.method == "m2" and row.shots == 4]
    expected = f"{100 * mean(row.i_auroc for row in rows):.1f}"
    line = next(
        line for line in whole.html.split("<tr") if ">m2</a>" in line and 'data-v="4"' in line
    )
    assert f">{expected} ±" in line


def test_tracks_have_chapters_of_their_own(whole):
    training_free, batched = (
        whole.html.split(f'<section id="track-{n}">')[1].split("</section>")[0] for n in (1, 2)
    )
    assert ">m2</a>" in training_free
    assert ">m2</a>" not in batched
    assert ">m0</a>" in batched
    assert "nobody to compare it with" in batched


def test_differences_are_told(whole):
    assert "Which differences are real" in whole.text
    assert "critical difference" in whole.text
    assert "0.016" in whole.text or "differ at 5 %" in whole.text


def test_nothing_of_a_row_is_markup():
    evil = "<script>alert(1)</script>\"'&"
    row = replace(ROW, method=evil, dataset=evil, target_class=evil, backbone=evil, device=evil,
                  params={"k": evil}, i_ap=None, reasons={"i_ap": evil})  # fmt: skip
    found = page([row], title=evil, failures=[(evil, evil)], studies=[evil])
    assert found.tags.count("script") == 1  # ours
    assert found.html.count("alert(1)") > 8
    assert "<script>alert" not in found.html


def test_one_row_is_enough():
    text = page([ROW]).text
    assert "no interval" in text
    assert "one class and one seed" in text
    assert "The only method of its track here" in text
    assert "One number of shots (4)" in text
    assert "No pictures were kept" in text
    assert "Nothing: every cell" in text


def test_a_metric_that_is_nowhere_is_told():
    reason = "no anomalous image"
    row = replace(ROW, i_auroc=None, i_ap=None, i_f1_max=None, reasons={"i_auroc": reason})
    text = page([row]).text
    assert "No I-AUROC could be computed" in text
    assert f"synthetic/screw (i_auroc) {reason}" in text


def test_a_metric_that_some_classes_lack_has_a_dagger():
    lacking = replace(ROW, target_class="cells", p_auroc=None, reasons={"p_auroc": "no mask"})
    text = page([ROW, lacking]).text
    assert "60.0†" in text
    assert "over the classes that have it alone" in text


def test_holes_are_named():
    rows = [row for row in some_rows() if (row.method, row.target_class) != ("m1", "class3")]
    text = page(
        rows, failures=[("padim on x/y", "out of memory"), ("padim on x/z", "out of memory")]
    )
    assert "Cells that failed padim on x/y; padim on x/z out of memory" in text.text
    assert "m1: synthetic/class3, 1 shots, seed 0" in text.text
    assert "4 of 28 cells" in text.text


def test_no_number_is_nan():
    flat = [replace(row, i_auroc=0.5) for row in some_rows()]
    found = page(flat)
    assert "nan" not in found.text.lower().split()
    assert 'nan"' not in found.html
    assert "equal in all 7 classes" in found.text


def test_settings_tell_entrants_of_one_method_apart():
    rows = [ROW, replace(ROW, params={"k": 2}), replace(ROW, weights_digest="1")]
    text = page(rows).text
    assert "patchcore (k=2)" in text
    assert "patchcore (k=1), weights 1" in text


def test_an_empty_store_and_an_unknown_metric_are_refused():
    with pytest.raises(FewShotError, match="no row"):
        page([])
    with pytest.raises(FewShotError, match="no metric 'accuracy'"):
        page([ROW], metric="accuracy")


def test_transfer_goes_from_known_to_unseen():
    cells = [("visa", "mvtec", 0.8), ("mvtec", "visa", 0.7), ("visa", "btad", 0.6)]
    rows = [
        replace(ROW, track="meta_trained", known=(f"{known}/a",), known_digest=known,
                dataset=unseen, i_auroc=value)
        for known, unseen, value in cells
    ]  # fmt: skip
    section = page(rows).html.split('<section id="transfer">')[1].split("</section>")[0]
    lines = [re.findall(r">([\w.–]+)<", line) for line in section.split("<tr>")[1:]]
    assert lines == [["btad", "mvtec", "visa"], ["mvtec", "–", "–", "70.0"],
                     ["visa", "60.0", "80.0", "–"]]  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_rows_make_a_page_of_a_few_megabytes():
    rows = some_rows(methods=20, classes=25, shots=(1, 2, 4, 8), seeds=5)
    values = np.linspace(0, 1, len(rows)).tolist()
    rows = [replace(row, i_ap=value) for row, value in zip(rows, values, strict=True)]
    assert len(rows) == 10_000
    began = process_time()
    html = html_page(Material(rows=rows))
    assert process_time() - began < 60
    assert len(html.encode()) < 5e6
