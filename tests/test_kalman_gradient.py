"""Fits where EM is blind or slow: the slope of the likelihood, and the maximum it leads to."""

import csv
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning

import sklseq._em
from sklseq import KalmanSmoother, SoftmaxStateSpace
from sklseq._sequences import Sequences
from sklseq.state_space._gradient import Coordinates, slope, without_noise


@pytest.fixture
def passes(monkeypatch):
    """The number of passes over the data, E-steps and likelihoods."""
    counts = [0]
    for owner, name in ((sklseq._em, "_add_up"), (sklseq._em._Run, "log_likelihood")):
        function = getattr(owner, name)

        def counted(*arguments, function=function):
            counts[0] += 1
            return function(*arguments)

        monkeypatch.setattr(owner, name, counted)
    return counts


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


# ---- the slope against differences


def rows(seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    X = 0.3 * rng.normal(size=(60, 3)).cumsum(axis=0) + rng.normal(size=(60, 3))
    X[rng.random(X.shape) < missing] = np.nan
    return X


HALF_HELD = np.array([[False, True], [True, True]])
MODELS = {
    "free": ({"n_components": 2}, {}),
    "full noise, missing": ({"n_components": 2, "observation_covariance_type": "full"},
                            {"missing": 0.2}),
    "stationary": ({"n_components": 2, "initial_state": "stationary",
                    "observation_covariance_type": "spherical"}, {"missing": 0.2}),
    "P0 learned": ({"n_components": 2, "transition_covariance_type": "diag"}, {"cut": 4}),
    "inputs to the state": ({"n_components": 2}, {"inputs": 2}),
    "inputs to the observation": ({"n_components": 2, "inputs_to": "observation",
                                   "transition_covariance_type": "spherical"},
                                  {"inputs": 2, "missing": 0.2}),
    "inputs to both": ({"n_components": 2, "inputs_to": "both"}, {"inputs": 2}),
    "state without noise": ({"n_components": 2, "transition_covariance_init": np.diag([1.0, 0.0]),
                             "fixed": {"transition_covariance": HALF_HELD}}, {"inputs": 2}),
    "feature without noise": ({"n_components": 2,
                               "observation_covariance_init": np.diag([1.0, 1.0, 0.0]),
                               "fixed": {"observation_covariance": np.ones((3, 3), bool)}}, {}),
    "start without noise": ({"n_components": 2, "initial_state_covariance_init": 0.0,
                             "fixed": "initial_state_covariance"}, {}),
    "known states": ({"n_components": 2}, {"states": True}),
}  # fmt: skip


def learned(monkeypatch, params, missing=0.0, cut=1, inputs=0, states=False):
    """A model in the middle of its fit, and the data as EM sees it."""
    rng = np.random.default_rng(1)
    X, keywords = rows(missing=missing), {}
    if cut > 1:
        X = np.split(X, [15, 30, 50])
    if inputs:
        keywords["inputs"] = rng.normal(size=(60, inputs))
    if states:
        S = rng.normal(size=(60, 2)).cumsum(axis=0)
        S[::3] = np.nan
        keywords["states"] = S
    seen = {}

    def spy(starts, sequences, **options):
        options["climb"] = None
        result = sklseq._em.run_em(starts, sequences, **options)
        seen["model"], seen["data"] = result.model, sequences
        return result

    monkeypatch.setattr("sklseq.state_space._kalman.run_em", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        KalmanSmoother(**params, max_iter=2, acceleration=None).fit(X, **keywords)
    return seen["model"], seen["data"]


def total(model, data: Sequences) -> float:
    return model.sequence_scores(data.X, data.offsets, *data.aligned)[0].sum()


@pytest.mark.parametrize("name", MODELS)
def test_slope_is_that_of_differences(name, monkeypatch):
    params, options = MODELS[name]
    model, data = learned(monkeypatch, params, **options)
    statistics, _ = model.e_step(data.X, data.offsets, *data.aligned)
    coordinates = Coordinates(model, statistics)
    vector = 0.3 * np.random.default_rng(2).normal(size=len(coordinates))
    moved = coordinates.to_model(vector)
    statistics, value = moved.e_step(data.X, data.offsets, *data.aligned)
    assert value == pytest.approx(total(moved, data), rel=1e-9)
    found = coordinates.vector_slope(vector, slope(moved, statistics))
    step = 1e-4
    wanted = np.array([
        total(coordinates.to_model(vector + step * unit), data)
        - total(coordinates.to_model(vector - step * unit), data)
        for unit in np.eye(len(vector))
    ]) / (2 * step)  # fmt: skip
    known = ~coordinates.by_differences
    assert ("without noise" in name) == bool(np.any(~known))
    np.testing.assert_allclose(found[known], wanted[known], rtol=1e-6, atol=1e-6)
    assert np.abs(wanted).max() > 0.1
    # conditioned coordinates are the same model
    rng = np.random.default_rng(3)
    root = rng.normal(size=(len(vector),) * 2)
    coordinates.condition(root @ root.T)
    assert coordinates.to_model(0 * vector) is not None
    turned = coordinates.vector_slope(0 * vector, slope(model, model.e_step(
        data.X, data.offsets, *data.aligned)[0]))  # fmt: skip
    ahead, behind = (
        total(coordinates.to_model(1e-5 * turned * sign), data) for sign in (1.0, -1.0)
    )
    if known.all():
        assert (ahead - behind) / 2e-5 == pytest.approx(turned @ turned, rel=1e-3)


# ---- coefficients of equations without noise


def best(loss, *starts):
    """The least of a function: the oracle's own search."""
    found = [minimize(loss, start, method="Nelder-Mead",
                      options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}) for start in starts]
    return min(found, key=lambda each: each.fun)  # fmt: skip


def test_decay_without_noise(silent):
    """x = 5 a^t and noise, by least squares."""
    t = np.arange(20)
    x = 5 * 0.9**t + 0.1 * np.cos(7 * t)

    def loss(parameters):
        a, log_r = parameters
        covariance = np.exp(log_r) * np.eye(20) + np.outer(a**t, a**t)  # P0 = 1
        return -multivariate_normal.logpdf(x, 5 * a**t, covariance)

    wanted = best(loss, [0.8, -3.0])
    names = ("transition_covariance", "observation_matrix", "observation_offset",
             "initial_state_mean", "initial_state_covariance")  # fmt: skip
    fitted = KalmanSmoother(
        transition_matrix_init=[[0.5]], transition_covariance_init=0.0,
        observation_matrix_init=[[1.0]], observation_offset_init=[0.0],
        initial_state_mean_init=[5.0], initial_state_covariance_init=1.0, fixed=names,
    ).fit(x[:, None])  # fmt: skip
    assert fitted.converged_
    assert fitted.transition_matrix_[0, 0] == pytest.approx(wanted.x[0], abs=1e-5)
    assert fitted.log_likelihood_ * 20 == pytest.approx(-wanted.fun, abs=1e-5)
    assert -wanted.fun > 20.9
    assert np.all(np.diff(fitted.log_likelihoods_) >= 0)
    assert len(fitted.log_likelihoods_) == fitted.n_iter_ + 1


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_regression_with_autoregressive_errors(noise, silent):
    rng = np.random.default_rng(1)
    n = 200
    errors, u = np.zeros(n), rng.normal(size=n)
    for i in range(1, n):
        errors[i] = 0.7 * errors[i - 1] + rng.normal()
    x = 2 + 3 * u + errors
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))

    def loss(parameters):
        a, log_q, slope, offset = parameters
        if abs(a) >= 1:
            return np.inf
        covariance = np.exp(log_q) * a**lags / (1 - a * a) + noise * np.eye(n)
        return -multivariate_normal.logpdf(x, offset + slope * u, covariance)

    wanted = best(loss, [0.5, 0.0, 2.5, 1.0])
    fitted = KalmanSmoother(
        inputs_to="observation", observation_matrix_init=[[1.0]],
        observation_covariance_init=noise, initial_state="stationary",
        fixed=("observation_matrix", "observation_covariance"),
    ).fit(x[:, None], inputs=u[:, None])  # fmt: skip
    assert fitted.converged_
    assert fitted.log_likelihood_ * n == pytest.approx(-wanted.fun, abs=1e-4)
    found = [fitted.transition_matrix_[0, 0], np.log(fitted.transition_covariance_[0, 0]),
             fitted.input_matrix_[0, 0], fitted.observation_offset_[0]]  # fmt: skip
    np.testing.assert_allclose(found, wanted.x, atol=2e-3)


def test_inputs_to_a_state_without_noise(silent):
    rng = np.random.default_rng(2)
    u, s = rng.normal(size=60), np.zeros(60)
    for i in range(1, 60):
        s[i] = 0.8 * s[i - 1] + 2 * u[i]
    x = s + 0.3 * rng.normal(size=60)

    def path(a, b):
        result = np.zeros(60)
        for i in range(1, 60):
            result[i] = a * result[i - 1] + b * u[i]
        return result

    def loss(parameters):
        return np.square(x - path(*parameters)).sum()

    wanted = best(loss, [0.7, 1.5])
    fitted = KalmanSmoother(
        transition_covariance_init=0.0, observation_matrix_init=[[1.0]],
        observation_offset_init=[0.0], transition_matrix_init=[[0.5]],
        initial_state_mean_init=[0.0], initial_state_covariance_init=0.0,
        fixed=("transition_covariance", "observation_matrix", "observation_offset",
               "initial_state_mean", "initial_state_covariance"),
    ).fit(x[:, None], inputs=u[:, None])  # fmt: skip
    assert fitted.converged_
    np.testing.assert_allclose(
        [fitted.transition_matrix_[0, 0], fitted.input_matrix_[0, 0]], wanted.x, atol=1e-4
    )
    assert fitted.observation_covariance_[0, 0] == pytest.approx(wanted.fun / 60, rel=1e-4)


def test_inputs_of_a_state_without_noise_beside_those_of_the_observation():
    u = np.cos(np.arange(40.0))[:, None]
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[0.5]], transition_covariance=0.0, observation_matrix=[[1.0]],
        observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=1.0,
        input_matrix=[[1.0], [2.0]], inputs_to="both",
    )._model_for(Sequences(u, np.array([0, 40]), aligned=(u,)))  # fmt: skip
    masks = without_noise(model)
    assert masks["input_matrix"].all() and not masks["observation_input_matrix"].any()


def test_a_start_known_exactly_but_unknown_where(silent):
    """A random walk from mu0 without variance, seen in noise."""
    rng = np.random.default_rng(3)
    n = 50
    x = 30 + np.cumsum(rng.normal(size=n)) + rng.normal(size=n)
    walk = np.minimum.outer(np.arange(n), np.arange(n)).astype(float)

    def loss(parameters):
        mean, log_q, log_r = parameters
        covariance = np.exp(log_q) * walk + np.exp(log_r) * np.eye(n)
        return -multivariate_normal.logpdf(x, np.full(n, mean), covariance)

    wanted = best(loss, [x[0], 0.0, 0.0])
    fitted = KalmanSmoother(
        transition_matrix_init=[[1.0]], observation_matrix_init=[[1.0]],
        observation_offset_init=[0.0], initial_state_mean_init=[0.0],
        initial_state_covariance_init=0.0,
        fixed=("transition_matrix", "observation_matrix", "observation_offset",
               "initial_state_covariance"),
    ).fit(x[:, None])  # fmt: skip
    assert fitted.converged_
    assert fitted.log_likelihood_ * n == pytest.approx(-wanted.fun, abs=1e-4)
    assert fitted.initial_state_mean_[0] == pytest.approx(wanted.x[0], abs=0.02)


@pytest.mark.parametrize("start", [0.0, [0.0]])
def test_a_variance_leaves_zero(start, silent):
    rng = np.random.default_rng(4)
    x = (np.cumsum(0.3 * rng.normal(size=150)) + rng.normal(size=150))[:, None]
    params = {
        "transition_matrix_init": [[1.0]], "observation_matrix_init": [[1.0]],
        "observation_offset_init": [0.0], "initial_state": "diffuse",
        "fixed": ("transition_matrix", "observation_matrix", "observation_offset"),
    }  # fmt: skip
    wanted = KalmanSmoother(**params).fit(x)
    fitted = KalmanSmoother(transition_covariance_init=start, **params).fit(x)
    assert wanted.transition_covariance_[0, 0] > 0.01
    np.testing.assert_allclose(
        fitted.transition_covariance_, wanted.transition_covariance_, rtol=1e-2
    )


def test_what_has_no_other_way_says_so():
    x = np.cos(np.arange(30.0))[:, None]
    params = {"transition_covariance_init": 0.0, "fixed": "transition_covariance"}
    with pytest.warns(ConvergenceWarning, match=r"transition_matrix\[0, 0\].*transition_cov"):
        KalmanSmoother(**params).partial_fit(x)
    params["initial_state_covariance_init"] = 1.0
    with pytest.raises(ValueError, match=r"transition_matrix\[0, 0\].*transition_covariance"):
        SoftmaxStateSpace(**params).fit(np.eye(2)[(x[:, 0] > 0).astype(int)])
    words = [np.eye(2)[[0, 1, 1]], np.eye(2)[[1, 1, 0]]]
    with pytest.raises(ValueError, match=r"initial_state_mean\[0\].*initial_state_covariance"):
        SoftmaxStateSpace(
            initial_state_covariance_init=0.0, fixed="initial_state_covariance"
        ).fit(words)


# ---- directions of which little of the information is observed


def seatbelts(folder):
    with (folder / "seatbelts.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    y = np.log([[float(row["drivers"])] for row in table])
    return y, np.array([[np.log(float(row["PetrolPrice"])), float(row["law"])] for row in table])


def components(seasonal: bool):
    """A level and, if asked, twelve seasons as dummies."""
    d = 12 if seasonal else 1
    A, B, Gamma = np.zeros((d, d)), np.zeros((1, d)), np.zeros((d, d))
    A[0, 0] = B[0, 0] = 1.0
    Gamma[0, 0] = 1e-3
    if seasonal:
        A[1, 1:], A[2:, 1:-1] = -1.0, np.eye(10)
        B[0, 1], Gamma[1, 1] = 1.0, 1e-4
    return {
        "n_components": d, "inputs_to": "observation", "transition_covariance_type": "diag",
        "transition_matrix_init": A, "observation_matrix_init": B,
        "transition_covariance_init": Gamma, "observation_offset_init": [0.0],
        "fixed": {"transition_matrix": True, "observation_matrix": True,
                  "observation_offset": True, "transition_covariance": Gamma == 0.0},
    }  # fmt: skip


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize("initial_state", ["learn", "diffuse"])
def test_uk_drivers_within_a_hundred_passes(seasonal, initial_state, passes, silent, shared_data):
    """A slow level competes with the petrol price; EM alone is at -0.1 after 200 iterations."""
    y, u = seatbelts(shared_data)
    params = components(seasonal)
    fitted = KalmanSmoother(initial_state=initial_state, **params).fit(y, inputs=u)
    assert fitted.converged_ and passes[0] <= 100

    # the maximum: generalised least squares of y on (u, what the vague start leaves free)
    A, B, free = params["transition_matrix_init"], params["observation_matrix_init"], len(y)
    powers = [np.linalg.matrix_power(A, t) for t in range(free)]
    loadings = np.vstack([B @ power for power in powers])
    design = np.hstack([loadings, u])
    variances = np.diag(fitted.transition_covariance_)
    noise = fitted.observation_covariance_[0, 0]
    covariance = noise * np.eye(free)
    for i in np.flatnonzero(np.diag(params["transition_covariance_init"])):
        response = np.array([(B @ power)[0, i] for power in powers])
        effect = np.tril(response[np.subtract.outer(np.arange(free), np.arange(free))], -0)
        effect[:, 0] = 0.0  # the first state is in the design
        covariance += variances[i] * effect @ effect.T
    root = np.linalg.cholesky(covariance)
    whitened, target = np.linalg.solve(root, design), np.linalg.solve(root, y)
    wanted = np.linalg.lstsq(whitened, target, rcond=None)[0][-2:, 0]
    np.testing.assert_allclose(fitted.input_matrix_[0], wanted, atol=3e-4)
    if seasonal:  # statsmodels
        np.testing.assert_allclose(fitted.input_matrix_[0], [-0.28166, -0.23593], atol=2e-4)
    slow = KalmanSmoother(
        initial_state=initial_state, **params, acceleration=None, max_iter=20, tol=0.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert slow.fit(y, inputs=u).input_matrix_[0, 0] > -0.2


def test_tolerance_is_what_is_left_to_gain(silent):
    """A fit that says converged is within tol of where a far smaller tol leads."""
    rng = np.random.default_rng(5)
    x = (np.cumsum(0.02 * rng.normal(size=300)) + rng.normal(size=300))[:, None]
    u = np.linspace(-1, 1, 300)[:, None] ** 2
    params = {
        "inputs_to": "observation", "transition_matrix_init": [[1.0]],
        "observation_matrix_init": [[1.0]], "observation_offset_init": [0.0],
        "fixed": ("transition_matrix", "observation_matrix", "observation_offset"),
    }  # fmt: skip
    far = KalmanSmoother(**params, tol=1e-10, max_iter=2000).fit(x, inputs=u)
    for tol in (1e-3, 1e-5):
        near = KalmanSmoother(**params, tol=tol).fit(x, inputs=u)
        assert near.converged_
        assert near.log_likelihood_ >= far.log_likelihood_ - tol


def test_moving_average_in_the_observation_matrix(silent):
    """x_t = e_t + theta e_{t-1} seen without noise, theta free in B = [1, theta]."""
    rng = np.random.default_rng(6)
    n = 150
    e = rng.normal(size=n + 1)
    x = e[1:] + 0.5 * e[:-1]

    def loss(parameters):
        theta, log_q = parameters
        if abs(theta) >= 1:
            return np.inf
        covariance = (1 + theta**2) * np.eye(n) + theta * (np.eye(n, k=1) + np.eye(n, k=-1))
        return -multivariate_normal.logpdf(x, None, np.exp(log_q) * covariance)

    wanted = best(loss, [0.1, 0.0])
    fitted = KalmanSmoother(
        2, transition_matrix_init=[[0, 0], [1, 0]], transition_covariance_init=np.diag([1.0, 0.0]),
        observation_matrix_init=[[1.0, 0.0]], observation_covariance_init=0.0,
        observation_offset_init=[0.0], initial_state="stationary",
        fixed={"transition_matrix": True, "transition_covariance": HALF_HELD,
               "observation_matrix": np.array([[True, False]]),
               "observation_covariance": True, "observation_offset": True},
    ).fit(x[:, None])  # fmt: skip
    assert fitted.converged_
    assert fitted.log_likelihood_ * n == pytest.approx(-wanted.fun, abs=1e-4)
    assert fitted.observation_matrix_[0, 1] == pytest.approx(wanted.x[0], abs=2e-3)


@pytest.mark.parametrize("start", [0.0, -0.5])
def test_the_autoregression_of_an_arma_process_is_learned(start):
    """ARMA(1, 1) in Harvey's form: Gamma is singular, so that smoothing must not invert it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=201)
    X = np.zeros((200, 1))
    for t in range(200):
        X[t] = (0.7 * X[t - 1] if t else 0.0) + noise[t + 1] + 0.4 * noise[t]
    parameters = {
        "transition_covariance": np.outer([1, 0.4], [1, 0.4]), "observation_matrix": [[1, 0]],
        "observation_covariance": 0.0, "observation_offset": [0.0], "initial_state_mean": [0, 0],
        "initial_state_covariance": np.eye(2),
    }  # fmt: skip

    def score(phi):
        return KalmanSmoother.from_parameters(
            transition_matrix=[[phi, 1], [0, 0]], **parameters
        ).score(X)

    held = dict.fromkeys(parameters, True) | {"transition_matrix": [[False, True], [True, True]]}
    fitted = KalmanSmoother(
        2, transition_matrix_init=[[start, 1], [0, 0]], fixed=held,
        **{f"{name}_init": value for name, value in parameters.items()},
    ).fit(X)  # fmt: skip
    best = minimize_scalar(lambda phi: -score(phi), bounds=(-0.99, 0.99), method="bounded")
    assert fitted.converged_
    assert_allclose(fitted.score(X), -best.fun, rtol=1e-9)
    assert_allclose(fitted.transition_matrix_[0, 0], best.x, atol=1e-4)


# ---- noise that starts small


LEVEL = {
    "transition_matrix_init": [[1.0]], "observation_matrix_init": [[1.0]],
    "observation_offset_init": [0.0],
    "fixed": ("transition_matrix", "observation_matrix", "observation_offset"),
}  # fmt: skip


def level_and_noise():
    rng = np.random.default_rng(0)
    return np.cumsum(rng.normal(size=(120, 1)), 0) + rng.normal(size=(120, 1))


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4, 1e-3, 3e-3])
def test_noise_that_starts_small_ends_at_the_maximum(noise, silent):
    X = level_and_noise()
    best = KalmanSmoother(1, **LEVEL).fit(X).log_likelihood_
    fitted = KalmanSmoother(1, observation_covariance_init=noise, **LEVEL).fit(X)
    assert fitted.converged_
    assert_allclose(fitted.log_likelihood_, best, rtol=0, atol=fitted.tol)


@pytest.mark.parametrize("params", [{}, {"initial_state": "stationary"}])
def test_noise_that_starts_small_with_a_free_transition(params):
    X = level_and_noise()
    best = KalmanSmoother(1, **params).fit(X).log_likelihood_
    fitted = KalmanSmoother(1, observation_covariance_init=1e-4, **params).fit(X)
    assert fitted.converged_
    assert fitted.log_likelihood_ >= best - fitted.tol


def test_noise_that_starts_small_with_a_time_axis():
    X = level_and_noise()
    params = LEVEL | {"observation_matrix_init": np.ones((len(X), 1, 1))}
    best = KalmanSmoother(1, **LEVEL).fit(X).log_likelihood_
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        fitted = KalmanSmoother(1, observation_covariance_init=1e-4, **params).fit(X)
    assert fitted.converged_ != bool(told)
    assert fitted.log_likelihood_ > best - 1e-3
