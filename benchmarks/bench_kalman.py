"""KalmanSmoother against statsmodels, simdkalman and pykalman.

    python benchmarks/bench_kalman.py [--rounds 7] [--quick] [--only NAME]

One thread, CPU time, the candidates alternated in one process, medians of the ratios of each round.
Every row asserts that both give the same numbers before it times them.  Ours is the public
estimator with all its checks; statsmodels is its fastest configuration, called below its results
classes (``_filter`` and ``_smooth``), so that no copying of results is charged to it.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  the thread limits come first

from sklseq import KalmanSmoother  # noqa: E402


def random_parameters(d, p, seed=0):
    """A stable chain with correlated noises; d = 2, p = 1 is the local linear trend."""
    rng = np.random.default_rng(seed)
    if (d, p) == (2, 1):
        A, Gamma = np.array([[1.0, 1.0], [0.0, 1.0]]), np.diag([0.5, 0.1])
        B, Sigma = np.array([[1.0, 0.0]]), np.eye(1)
        return A, Gamma, B, Sigma, np.zeros(d), 10.0 * np.eye(d)
    A = rng.normal(size=(d, d))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max()
    root = rng.normal(size=(d, d)) / np.sqrt(d)
    Gamma = root @ root.T + 0.1 * np.eye(d)
    root = rng.normal(size=(p, p)) / np.sqrt(p)
    Sigma = root @ root.T + 0.1 * np.eye(p)
    return A, Gamma, rng.normal(size=(p, d)), Sigma, np.zeros(d), np.eye(d)


def make(d, p, n, missing, seed=0, n_sequences=None):
    A, Gamma, B, Sigma, mean, covariance = random_parameters(d, p, seed)
    model = KalmanSmoother.from_parameters(
        transition_matrix=A, transition_covariance=Gamma, observation_matrix=B,
        observation_covariance=Sigma, initial_state_mean=mean, initial_state_covariance=covariance,
    )  # fmt: skip
    rng = np.random.default_rng(seed + 1)
    if n_sequences is None:
        X = model.sample(n, random_state=seed + 1)[0]
    else:
        X = np.stack(model.sample(n, n_sequences=n_sequences, random_state=seed + 1)[0])
    if missing:
        X[rng.uniform(size=X.shape) < missing] = np.nan
    return model, X


class Statsmodels:
    """The Cython filter and smoother without results objects, for one sequence."""

    def __init__(self, model, X, filter_name):
        from statsmodels.tsa.statespace import kalman_smoother as ks

        d = model.n_components
        self.ks = ks.KalmanSmoother(k_endog=X.shape[1], k_states=d, k_posdef=d)
        self.ks.bind(X.copy())
        self.ks["design"] = model.observation_matrix_
        self.ks["obs_cov"] = model.observation_covariance_
        self.ks["transition"] = model.transition_matrix_
        self.ks["selection"] = np.eye(d)
        self.ks["state_cov"] = model.transition_covariance_
        self.ks.initialize_known(model.initial_state_mean_, model.initial_state_covariance_)
        self.ks.filter_timing = 0
        if filter_name == "univariate":
            self.ks.filter_univariate = True
        elif filter_name == "collapsed":
            self.ks.filter_collapsed = True
        self.ks.smoother_output = ks.SMOOTHER_STATE | ks.SMOOTHER_STATE_COV | (
            ks.SMOOTHER_STATE_AUTOCOV
        )

    def log_likelihood(self):
        return self.ks.loglike()

    def smooth(self):
        kalman_filter = self.ks._filter()
        smoother = self.ks._smooth()
        return kalman_filter, smoother

    def smoothed(self):
        result = self.ks.smooth()
        return result.smoothed_state.T, np.moveaxis(result.smoothed_state_cov, -1, 0)


def alternate(ours, theirs, rounds, inner=1):
    """CPU times, candidates alternated: median of each, median ratio theirs / ours, and the ratio
    of the fastest calls, which other work on the machine disturbs least."""
    ours(), theirs()
    times, fastest = np.zeros((rounds, 2)), np.full(2, np.inf)
    for i in range(rounds):
        for j, (function, repeat) in enumerate(((ours, inner), (theirs, 1))):
            for _ in range(repeat):
                start = time.process_time()
                function()
                took = time.process_time() - start
                times[i, j] += took / repeat
                fastest[j] = min(fastest[j], took)
    mine, peer = np.median(times, axis=0)
    return mine, peer, np.median(times[:, 1] / times[:, 0]), fastest[1] / fastest[0]


def report(name, goal, mine, peer, ratio, fastest, peer_name):
    verdict = "ok" if ratio >= goal else "fastest ok" if fastest >= goal else "MISSED"
    print(
        f"{name:58s} {1e3 * mine:9.3f} ms   {peer_name:24s} {1e3 * peer:8.2f} ms   "
        f"{ratio:6.1f}x, fastest {fastest:6.1f}x  goal {goal}  {verdict}",
        flush=True,
    )


def against_statsmodels(d, p, n, missing, goals, rounds, filters):
    model, X = make(d, p, n, missing)
    peers = {name: Statsmodels(model, X, name) for name in filters}
    total = model.score_sequences(X)[0]
    posterior = model.smooth(X)
    label = f"d={d} p={p} T={n} missing {missing:.0%}"
    best = {}
    for name, peer in peers.items():
        theirs = peer.log_likelihood()
        assert abs(theirs - total) < 1e-6 * abs(total), (name, theirs, total)
        means, covariances = peer.smoothed()
        np.testing.assert_allclose(posterior.means, means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(posterior.covariances, covariances, rtol=1e-4, atol=1e-5)
        for kind, function in (("loglik", peer.log_likelihood), ("smooth", peer.smooth)):
            start = time.process_time()
            function()
            best.setdefault(kind, []).append((time.process_time() - start, name, function))
    for kind, ours, goal in (
        ("loglik", lambda: model.score_sequences(X), goals[0]),
        ("smooth", lambda: model.smooth(X), goals[1]),
    ):
        _, name, function = min(best[kind], key=lambda entry: entry[0])
        report(
            f"{label} {kind}", goal,
            *alternate(ours, function, rounds, inner=5), f"statsmodels {name}",
        )  # fmt: skip


def against_simdkalman(rounds, missing=0.0, goal=20):
    import simdkalman

    model, X = make(4, 2, 100, 0.0, n_sequences=1000)
    if missing:
        X[np.random.default_rng(0).uniform(size=X.shape[:2]) < missing] = np.nan
    peer = simdkalman.KalmanFilter(
        model.transition_matrix_, model.transition_covariance_, model.observation_matrix_,
        model.observation_covariance_,
    )  # fmt: skip
    # its prior is that of the step before the first
    mean = np.linalg.solve(model.transition_matrix_, model.initial_state_mean_)

    def theirs():
        return peer.smooth(
            X, initial_value=mean, initial_covariance=model.initial_state_covariance_,
            observations=False,
        )  # fmt: skip

    means = model.smooth(X).means
    # the priors differ by one step of the chain: compare where they are forgotten
    np.testing.assert_allclose(means[:, 60:], theirs().states.mean[:, 60:], rtol=1e-3, atol=1e-3)
    name = f"1000 sequences of 100, d=4 p=2, rows missing {missing:.0%}, smooth"
    report(name, goal, *alternate(lambda: model.smooth(X), theirs, rounds), "simdkalman")


def against_pykalman(rounds):
    import pykalman

    model, X = make(2, 1, 1000, 0.0)
    names = ["transition_matrices", "observation_matrices", "transition_covariance",
             "observation_covariance", "observation_offsets", "initial_state_mean",
             "initial_state_covariance"]  # fmt: skip
    start = {
        "transition_matrices": model.transition_matrix_,
        "transition_covariance": model.transition_covariance_,
        "observation_matrices": model.observation_matrix_,
        "observation_covariance": model.observation_covariance_,
        "observation_offsets": model.observation_offset_,
        "initial_state_mean": model.initial_state_mean_,
        "initial_state_covariance": model.initial_state_covariance_,
    }
    n_iter = 20

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pykalman.KalmanFilter(**start, em_vars=names).em(X, n_iter=1)

    ours_init = {
        "transition_matrix_init": model.transition_matrix_,
        "transition_covariance_init": model.transition_covariance_,
        "observation_matrix_init": model.observation_matrix_,
        "observation_covariance_init": model.observation_covariance_,
        "observation_offset_init": model.observation_offset_,
        "initial_state_mean_init": model.initial_state_mean_,
        "initial_state_covariance_init": model.initial_state_covariance_,
    }

    def ours(n=n_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KalmanSmoother(
                2, **ours_init, acceleration=None, max_iter=n, tol=0.0, reg_covar=0.0
            ).fit(X)

    one = ours(1)
    other = theirs()
    eigenvalues = np.sort_complex(np.linalg.eigvals(one.transition_matrix_))
    # pykalman also learns the start's covariance from one sequence, which hardly matters to A
    np.testing.assert_allclose(
        eigenvalues, np.sort_complex(np.linalg.eigvals(other.transition_matrices)), rtol=2e-3
    )
    mine, peer, ratio, fastest = alternate(ours, theirs, rounds)
    report("one EM iteration, d=2 p=1 T=1000 (mean of 20, fit included)", 1000, mine / n_iter,
           peer, ratio * n_iter, fastest * n_iter, "pykalman")  # fmt: skip


ROWS = {
    "d1": lambda r, q: against_statsmodels(1, 1, 100_000 // q, 0, (50, 40), r,
                                           ("conventional", "univariate")),
    "d2": lambda r, q: against_statsmodels(2, 1, 100_000 // q, 0, (50, 40), r,
                                           ("conventional", "univariate")),
    "d4": lambda r, q: against_statsmodels(4, 2, 20_000 // q, 0, (25, 30), r,
                                           ("conventional", "univariate")),
    "d4m": lambda r, q: against_statsmodels(4, 2, 20_000 // q, 0.2, (25, 12), r,
                                            ("conventional", "univariate")),
    "d16": lambda r, q: against_statsmodels(16, 8, 2_000 // q, 0, (4, 6), r,
                                            ("conventional", "univariate")),
    "d16m": lambda r, q: against_statsmodels(16, 8, 2_000 // q, 0.2, (2, 2), r,
                                             ("conventional", "univariate")),
    "d50": lambda r, q: against_statsmodels(50, 20, 500 // q, 0, (2, 3), r,
                                            ("conventional", "univariate")),
    "d10": lambda r, q: against_statsmodels(10, 100, 2_000 // q, 0, (5, 6), r, ("collapsed",)),
    "simd": lambda r, q: against_simdkalman(r),
    "simdm": lambda r, q: against_simdkalman(r, 0.2),
    "em": lambda r, q: against_pykalman(r),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a quarter of the steps")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS))
    arguments = parser.parse_args()
    for name in arguments.only:
        ROWS[name](arguments.rounds, 4 if arguments.quick else 1)


if __name__ == "__main__":
    main()
