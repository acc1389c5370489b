"""Result rows as LaTeX tables (booktabs), a table per track, dataset and size of comparison."""

from collections.abc import Iterable

from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.report.table import Grid, grids, side

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(rows: Iterable[ResultRow]) -> str:
    """The tables, one after another; a document that has them loads the package booktabs."""
    return "\n".join(_table(grid) for grid in grids(rows))


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _table(grid: Grid) -> str:
    columns = "".join("l" if side(name) == "left" else "r" for name in grid.header)
    blocks = [
        "\n".join(" & ".join(map(escaped, cells)) + r" \\" for cells in block)
        for block in grid.blocks
    ]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escaped(grid.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(escaped, grid.header)) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(blocks),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
