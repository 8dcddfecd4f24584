"""SoftmaxStateSpace: E-step against NumPy, large vocabularies, growth, likelihoods, real text.

    python benchmarks/bench_softmax.py [--only estep words growth particles text] [--figures DIR]

One thread, CPU time.  ``estep`` asserts agreement before it times.  The numbers in doc/softmax.rst
are this script's output.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

# before NumPy looks at them
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# ruff: noqa: E402
import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from sklseq import CategoricalHMM, SoftmaxStateSpace
from sklseq.state_space._quadrature import sigma_rule

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def cpu_times(*functions, repeats=5) -> list[float]:
    """Median CPU time of each, run in turn."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def table(head, rows) -> str:
    """A reStructuredText table."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells]
    return "\n".join([rule, lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:]), rule])


def random_model(d, V, seed=0, strength=1.0, **params):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(d, d))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    return SoftmaxStateSpace.from_parameters(
        transition_matrix=A, transition_covariance=np.eye(d),
        observation_matrix=strength * rng.normal(size=(V, d)) / np.sqrt(d),
        observation_offset=0.5 * rng.normal(size=V),
        initial_state_mean=np.zeros(d), initial_state_covariance=3.0 * np.eye(d), **params,
    )  # fmt: skip


# ---- the same algorithm in plain NumPy


def numpy_smoother(A, Gamma, mean, covariance, h, H):
    """Filter and smoother with sites exp(h's - s'Hs / 2), step by step as in the textbook.

    Means, covariances, lag-one covariances, log of the integral.
    """
    n, d = h.shape
    filtered, predicted, log_Z = [], [], 0.0
    m, P = mean, covariance
    for t in range(n):
        if t:
            m, P = A @ m, A @ P @ A.T + Gamma
        predicted.append((m, P))
        # (P^-1 + H)^-1 by solves
        gain = np.linalg.solve(np.eye(d) + P @ H[t], P)
        shifted = gain @ (h[t] - H[t] @ m)
        log_Z += -0.5 * np.linalg.slogdet(np.eye(d) + P @ H[t])[1]
        log_Z += h[t] @ m - 0.5 * m @ H[t] @ m + 0.5 * (h[t] - H[t] @ m) @ shifted
        m, P = m + shifted, (gain + gain.T) / 2
        filtered.append((m, P))
    means, covariances = np.empty((n, d)), np.empty((n, d, d))
    lag_one = np.zeros((n, d, d))
    means[-1], covariances[-1] = m, P
    for t in range(n - 2, -1, -1):
        m, P = filtered[t]
        m_next, P_next = predicted[t + 1]
        G = np.linalg.solve(P_next, A @ P).T
        means[t] = m + G @ (means[t + 1] - m_next)
        covariances[t] = P + G @ (covariances[t + 1] - P_next) @ G.T
        lag_one[t + 1] = covariances[t + 1] @ G.T
    return means, covariances, lag_one, log_Z


def numpy_sites(B, b, Y, means, covariances, nodes, weights):
    """Expected log-probabilities and sites, vectorised over steps and points."""
    roots = np.linalg.cholesky(covariances)
    x = means[:, None] + nodes @ np.swapaxes(roots, 1, 2)  # (n, k, d)
    logits = x @ B.T + b
    top = logits.max(axis=2, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=2, keepdims=True)
    log_p = logits - top - np.log(total)
    p /= total
    value = np.einsum("tv,tkv,k->t", Y, log_p, weights)
    slope = (Y[:, None] - Y.sum(1)[:, None, None] * p) @ B  # (n, k, d)
    gradient = np.einsum("tki,k->ti", slope, weights)
    G = np.einsum("tki,kj,k->tij", slope, nodes, weights)
    M = np.tril(np.swapaxes(roots, 1, 2) @ G)
    M = M + np.swapaxes(M, 1, 2)
    np.einsum("tii->ti", M)[...] /= 2
    inverse = np.linalg.inv(roots)
    H = -np.swapaxes(inverse, 1, 2) @ M @ inverse
    return value, gradient + np.einsum("tij,tj->ti", H, means), H


def numpy_e_step(model, Y, n_iter):
    """`n_iter` sweeps of the smoother, warm from the prior; the statistics of the M-step."""
    A, Gamma = model.transition_matrix_, model.transition_covariance_
    B, b = model.observation_matrix_, model.observation_offset_
    nodes, weights = sigma_rule(len(A))
    n, d = len(Y), len(A)
    h, H = np.zeros((n, d)), np.zeros((n, d, d))
    start = (model.initial_state_mean_, model.initial_state_covariance_)
    for _ in range(n_iter):
        means, covariances, lag_one, log_Z = numpy_smoother(A, Gamma, *start, h, H)
        value, new_h, new_H = numpy_sites(B, b, Y, means, covariances, nodes, weights)
        misfit = (
            0.5 * np.einsum("tij,tij->t", H, covariances)
            + 0.5 * np.einsum("ti,tij,tj->t", means, H, means)
            - np.einsum("ti,ti->t", h, means)
        )
        bound = log_Z + (value + misfit).sum()
        h, H = new_h, new_H
    before = means[:-1].T @ means[:-1] + covariances[:-1].sum(0)
    lag = means[1:].T @ means[:-1] + lag_one[1:].sum(0)
    return bound, means, before, lag


def bench_estep():
    rows = []
    for d, V, n in ((2, 10, 1000), (1, 10, 1000), (2, 50, 1000), (5, 100, 1000)):
        estimator = random_model(d, V)
        Y, _ = estimator.sample(n, random_state=1)
        X, offsets = sparse.csr_array(Y), np.array([0, n], dtype=np.intp)
        model = estimator._model()
        # ours counts its own sweeps; NumPy gets as many (and no line search)
        sweeps = count_sweeps(lambda: model.e_step(X, offsets))
        (_, _), ours = model.e_step(X, offsets)
        theirs, means, *_ = numpy_e_step(estimator, Y, sweeps + 1)
        assert abs(ours - theirs) < 1e-3 * abs(ours) / 100, (ours, theirs)
        assert np.abs(means - estimator.transform(Y)).max() < 0.02
        mine, numpy_time = cpu_times(
            lambda: model.e_step(X, offsets), lambda: numpy_e_step(estimator, Y, sweeps + 1),
            repeats=5,
        )  # fmt: skip
        rows.append([f"{d}, {V}, {n}", sweeps, f"{1e3 * numpy_time:.0f}", f"{1e3 * mine:.2f}",
                     f"{numpy_time / mine:.0f}"])  # fmt: skip
    head = ["d, V, T", "sweeps", "NumPy, ms", "sklseq, ms", "ratio"]
    print("E-step: NumPy time / ours, the same number of sweeps", table(head, rows), sep="\n\n")


def count_sweeps(function) -> int:
    from sklseq.state_space import _softmax_posterior as posterior

    original, calls = posterior._expectations, []
    posterior._expectations = lambda *args: (calls.append(1), original(*args))[1]
    try:
        function()
    finally:
        posterior._expectations = original
    return len(calls)


# ---- a large vocabulary


def documents(V, d, T, n_words=100, seed=0):
    rng = np.random.default_rng(seed)
    B, b = 0.7 * rng.normal(size=(V, d)), -np.log(np.arange(1, V + 1))
    s, rows = np.zeros(d), []
    for _ in range(T):
        s = 0.9 * s + 0.43 * rng.normal(size=d)
        p = np.exp(B @ s + b)
        rows.append(sparse.csr_array(rng.multinomial(n_words, p / p.sum())[None].astype(float)))
    return sparse.vstack(rows, format="csr")


def bench_words():
    """One EM iteration at V = 10,000, d = 5, T = 1,000 documents, in a process of its own."""
    print(in_own_process("words()"), end="")


def in_own_process(call: str) -> str:
    """What a function of this file prints in a fresh process, whose peak memory is its own."""
    code = f"import bench_softmax as b; b.{call}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent,
    ).stdout  # fmt: skip


def words():
    V, d, T = 10_000, 5, 1000
    X = documents(V, d, T)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        marks = []
        for n_iter in (1, 4):
            start = time.process_time()
            SoftmaxStateSpace(d, max_iter=n_iter, acceleration=None).fit(X)
            marks.append(time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    print(
        f"V = {V}, d = {d}, T = {T} documents of 100 words, CSR: one EM iteration "
        f"{(marks[1] - marks[0]) / 3:.1f} s of CPU; peak memory {grown:.0f} MB above the data"
    )


# ---- growth


def bench_growth(figures):
    """Time and memory of one EM iteration in T, and in the number of sequences."""
    rows, curves = [], {}
    for name, sizes in (("T", (2000, 8000, 32_000)), ("sequences", (20, 80, 320))):
        for size in sizes:
            out = in_own_process(f"growth({name!r}, {size})").split()
            steps = size if name == "T" else 100 * size
            seconds, megabytes = map(float, out)
            curves.setdefault(name, []).append((size, seconds, megabytes))
            rows.append([name, size, f"{seconds:.3f}", f"{1e6 * seconds / steps:.1f}",
                         f"{megabytes:.0f}", f"{1e3 * megabytes / steps:.2f}"])  # fmt: skip
    head = ["growing", "size", "s", "µs a step", "MB", "kB a step"]
    print("One EM iteration, d = 2, V = 10; 100 steps a sequence", table(head, rows), sep="\n\n")
    if figures:
        plot_growth(curves, Path(figures))


def growth(name, size):
    """Run in a process of its own: seconds of CPU and MB of one iteration."""
    n, n_sequences = (size, 1) if name == "T" else (100, size)
    Y = random_model(2, 10).sample(n, n_sequences=n_sequences, random_state=1)[0]
    X = [sparse.csr_array(y) for y in Y]
    times, peak = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for n_iter in (1, 3):
            start = time.process_time()
            SoftmaxStateSpace(2, max_iter=n_iter, acceleration=None).fit(X)
            times.append(time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    print((times[1] - times[0]) / 2, grown)


def plot_growth(curves, folder):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for name, points in curves.items():
        sizes, seconds, megabytes = np.array(points).T
        steps = sizes * (100 if name == "sequences" else 1)
        label = "one sequence, T growing" if name == "T" else "sequences of 100 steps"
        axes[0].loglog(steps, seconds, "o-", label=label)
        axes[1].loglog(steps, megabytes, "o-", label=label)
    axes[0].set(xlabel="steps in all", ylabel="CPU seconds of an EM iteration")
    axes[1].set(xlabel="steps in all", ylabel="MB above the data")
    axes[0].legend()
    figure.savefig(folder / "softmax_growth.png", dpi=120)


# ---- likelihoods against the bootstrap particle filter


def bootstrap(model, Y, n_particles, seed):
    """The textbook filter: move by the prior, weigh by the words, resample at every step."""
    rng = np.random.default_rng(seed)
    A, B, b = model.transition_matrix_, model.observation_matrix_, model.observation_offset_
    x = rng.multivariate_normal(
        model.initial_state_mean_, model.initial_state_covariance_, size=n_particles
    )
    root, total = np.linalg.cholesky(model.transition_covariance_), 0.0
    for t, row in enumerate(Y):
        if t:
            x = x @ A.T + rng.normal(size=x.shape) @ root.T
        logits = x @ B.T + b
        top = logits.max(axis=1, keepdims=True)
        log_w = logits @ row - row.sum() * (np.log(np.exp(logits - top).sum(1)) + top[:, 0])
        best = log_w.max()
        w = np.exp(log_w - best)
        total += best + np.log(w.mean())
        at = np.searchsorted(np.cumsum(w / w.sum()),
                             (np.arange(n_particles) + rng.uniform()) / n_particles)  # fmt: skip
        x = x[np.minimum(at, n_particles - 1)]
    return total


def bench_particles():
    rows = []
    for d, V, n, n_words in ((1, 3, 1000, 1), (2, 10, 1000, 1), (2, 10, 1000, 20), (5, 50, 500, 5)):
        model = random_model(d, V, seed=2)
        Y, _ = model.sample(n, n_words, random_state=3)
        many = [
            model.set_params(n_particles=4000, random_state=seed).score_sequences(Y)[0]
            for seed in range(3)
        ]
        truth = np.log(np.mean(np.exp(many - np.max(many)))) + np.max(many)
        columns = []
        for name, run in (
            ("bootstrap, 500", lambda seed: bootstrap(model, Y, 500, seed)),
            ("twisted, 500", lambda seed: twisted(model, Y, 500, seed)),
            ("correction", lambda seed: twisted(model, Y, 0, seed)),
            ("score_samples", lambda seed: model.score_samples(Y).sum()),
        ):
            start = time.process_time()
            values = [run(seed) for seed in range(6)]
            took = (time.process_time() - start) / 6
            columns.append((name, np.mean(values) - truth, np.std(values), took))
        for name, error, sd, took in columns:
            rows.append([f"{d}, {V}, {n}, {n_words}", name, f"{error:+.2f}", f"{sd:.2f}",
                         f"{1e3 * took:.0f}"])  # fmt: skip
    head = ["d, V, T, words", "method", "mean error, nats", "sd, nats", "ms"]
    print("Log-likelihood of one sequence; reference: 3 x 4,000 twisted particles",
          table(head, rows), sep="\n\n")  # fmt: skip


def twisted(model, Y, n_particles, seed):
    return model.set_params(n_particles=n_particles, random_state=seed).score_sequences(Y)[0]


# ---- real text


def bench_text():
    """Characters of tinyshakespeare: bits a symbol on the last tenth."""
    path = DATA / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        print(f"text: no {path}")
        return
    text = path.read_text()
    train, test = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    letters = sorted(set(text))
    code = {letter: i for i, letter in enumerate(letters)}
    length = 500

    def sequences(part, count):
        codes = np.array([code[letter] for letter in part[: count * length]])
        return codes.reshape(-1, length)

    seen, held_out = sequences(train, 80), sequences(test, 40)
    one_hot = np.eye(len(letters))
    counts = np.bincount(seen.ravel(), minlength=len(letters)) + 0.5
    unigram = np.log2(counts / counts.sum())
    rows = [["unigram", f"{-unigram[held_out].mean():.3f}", ""]]
    warnings.simplefilter("ignore", ConvergenceWarning)

    def add(name, model, train_X, test_X):
        start = time.process_time()
        model.fit(train_X)
        took = time.process_time() - start
        bits = -model.score(test_X) / np.log(2)
        rows.append([name, f"{bits:.3f}", f"{took:.0f}"])
        print(rows[-1], flush=True)

    words = [sparse.csr_array(one_hot[row]) for row in seen]
    test_words = [sparse.csr_array(one_hot[row]) for row in held_out]
    for d in (1, 2, 3, 4):
        model = SoftmaxStateSpace(d, tol=1e-4, max_iter=30, n_particles=200)
        add(f"SoftmaxStateSpace, d = {d}", model, words, test_words)
    for K in (2, 4, 8, 16):
        model = CategoricalHMM(K, n_categories=len(letters), alpha=1.0, random_state=0, tol=1e-4,
                               n_init=2)  # fmt: skip
        add(f"CategoricalHMM, K = {K}", model, list(seen[:, :, None]), list(held_out[:, :, None]))
    head = ["model", "bits a character", "fit, s"]
    print(f"tinyshakespeare, {seen.size:,} characters to learn from, {held_out.size:,} held out, "
          f"sequences of {length}", table(head, rows), sep="\n\n")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("estep", "words", "growth", "particles", "text")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--figures", help="folder for softmax_growth.png")
    arguments = parser.parse_args()
    for part in arguments.only:
        if part == "growth":
            bench_growth(arguments.figures)
        else:
            globals()[f"bench_{part}"]()
        print()


if __name__ == "__main__":
    main()
