"""Published numbers beside ours."""

from dataclasses import replace

import pytest
from stored_rows import ROW

from fewshot_ad.report.page import Material, html_page
from fewshot_ad.report.published import Published, beside, metrics_of

THEIRS = Published(
    method="patchcore", dataset="synthetic", shots=4, metrics={"i_auroc": 80.6}, source="table <1>"
)


@pytest.fixture
def rows():
    """Two classes, two seeds: the means of I-AUROC are 0.7 and 0.8."""
    values = {("screw", 0): 0.6, ("washer", 0): 0.8, ("screw", 1): 0.7, ("washer", 1): 0.9}
    return [
        replace(ROW, target_class=name, seed=seed, i_auroc=value, query_digest=name)
        for (name, seed), value in values.items()
    ]


def test_the_mean_over_classes_and_seeds_stands_beside_theirs(rows):
    (line,) = beside([THEIRS], rows)
    assert line.numbers == (("80.6", "75.0", "-5.6"),)
    assert line.ours == "tiny, 2 classes"
    assert (line.method, line.where, line.shots) == ("patchcore", "synthetic", "4")


def test_one_class_alone(rows):
    (line,) = beside([replace(THEIRS, target_class="washer")], rows)
    assert line.numbers == (("80.6", "85.0", "+4.4"),)
    assert line.where == "synthetic/washer"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "padim"},
        {"dataset": "visa"},
        {"shots": 2},
        {"shots": "full"},
        {"target_class": "pill"},
        {"known": "visa"},
        {"backbone": "wide_resnet50_2"},
    ],
)
def test_what_nothing_of_ours_answers_has_a_line_with_dashes(rows, change):
    (line,) = beside([replace(THEIRS, **change)], rows)
    assert line.numbers == (("80.6", "–", "–"),)
    assert line.ours == "not run"


def test_known_sets_are_told_apart(rows):
    learned = [replace(row, track="meta_trained", known=("visa/candle",)) for row in rows]
    theirs = [replace(THEIRS, known=name) for name in ("visa", "mvtec_ad")]
    assert [line.ours for line in beside(theirs, learned)] == ["tiny, 2 classes", "not run"]
    assert beside(theirs, learned)[0].where == "synthetic after visa"


def test_every_configuration_of_ours_has_a_line(rows):
    other = [replace(row, params={"k": 2}, i_auroc=0.5) for row in rows]
    assert [line.numbers[0][1] for line in beside([THEIRS], rows + other)] == ["75.0", "50.0"]


def test_metrics_that_one_of_them_has_are_columns_of_all(rows):
    theirs = [THEIRS, replace(THEIRS, metrics={"p_auroc": 61.0})]
    assert metrics_of(theirs) == ["i_auroc", "p_auroc"]
    assert [line.numbers for line in beside(theirs, rows)] == [
        (("80.6", "75.0", "-5.6"), ("–", "60.0", "–")),
        (("–", "75.0", "–"), ("61.0", "60.0", "-1.0")),
    ]


def test_the_page_has_the_table_where_there_is_a_number(rows):
    page = html_page(Material(rows=rows, published=[THEIRS]))
    assert "Beside published numbers" in page
    assert "<td>-5.6</td>" in page
    assert "table &lt;1&gt;" in page
    assert "Beside published numbers" not in html_page(Material(rows=rows))
