"""Numbers of others beside ours: shown, and never mixed with them or ranked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fewshot_ad.episodes import Shots
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.evaluation.summary import METRICS, TableRow, summarise
from fewshot_ad.report.labels import EMPTY, with_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What somebody published.

    Attributes:
        metrics: in percent, by name.
        source: where it stands.
        target_class: one class; the mean over classes where nothing is said.
        known: name of the dataset of meta-training.
        backbone: name of the one of ours that it is to be compared with; any where nothing is said.
    """

    method: str
    dataset: str
    shots: Shots
    metrics: Mapping[str, float]
    source: str
    target_class: str | None = None
    known: str | None = None
    backbone: str | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """A line of the table: theirs, ours and ours less theirs for every metric, as text."""

    method: str
    where: str
    shots: str
    numbers: tuple[tuple[str, str, str], ...]
    ours: str
    source: str


def metrics_of(published: Iterable[Published]) -> list[str]:
    """The metrics that have a number."""
    named = {name for one in published for name in one.metrics}
    return [name for name in METRICS if name in named]


def beside(published: Sequence[Published], rows: Iterable[ResultRow]) -> list[Beside]:
    """A line for every number and every configuration of ours that answers it.

    One that nothing of ours answers has a line of its own, with dashes.
    """
    lines, metrics = summarise(rows), metrics_of(published)
    return [
        _beside(one, ours, metrics)
        for one in published
        for ours in [line for line in lines if _answers(line, one)] or [None]
    ]


def _answers(line: TableRow, one: Published) -> bool:
    return (
        (line.method, line.dataset, line.shots) == (one.method, one.dataset, one.shots)
        and line.target_class == one.target_class
        and (one.known is None or one.known in line.known_datasets)
        and (one.backbone is None or one.backbone == line.backbone)
    )


def _beside(one: Published, line: TableRow | None, metrics: Sequence[str]) -> Beside:
    where = f"{one.dataset}/{one.target_class}" if one.target_class else one.dataset
    after = f" after {one.known}" if one.known else ""
    return Beside(
        method=one.method,
        where=f"{where}{after}",
        shots=str(one.shots),
        numbers=tuple(_numbers(one, line, metrics)),
        ours="not run" if line is None else _described(line),
        source=one.source,
    )


def _numbers(
    one: Published, line: TableRow | None, metrics: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    for name in metrics:
        theirs, spread = one.metrics.get(name), None if line is None else line.metrics[name]
        ours = None if spread is None else 100 * spread.mean
        gap = EMPTY if theirs is None or ours is None else f"{ours - theirs:+.1f}"
        yield _text(theirs), _text(ours), gap


def _described(line: TableRow) -> str:
    """What ours was: setting, backbone, and over how many classes it is a mean."""
    classes = "1 class" if len(line.classes) == 1 else f"{len(line.classes)} classes"
    named = with_budget(line.method, line.preset, line.params).removeprefix(line.method)
    return ", ".join(filter(None, (named.strip(", "), line.backbone, classes)))


def _text(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.1f}"
