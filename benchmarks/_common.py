"""What every benchmark prints: the machine, the versions, and a table of ratios.

A benchmark compares two functions in one process, in turn, by the CPU time of the thread, after it
has asserted that they give the same answer.  Only ratios are reported as results: the machine is
shared, and a second means little on another one.
"""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Sequence


def header(*packages: str) -> str:
    """Machine and versions, for the top of a report."""
    versions = [f"{name} {_version(name)}" for name in ("sklseq", "numpy", "scipy", *packages)]
    return (
        f"{_processor()}, {platform.system()}, Python {platform.python_version()}; "
        + ", ".join(versions)
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that was built in place
        return getattr(__import__(package.replace("-", "_")), "__version__", "?")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            fields = dict(
                (part.strip() for part in line.split(":", 1)) for line in lines if ":" in line
            )
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    wide = "AVX-512" if "avx512f" in fields.get("flags", "") else "no AVX-512"
    return f"{name} ({wide})"


def cpu_times(
    *functions: Callable[[], object], repeats: int = 7, seconds: float = 20.0
) -> list[float]:
    """Median CPU time of each function, run in turn; fewer repeats where they take long."""
    times: list[list[float]] = [[] for _ in functions]
    begin = time.perf_counter()
    for _ in range(repeats):
        for function, taken in zip(functions, times):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
        if time.perf_counter() - begin > seconds:
            break
    return [statistics.median(taken) for taken in times]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A reStructuredText table that goes into doc/benchmarks.rst as it is."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join([rule, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), rule])


def ratio(peer: float, ours: float) -> str:
    """How many times the peer's time ours is smaller, two digits."""
    value = peer / ours
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
