"""Two cores against one, workers of an engine against none, and the memory of a large score.

Wall time, since that is what more cores are for; both sides in turn, medians; the same bits are
asserted before anything is timed.  The load of the machine is printed: what others take is missing
from the ratios, unless it is run before them (``chrt -r 1``, as root; they still share the caches).
The 2 GB file is made in a temporary folder (``--gigabytes`` for another size).

Run: python benchmarks/bench_scaling.py [--quick] [--only threads|engine|memory]
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import joblib
import numpy as np
from scipy import sparse

import sklseq
from sklseq import (
    CategoricalHMM,
    CharRNNLanguageModel,
    GaussianHMM,
    KalmanSmoother,
    PoissonHMM,
    SoftmaxStateSpace,
)
from sklseq._em import _e_step
from sklseq._sequences import limit_threads
from sklseq._workers import Workers
from sklseq.topics import TopicMixture

GOAL = 1.7
N_SEQUENCES = 1000


def load() -> str:
    first = getattr(os, "sched_getscheduler", lambda pid: 0)(0) != 0  # chrt -r 1, on a busy machine
    return (
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        f"{', run before all others (real-time priority)' if first else ''}"
    )


def alternate(calls: dict, repeats: int) -> dict:
    """Median wall time of each call, taken in turn."""
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(one) for name, one in times.items()}


# --- Threads --------------------------------------------------------------------------------------


def vectors(rng, n_steps, n_features):
    """Three levels, left for another one at random."""
    moves = rng.uniform(size=(N_SEQUENCES, n_steps)) < 0.1
    levels = np.cumsum(moves * rng.integers(1, 3, size=moves.shape), axis=1) % 3
    return list(2.0 * levels[:, :, None] + rng.normal(size=(*moves.shape, n_features)))


def thread_cases(rng):
    """name: (estimator, X, methods); EM to its 30th iteration, as long fits are."""
    hmm = {"n_init": 1, "random_state": 0, "tol": 0.0, "max_iter": 30}
    codes = [rng.integers(0, 50, size=(300, 1)).astype(float) for _ in range(N_SEQUENCES)]
    one_hot = [sparse.csr_array(np.eye(20)[rng.integers(0, 20, 60)]) for _ in range(N_SEQUENCES)]
    texts = ["".join(rng.choice(list("abcdefgh"), 60)) for _ in range(N_SEQUENCES)]
    counts = [np.floor(np.abs(x)) for x in vectors(rng, 300, 2)]
    return {
        "GaussianHMM, 10 states, diag, 1000 x 300": (
            GaussianHMM(10, **hmm), vectors(rng, 300, 5), ("fit", "score", "predict")),
        "GaussianHMM, 10 states, full, 1000 x 300": (
            GaussianHMM(10, covariance_type="full", **hmm), vectors(rng, 300, 5), ("fit", "score")),
        "GaussianHMM, 50 states, full, 1000 x 300": (
            GaussianHMM(50, covariance_type="full", **hmm | {"max_iter": 4}),
            vectors(rng, 300, 5), ("fit", "score", "predict")),
        "CategoricalHMM, 20 states, V 50, 1000 x 300": (
            CategoricalHMM(20, **hmm), codes, ("fit", "score")),
        "PoissonHMM, 5 states, 1000 x 300": (PoissonHMM(5, **hmm), counts, ("fit", "score")),
        "KalmanSmoother, d 4, p 6, 1000 x 300": (
            KalmanSmoother(4, max_iter=30, tol=0.0), vectors(rng, 300, 6), ("fit", "score")),
        "SoftmaxStateSpace, d 2, V 20, 1000 x 60": (
            SoftmaxStateSpace(2, max_iter=4, tol=0.0, random_state=0), one_hot, ("fit", "score")),
        "TopicMixture, 10 topics, 1000 documents": (
            TopicMixture(10, max_iter=2, random_state=0),
            rng.poisson(0.3, size=(N_SEQUENCES, 200)), ("score",)),
        "CharRNNLanguageModel, gru 128, 1000 x 60": (
            CharRNNLanguageModel(hidden_size=128, batch_size=64, max_iter=1, random_state=0),
            texts, ("fit", "score")),
    }  # fmt: skip


def bench_threads(repeats: int) -> None:
    print(f"Two threads against one, {N_SEQUENCES} sequences (goal {GOAL}); {load()}")
    for name, (estimator, X, methods) in thread_cases(np.random.default_rng(0)).items():
        estimator.fit(X)
        scores = [estimator.set_params(n_jobs=n_jobs).score(X) for n_jobs in (1, 2)]
        assert scores[0] == scores[1]
        for method in methods:
            times = alternate(
                {
                    n_jobs: lambda n_jobs=n_jobs: getattr(
                        estimator.set_params(n_jobs=n_jobs), method
                    )(X)
                    for n_jobs in (1, 2)
                },
                repeats,
            )
            print(
                f"  {name:45s} {method:8s} {times[1]:7.3f} s {times[2]:7.3f} s   "
                f"x{times[1] / times[2]:.2f}",
                flush=True,
            )


# --- An engine ------------------------------------------------------------------------------------


def bench_engine(repeats: int) -> None:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        print("dask.distributed is not installed: nothing measured")
        return
    print(f"dask.distributed: two workers of one thread against this process; {load()}")
    rng = np.random.default_rng(0)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster):
        for name, estimator, width in (
            ("GaussianHMM, 10 states", GaussianHMM(10, n_init=1, random_state=0, max_iter=0), 5),
            ("GaussianHMM, 50 states", GaussianHMM(50, n_init=1, random_state=0, max_iter=0), 5),
            ("KalmanSmoother, d 4", KalmanSmoother(4, max_iter=0), 6),
        ):
            X = [rng.normal(size=(500, width)) for _ in range(2000)]
            estimator.fit(X[:100])
            model = estimator._stream.model
            whole, half = (estimator._check_X(part) for part in (X, X[:1000]))
            engine_case(name, model, whole, half, repeats)


def engine_case(name, model, whole, half, repeats) -> None:
    """Strong scaling: all data here and there; weak: half of them here."""
    start = time.perf_counter()
    with Workers(half) as one, Workers(whole) as here, ExitStack() as stack, limit_threads():
        with joblib.parallel_config("dask"):
            there = stack.enter_context(Workers(whole))
            parts = [model] * len(there.pieces)
            first = there.map(_e_step, parts)
        sent = time.perf_counter() - start
        few = parts[: len(one.pieces)]
        assert [part[1] for part in here.map(_e_step, parts)] == [part[1] for part in first]
        times = alternate(
            {
                "half": lambda: one.map(_e_step, few),
                "here": lambda: here.map(_e_step, parts),
                "there": lambda: there.map(_e_step, parts),
            },
            repeats,
        )
    print(
        f"  {name}: {len(parts)} pieces, {whole.X.nbytes / 1e6:.0f} MB sent once (with the first "
        f"E-step {sent:.2f} s); each E-step {len(pickle.dumps(model)) * len(parts) / 1e3:.0f} kB "
        f"out, {len(pickle.dumps(first)) / 1e3:.0f} kB back\n"
        f"    strong: {whole.n_steps:,} steps here {times['here']:.3f} s, there "
        f"{times['there']:.3f} s: x{times['here'] / times['there']:.2f}\n"
        f"    weak: {half.n_steps:,} steps here {times['half']:.3f} s, twice as many there "
        f"{times['there']:.3f} s: efficiency {times['half'] / times['there']:.2f}",
        flush=True,
    )


# --- Memory ---------------------------------------------------------------------------------------


def bench_memory(gigabytes: float) -> None:
    n = int(gigabytes * 1e9 / 40) // 1000 * 1000
    print(f"Peak memory of score over a memory map of {n * 40 / 1e9:.1f} GB, mapped pages counted:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.dat"
        X = np.memmap(path, mode="w+", dtype=float, shape=(n, 5))
        block = np.random.default_rng(0).integers(0, 4, size=(100_000, 5)).astype(float)
        for start in range(0, n, len(block)):
            X[start : start + len(block)] = block[: n - start]
        X.flush()
        del X
        for name in ("GaussianHMM", "CategoricalHMM", "PoissonHMM", "KalmanSmoother"):
            for length in (n, 1000):
                code = f"import bench_scaling as b; b.peak({name!r}, {str(path)!r}, {n}, {length})"
                out = subprocess.run(
                    [sys.executable, "-c", code], capture_output=True, text=True, check=True,
                    cwd=Path(__file__).parent,
                )  # fmt: skip
                print(out.stdout, end="", flush=True)


def peak(name: str, path: str, n: int, length: int) -> None:
    """In a process of its own: the high-water mark of resident memory, set back before."""
    warnings.simplefilter("ignore")
    small = np.random.default_rng(0).integers(0, 4, size=(500, 5)).astype(float)
    model = getattr(sklseq, name)(2, max_iter=2, random_state=0).fit(small)
    model.score(small)
    X = np.memmap(path, mode="r", dtype=float, shape=(n, 5))
    Path("/proc/self/clear_refs").write_text("5")
    before, start = high_water(), time.perf_counter()
    model.score(X, lengths=np.full(n // length, length))
    took, ratio = time.perf_counter() - start, (high_water() - before) / X.nbytes
    what = "one sequence" if length == n else f"sequences of {length}"
    print(f"  {name:15s} {what:18s} {ratio:.2f} of the data, {took:.1f} s (goal below 1.3)")


def high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, a small file")
    parser.add_argument("--only", choices=("threads", "engine", "memory"))
    parser.add_argument("--gigabytes", type=float, default=2.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    repeats = 1 if arguments.quick else 3
    if arguments.only in (None, "threads"):
        bench_threads(repeats)
    if arguments.only in (None, "engine"):
        bench_engine(repeats)
    if arguments.only in (None, "memory"):
        bench_memory(0.2 if arguments.quick else arguments.gigabytes)


if __name__ == "__main__":
    main()
