"""Run a benchmark and keep what it prints, with machine and versions, for doc/benchmarks.rst.

    python benchmarks/report.py bench_hmm --quick

writes ``doc/benchmarks/bench_hmm.txt``; whatever follows the name goes to the benchmark.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("hmmlearn", "pykalman", "statsmodels", "simdkalman", "torch", "distributed")


def main(name: str, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if run.returncode:
        raise SystemExit(run.stderr)
    target = ROOT / "doc" / "benchmarks" / f"{name}.txt"
    target.parent.mkdir(exist_ok=True)
    told = f"$ python benchmarks/{name}.py {' '.join(arguments)}".rstrip()
    target.write_text(f"{header()}\n{told}\n\n{run.stdout.rstrip()}\n", encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


def header() -> str:
    """Processor, versions and commit."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    versions = [f"{name} {version}" for name, version in _versions()]
    return (
        f"{_processor()}, {platform.system()}, Python {platform.python_version()}\n"
        f"sklseq at {commit or 'an unknown commit'}, {', '.join(versions)}"
    )


def _versions():
    for name in ("numpy", "scipy", "scikit-learn", *PEERS):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
    wide = "AVX-512" if "avx512f" in fields.get("flags", "") else "no AVX-512"
    cores = sum(line.startswith("processor") for line in lines)
    return f"{fields.get('model name', platform.machine())} ({cores} cores, {wide})"


if __name__ == "__main__":
    main(*sys.argv[1:])
