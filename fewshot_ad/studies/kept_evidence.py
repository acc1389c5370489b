"""The evidence of many rows, read over one connection."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from fewshot_ad.studies.store import reading, results_file
from fewshot_ad.studies.store_files import EVIDENCE


@contextmanager
def evidence_reader(path: Path) -> Generator[Callable[[str], bytes | None]]:
    """What rows were computed from, by key; the file is opened once."""
    path = results_file(path)
    if path.suffix == ".jsonl":
        yield lambda _: None
        return
    with reading(path) as engine, engine.connect() as connection:
        wanted = select(EVIDENCE.c.content)
        yield lambda key: connection.execute(wanted.where(EVIDENCE.c.key == key)).scalar()
