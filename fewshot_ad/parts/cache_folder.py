"""Where this package keeps on disk what it would else have to compute again."""

import os
import sys
from pathlib import Path


def cache_root() -> Path:
    """``FEWSHOT_AD_CACHE``, else a folder of this package in the cache folder of the user."""
    if chosen := os.environ.get("FEWSHOT_AD_CACHE"):
        return Path(chosen).expanduser()
    home = Path.home()
    platform = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}
    default = platform.get(sys.platform, home / ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "fewshot-ad"
