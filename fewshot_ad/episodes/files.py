"""Where manifests lie: shipped with the package under a name, or anywhere under a path."""

import json
import os
from contextlib import suppress
from pathlib import Path

from fewshot_ad.api import FewShotError
from fewshot_ad.assets import asset, list_assets, unknown_name
from fewshot_ad.episodes.manifest import Manifest, parse_manifest, render_manifest


def list_manifests() -> list[str]:
    """The names of the shipped manifests."""
    return sorted(Path(name).stem for name in list_assets("episodes") if name.endswith(".json"))


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read a shipped manifest by name, or any by its path, which has a folder or ends in .json.

    A file of the user keeps its suffix in `Manifest.name`: result rows tell it from a shipped one.

    Raises:
        FewShotError: no such manifest, or the file is not a valid one; says which key is wrong.
    """
    path = Path(name_or_path)
    name = path.name
    is_file = path.suffix == ".json" or len(path.parts) > 1
    file = path if is_file else _shipped(name)
    try:
        return parse_manifest(name, json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise FewShotError(f"manifest {path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FewShotError(f"manifest {path} is not JSON: {error}") from None
    except FewShotError as error:
        raise FewShotError(f"manifest {path}: {error}") from None


def save_manifest(manifest: Manifest, path: Path, *, overwrite: bool = False) -> None:
    """Write a manifest, whole or not at all.

    Raises:
        FewShotError: the name does not end in .json, as `load_manifest` wants it, the file exists
            and ``overwrite`` is false, or it cannot be written.
    """
    if path.suffix != ".json":
        raise FewShotError(f"manifest {path} has no .json ending: call it {path.name}.json")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not overwrite:
            raise FewShotError(f"{path} exists: choose another name, or ask to overwrite it")
        partial.write_text(render_manifest(manifest), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise FewShotError(f"manifest {path} cannot be written: {error.strerror}") from None


def _shipped(name: str) -> Path:
    if name not in list_manifests():
        raise unknown_name("shipped manifest", name, list_manifests())
    return asset("episodes", f"{name}.json")
