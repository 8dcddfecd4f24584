"""Hidden Markov models against hmmlearn: whole public calls, one thread, CPU time.

    python benchmarks/bench_hmm.py [--quick] [--only TEXT] [--part NAME ...]

Each shape is simulated from its own parameters; both packages start from the same values, the
results are compared before anything is timed, and the two are timed in turns in one process.
What is printed is hmmlearn's CPU time over ours, median of the rounds, with the goal beside it.
hmmlearn has two implementations, "log" (its default) and "scaling".  Where hmmlearn needs more
than seconds for ten EM iterations it is given one and the time is multiplied by ten.

Parts: speed, kernels (fractions of the peak of dgemm), threads, ragged, memory, accuracy, zeros
(left-right models).
A build without dispatch, or without AVX-512, is measured by building it so and running this again:
    SKLSEQ_PORTABLE=1 python setup.py build_ext --inplace --force
    CFLAGS=-DSKLSEQ_NO_AVX512 python setup.py build_ext --inplace --force
"""

import argparse
import logging
import time
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from sklseq import CategoricalHMM, GaussianHMM
from sklseq.hmm import _forward_backward as kernels

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)


@dataclass
class Shape:
    """A problem and the goals: (score vs log, scaling), predict, (EM vs log, scaling)."""

    n_states: int
    n_features: int  # of a Gaussian; number of categories otherwise
    n_sequences: int
    length: int
    family: str
    score: tuple
    predict: float
    em: tuple

    @property
    def name(self):
        return (
            f"{self.family} K={self.n_states} D={self.n_features} "
            f"{self.n_sequences}x{self.length:.0e}"
        ).replace("e+0", "e")


SHAPES = [
    Shape(2, 1, 1, 1_000_000, "diag", (20, 10), 8, (60, 15)),
    Shape(5, 3, 1, 100_000, "diag", (35, 20), 20, (60, 18)),
    Shape(10, 5, 1000, 100, "diag", (45, 25), 22, (110, 22)),
    Shape(10, 5, 1000, 100, "full", (140, 120), 110, (160, 85)),
    Shape(50, 10, 100, 1000, "diag", (50, 14), 10, (85, 14)),
    Shape(200, 20, 10, 2000, "diag", (65, 15), 10, (90, 14)),
    Shape(10, 50, 1000, 100, "categorical", (45, 9), 7, (110, 16)),
    Shape(50, 1000, 100, 1000, "categorical", (70, 9), 4.5, (100, 13)),
    Shape(5, 3, 1, 100, "diag", (1, 1), 1, (2, 1)),
]


class Problem:
    """Data and the same model in both packages."""

    def __init__(self, shape, rng):
        self.shape = shape
        n_states, n_steps = shape.n_states, shape.n_sequences * shape.length
        self.lengths = np.full(shape.n_sequences, shape.length)
        transmat = np.full((n_states, n_states), 0.2 / (n_states - 1))
        np.fill_diagonal(transmat, 0.8)
        self.chain = {"startprob": np.full(n_states, 1 / n_states), "transmat": transmat}
        moves = rng.integers(1, n_states, n_steps) * (rng.random(n_steps) > 0.8)
        states = np.cumsum(moves) % n_states
        if shape.family == "categorical":
            table = rng.dirichlet(np.full(shape.n_features, 0.3), n_states) + 1e-4
            table /= table.sum(axis=1, keepdims=True)
            cumulative = table.cumsum(axis=1)
            uniforms = rng.random(n_steps)
            codes = np.empty(n_steps, dtype=int)
            for k in range(n_states):
                rows = states == k
                codes[rows] = np.searchsorted(cumulative[k], uniforms[rows])
            self.X = np.minimum(codes, shape.n_features - 1)[:, None]
            self.X[: shape.n_features, 0] = np.arange(shape.n_features)
            self.emission = {"emissionprob": table}
        else:
            scale = 3 / np.sqrt(shape.n_features)
            means = scale * rng.standard_normal((n_states, shape.n_features))
            self.X = means[states] + rng.standard_normal((n_steps, shape.n_features))
            covars = np.ones((n_states, shape.n_features))
            if shape.family == "full":
                covars = covars[:, :, None] * np.eye(shape.n_features)
            self.emission = {"means": means, "covars": covars}

    def ours(self, **params):
        if self.shape.family == "categorical":
            return CategoricalHMM.from_parameters(**self.chain, **self.emission, **params)
        return GaussianHMM.from_parameters(
            **self.chain, **self.emission, covariance_type=self.shape.family, **params
        )

    def ours_to_fit(self, n_iter, **params):
        inits = {f"{name}_init": value for name, value in {**self.chain, **self.emission}.items()}
        if self.shape.family == "categorical":
            params["n_categories"] = self.shape.n_features
            family = CategoricalHMM
        else:
            params["covariance_type"] = self.shape.family
            family = GaussianHMM
        return family(self.shape.n_states, **inits, max_iter=n_iter, tol=0.0, **params)

    def theirs(self, implementation, n_iter=10):
        from hmmlearn import hmm

        params = {
            "implementation": implementation, "n_iter": n_iter, "tol": -np.inf, "init_params": ""
        }  # fmt: skip
        if self.shape.family == "categorical":
            model = hmm.CategoricalHMM(self.shape.n_states, **params)
            model.emissionprob_ = self.emission["emissionprob"]
            model.n_features = self.shape.n_features
        else:
            model = hmm.GaussianHMM(
                self.shape.n_states, self.shape.family, covars_prior=0.0, covars_weight=1.0,
                min_covar=0.0, **params,
            )  # fmt: skip
            model.means_, model.covars_ = self.emission["means"], self.emission["covars"]
        model.startprob_, model.transmat_ = self.chain["startprob"], self.chain["transmat"]
        return model


def cpu_time(function):
    start = time.thread_time()
    result = function()
    return time.thread_time() - start, result


def in_turns(ours, theirs, n_rounds, repeat=1):
    """Median of theirs / ours, and the median of ours in ms."""
    ratios, times = [], []
    for _ in range(n_rounds):
        other = cpu_time(lambda: [theirs() for _ in range(repeat)])[0]
        own = cpu_time(lambda: [ours() for _ in range(repeat)])[0]
        ratios.append(other / own)
        times.append(1e3 * own / repeat)
    return float(np.median(ratios)), float(np.median(times))


def check_agreement(problem, n_iter):
    """Likelihood, path and EM history against hmmlearn; raises where they differ."""
    X, lengths = problem.X, problem.lengths
    model, other = problem.ours(), problem.theirs("scaling")
    total = model.score_sequences(X, lengths=lengths).sum()
    np.testing.assert_allclose(total, other.score(X, lengths), rtol=1e-9)
    np.testing.assert_array_equal(
        model.predict(X, lengths=lengths), other.predict(X, lengths)
    )
    fitted = problem.ours_to_fit(n_iter).fit(X, lengths=lengths)
    other = problem.theirs("scaling", n_iter).fit(X, lengths)
    np.testing.assert_allclose(
        fitted.log_likelihoods_[:-1] * len(X), list(other.monitor_.history), rtol=1e-7
    )


def speed(shape, quick):
    problem = Problem(shape, np.random.default_rng(0))
    X, lengths = problem.X, problem.lengths
    work = shape.n_sequences * shape.length * shape.n_states**2
    slow = work > 1e8
    tiny = work < 1e6
    n_rounds = 3 if slow or quick else 5
    n_iter = 1 if slow else 2 if work > 3e6 else 10
    repeat = 50 if tiny else 1
    check_agreement(problem, n_iter)
    ours = problem.ours()
    cells = []
    for implementation, goal in zip(("log", "scaling"), shape.score):
        if quick and slow and implementation == "log":
            continue
        theirs = problem.theirs(implementation)
        ratio, own = in_turns(
            lambda: ours.score(X, lengths=lengths),
            lambda theirs=theirs: theirs.score(X, lengths), n_rounds, repeat,
        )  # fmt: skip
        cells.append((f"score / {implementation}", ratio, goal, own))
    theirs = problem.theirs("scaling")
    ratio, own = in_turns(
        lambda: ours.predict(X, lengths=lengths),
        lambda: theirs.predict(X, lengths), n_rounds, repeat,
    )  # fmt: skip
    cells.append(("predict", ratio, shape.predict, own))
    estimator = problem.ours_to_fit(10)
    for implementation, goal in zip(("log", "scaling"), shape.em):
        if quick and slow and implementation == "log":
            continue
        theirs = problem.theirs(implementation, n_iter)
        ratio, own = in_turns(
            lambda: estimator.fit(X, lengths=lengths),
            lambda theirs=theirs: theirs.fit(X, lengths),
            1 if slow and implementation == "log" else n_rounds,
            5 if tiny else 1,
        )  # fmt: skip
        cells.append((f"EM10 / {implementation}", ratio * 10 / n_iter, goal, own))
    print(f"\n{shape.name}")
    for label, ratio, goal, own in cells:
        mark = "" if ratio >= goal else "   <-- missed"
        print(f"  {label:15s} {ratio:7.1f}   goal {goal:5g}   ours {own:9.3f} ms{mark}", flush=True)


def dgemm_peak():
    """Flops per second of one core, the best of a few products."""
    a = np.random.default_rng(0).standard_normal((1000, 1000))
    return 2e9 / min(cpu_time(lambda: a @ a)[0] for _ in range(5))


def kernel_fractions():
    """The chain kernels alone: flops counted (an exponential as 27) over the peak of dgemm."""
    peak = dgemm_peak()
    print(f"\nkernels; dgemm peak {peak / 1e9:.1f} GF/s")
    for n_states, n_sequences, length in [(2, 64, 1000), (5, 64, 1000), (10, 1000, 100),
                                          (50, 100, 1000), (200, 10, 2000)]:  # fmt: skip
        kernel_fraction(Shape(n_states, 1, n_sequences, length, "diag", (), 0, ()), peak)


def kernel_fraction(shape, peak):
    problem = Problem(shape, np.random.default_rng(0))
    n_states, n_steps = shape.n_states, len(problem.X)
    log_obs = np.empty((n_steps, n_states))
    problem.ours()._emission().log_prob(problem.X, log_obs)
    offsets = np.arange(shape.n_sequences + 1, dtype=np.intp) * shape.length
    chain = (problem.chain["startprob"], problem.chain["transmat"], log_obs, offsets)
    totals, final = np.empty(shape.n_sequences), np.empty((shape.n_sequences, n_states))
    posteriors, counts = np.empty_like(log_obs), np.zeros((n_states, n_states))
    per_exp, per_product = n_steps * n_states * 27, 2 * n_steps * n_states**2
    passes = {
        "likelihood": (1, lambda: kernels.log_likelihood(*chain, totals, final)),
        "smoothing": (3, lambda: kernels.forward_backward(*chain, posteriors, counts, totals)),
    }
    for name, (n_products, run) in passes.items():
        took = min(cpu_time(run)[0] for _ in range(5))
        rate = (per_exp + n_products * per_product) / took
        print(
            f"  K={n_states:3d} {name:10s} {rate / 1e9:5.1f} GF/s, {rate / peak:4.0%} of dgemm"
            f" ({1e9 * took / n_steps:7.1f} ns a step)"
        )


def threads():
    """Wall time of n_jobs=2 against n_jobs=1 on 1000 sequences."""
    problem = Problem(Shape(10, 5, 1000, 1000, "diag", (), 0, ()), np.random.default_rng(0))
    ratios = []
    for _ in range(5):
        took = []
        for n_jobs in (1, 2):
            model = problem.ours(n_jobs=n_jobs)
            start = time.perf_counter()
            model.predict_proba(problem.X, lengths=problem.lengths)
            took.append(time.perf_counter() - start)
        ratios.append(took[0] / took[1])
    print(f"\nthreads: n_jobs=2 is {np.median(ratios):.2f} times as fast as n_jobs=1 (wall time)")


def ragged():
    """Geometric lengths against equal ones, the same number of steps."""
    rng = np.random.default_rng(0)
    print("\nragged against equal lengths (CPU time)")
    for n_states in (10, 50):
        problem = Problem(Shape(n_states, 5, 1000, 100, "diag", (), 0, ()), rng)
        lengths = rng.geometric(0.01, 1000)
        lengths = np.maximum(1, (lengths * (100_000 / lengths.sum())).astype(int))
        lengths[np.argmax(lengths)] += 100_000 - lengths.sum()
        model = problem.ours()
        for run in (model.score, model.predict, model.predict_proba):
            ratio, _ = in_turns(
                partial(run, problem.X, lengths=problem.lengths),
                partial(run, problem.X, lengths=lengths), 9,
            )  # fmt: skip
            print(f"  K={n_states:2d} {run.__name__:14s} {ratio:.2f}")


def memory():
    """Peak of the resident set above what it was before the call, in units of N K 8 bytes."""
    print("\npeak memory beyond the input, in units of N K 8 bytes (resident set, Linux)")
    for shape in (Shape(10, 1, 1, 1_000_000, "diag", (), 0, ()),
                  Shape(50, 2, 1000, 300, "diag", (), 0, ())):  # fmt: skip
        problem = Problem(shape, np.random.default_rng(0))
        unit = len(problem.X) * shape.n_states * 8
        for name, run in (
            ("score", problem.ours().score), ("fit", problem.ours_to_fit(2).fit)
        ):  # fmt: skip
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # forget the peak so far
            before = resident("VmRSS")
            run(problem.X, lengths=problem.lengths)
            print(f"  {shape.name:28s} {name:6s} {(resident('VmHWM') - before) / unit:.2f}")


def resident(field):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(field))


def accuracy():
    """Total log-likelihood of a million steps against the same recursion in 80-bit arithmetic."""
    problem = Problem(SHAPES[0], np.random.default_rng(0))
    model = problem.ours()
    log_obs = np.empty((len(problem.X), 2))
    model._emission().log_prob(problem.X, log_obs)
    shift = log_obs.max(axis=1)
    extended = np.longdouble
    evidence = np.exp((log_obs - shift[:, None]).astype(extended))
    transmat = problem.chain["transmat"].astype(extended).T
    state = problem.chain["startprob"].astype(extended)
    total = shift.astype(extended).sum()
    for t in range(len(log_obs)):
        state = evidence[t] * (transmat @ state if t else state)
        total_t = state.sum()
        state /= total_t
        total += np.log(total_t)
    ours = model.score_sequences(problem.X)[0]
    print(f"\naccuracy at T = 1e6: {abs(float(ours - total)):.1e} nats off, of {float(total):.0f}")
    for implementation in ("log", "scaling"):
        other = problem.theirs(implementation).score(problem.X)
        print(f"  hmmlearn {implementation}: {abs(float(other - total)):.1e}")


def zeros():
    """Left-right models against the same with their zeros at 1e-12: what exact zeros cost."""
    print("\nzeros: CPU time of a left-right model over that with zeros of 1e-12")
    for n_states, n_features in ((60, 24), (10, 24), (20, 5)):
        rng = np.random.default_rng(0)
        means = 3 * rng.standard_normal((n_states, n_features))
        states = np.arange(1000) * n_states // 1000
        X = [means[states] + rng.standard_normal((1000, n_features)) for _ in range(20)]
        models = []
        for zero in (0.0, 1e-12):
            transmat = np.eye(n_states) * 0.95 + np.eye(n_states, k=1) * 0.05
            transmat = np.where(transmat == 0, zero, transmat)
            startprob = np.where(np.arange(n_states) == 0, 1, zero)
            models.append(GaussianHMM.from_parameters(
                startprob=startprob / startprob.sum(), means=means, covars=np.ones_like(means),
                transmat=transmat / transmat.sum(axis=1, keepdims=True),
            ))  # fmt: skip
        for method in ("score", "score_samples", "predict_proba"):
            calls = [partial(getattr(model, method), X) for model in models]
            times = np.array([[cpu_time(call)[0] for call in calls] for _ in range(5)])
            ratio = np.median(times[:, 0] / times[:, 1])
            print(f"K={n_states} D={n_features} {method:14} {ratio:.2f}")


PARTS = {
    "zeros": zeros,
    "kernels": kernel_fractions, "threads": threads, "ragged": ragged, "memory": memory,
    "accuracy": accuracy,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, slow peers left out")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    parser.add_argument("--part", nargs="*", default=["speed", *PARTS], help="which parts to run")
    arguments = parser.parse_args()
    with threadpool_limits(limits=1):
        if "speed" in arguments.part:
            for shape in SHAPES:
                if arguments.only in shape.name:
                    speed(shape, arguments.quick)
        for name, part in PARTS.items():
            if name in arguments.part:
                part()


if __name__ == "__main__":
    main()
