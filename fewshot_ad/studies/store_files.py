"""The file behind a row store: its tables, its connections, and what can be wrong with it.

SQLite through SQLAlchemy Core: typed statements and one place for errors, and a single file that
every language reads. Write-ahead logging lets others read while one writes, and a kill costs what
was not committed. It needs locks that work, so the file belongs on a disk of the machine that runs
the study, not on a network share.
"""

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    NullPool,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import DatabaseError

from fewshot_ad.api import FewShotError

FORMAT = 1
APPLICATION = 0x46534144  # marks the file as ours, in SQLite's header
TABLES = MetaData()
ROWS = Table(
    "rows",
    TABLES,
    Column("key", Text, primary_key=True),  # see evaluation.results.row_key
    Column("code", Text, nullable=False),  # see studies.code_digest
    Column("method", Text, nullable=False, index=True),
    Column("backbone", Text),
    Column("dataset", Text, nullable=False),
    Column("target_class", Text, nullable=False),
    Column("shots", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("cell", Text, nullable=False, index=True),  # as it was declared, see studies.cells
    Column("preset", Text, nullable=False),
    Column("has_boxes", Boolean, nullable=False),
    Column("images", Integer, nullable=False),  # that were judged
    Column("seconds", Float, nullable=False),  # of the whole cell, reading included
    Column("row", Text, nullable=False),  # the result row, as a line of JSONL has it
)
EVIDENCE = Table(
    "evidence",
    TABLES,
    Column("key", ForeignKey("rows.key", ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
FAILURES = Table(
    "failures",
    TABLES,
    Column("cell", Text, primary_key=True),  # as it was declared, see studies.cells
    Column("method", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("target_class", Text, nullable=False),
    Column("known", Text),
    Column("shots", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("times", Integer, nullable=False),
    Column("time", Text, nullable=False),
)
TRAININGS = Table(
    "trainings",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("method", Text, nullable=False),
    Column("backbone", Text),
    Column("seconds", Float, nullable=False),
)
STUDIES = Table(
    "studies",
    TABLES,
    Column("digest", Text, primary_key=True),
    Column("text", Text, nullable=False),  # of the file
    Column("time", Text, nullable=False),
)


def open_for_writing(path: Path, timeout: float) -> Engine:
    """Connections that write, in transactions that hold the lock from their beginning.

    Makes the file and its tables where there are none.

    Raises:
        FewShotError: the file cannot be made or is no store, or a newer version wrote it.
    """
    with told(path, timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        url = URL.create("sqlite", database=str(path))
        engine = create_engine(url, connect_args={"timeout": timeout})
        event.listen(engine, "connect", _write_ahead)
        event.listen(engine, "begin", lambda it: it.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            with engine.begin() as connection:
                if _format_of(path, connection.exec_driver_sql("PRAGMA user_version").scalar()):
                    return engine
                TABLES.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION}")
                connection.exec_driver_sql(f"PRAGMA user_version = {FORMAT}")
        except BaseException:
            engine.dispose()
            raise
    return engine


def open_for_reading(path: Path, timeout: float) -> Engine:
    """Connections that change nothing.

    Raises:
        FewShotError: there is no such file, it is no store, or a newer version wrote it.
    """
    if not path.is_file():
        raise FewShotError(f"there is no store {path}; 'fewshot-ad study' writes one")
    uri = f"file:{quote(str(path.absolute()))}?{_access(path)}"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, timeout, uri=True), poolclass=NullPool
    )
    try:
        with told(path, timeout), engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
            if not _format_of(path, version):
                raise FewShotError(f"{path} is no store of result rows; give one that a study made")
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def told(path: Path, timeout: float) -> Generator[None]:
    """Turn what SQLite and the disk say into one line about the store.

    Raises:
        FewShotError: the disk is full, another process holds the file for too long, or the file
            cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise FewShotError(f"cannot use the store {path}: {error.strerror}") from error
    except DatabaseError as error:
        said = str(error.orig).lower()
        raise FewShotError(_in_words(path, said, timeout)) from error


def _in_words(path: Path, said: str, timeout: float) -> str:
    if "full" in said:
        return (
            f"the disk of {path} is full; what was finished is kept: make room, and the same "
            "command goes on there"
        )
    if "locked" in said:
        return (
            f"another process has held the store {path} for {timeout:.0f} seconds; end it, or give "
            "another --out"
        )
    if "not a database" in said or "malformed" in said:
        return f"{path} is no store, or a damaged one ({said}); move it away, or give another --out"
    return f"cannot use the store {path}: {said}; choose another place"


def _access(path: Path) -> str:
    """How to open a file for reading; a log beside it is tidied up by the last who may write."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return "mode=rw"
    return "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"


def _format_of(path: Path, found: int | None) -> int:
    """The format of a file, 0 where it is empty yet."""
    if found not in (0, FORMAT):
        raise FewShotError(
            f"the store {path} has format {found}, this version reads {FORMAT}; use the package "
            "version that wrote it"
        )
    return found


def _write_ahead(raw: sqlite3.Connection, _: object) -> None:
    """Prepare a connection; two processes may be doing so to a new file at the same moment."""
    raw.isolation_level = None  # transactions are begun by "begin" above
    cursor = raw.cursor()
    cursor.execute("PRAGMA busy_timeout")
    (wait,) = cursor.fetchone() or (0,)
    deadline = time.monotonic() + wait / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:  # the busy timeout does not cover this switch
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
