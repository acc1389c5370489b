"""The row store: every finished cell of a study with its evidence, and why others failed."""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, insert, select, text
from sqlalchemy.dialects.sqlite import insert as insert_or

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.results import ResultRow, load, parse_row, row_key
from fewshot_ad.studies.store_files import (
    EVIDENCE,
    FAILURES,
    ROWS,
    STUDIES,
    TRAININGS,
    open_for_reading,
    open_for_writing,
    told,
)

STORE, LINES = "results.sqlite", "results.jsonl"
TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A hole in a study.

    Attributes:
        cell: digest of the cell as it was declared.
        known: what the study says of known classes.
        times: how often it was tried.
        time: of the last try, ISO 8601 in UTC.
    """

    cell: str
    method: str
    dataset: str
    target_class: str
    known: str | None
    shots: int
    seed: int
    reason: str
    times: int = 1
    time: str = ""

    def __str__(self) -> str:
        known = f" after {self.known}" if self.known else ""
        return (
            f"{self.method} on {self.dataset}/{self.target_class}{known}, {self.shots} shots, "
            f"seed {self.seed}: {self.reason}"
        )


class Store:
    """Rows by key, in one file that several processes may write; made where there is none.

    Every method is one transaction: it has happened as a whole when it returns, whatever kills the
    process afterwards.
    """

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        """Open a store.

        Args:
            path: of the file.
            timeout: seconds to wait for another process that is writing.

        Raises:
            FewShotError: the file is no store, a newer version wrote it, or it cannot be written.
        """
        self.path = path
        self._timeout = timeout
        self._engine = open_for_writing(path, timeout)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def save(
        self, row: ResultRow, *, cell: str, code: str, seconds: float, evidence: bytes | None = None
    ) -> None:
        """Keep a row with its evidence, and forget that the cell failed before.

        A row of the same code is left as it is: another run was quicker, and computed the same. A
        row of other code is replaced, and one without boxes by one that has them.

        Args:
            row: the outcome.
            cell: digest of the cell as it was declared.
            code: digest of the code that computed it.
            seconds: that it took in all.
            evidence: what the row was computed from, as opaque bytes.

        Raises:
            FewShotError: the disk is full, or the file is locked or damaged.
        """
        key = row_key(row)
        with told(self.path, self._timeout), self._engine.begin() as connection:
            connection.execute(delete(FAILURES).where(FAILURES.c.cell == cell))
            values = _columns(row) | {"key": key, "code": code, "cell": cell, "seconds": seconds}
            own = select(ROWS.c.code, ROWS.c.has_boxes).where(ROWS.c.key == key)
            found = connection.execute(own).one_or_none()
            if found is not None and found.code == code and found.has_boxes >= values["has_boxes"]:
                return
            connection.execute(delete(EVIDENCE).where(EVIDENCE.c.key == key))
            connection.execute(delete(ROWS).where(ROWS.c.key == key))
            connection.execute(insert(ROWS), values)
            if evidence is not None:
                connection.execute(insert(EVIDENCE), {"key": key, "content": evidence})

    def fail(self, failure: Failure) -> None:
        """Note why a cell has no row; counts how often it was tried."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        again = FAILURES.c.cell == failure.cell
        with told(self.path, self._timeout), self._engine.begin() as connection:
            times = connection.execute(select(FAILURES.c.times).where(again)).scalar() or 0
            connection.execute(delete(FAILURES).where(again))
            values = asdict(failure) | {"times": times + 1, "time": now}
            connection.execute(insert(FAILURES), values)

    def mend(self, cell: str) -> None:
        """Forget that a cell failed: its row is there."""
        with told(self.path, self._timeout), self._engine.begin() as connection:
            connection.execute(delete(FAILURES).where(FAILURES.c.cell == cell))

    def finished(
        self, method: str, dataset: str, target_class: str, code: str | None, *, boxes: bool = False
    ) -> frozenset[str]:
        """Keys of the rows of a method on a class, computed by this code; by any where None."""
        wanted = select(ROWS.c.key).where(
            ROWS.c.method == method,
            ROWS.c.dataset == dataset,
            ROWS.c.target_class == target_class,
        )
        if boxes:
            wanted = wanted.where(ROWS.c.has_boxes)
        if code is not None:
            wanted = wanted.where(ROWS.c.code == code)
        with told(self.path, self._timeout), self._engine.begin() as connection:
            return frozenset(connection.execute(wanted).scalars())

    def cells(
        self, method: str, dataset: str, target_class: str, code: str
    ) -> frozenset[tuple[str, str]]:
        """Cells of a method on a class, as declared, that this code has computed, with keys."""
        wanted = select(ROWS.c.cell, ROWS.c.key).where(
            ROWS.c.method == method,
            ROWS.c.dataset == dataset,
            ROWS.c.target_class == target_class,
            ROWS.c.code == code,
        )
        with told(self.path, self._timeout), self._engine.begin() as connection:
            return frozenset((cell, key) for cell, key in connection.execute(wanted))

    def note_training(self, method: str, backbone: str | None, seconds: float) -> None:
        """Keep what a meta-training took, for estimates."""
        values = {"method": method, "backbone": backbone, "seconds": seconds}
        with told(self.path, self._timeout), self._engine.begin() as connection:
            connection.execute(insert(TRAININGS), values)

    def note_study(self, declared: str) -> None:
        """Keep the file that the rows were asked for by."""
        digest = hashlib.sha256(declared.encode()).hexdigest()[:16]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        statement = insert_or(STUDIES).values(digest=digest, text=declared, time=now)
        with told(self.path, self._timeout), self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["digest"], set_={"time": now})
            )


def load_rows(path: Path) -> list[ResultRow]:
    """The rows of a store, or of a file of lines (``.jsonl``), or of a folder that holds either.

    Raises:
        FewShotError: there is none, the folder holds both, or the file cannot be read.
    """
    path = results_file(path)
    if path.suffix == ".jsonl":
        return load(path)
    with reading(path) as engine, engine.connect() as connection:
        listed = connection.execute(select(ROWS.c.key, ROWS.c.row).order_by(text("rowid")))
        return [parse_row(f"{path}, row {key}", line.encode()) for key, line in listed]


def load_evidence(path: Path, key: str) -> bytes | None:
    """What a row was computed from; None where that was not kept, and for a file of lines."""
    path = results_file(path)
    if path.suffix == ".jsonl":
        return None
    with reading(path) as engine, engine.connect() as connection:
        wanted = select(EVIDENCE.c.content).where(EVIDENCE.c.key == key)
        return connection.execute(wanted).scalar()


def load_failures(path: Path) -> list[Failure]:
    """The cells of a store that failed, and why; none for a file of lines."""
    path = results_file(path)
    if path.suffix == ".jsonl":
        return []
    with reading(path) as engine, engine.connect() as connection:
        listed = connection.execute(select(FAILURES)).mappings()
        return sorted((Failure(**each) for each in listed), key=str)


def load_studies(path: Path) -> list[str]:
    """The texts of the studies that a store has rows of, the latest last."""
    path = results_file(path)
    if path.suffix == ".jsonl":
        return []
    with reading(path) as engine, engine.connect() as connection:
        listed = connection.execute(select(STUDIES.c.text).order_by(STUDIES.c.time))
        return list(listed.scalars())


def results_file(path: Path) -> Path:
    """The file of rows that a path stands for.

    Raises:
        FewShotError: a folder with none, or with two.
    """
    if not path.is_dir():
        return path
    found = [path / name for name in (STORE, LINES) if (path / name).exists()]
    if len(found) == 1:
        return found[0]
    what = f"both {STORE} and {LINES}: name one" if found else f"neither {STORE} nor {LINES}"
    raise FewShotError(f"{path} holds {what}")


@contextmanager
def reading(path: Path) -> Generator[Engine]:
    """Connections for as long as a reader needs them."""
    engine = open_for_reading(path, TIMEOUT)
    try:
        with told(path, TIMEOUT):
            yield engine
    finally:
        engine.dispose()


def _columns(row: ResultRow) -> dict[str, Any]:
    named = ("method", "backbone", "preset", "dataset", "target_class", "shots", "seed")
    return {name: getattr(row, name) for name in named} | {
        "has_boxes": row.box_ap is not None or "box_ap" in row.reasons,
        "images": row.n_normal + row.n_anomalous,
        "row": json.dumps(asdict(row), allow_nan=False),
    }
