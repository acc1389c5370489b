"""A zip of named members whose manifest is verified: never pickle, never more than was declared.

The manifest has the format, the size and SHA-256 of every member, and a digest of all that. This
finds damage and careless edits. It is no signature: who can edit the file can edit the manifest.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.writing import write_whole

FORMAT = 1
MANIFEST = "manifest.json"
ABOUT = "inspector.json"
CHECKPOINT = "checkpoint.safetensors"
MEGABYTE = 2**20
MOST_MEMBERS = 10_000
MOST_BYTES = 4096 * MEGABYTE
LARGEST = {  # of each kind of member, unpacked
    re.compile(re.escape(MANIFEST)): 8 * MEGABYTE,
    re.compile(re.escape(ABOUT)): 64 * MEGABYTE,
    re.compile(re.escape(CHECKPOINT)): 2048 * MEGABYTE,
    re.compile(r"normals/[0-9]{5}\.png"): 64 * MEGABYTE,
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal inspectors are equal files


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write members and their manifest, whole or not at all; equal members give equal files.

    Raises:
        FewShotError: the file cannot be written.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {MANIFEST: _manifest(members, FORMAT), **members}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    write_whole(path, content.getvalue())


def read_archive(path: Path) -> dict[str, bytes]:
    """The members of a file that ``write_archive`` wrote, without the manifest.

    Raises:
        FewShotError: no such file, no archive of this kind, damaged, edited, of a newer version, or
            with members that are not of this format or larger than they may be.
    """
    if not path.is_file():
        raise FewShotError(f"there is no file {path}; make one with 'fewshot-ad fit --out {path}'")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except FewShotError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, KeyError) as error:
        _refuse(path, f"truncated or no such archive: {' '.join(str(error).split())}", error)
    except Exception as error:  # zlib and lzma have errors of their own
        _refuse(path, f"damaged: {' '.join(str(error).split())}", error)


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    _check_entries(path, entries)
    manifest = _parsed(path, _content(path, archive, archive.getinfo(MANIFEST)))
    _check_format(path, manifest)
    members = {e.filename: _content(path, archive, e) for e in entries if e.filename != MANIFEST}
    if manifest != json.loads(_manifest(members, manifest["format"])):
        _refuse(path, f"edited or damaged: {_first_odd(manifest, members)} is not what was saved")
    return members


def _first_odd(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """The first member that is not what the manifest says, or the manifest itself."""
    listed = manifest.get("members")
    known = listed if isinstance(listed, dict) else {}
    found = {name: _entry(data) for name, data in members.items()}
    odd = sorted(name for name in {*known, *found} if known.get(name) != found.get(name))
    return (odd or [MANIFEST])[0][:80]


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Names, counts and declared sizes, before anything is unpacked."""
    names = [entry.filename for entry in entries]
    if MANIFEST not in names or len(names) > MOST_MEMBERS or len({*names}) != len(names):
        _refuse(path, "no file of fewshot-ad: it has no manifest, or members that come twice")
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        _refuse(path, f"it would unpack to more than {MOST_BYTES // MEGABYTE} megabytes")
    for entry in entries:
        largest = next((m for form, m in LARGEST.items() if form.fullmatch(entry.filename)), None)
        if largest is None:
            _refuse(path, f"it has a member {entry.filename[:80]!r} that does not belong there")
        if entry.file_size > largest:
            _refuse(path, f"its member {entry.filename} is larger than {largest // MEGABYTE} MB")


def _content(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """At most as many bytes as were declared and checked."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size)
        if len(data) != entry.file_size or file.read(1):
            _refuse(path, f"its member {entry.filename} is not of the size that it declares")
    return data


def _check_format(path: Path, manifest: Mapping[str, Any]) -> None:
    found = manifest.get("format")
    if not isinstance(found, int) or found < 1:
        _refuse(path, f"its manifest has the format {found!r}")
    if found > FORMAT:
        raise FewShotError(
            f"{path} has format {found}, and this version of fewshot-ad reads up to {FORMAT}: "
            "update fewshot-ad, or fit again"
        )


def _manifest(members: Mapping[str, bytes], number: int) -> bytes:
    """The format, what every member is, and the digest of both."""
    listed = {name: _entry(data) for name, data in members.items()}
    body = {"format": number, "members": listed}
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "digest": seal}, sort_keys=True, indent=1).encode()


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _parsed(path: Path, data: bytes) -> Mapping[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        _refuse(path, "its manifest is no JSON object")
    return found


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise FewShotError(
        f"{path} cannot be opened ({why}); copy it again, or fit again with 'fewshot-ad fit'"
    ) from cause
