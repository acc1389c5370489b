"""Tables that LaTeX can read."""

import re
from dataclasses import replace

from stored_rows import ROW

from fewshot_ad.report.latex import escaped, latex


def test_every_line_has_the_columns_of_its_table():
    text = latex([ROW, replace(ROW, seed=1), replace(ROW, target_class="a_b & c")])
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(columns[1])}
    assert r"a\_b \& c" in text
    assert r"90.0 $\pm$ 0.0" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1


def test_special_letters_are_printed_as_they_are():
    assert escaped("50 % of {a_b}") == r"50 \% of \{a\_b\}"
    assert escaped("\\~^") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}"


def test_tracks_have_tables_of_their_own():
    assert latex([ROW, replace(ROW, track="batched")]).count(r"\begin{table}") == 2
