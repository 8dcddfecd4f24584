"""Random linear-Gaussian models, most of them singular somewhere, against 100-digit arithmetic."""

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose

from sklseq import KalmanSmoother
from sklseq.state_space._chain import LinearGaussianChain
from sklseq.state_space._observation import GaussianObservation

EPSILON = np.finfo(float).eps


def semidefinite(rng, n, rank):
    """A random (n, n) matrix of that rank and its root, both exact in floating point."""
    root = np.round(8 * rng.normal(size=(n, rank))) / 8
    return root @ root.T, root


def random_case(seed):
    """A model and a sequence it can produce: Gamma, Sigma and P0 of any rank, decay, unstable A,
    vague starts, gaps."""
    rng = np.random.default_rng(seed)
    d, p, n = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.choice([8, 20, 40]))
    A = rng.normal(size=(d, d))
    A *= rng.choice([0.3, 0.95, 1.0, 1.2]) / np.abs(np.linalg.eigvals(A)).max()
    if rng.uniform() < 0.25:  # a moving average, or nearly
        A = np.eye(d, k=1) + rng.integers(2) * np.diag(rng.uniform(0, 0.9, d))
    B = rng.normal(size=(p, d))
    (Q, q), (R, r) = (semidefinite(rng, m, int(rng.integers(0, m + 1))) for m in (d, p))
    if rng.uniform() < 0.4:
        covariance, start = semidefinite(rng, d, int(rng.integers(0, d + 1)))
    else:
        covariance, start = 10.0 ** rng.integers(0, 12) * np.eye(d), np.eye(d)
    mean = rng.normal(size=d)
    X, s = np.empty((n, p)), mean + start @ rng.normal(size=start.shape[1])
    for t in range(n):
        if t:
            s = A @ s + q @ rng.normal(size=q.shape[1])
        X[t] = B @ s + r @ rng.normal(size=r.shape[1])
    if rng.uniform() < 0.5:
        X[rng.uniform(size=X.shape) < 0.3] = np.nan
    if rng.uniform() < 0.3:
        X[n // 3 : 2 * n // 3] = np.nan
    return {
        "A": A, "Q": Q, "B": B, "R": R, "offset": np.zeros(p), "mean": mean,
        "covariance": covariance,
    }, X  # fmt: skip


def parts(model, X):
    """Chain, evidence and offsets of one sequence."""
    R = model["R"]
    diagonal = not np.any(R[~np.eye(len(R), dtype=bool)])
    chain = LinearGaussianChain(model["A"], model["Q"], model["mean"], model["covariance"])
    observation = GaussianObservation(
        model["B"], R, model["offset"], "diag" if diagonal else "full"
    )
    return chain, observation.evidence(X)[0], np.array([0, len(X)], dtype=np.intp)


def close(got, expected, scale=0.0, tolerance=1e-8):
    """Within a share of the largest entry; what is 0 within its rounding."""
    largest = max(np.abs(expected).max(initial=0.0), scale)
    assert np.all(np.isfinite(got))
    assert np.abs(got - expected).max(initial=0.0) <= tolerance * largest


def check(model, X):
    """Everything that is smoothed, and the sums of an E-step."""
    exact = reference.exact_smoother(model, X)
    try:
        compare(model, X, exact)
    except AssertionError:
        # allowed is what the last digits of X themselves do to the exact answer
        rng = np.random.default_rng(0)
        other = reference.exact_smoother(model, X * (1 + EPSILON * rng.uniform(-1, 1, X.shape)))
        moved = np.abs(other.means - exact.means).max()
        if not moved > 1e-10 * np.abs(exact.means).max():
            raise
        compare(model, X, exact, 1e3 * moved)


def compare(model, X, exact, allowed=0.0):
    chain, evidence, offsets = parts(model, X)
    posterior, log_likelihood = chain.smooth(evidence, offsets)
    if exact.log_likelihood < -1e15:  # in doubles the data contradict what is known exactly
        assert log_likelihood[0] == -np.inf
        return
    scale = 1e-8 * max(np.abs(model["covariance"]).max(), np.abs(model["Q"]).max())
    close(posterior.means, exact.means, 1e8 * allowed)
    close(posterior.covariances, exact.covariances, scale)
    close(posterior.lag_one_covariances[1:], exact.lag_one[1:], scale)
    if not exact.skipped:  # else both leave out a constant of their own coordinates
        assert_allclose(log_likelihood[0], exact.log_likelihood, rtol=1e-8, atol=1e-8)
    expected = chain.e_step(evidence, offsets)
    close(expected.means, exact.means, 1e8 * allowed)
    w = exact.noise_means[1:]
    second = w.T @ w + exact.noise_covariances[1:].sum(axis=0)
    # w is a difference of means, of their rounding
    square = np.abs(exact.means).max() ** 2
    close(expected.statistics.second, second, (1e-3 + 1e8 * allowed) * square)


@pytest.mark.parametrize("block", range(6))
def test_random_models(block):
    for seed in range(15 * block, 15 * block + 15):
        model, X = random_case(seed)
        check(model, X)


@pytest.mark.parametrize("seed", [3, 4, 6])
def test_long_random_models(seed):
    """Errors that grow at every step have 300 to do so."""
    rng = np.random.default_rng(seed)
    for theta in (0.1, 0.5):
        A = np.array([[rng.uniform(-0.9, 0.9), 1.0], [0.0, 0.0]])
        load = np.array([[1.0], [theta]])
        model = {
            "A": A, "Q": load @ load.T, "B": np.eye(2)[:1], "R": np.zeros((1, 1)),
            "offset": np.zeros(1), "mean": np.zeros(2), "covariance": np.diag([1e6, 1e4]),
        }  # fmt: skip
        check(model, rng.normal(size=(100 if theta == 0.1 else 300, 1)))


# -- the cases of the reports


def smoother(A, Q, B, R, mean, covariance):
    return KalmanSmoother.from_parameters(
        transition_matrix=A, transition_covariance=Q, observation_matrix=B,
        observation_covariance=R, initial_state_mean=mean, initial_state_covariance=covariance,
    )  # fmt: skip


def moving_average(theta, n):
    """E[e | x] and log-density of x = L e by the dense covariance, for x_t = e_t + theta e_t-1."""
    L = np.eye(n, n + 1, k=1) + theta * np.eye(n, n + 1)
    return L, L @ L.T


@pytest.mark.parametrize("theta, n", [(0.1, 24), (0.3, 100), (0.9, 60)])
def test_moving_average_seen_without_noise(theta, n):
    """The smoother divided by the predicted covariance, which is singular to rounding."""
    variances = [[1 + theta**2, theta], [theta, theta**2]]
    noise = [[1, theta], [theta, theta**2]]
    model = smoother([[0, 1], [0, 0]], noise, [[1, 0]], 0.0, [0, 0], variances)
    X = np.cos(np.arange(n))[:, None]
    L, covariance = moving_average(theta, n)
    e = L.T @ np.linalg.solve(covariance, X[:, 0])
    spread = np.eye(n + 1) - L.T @ np.linalg.solve(covariance, L)
    moments = model.smooth(X)
    assert_allclose(moments.means[:, 1], theta * e[1:], atol=1e-8)
    assert_allclose(moments.means[:, 0], X[:, 0], atol=1e-12)
    assert_allclose(moments.covariances[:, 1, 1], theta**2 * np.diag(spread)[1:], atol=1e-9)
    if (theta, n) == (0.1, 24):
        assert_allclose(moments.means[0, 1], 0.0990573, atol=1e-7)
        assert_allclose(moments.covariances[0, 1, 1], 9.9e-05, rtol=1e-6)
    draws = model.sample_posterior(X, 200, random_state=0)
    deviation = draws[:, :, 1] - moments.means[:, 1]
    assert np.all(np.abs(deviation) <= 6 * np.sqrt(np.diag(spread)[1:]) * theta + 1e-7)


@pytest.mark.parametrize("n", [300, 1000])
def test_variances_below_the_square_root_of_the_smallest_number(n):
    """Reflections whose squares vanished gave -inf from step 221 on."""
    L, covariance = moving_average(0.2, n)
    X = L @ np.random.default_rng(0).normal(size=n + 1)
    model = smoother([[0, 0], [1, 0]], np.diag([1, 0]), [[1, 0.2]], 0.0, [0, 0], np.eye(2))
    expected = -0.5 * (
        np.linalg.slogdet(covariance)[1] + X @ np.linalg.solve(covariance, X)
        + n * np.log(2 * np.pi)
    )
    assert_allclose(model.score(X[:, None]) * n, expected, rtol=1e-11)
    assert np.all(np.isfinite(model.filter(X[:, None]).means))
    e = L.T @ np.linalg.solve(covariance, X)
    assert_allclose(model.smooth(X[:, None]).means[:, 0], e[1:], atol=1e-10)


@pytest.mark.parametrize("axis", [False, True], ids=["one A", "a time axis"])
def test_states_that_die_out_without_noise(axis):
    A = np.array([[0.5, 0.3], [0.2, 0.1]])
    X = np.cos(np.arange(20))[:, None]
    model = {
        "A": A, "Q": np.zeros((2, 2)), "B": np.eye(2)[:1], "R": np.eye(1), "offset": np.zeros(1),
        "mean": np.zeros(2), "covariance": np.eye(2),
    }  # fmt: skip
    exact = reference.exact_smoother(model, X)
    chain, evidence, offsets = parts(
        {**model, "A": np.broadcast_to(A, (20, 2, 2)).copy()} if axis else model, X
    )
    posterior, _ = chain.smooth(evidence, offsets)
    close(posterior.means, exact.means, tolerance=1e-12)
    close(posterior.covariances, exact.covariances, tolerance=1e-12)


def test_no_trace_of_noise():
    """The smoothed variance of the last state is its filtered one, to every digit."""
    model = smoother([[0.5]], [[0]], [[1]], 1.0, [0], [[1e10]])
    X = np.array([4, 2.1, 0.9, 0.6, 0.2, 0.15])[:, None]
    smoothed, filtered = model.smooth(X).covariances, model.filter(X).covariances
    assert_allclose(smoothed[-1], filtered[-1], rtol=1e-14)
    assert_allclose(smoothed[-1], 1 / (4**6 - 1) * 3, rtol=1e-9)


@pytest.mark.parametrize("growth, gap", [(2.0, 100), (2.0, 600), (1.1, 400), (1.1, 1000)])
@pytest.mark.parametrize("both", [False, True])
def test_a_gap_in_an_unstable_state(growth, gap, both):
    """After the gap the mean stands 1e30 from the observation, and its variance at 1e60."""
    A = np.diag([growth, 0.5]) if both else np.array([[growth]])
    if both:
        A[0, 1] = 0.3
    d = len(A)
    model = {
        "A": A, "Q": np.eye(d), "B": np.eye(d), "R": np.eye(d), "offset": np.zeros(d),
        "mean": np.zeros(d), "covariance": np.eye(d),
    }  # fmt: skip
    X = np.cos(np.arange((40 + gap) * d)).reshape(-1, d)
    X[20 : 20 + gap] = np.nan
    exact = reference.mpmath_smoother(model, X, 420)
    chain, evidence, offsets = parts(model, X)
    posterior, log_likelihood = chain.smooth(evidence, offsets)
    assert_allclose(log_likelihood[0], exact.log_likelihood, rtol=1e-10)
    close(posterior.means, exact.means)
    close(posterior.covariances, exact.covariances)
    _, step, _ = chain.filter(evidence, offsets)
    assert_allclose(step.sum(), exact.log_likelihood, rtol=1e-10)


def test_a_gap_in_one_of_two_sensors():
    """The mode that is not seen grows while the other goes on."""
    for coupled in (0.0, 0.3):
        model = {
            "A": np.array([[2.0, coupled], [coupled / 3, 0.5]]), "Q": np.eye(2), "B": np.eye(2),
            "R": np.eye(2), "offset": np.zeros(2), "mean": np.zeros(2), "covariance": np.eye(2),
        }  # fmt: skip
        X = np.cos(np.arange(280)).reshape(-1, 2)
        X[20:120, 0] = np.nan
        exact = reference.mpmath_smoother(model, X, 300)
        chain, evidence, offsets = parts(model, X)
        posterior, log_likelihood = chain.smooth(evidence, offsets)
        assert_allclose(log_likelihood[0], exact.log_likelihood, rtol=1e-10)
        close(posterior.means, exact.means)
        close(posterior.covariances, exact.covariances)


def test_a_state_beyond_floating_point_is_said_to_be():
    model = smoother([[2]], [[1]], [[1]], 1.0, [0], [[1]])
    X = np.cos(np.arange(1240.0))[:, None]
    X[20:1200] = np.nan
    for method in ("smooth", "filter", "score", "score_samples", "score_sequences", "bic"):
        with pytest.raises(ValueError, match="step 1200 of sequence 0 the state leaves the range"):
            getattr(model, method)(X)


def test_a_second_perfect_sensor_adds_nothing():
    X = np.cumsum(np.random.default_rng(0).normal(size=(12, 1)), axis=0)
    one = smoother([[1]], [[1]], [[1]], 0.0, [0], [[1]])
    two = smoother([[1]], [[1]], [[1], [1]], np.zeros((2, 2)), [0], [[1]])
    assert_allclose(two.score(np.hstack([X, X])), one.score(X), rtol=1e-13)


def test_sums_of_disturbances_of_what_is_not_observed():
    """Three walks seen through their sum, vague start: EM never falls."""
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(60, 3)), axis=0).sum(axis=1, keepdims=True)
    chain = LinearGaussianChain(np.eye(3), np.eye(3), np.zeros(3), 1e12 * np.eye(3))
    observation = GaussianObservation(np.ones((1, 3)), np.eye(1), np.zeros(1))
    offsets = np.array([0, 60], dtype=np.intp)
    held = {"transition_matrix": np.ones((3, 3), dtype=bool),
            "initial_state_mean": np.ones(3, dtype=bool),
            "initial_state_covariance": np.ones((3, 3), dtype=bool)}  # fmt: skip
    evidence = observation.evidence(X)[0]
    last = -np.inf
    for _ in range(20):
        chain = LinearGaussianChain(
            chain.transition_matrix, chain.transition_covariance, chain.initial_mean,
            chain.initial_covariance, held=held,
        )  # fmt: skip
        expected = chain.e_step(evidence, offsets)
        assert expected.log_likelihoods[0] >= last - 1e-9
        last = expected.log_likelihoods[0]
        chain = chain.m_step(expected.statistics)


@pytest.mark.parametrize("steps", [40, 3000])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_shared_path_and_own_paths_agree(steps, missing):
    """ARMA(2, 2) without noise: the path that sequences share, steady or not, against their own."""
    rng = np.random.default_rng(1)
    load = np.array([[1.0], [0.4], [0.3]])
    chain = LinearGaussianChain(
        np.array([[0.5, 1, 0], [0.3, 0, 1], [0, 0, 0]]), load @ load.T, np.zeros(3), np.eye(3)
    )
    X = rng.normal(size=(2 * steps + 7, 1))
    observation = GaussianObservation(np.eye(3)[:1], np.zeros((1, 1)), np.zeros(1))
    offsets = np.array([0, steps, 2 * steps + 7], dtype=np.intp)
    if missing:
        X[rng.uniform(size=X.shape) < missing] = np.nan
    evidence = observation.evidence(X)[0]
    posterior, log_likelihood = chain.smooth(evidence, offsets)
    expected = chain.e_step(evidence, offsets)
    pattern = np.zeros(len(X), dtype=np.intp) if evidence.pattern is None else evidence.pattern
    own = evidence._replace(pattern=pattern)
    again, log_likelihood_again = chain.smooth(own, offsets)
    sums = chain.e_step(own, offsets).statistics
    assert_allclose(log_likelihood, log_likelihood_again, rtol=1e-11)
    for one, other in zip(posterior, again):
        close(one, other, tolerance=1e-10)
    for one, other in zip(expected.statistics, sums):
        close(np.asarray(one), np.asarray(other), tolerance=1e-9)


@pytest.mark.parametrize("kind", ["ARMA", "Hamilton", "IMA", "airline", "ETS", "VARMA"])
def test_conversions_from_statsmodels(kind):
    """The documented recipe: moving-average parts make the predicted covariance singular."""
    tsa = pytest.importorskip("statsmodels.tsa.api")
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=48)) + np.tile([0.0, 1.0, 2.0, 0.0], 12) + 30
    if kind == "ETS":
        space = tsa.statespace.ExponentialSmoothing(x, trend=True, damped_trend=True, seasonal=4)
        values = [0.4, 0.1, 0.95, 0.2, 30.0, 0.1, 0.0, 1.0, 2.0]
    elif kind == "VARMA":
        space = tsa.VARMAX(rng.normal(size=(48, 2)), order=(1, 1), trend="n")
        values = [0.4, 0.1, -0.2, 0.3, 0.5, 0.2, 0.1, -0.4, 1.0, 0.3, 0.8]
    else:
        options, values = {
            "ARMA": ({"order": (2, 0, 1)}, [0.5, 0.2, 0.4, 1.3]),
            "Hamilton": ({"order": (2, 0, 1), "hamilton_representation": True},
                         [0.5, 0.2, 0.4, 1.3]),
            "IMA": ({"order": (0, 1, 1)}, [-0.4, 1.3]),
            "airline": ({"order": (0, 1, 1), "seasonal_order": (0, 1, 1, 4)}, [-0.4, -0.6, 1.3]),
        }[kind]  # fmt: skip
        space = tsa.SARIMAX(x - x.mean(), **options)
    values = np.array(values)[: len(space.start_params)]
    results = space.smooth(values)
    f = results.filter_results
    selection = f.selection[:, :, 0]
    model = {
        "A": f.transition[:, :, 0], "Q": selection @ f.state_cov[:, :, 0] @ selection.T,
        "B": f.design[:, :, 0], "R": f.obs_cov[:, :, 0], "offset": f.obs_intercept[:, 0],
        "mean": f.initial_state, "covariance": f.initial_state_cov,
    }  # fmt: skip
    model = {name: np.ascontiguousarray(value) for name, value in model.items()}
    X = np.asarray(space.endog, dtype=float).reshape(len(space.endog), -1)
    check(model, X)
    chain, evidence, offsets = parts(model, X)
    posterior, log_likelihood = chain.smooth(evidence, offsets)
    assert_allclose(log_likelihood[0], f.llf_obs.sum(), rtol=1e-7)
    close(posterior.means, results.smoothed_state.T, tolerance=1e-6)


def test_sunspots_by_the_recipe():
    """ARMA(2, 2) of the sunspots, -1304.436: variances fall below the smallest number's root."""
    api = pytest.importorskip("statsmodels.api")
    x = api.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    space = api.tsa.SARIMAX(x - x.mean(), order=(2, 0, 2))
    results = space.smooth(space.fit(disp=0).params)
    f = results.filter_results
    selection = f.selection[:, :, 0]
    ours = smoother(
        f.transition[:, :, 0], selection @ f.state_cov[:, :, 0] @ selection.T, f.design[:, :, 0],
        f.obs_cov[:, :, 0], f.initial_state, f.initial_state_cov,
    )  # fmt: skip
    assert_allclose(ours.score_sequences((x - x.mean())[:, None]), -1304.436, atol=1e-3)
