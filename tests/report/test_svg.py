"""Charts: axes that hold their values, marks where the numbers are, words that are escaped."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_rows import some_rows

from fewshot_ad.evaluation.curves import GRID
from fewshot_ad.report.charts import cost_chart, curve_chart, mean_curves, shot_chart
from fewshot_ad.report.entrants import leagues
from fewshot_ad.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    chart,
    named_axis,
    percent_axis,
    seconds_axis,
    share_axis,
)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_percents_have_a_few_round_ticks_around_them(values):
    axis = percent_axis("x", values)
    assert axis.low <= min(values) + 1e-9
    assert axis.high >= max(values) - 1e-9
    assert 2 <= len(axis.ticks) <= 9
    shown = [float(word) for _, word in axis.ticks]
    np.testing.assert_allclose(shown, [100 * value for value, _ in axis.ticks], atol=0.051)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_seconds_lie_between_decades(values):
    axis = seconds_axis("s", values)
    assert all(0.0 <= axis.share(value) <= 1.0 for value in values)
    assert axis.share(axis.ticks[0][0]) == 0.0
    assert axis.share(axis.ticks[-1][0]) == pytest.approx(1.0)


def test_dots_are_where_their_numbers_are():
    svg = chart("t", share_axis("x"), share_axis("y"), [Series("a", 0, [(0.25, 0.5)], kind="dots")])
    (place,) = re.findall(r"translate\(([\d.]+) ([\d.]+)\)\" d", svg)
    assert float(place[0]) == pytest.approx(LEFT + 0.25 * (WIDTH - LEFT - RIGHT), abs=0.06)
    assert float(place[1]) == pytest.approx(TOP + 0.5 * (HEIGHT - TOP - BOTTOM), abs=0.06)


def test_words_are_escaped_and_the_image_is_well_formed():
    evil = "<b>\"'&"
    series = [Series(evil, 99, [(0, 0.5)], kind="both")]
    svg = chart(evil, named_axis(evil, [evil]), share_axis(evil), series)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == evil
    assert "<b>" not in svg


def test_a_league_has_its_charts():
    (league,) = leagues(some_rows(methods=5))
    styles = {entrant.label: place for place, entrant in enumerate(league.entrants)}
    over_shots = shot_chart(league, "i_auroc", styles)
    assert over_shots
    assert over_shots.count('class="line') == 5
    assert over_shots.count('class="whisker') == 10
    assert 'class="band' not in over_shots  # five bands would hide each other
    cost = cost_chart(league, "i_auroc", "fit_seconds", styles)
    assert cost
    assert cost.count('class="dot') == 5


def test_few_methods_have_bands_and_one_number_of_shots_no_chart():
    (league,) = leagues(some_rows(methods=2))
    styles = {"m0": 0, "m1": 1}
    found = shot_chart(league, "aupro", styles)
    assert found
    assert found.count('class="band') == 2
    (league,) = leagues(some_rows(shots=(4,)))
    assert shot_chart(league, "i_auroc", styles) is None


def test_curves_are_averaged_point_by_point():
    curves = [{"i_roc": GRID}, {"i_roc": GRID**2, "pro": GRID}]
    found = mean_curves(curves)
    np.testing.assert_allclose(found["i_roc"], (GRID + GRID**2) / 2)
    np.testing.assert_allclose(found["pro"], GRID)


def test_the_curve_of_regions_ends_at_the_limit_of_aupro():
    svg = curve_chart("pro", {"a": np.ones_like(GRID)}, {"a": 0})
    points = re.search(r'class="line s0" d="M([^"]+)"', svg)
    assert points
    assert float(points[1].split("L")[-1].split()[0]) == WIDTH - RIGHT
    assert ">0.3</text>" in svg
