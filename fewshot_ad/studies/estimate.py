"""What a study will cost, from cells that were measured before; what was not is said to be unknown.

Seconds are told per judged image, for a cell of the same method, backbone and preset takes about as
long for an image of another class. They are means, since the first cell of a class pays for the
features of all, and hold for the machine that the store was filled on.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from sqlalchemy import select

from fewshot_ad.evaluation.identity import preset_of
from fewshot_ad.studies.cells import Job
from fewshot_ad.studies.code_digest import code_digest
from fewshot_ad.studies.store import reading
from fewshot_ad.studies.store_files import ROWS, TRAININGS

BYTES_PER_CELL = 100_000  # a row with scores, curves and some pictures; 300 kB at most

Kind = tuple[str, str | None, str]
"""Method, backbone and preset."""


@dataclass(frozen=True)
class Measured:
    """What a store tells of cost.

    Attributes:
        image_seconds: of a cell by judged image, the mean over the cells of a kind.
        training_seconds: of a meta-training by method and backbone, the mean.
        finished: the cells that are there, as declared, with the code that computed each.
        bytes_per_cell: of the file, over its cells.
    """

    image_seconds: dict[Kind, float] = field(default_factory=dict[Kind, float])
    training_seconds: dict[tuple[str, str | None], float] = field(
        default_factory=dict[tuple[str, str | None], float]
    )
    finished: frozenset[tuple[str, str]] = frozenset()
    bytes_per_cell: float = BYTES_PER_CELL


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a study.

    Attributes:
        cells, finished: how many there are, and how many of them need not be computed.
        trainings: meta-trainings that the others need.
        seconds: of one process for what is left, as far as it is known.
        unknown: names of methods whose seconds nothing tells.
        memory: bytes that the hungriest jobs hold at the same time.
        disk: bytes that the store grows by.
    """

    cells: int
    finished: int
    trainings: int
    seconds: float
    unknown: tuple[str, ...]
    memory: int
    disk: float

    def lines(self, workers: int = 1) -> list[str]:
        """As a person reads it."""
        told = f"about {in_words(self.seconds / workers)} with {workers} workers"
        if workers == 1:
            told = f"about {in_words(self.seconds)} in one process"
        if self.unknown:
            names = ", ".join(self.unknown)
            told = f"{told} and" if self.seconds else "time is"
            told += f" unknown for {names}: no cell of these is in the store yet"
        return [
            f"cells: {self.cells}, of which {self.finished} are finished; "
            f"meta-trainings: {self.trainings}",
            f"time: {told}",
            f"memory: up to {self.memory / 1e9:.1f} GB at once, and what training holds; "
            f"disk: about {self.disk / 1e6:.0f} MB",
        ]


def measured(path: Path) -> Measured:
    """What a store has learned of cost; nothing where there is none.

    Raises:
        FewShotError: the file is no store.
    """
    if not path.exists():
        return Measured()
    columns = ROWS.c
    kinds: defaultdict[Kind, list[float]] = defaultdict(list)
    finished: set[tuple[str, str]] = set()
    trainings: defaultdict[tuple[str, str | None], list[float]] = defaultdict(list)
    with reading(path) as engine, engine.connect() as connection:
        wanted = select(
            columns.method, columns.backbone, columns.preset, columns.seconds, columns.images,
            columns.cell, columns.code,
        )  # fmt: skip
        for method, backbone, preset, seconds, images, cell, code in connection.execute(wanted):
            kinds[method, backbone, preset].append(seconds / images)
            finished.add((cell, code))
        for each in connection.execute(select(TRAININGS)).mappings():
            trainings[each["method"], each["backbone"]].append(each["seconds"])
    return Measured(
        image_seconds={kind: fmean(each) for kind, each in kinds.items()},
        training_seconds={kind: fmean(each) for kind, each in trainings.items()},
        finished=frozenset(finished),
        bytes_per_cell=path.stat().st_size / len(finished) if finished else BYTES_PER_CELL,
    )


def estimate(
    jobs: Sequence[Job], known: Measured, *, workers: int = 1, any_code: bool = False
) -> Estimate:
    """Cells, seconds, memory and disk of what is left of some jobs; reads no image."""
    left = {job: n for job in jobs if (n := _left(job, known, any_code))}
    trainings = {job.training: job for job in left if job.training is not None}
    costs = [*(_cost(job, known, n) for job, n in left.items())]
    costs += [_training_cost(job, known) for job in trainings.values()]
    cells = sum(len(job.trials) for job in jobs)
    return Estimate(
        cells=cells,
        finished=cells - sum(left.values()),
        trainings=len(trainings),
        seconds=sum(each for each in costs if isinstance(each, float)),
        unknown=tuple(sorted({each for each in costs if isinstance(each, str)})),
        memory=sum(sorted(job.memory for job in jobs)[-workers:]),
        disk=sum(left.values()) * known.bytes_per_cell,
    )


def _left(job: Job, known: Measured, any_code: bool) -> int:
    """How many cells are to be computed."""
    there = known.finished
    if any_code:
        cells = {cell for cell, _ in there}
        return sum(job.cell(trial) not in cells for trial in job.trials)
    code = code_digest(job.method)
    return sum((job.cell(trial), code) not in there for trial in job.trials)


def _cost(job: Job, known: Measured, n_cells: int) -> float | str:
    """Seconds of so many cells, or the name of what nothing is known of."""
    name, backbone = job.identity["method"], job.identity["backbone"]
    per_image = known.image_seconds.get((name, backbone, preset_of(job.method)))
    return name if per_image is None else per_image * n_cells * len(job.trials[0].query)


def _training_cost(job: Job, known: Measured) -> float | str:
    name, backbone = job.identity["method"], job.identity["backbone"]
    return known.training_seconds.get((name, backbone), f"the meta-training of {name}")


def in_words(seconds: float) -> str:
    """A length of time, in the unit in which it is a small number."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
