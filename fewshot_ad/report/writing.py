"""Files of a report: written whole or not at all."""

import tempfile
from pathlib import Path

from fewshot_ad.api import FewShotError


def write_text(path: Path, text: str) -> None:
    """Write a file, replacing one that is there.

    Raises:
        FewShotError: the folder does not exist or cannot be written to, or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as scratch:
            (Path(scratch) / "file").write_text(text, encoding="utf-8")
            (Path(scratch) / "file").replace(path)
    except OSError as error:
        raise FewShotError(
            f"cannot write {path}: {error.strerror}; choose another place with --out"
        ) from error
