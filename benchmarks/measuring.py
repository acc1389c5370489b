"""What the benchmarks share: clocks, the machine in words, and tables."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "faiss-cpu", "timm", "openvino", "anomalib")


def now() -> float:
    """CPU seconds of this process; wall seconds where several threads compute.

    With one thread, CPU time is what a quiet machine would take, however busy this one is.
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def taken(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = now()
    call()
    return now() - start


def in_turns(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, after one call to warm up; in turns, so that all meet one machine."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            seconds = taken(call)
            found.extend([seconds] if number else [])
    return [statistics.median(found) for found in times]


def peak_gflops(dtype: torch.dtype, side: int = 2048, repeats: int = 5) -> float:
    """What a square matrix product reaches here, in 10^9 operations per second."""
    left = torch.randn(side, side).to(dtype)
    (seconds,) = in_turns([lambda: left @ left], repeats)
    return 2 * side**3 / seconds / 1e9


def machine() -> list[str]:
    """The machine, the versions, and what else it is doing, as lines of Markdown."""
    told = getattr(torch.cpu, "get_capabilities", dict)()
    flags = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if told.get(name)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"{_processor()}, {os.cpu_count()} cores ({', '.join(flags)}), {_memory():.0f} GB",
        f"{torch.get_num_threads()} threads; times are "
        + ("CPU seconds" if torch.get_num_threads() == 1 else "wall seconds"),
        f"load average (1, 5, 15 minutes) {load}",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))),
    ]
    if torch.cuda.is_available():
        lines.insert(1, torch.cuda.get_device_name())
    return [f"- {line}" for line in lines]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
