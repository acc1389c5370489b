"""Where and when a row was made: device, memory, version, commit."""

import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None


def provenance(device: str) -> dict[str, Any]:
    """The fields of a result row that tell of this machine, this moment and this code."""
    return {
        "peak_memory_mb": peak_memory_mb(),
        "peak_gpu_memory_mb": peak_gpu_memory_mb(),
        "device": device_name(device),
        "package_version": package_version(),
        "git_commit": git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_mb() -> float | None:
    """Most memory this process ever held, in 2^20 bytes."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobytes = peak / 1024 if sys.platform == "darwin" else peak
    return round(kilobytes / 1024, 1)


def peak_gpu_memory_mb() -> float | None:
    """Most memory that tensors held on the GPU since the last reset, in 2^20 bytes."""
    if not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def device_name(device: str) -> str:
    """The device in words; ``auto`` is the GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device


@cache
def package_version() -> str:
    """Version of the installed package."""
    try:
        return version("fewshot-ad")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


@cache
def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with ``-dirty`` after uncommitted edits."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # an installed copy; a repository further up is not ours
        return None
    try:
        commit = _git(checkout, "rev-parse", "--short=12", "HEAD")
        edited = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if edited else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
