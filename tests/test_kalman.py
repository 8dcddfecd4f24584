"""KalmanSmoother: published numbers, equivalent models, learning, and the scikit-learn contract."""

import warnings

import numpy as np
import pytest
import references_kalman as reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import minimize
from scipy.stats import chi2
from sklearn.base import clone
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklseq import KalmanSmoother, Stepwise
from sklseq._covariance import Floor
from sklseq.datasets import load_nile
from sklseq.state_space import _stationary
from sklseq.state_space._chain import LinearGaussianChain
from sklseq.state_space._linear_gaussian import LinearGaussianModel
from sklseq.state_space._observation import GaussianObservation
from sklseq.utils import check_estimator, expected_failed_checks


def known(model, **params):
    """An estimator with the parameters of a reference model."""
    return KalmanSmoother.from_parameters(
        transition_matrix=model["A"], transition_covariance=model["Q"],
        observation_matrix=model["B"], observation_covariance=model["R"],
        observation_offset=model["offset"], initial_state_mean=model["mean"],
        initial_state_covariance=model["covariance"], **params,
    )  # fmt: skip


def level(variance, noise, mean=0.0, vague=1e7):
    """The local level model."""
    return KalmanSmoother.from_parameters(
        transition_matrix=[[1.0]], transition_covariance=variance, observation_matrix=[[1.0]],
        observation_covariance=noise, initial_state_mean=[mean], initial_state_covariance=vague,
    )  # fmt: skip


def value(model, *, diag, learns_start=True, inputs_to=None, coefficients=None, partly=True):
    """The model as the value that EM moves."""
    held = {} if learns_start else {"initial_state_covariance": np.array(True)}
    chain = LinearGaussianChain(
        model["A"], model["Q"], model["mean"], model["covariance"],
        coefficients if inputs_to == "state" else None, held=held,
    )  # fmt: skip
    observation = GaussianObservation(
        model["B"], model["R"], model["offset"], "diag" if diag else "full",
        coefficients if inputs_to == "observation" else None,
        Floor(np.ones(len(model["B"])), 1e-9), partly,
    )  # fmt: skip
    return LinearGaussianModel(chain, observation)


def flat(sequences):
    offsets = np.concatenate([[0], np.cumsum([len(X) for X in sequences])]).astype(np.intp)
    return np.concatenate(sequences), offsets


@pytest.fixture(scope="module")
def nile():
    return np.asarray(load_nile().data, dtype=float).reshape(-1, 1)


# ---------------------------------------------------------------------------------------------
# Published numbers


def test_nile_numbers(nile):
    """Durbin and Koopman (2012), section 2.2 with a known vague start; checked in two packages."""
    model = level(1469.1, 15099.0)
    assert_allclose(model.score_sequences(nile)[0], -641.5855784594, rtol=0, atol=5e-10)
    gaps = nile.copy()
    gaps[20:40] = gaps[60:80] = np.nan
    assert_allclose(model.score_sequences(gaps)[0], -389.6269775256, rtol=0, atol=5e-10)
    smoothed = model.smooth(nile)
    assert_allclose(smoothed.means[0, 0], 1111.2203, atol=5e-5)
    assert_allclose(smoothed.covariances[0, 0, 0], 4030.5328, atol=5e-5)
    assert_array_equal(model.score_samples(gaps)[20:40], 0.0)


LEVEL_INIT = {
    "fixed": (
        "transition_matrix", "observation_matrix", "observation_offset", "initial_state_mean",
        "initial_state_covariance",
    ),
    "transition_matrix_init": [[1.0]],
    "observation_matrix_init": [[1.0]],
    "observation_offset_init": [0.0],
    "initial_state_mean_init": [1120.0],
    "initial_state_covariance_init": 1e7,
}  # fmt: skip


@pytest.mark.parametrize("params, floor", [({}, -641.53), ({"tol": 1e-9}, -641.5239)])
def test_nile_maximum_likelihood(nile, params, floor):
    model = KalmanSmoother(1, **LEVEL_INIT, **params).fit(nile)
    assert model.converged_
    assert model.log_likelihood_ * len(nile) > floor
    assert model.log_likelihood_ * len(nile) < -641.52381
    if params:
        assert_allclose(model.observation_covariance_[0, 0], 15098.6, rtol=1e-3)
        assert_allclose(model.transition_covariance_[0, 0], 1469.1, rtol=5e-3)
    assert_array_equal(model.transition_matrix_, [[1.0]])
    assert_array_equal(model.initial_state_mean_, [1120.0])


# ---------------------------------------------------------------------------------------------
# Other packages


def test_pykalman_iterates():
    """The same EM iterates, nothing accelerated, the gauge left alone."""
    pykalman = pytest.importorskip("pykalman")
    model = reference.random_model(3, 2, 3)
    X = reference.simulate(model, 40, 0)[0]
    lost = X.copy()
    lost[10:13] = np.nan
    for data in (X, lost):
        masked = np.ma.masked_invalid(data)
        names = ["transition_matrices", "observation_matrices", "transition_covariance",
                 "observation_covariance", "initial_state_mean",
                 "initial_state_covariance"]  # fmt: skip
        peer = pykalman.KalmanFilter(
            transition_matrices=model["A"], transition_covariance=model["Q"],
            observation_matrices=model["B"], observation_covariance=model["R"],
            observation_offsets=np.zeros(3), transition_offsets=np.zeros(2),
            initial_state_mean=model["mean"], initial_state_covariance=model["covariance"],
            em_vars=names,
        )  # fmt: skip
        start = value(dict(model, offset=np.zeros(3)), diag=False, partly=False)
        held = {"observation_offset": np.array(True)}
        current = LinearGaussianModel(
            start.chain,
            GaussianObservation(
                model["B"], model["R"], np.zeros(3), "full", None, Floor(np.ones(3), 0.0), False,
                held,
            ),
        )  # fmt: skip
        done = 0
        for steps in (1, 5, 20):
            peer = peer.em(masked, n_iter=steps - done)
            for _ in range(steps - done):
                statistics, _ = current.e_step(data, np.array([0, 40], dtype=np.intp))
                current = current.m_step(statistics)
            done = steps
            chain, observation = current.chain, current.observation
            close = {"rtol": 1e-6, "atol": 1e-8}
            assert_allclose(chain.transition_matrix, peer.transition_matrices, **close)
            assert_allclose(observation.matrix, peer.observation_matrices, **close)
            assert_allclose(chain.transition_covariance, peer.transition_covariance, **close)
            assert_allclose(observation.covariance, peer.observation_covariance, **close)
            assert_allclose(chain.initial_mean, peer.initial_state_mean, **close)
            assert_allclose(chain.initial_covariance, peer.initial_state_covariance, **close)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_statsmodels_smoother(missing):
    kalman_smoother = pytest.importorskip("statsmodels.tsa.statespace.kalman_smoother")
    model = reference.random_model(5, 3, 2)
    X = reference.simulate(model, 60, 0, missing)[0]
    peer = kalman_smoother.KalmanSmoother(k_endog=2, k_states=3, k_posdef=3)
    peer.bind(X.copy())
    peer["design"], peer["obs_cov"] = model["B"], model["R"]
    peer["transition"], peer["state_cov"] = model["A"], model["Q"]
    peer["selection"] = np.eye(3)
    peer["obs_intercept"] = model["offset"][:, None]
    peer.initialize_known(model["mean"], model["covariance"])
    theirs = peer.smooth()
    ours = known(model)
    assert_allclose(ours.score_samples(X), theirs.llf_obs, rtol=1e-10, atol=1e-10)
    posterior = ours.smooth(X)
    assert_allclose(posterior.means, theirs.smoothed_state.T, rtol=1e-9, atol=1e-9)
    covariances = np.moveaxis(theirs.smoothed_state_cov, -1, 0)
    assert_allclose(posterior.covariances, covariances, rtol=1e-9, atol=1e-9)


def test_sarimax_perfectly_observed():
    """AR(2): no observation noise, a singular transition covariance."""
    sarimax = pytest.importorskip("statsmodels.tsa.statespace.sarimax")
    rng = np.random.default_rng(0)
    x = np.zeros(80)
    for t in range(2, 80):
        x[t] = 0.6 * x[t - 1] - 0.3 * x[t - 2] + rng.normal()
    A = np.array([[0.6, 1.0], [-0.3, 0.0]])
    Q = np.diag([1.3, 0.0])
    model = KalmanSmoother.from_parameters(
        transition_matrix=A, transition_covariance=Q, observation_matrix=[[1.0, 0.0]],
        observation_covariance=0.0, initial_state_mean=[0.0, 0.0],
        initial_state_covariance=solve_discrete_lyapunov(A, Q),
    )  # fmt: skip
    for lost in ([], [20, 21, 50]):
        data = x.copy()
        data[lost] = np.nan
        peer = sarimax.SARIMAX(data, order=(2, 0, 0))
        theirs = peer.smooth([0.6, -0.3, 1.3])
        X = data.reshape(-1, 1)
        assert_allclose(model.score_samples(X), theirs.llf_obs, rtol=1e-9, atol=1e-9)
        assert_allclose(
            model.transform(X)[:, 0], theirs.smoothed_state[0], rtol=1e-8, atol=1e-8
        )
        assert np.linalg.eigvalsh(model.smooth(X).covariances).min() > -1e-12


# ---------------------------------------------------------------------------------------------
# scikit-learn's own models, as special cases


def test_factor_analysis():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(200, 5))
    peer = FactorAnalysis(2, random_state=0).fit(X)
    model = KalmanSmoother.from_parameters(
        transition_matrix=np.zeros((2, 2)), transition_covariance=1.0,
        observation_matrix=peer.components_.T, observation_covariance=peer.noise_variance_,
        observation_offset=peer.mean_, initial_state_mean=np.zeros(2),
        initial_state_covariance=1.0,
    )  # fmt: skip
    assert_allclose(model.transform(X), peer.transform(X), rtol=1e-9, atol=1e-9)
    assert_allclose(model.score_samples(X), peer.score_samples(X), rtol=1e-9)
    assert_allclose(model.score(X), peer.score(X), rtol=1e-12)
    # and the fit ends there when A is held at zero
    free = KalmanSmoother(
        2, transition_matrix_init=np.zeros((2, 2)), transition_covariance_init=1.0,
        initial_state_mean_init=np.zeros(2), initial_state_covariance_init=1.0,
        fixed=("transition_matrix", "transition_covariance", "initial_state_mean",
               "initial_state_covariance"),
        tol=1e-10, max_iter=2000,
    ).fit(X)  # fmt: skip
    # FactorAnalysis estimates the mean apart, which is its own maximum here
    assert free.score(X) >= peer.score(X) - 1e-6


def test_gaussian_process():
    """An AR(1) seen at regular times is a Gaussian process with Matern kernel of smoothness 1/2."""
    rng = np.random.default_rng(1)
    n, rho, noise = 60, 0.8, 0.3
    x = rng.normal(size=n)
    kernel = ConstantKernel(2.0) * Matern(length_scale=-1 / np.log(rho), nu=0.5)
    times = np.arange(n, dtype=float).reshape(-1, 1)
    seen = rng.uniform(size=n) > 0.3
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None)
    process.fit(times[seen], x[seen])
    mean, deviation = process.predict(times, return_std=True)
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[rho]], transition_covariance=2.0 * (1 - rho**2),
        observation_matrix=[[1.0]], observation_covariance=noise, initial_state_mean=[0.0],
        initial_state_covariance=2.0,
    )  # fmt: skip
    X = np.where(seen, x, np.nan).reshape(-1, 1)
    posterior = model.smooth(X)
    assert_allclose(posterior.means[:, 0], mean, rtol=1e-8, atol=1e-8)
    assert_allclose(posterior.covariances[:, 0, 0], deviation**2, rtol=1e-8)
    assert_allclose(
        model.score_sequences(X)[0], process.log_marginal_likelihood_value_, rtol=1e-10
    )


def test_ridge():
    """A state that never moves, seen through changing inputs, is ridge regression: here through
    time-varying transitions of a two-column design that alternates."""
    rng = np.random.default_rng(2)
    n, alpha = 40, 0.7
    coefficients = rng.normal(size=3)
    design = rng.normal(size=(3, 3))
    X = np.array([design @ coefficients + 0.5 * rng.normal(size=3) for _ in range(n)])
    model = KalmanSmoother.from_parameters(
        transition_matrix=np.eye(3), transition_covariance=0.0, observation_matrix=design,
        observation_covariance=0.25, initial_state_mean=np.zeros(3),
        initial_state_covariance=0.25 / alpha,
    )  # fmt: skip
    peer = Ridge(alpha=alpha, fit_intercept=False).fit(np.tile(design, (n, 1)), X.ravel())
    means = model.transform(X)
    assert_allclose(means[-1], peer.coef_, rtol=1e-9)
    assert_allclose(means, np.tile(peer.coef_, (n, 1)), rtol=1e-8, atol=1e-9)


def test_hodrick_prescott():
    hp_filter = pytest.importorskip("statsmodels.tsa.filters.hp_filter")
    rng = np.random.default_rng(3)
    x = np.cumsum(rng.normal(size=120)) + rng.normal(size=120)
    _, trend = hp_filter.hpfilter(x, lamb=1600)
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[1.0, 1.0], [0.0, 1.0]], transition_covariance=[0.0, 1 / 1600],
        observation_matrix=[[1.0, 0.0]], observation_covariance=1.0,
        initial_state_mean=[0.0, 0.0], initial_state_covariance=1e10,
    )  # fmt: skip
    assert_allclose(model.transform(x.reshape(-1, 1))[:, 0], trend, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Learning


@pytest.mark.parametrize("d, p", [(1, 1), (2, 1), (1, 3), (3, 2), (2, 5), (13, 2)])
@pytest.mark.parametrize("diag", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("inputs_to", [None, "state", "observation"])
def test_m_step_equals_oracle(d, p, diag, missing, inputs_to):
    model = reference.random_model(d, d, p, diag=diag)
    rng = np.random.default_rng(1)
    sequences = [reference.simulate(model, n, n, missing)[0] for n in (1, 17, 23, 2)]
    if missing:
        sequences[1][5] = np.nan
    inputs = [rng.normal(size=(len(X), 2)) for X in sequences] if inputs_to else None
    coefficients = rng.normal(size=(d if inputs_to == "state" else p, 2))
    current = value(model, diag=diag, inputs_to=inputs_to, coefficients=coefficients,
                    partly=missing > 0)  # fmt: skip
    X, offsets = flat(sequences)
    aligned = (np.concatenate(inputs),) if inputs_to else ()
    statistics, log_likelihood = current.e_step(X, offsets, *aligned)
    new = current.m_step(statistics)
    expected = reference.oracle_m_step(
        model, sequences, diag=diag, learn_covariance=True, inputs=inputs,
        inputs_to=inputs_to or "state", coefficients=coefficients,
    )  # fmt: skip
    chain, observation = new.chain, new.observation
    close = {"rtol": 1e-8, "atol": 1e-9}
    assert_allclose(chain.transition_matrix, expected["A"], **close)
    assert_allclose(chain.transition_covariance, expected["Q"], **close)
    assert_allclose(observation.matrix, expected["B"], **close)
    assert_allclose(observation.covariance, expected["R"], **close)
    assert_allclose(observation.offset, expected["offset"], **close)
    assert_allclose(chain.initial_mean, expected["mean"], **close)
    assert_allclose(chain.initial_covariance, expected["covariance"], **close)
    if inputs_to == "state":
        assert_allclose(chain.input_matrix, expected["coefficients"], **close)
    if inputs_to == "observation":
        assert_allclose(observation.input_matrix, expected["coefficients"], **close)
    assert new.e_step(X, offsets, *aligned)[1] >= log_likelihood
    vector = new.to_vector()
    assert_allclose(new.from_vector(vector).to_vector(), vector, rtol=1e-9, atol=1e-9)


@given(
    seed=st.integers(0, 10_000),
    d=st.integers(1, 3),
    p=st.integers(1, 3),
    start=st.sampled_from(["learn", "stationary", "diffuse"]),
    observation=st.sampled_from(["diag", "full", "spherical"]),
    transition=st.sampled_from(["diag", "full", "spherical"]),
    acceleration=st.sampled_from(["squarem", None]),
)
def test_likelihood_never_falls(seed, d, p, start, observation, transition, acceleration):
    model = reference.random_model(seed, d, p)
    sequences = [reference.simulate(model, n, seed + n, 0.2)[0] for n in (1, 4, 12, 25)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KalmanSmoother(
            d, initial_state=start, observation_covariance_type=observation,
            transition_covariance_type=transition, acceleration=acceleration, max_iter=15, tol=0,
        ).fit(sequences)  # fmt: skip
    path = fitted.log_likelihoods_
    assert np.all(np.diff(path) >= -1e-10 * np.maximum(1, np.abs(path[:-1])))
    assert len(path) == fitted.n_iter_ + 1
    assert_allclose(path[-1], fitted.score(sequences), rtol=1e-7)


@pytest.mark.parametrize("seed", [4, 6, 9])
def test_recovers_a_model(seed):
    """As near to the truth as 24 parameters learned from 2000 steps can be (Wilks 1938): twice the
    gain on the training data is chi-squared, and so is twice the loss on as many new steps."""
    truth = reference.random_model(seed, 2, 4, radius=0.95, diag=True)
    sequences = [reference.simulate(truth, 200, i, 0.1)[0] for i in range(10)]
    new = [reference.simulate(truth, 200, 100 + i)[0] for i in range(40)]
    fitted = KalmanSmoother(2).fit(sequences)
    assert fitted.converged_
    assert fitted._n_free_parameters() == 24
    bound = chi2(24).ppf(0.999) / 2 / 2000  # 0.0128 nats per step

    def losses(model):
        return known(truth).score(sequences) - model.score(sequences), (
            known(truth).score(new) - model.score(new))  # fmt: skip

    train, test = losses(fitted)
    assert -bound < train < 0
    assert 0 < test < bound
    # which the starting values are far from
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        start = KalmanSmoother(2, max_iter=0).fit(sequences)
    assert min(losses(start)) > 2 * bound
    assert_allclose(
        np.sort(np.abs(np.linalg.eigvals(fitted.transition_matrix_))),
        np.sort(np.abs(np.linalg.eigvals(truth["A"]))), atol=0.05,
    )  # fmt: skip


def test_more_states_than_features():
    """A hidden rotation seen in one coordinate: subspace identification finds its frequency."""
    angle = 0.35
    A = 0.98 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    truth = {
        "A": A, "Q": 0.05 * np.eye(2), "B": np.array([[1.0, 0.0]]), "R": 0.3 * np.eye(1),
        "offset": np.array([4.0]), "mean": np.zeros(2), "covariance": np.eye(2),
    }  # fmt: skip
    X = reference.simulate(truth, 600, 0)[0]
    fitted = KalmanSmoother(2).fit(X)
    turns = np.abs(np.angle(np.linalg.eigvals(fitted.transition_matrix_)))
    assert_allclose(turns, angle, atol=0.03)
    assert fitted.score(X) >= known(truth).score(X)


def test_gauge():
    truth = reference.random_model(6, 3, 5, diag=True)
    X = reference.simulate(truth, 300, 0)[0]
    fitted = KalmanSmoother(3, max_iter=50, tol=1e-4).fit(X)
    B, Sigma = fitted.observation_matrix_, fitted.observation_covariance_
    assert_allclose(fitted.transition_covariance_, np.eye(3), atol=1e-9)
    information = B.T @ np.linalg.inv(Sigma) @ B
    diagonal = np.diag(information)
    assert_allclose(information, np.diag(diagonal), atol=1e-8 * diagonal[0])
    assert np.all(np.diff(diagonal) <= 0)
    assert np.all(B[np.abs(B).argmax(axis=0), range(3)] > 0)
    assert_allclose(fitted.score(X), fitted.log_likelihood_, rtol=1e-9)
    same = known({
        "A": truth["A"], "Q": truth["Q"], "B": truth["B"], "R": truth["R"],
        "offset": truth["offset"], "mean": truth["mean"], "covariance": truth["covariance"],
    })  # fmt: skip
    turned = same._model().normalised()
    same._set_model(turned)
    assert_allclose(same.score_samples(X), known(truth).score_samples(X), rtol=1e-9, atol=1e-9)


def test_acceleration_reaches_the_same_optimum_sooner(nile):
    plain = KalmanSmoother(1, **LEVEL_INIT, acceleration=None, tol=1e-10, max_iter=2000).fit(nile)
    fast = KalmanSmoother(1, **LEVEL_INIT, tol=1e-10, max_iter=2000).fit(nile)
    assert fast.log_likelihood_ >= plain.log_likelihood_ - 1e-9
    assert fast.n_iter_ < plain.n_iter_ / 3


def test_fixed_masks_hold_single_entries():
    rng = np.random.default_rng(0)
    X = np.cumsum(np.cumsum(0.1 * rng.normal(size=200)) + rng.normal(size=200)).reshape(-1, 1)
    A = np.array([[1.0, 1.0], [0.0, 1.0]])
    free = np.zeros((2, 2), dtype=bool)
    off_diagonal = ~np.eye(2, dtype=bool)
    model = KalmanSmoother(
        2, transition_matrix_init=A, transition_covariance_init=np.diag([0.5, 0.1]),
        observation_matrix_init=[[1.0, 0.0]], observation_offset_init=[0.0],
        fixed={
            "transition_matrix": ~free, "transition_covariance": off_diagonal,
            "observation_matrix": np.array([[True, True]]), "observation_offset": np.array([True]),
        }, max_iter=100, tol=1e-5,
    ).fit(X)  # fmt: skip
    assert_array_equal(model.transition_matrix_, A)
    assert model.transition_covariance_[0, 1] == 0.0
    assert model.transition_covariance_[0, 0] != 0.5
    assert np.all(np.diff(model.log_likelihoods_) >= -1e-10)
    # a variance held at zero stays zero: the smooth trend
    smooth = KalmanSmoother(
        2, transition_matrix_init=A, transition_covariance_init=np.diag([0.0, 0.1]),
        observation_matrix_init=[[1.0, 0.0]], observation_offset_init=[0.0],
        fixed={
            "transition_matrix": ~free, "observation_matrix": np.array([[True, True]]),
            "transition_covariance": np.array([[True, True], [True, False]]),
            "observation_offset": np.array([True]),
        }, max_iter=100, tol=1e-5,
    ).fit(X)  # fmt: skip
    assert smooth.transition_covariance_[0, 0] == 0.0
    assert smooth.transition_covariance_[1, 1] > 0.0
    with pytest.raises(ValueError, match="transition_matrix_init must be given"):
        KalmanSmoother(1, fixed="transition_matrix").fit(X)
    with pytest.raises(ValueError, match="fixed may hold"):
        KalmanSmoother(1, fixed="transition").fit(X)


@pytest.mark.parametrize("held", ["A", "Q"])
def test_held_entries_are_the_constrained_maximum(held):
    """No other value of the free entries has a larger expected log-likelihood."""
    model = reference.random_model(8, 3, 2)
    X, offsets = flat([reference.simulate(model, n, n)[0] for n in (20, 30)])
    mask = np.zeros((3, 3), dtype=bool)
    mask[0, 1] = mask[1, 0] = mask[2, 2] = True
    name = {"A": "transition_matrix", "Q": "transition_covariance"}[held]
    current = value(model, diag=False)
    statistics, _ = current.e_step(X, offsets)
    chain = LinearGaussianChain(
        model["A"], model["Q"], model["mean"], model["covariance"], held={name: mask}
    )
    new = chain.m_step(statistics[0])
    got = new.transition_matrix if held == "A" else new.transition_covariance
    assert_array_equal(got[mask], model[held][mask])

    def expected(A, Q):
        D = A - model["A"]
        s = statistics[0]
        crossed = D @ s.cross.T
        second = s.second - crossed - crossed.T + D @ s.gram @ D.T
        return -s.n_transitions * np.linalg.slogdet(Q)[1] - np.trace(np.linalg.solve(Q, second))

    # A is chosen under the current Q, then Q under the new A
    noise = model["Q"] if held == "A" else new.transition_covariance
    best = expected(new.transition_matrix, noise)
    rng = np.random.default_rng(0)
    for _ in range(200):
        move = 1e-3 * rng.normal(size=(3, 3))
        if held == "A":
            assert expected(new.transition_matrix + np.where(mask, 0, move), noise) <= best
        else:
            move = move + move.T
            assert expected(new.transition_matrix, noise + np.where(mask, 0, move)) <= best + 1e-9


STATIONARY_CASES = {
    "free": {},
    "diag": {"covariance_type": "diag"},
    "spherical": {"covariance_type": "spherical"},
    "penalty": {"penalty": np.array([[3.0, 1.0], [1.0, 2.0]])},
    "inputs": {"inputs": True},
    "A in part": {"held": {"transition_matrix": np.array([[False, True], [False, False]])}},
    "Gamma in part": {"held": {"transition_covariance": np.array([[True, False], [False, False]])}},
    "Gamma": {"held": {"transition_covariance": np.array(True)}},
    "A": {"held": {"transition_matrix": np.array(True)}},
    "companion": {
        "A": [[0.5, 0.3], [1.0, 0.0]], "Gamma": [[1.0, 0.0], [0.0, 0.0]], "covariance_type": "diag",
        "held": {"transition_matrix": np.array([[False, False], [True, True]]),
                 "transition_covariance": np.array([[False, True], [True, True]])},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", STATIONARY_CASES)
def test_stationary_m_step_is_the_joint_maximum(monkeypatch, case):
    """A general optimiser, on the expected density written out, finds nothing better."""
    monkeypatch.setattr(_stationary, "ITERATIONS", 100)
    monkeypatch.setattr(_stationary, "GAIN", 1e-15)
    case = STATIONARY_CASES[case]
    rng = np.random.default_rng(0)
    model = reference.random_model(3, 2, 2)
    A = np.asarray(case.get("A", model["A"]), float)
    kind = case.get("covariance_type", "full")
    Gamma = np.asarray(case.get("Gamma", {"full": model["Q"], "diag": np.diag([1.0, 0.4]),
                                          "spherical": 0.7 * np.eye(2)}[kind]), float)  # fmt: skip
    B_u = rng.normal(size=(2, 1)) if "inputs" in case else None
    penalty = case.get("penalty")
    chain = LinearGaussianChain(
        A, Gamma, np.zeros(2), np.eye(2), B_u, kind, held=case.get("held", {})
    ).at_stationary_start()
    sequences = [reference.simulate(model, n, n)[0] for n in (1, 2, 3, 2, 5, 2, 2)]
    X, offsets = flat(sequences)
    u = rng.normal(size=(len(X), 1)) if "inputs" in case else None
    observation = value(model, diag=False).observation
    evidence, _ = observation.evidence(X)
    posterior, _ = chain.smooth(evidence, offsets, u)
    m, C, lag = posterior
    second = C + m[:, :, None] * m[:, None]
    crossed = lag[1:] + m[1:, :, None] * m[:-1, None]
    inside = np.setdiff1d(np.arange(1, len(X)), offsets)

    def density(A, Gamma, B_u):
        try:
            P = solve_discrete_lyapunov(A, Gamma)
            noises = np.diag(Gamma) > 0  # the others follow their rows of A
            Q = Gamma[np.ix_(noises, noises)]
            if min(np.linalg.eigvalsh(P)[0], np.linalg.eigvalsh(Q)[0]) <= 0 or (
                    np.abs(np.linalg.eigvals(A)).max() >= 1):  # fmt: skip
                return -1e6
        except np.linalg.LinAlgError:
            return -1e6
        total = 0.0
        for t in offsets[:-1]:
            total -= np.linalg.slogdet(P)[1] + np.trace(np.linalg.solve(P, second[t]))
        for t in inside:
            M = second[t] - A @ crossed[t - 1].T - crossed[t - 1] @ A.T + A @ second[t - 1] @ A.T
            if B_u is not None:
                drift = B_u @ u[t]
                off = np.outer(m[t] - A @ m[t - 1], drift)
                M = M - off - off.T + np.outer(drift, drift)
            M = M[np.ix_(noises, noises)]
            total -= np.linalg.slogdet(Q)[1] + np.trace(np.linalg.solve(Q, M))
        return total / 2 - (0.0 if penalty is None else np.sum(penalty * Gamma) / 2)

    expected = chain.e_step(evidence, offsets, u)
    new = chain.m_step(expected.statistics, penalty)
    got = (new.transition_matrix, new.transition_covariance, new.input_matrix)
    assert_allclose(
        new.initial_covariance, solve_discrete_lyapunov(*got[:2]), rtol=1e-8, atol=1e-12
    )
    held = {name: np.broadcast_to(mask, (2, 2)) for name, mask in chain.held.items()}
    for name, mask in held.items():
        assert_array_equal(getattr(new, name)[mask], getattr(chain, name)[mask])
    best = density(*got)
    assert best >= density(A, Gamma, B_u)

    free_A = ~held.get("transition_matrix", np.zeros((2, 2), bool))
    free_Gamma = ~held.get("transition_covariance", np.zeros((2, 2), bool))
    basis = [np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])]
    basis = {"full": basis, "diag": basis[:2], "spherical": [np.eye(2)]}[kind]
    basis = [b for b in basis if np.all(free_Gamma[b != 0])]

    def loss(vector):
        moved, noise = got[0].copy(), got[1].copy()
        moved[free_A] += vector[: free_A.sum()]
        at = int(free_A.sum())
        for b in basis:
            noise = noise + vector[at] * b
            at += 1
        return -density(moved, noise, None if B_u is None else got[2] + vector[at:].reshape(2, 1))

    size = int(free_A.sum()) + len(basis) + (0 if B_u is None else 2)
    found = minimize(loss, np.zeros(size), method="Nelder-Mead",
                     options={"initial_simplex": 0.1 * np.vstack([np.zeros(size), np.eye(size)]),
                              "maxiter": 600, "xatol": 1e-9, "fatol": 1e-12})  # fmt: skip
    assert -found.fun <= best + 1e-7


def test_stationary_start_with_a_known_observation_matrix():
    """The state's scale is settled, and the start may not slow it: one maximum from any start."""
    rng = np.random.default_rng(5)

    def series():
        s = [rng.normal() / np.sqrt(1 - 0.81)]
        s.append(0.9 * s[0] + rng.normal())
        return np.array(s)[:, None] + 0.5 * rng.normal(size=(2, 1))

    X = [series() for _ in range(200)]

    def loss(vector):
        A, Q, R = np.tanh(vector[0]), np.exp(vector[1]), np.exp(vector[2])
        P = Q / (1 - A**2)
        C = np.array([[P + R, A * P], [A * P, P + R]])
        pairs = np.hstack(X)
        return 0.5 * (200 * np.linalg.slogdet(2 * np.pi * C)[1]
                      + np.sum(pairs * np.linalg.solve(C, pairs)))  # fmt: skip

    best = -minimize(loss, [1.5, 0.0, -1.4], tol=1e-10).fun
    held = {
        "initial_state": "stationary", "observation_matrix_init": [[1.0]],
        "observation_offset_init": [0.0], "fixed": ("observation_matrix", "observation_offset"),
        "tol": 1e-11, "max_iter": 1000,
    }  # fmt: skip
    starts = {"transition_matrix_init": [[0.9]], "transition_covariance_init": 1.0,
              "observation_covariance_init": 0.25}  # fmt: skip
    for params in ({}, {"acceleration": None}, starts):
        fitted = KalmanSmoother(**held, **params).fit(X)
        assert fitted.converged_
        assert_allclose(fitted.score_sequences(X).sum(), best, atol=1e-6)


def test_one_sequence_does_not_pull_the_noise_of_a_settled_state(nile):
    """P0 tied to Gamma counted as one more step: the level's variance came out a third too low."""
    held = {
        "transition_matrix_init": [[1.0]], "observation_matrix_init": [[1.0]],
        "observation_offset_init": [0.0], "tol": 1e-9, "max_iter": 1000,
        "fixed": ("transition_matrix", "observation_matrix", "observation_offset"),
    }  # fmt: skip
    fitted = KalmanSmoother(**held).fit(nile)
    assert_allclose(fitted.transition_covariance_, 1469.1, rtol=2e-3)  # Durbin and Koopman
    assert_allclose(fitted.observation_covariance_, 15099, rtol=1e-3)
    diffuse = KalmanSmoother(initial_state="diffuse", **held).fit(nile)
    assert_allclose(diffuse.transition_covariance_, 1469.1, rtol=1e-4)


def test_known_states_of_one_sequence_are_a_regression():
    rng = np.random.default_rng(0)
    S = np.cumsum(rng.normal(size=(60, 2)), axis=0)
    fitted = KalmanSmoother(2).fit(S + rng.normal(size=S.shape), states=S)
    A = np.linalg.lstsq(S[:-1], S[1:], rcond=None)[0].T
    w = S[1:] - S[:-1] @ A.T
    assert_allclose(fitted.transition_matrix_, A, rtol=1e-8)
    assert_allclose(fitted.transition_covariance_, w.T @ w / 59, rtol=1e-8)


@pytest.mark.parametrize(
    "A, B, A_held, B_held, settled",
    [
        ([[0.5]], [[1.0]], False, True, True),
        ([[0.5]], [[1.0]], True, False, False),
        ([[1, 1], [0, 1]], [[1, 0]], True, True, True),  # a local linear trend
        ([[1, 1], [0, 1]], [[1, 0]], False, True, False),  # the slope's unit is free
        ([[1, 1], [0, 1]], [[1, 0]], [[False, True], [True, False]], True, False),
        ([[1, 0], [0, 0.5]], [[1, 1]], True, True, True),
        ([[1, 0], [0, 1]], [[1, 1]], True, True, False),  # two levels that cannot be told apart
        ([[0.9, 0], [0, 0.5]], [[1, 0], [0, 1], [3, 4]], False, True, True),
        ([[0.9, 0], [0, 0.5]], [[1, 0], [0, 1]], False, [[True, False], [False, True]], False),
    ],
)
def test_when_the_units_of_the_state_are_settled(A, B, A_held, B_held, settled):
    held = {} if A_held is False else {"transition_matrix": np.array(A_held)}
    d = len(A)
    chain = LinearGaussianChain(
        np.array(A, float), np.eye(d), np.zeros(d), np.eye(d), held=held
    )
    assert chain.settles_state(np.array(B, float), np.array(B_held)) == settled


def test_floor_under_the_observation_noise():
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.normal(size=(100, 1)), axis=0) * 1e3
    X = np.hstack([X, np.full((100, 1), 7.0)])
    fitted = KalmanSmoother(1, reg_covar=1e-4, max_iter=300).fit(X)
    assert np.diag(fitted.observation_covariance_)[0] >= 1e-4 * X[:, 0].var() * (1 - 1e-9)
    assert np.diag(fitted.observation_covariance_)[1] >= 1e-4 * (1 - 1e-9)


def test_known_states():
    truth = reference.random_model(9, 2, 3, diag=True)
    drawn = [reference.simulate(truth, n, n) for n in (50, 80, 30)]
    X, S = [x for x, _ in drawn], [s for _, s in drawn]
    fitted = KalmanSmoother(2, transition_covariance_type="full").fit(X, states=S)
    assert fitted.converged_
    before = np.concatenate([s[:-1] for s in S])
    after = np.concatenate([s[1:] for s in S])
    A = np.linalg.lstsq(before, after, rcond=None)[0].T
    assert_allclose(fitted.transition_matrix_, A, rtol=1e-8, atol=1e-10)
    w = after - before @ A.T
    assert_allclose(fitted.transition_covariance_, w.T @ w / len(w), rtol=1e-8, atol=1e-10)
    h = np.hstack([np.concatenate(S), np.ones((160, 1))])
    coefficients = np.linalg.lstsq(h, np.concatenate(X), rcond=None)[0].T
    assert_allclose(fitted.observation_matrix_, coefficients[:, :2], rtol=1e-8, atol=1e-9)
    assert_allclose(fitted.observation_offset_, coefficients[:, 2], rtol=1e-8, atol=1e-9)
    # some steps unknown: EM, in the coordinates of what is known, never falling
    partly = [s.copy() for s in S]
    partly[0][10:20] = np.nan
    partly[1][:, 1] = np.nan
    some = KalmanSmoother(2, max_iter=50, tol=1e-8).fit(X, states=partly)
    assert np.all(np.diff(some.log_likelihoods_) >= -1e-9)
    assert_allclose(some.transition_matrix_, truth["A"], atol=0.2)
    assert_allclose(np.abs(some.predict(X[2]) - S[2]).mean(), 0, atol=0.5)


def test_inputs():
    rng = np.random.default_rng(0)
    truth = reference.random_model(10, 2, 3, diag=True)
    n = 400
    U = rng.normal(size=(n, 2))
    G = np.array([[1.0, -0.5], [0.3, 0.8]])
    D = np.array([[1.0, 0.0], [0.0, -1.0], [0.5, 0.5]])
    with_state = known(truth, inputs_to="state", input_matrix=G)
    X, states = with_state.sample(n, inputs=U, random_state=0)
    joint = reference.joint(truth, X[:40], U[:40] @ G.T)
    short = {"inputs": U[:40]}
    assert_allclose(with_state.score_sequences(X[:40], **short)[0], joint.log_likelihood, rtol=1e-9)
    assert_allclose(with_state.transform(X[:40], **short), joint.means, rtol=1e-9, atol=1e-9)
    assert_allclose(with_state.predict(X[:40], **short), joint.means, rtol=1e-9, atol=1e-9)
    with_observation = known(truth, inputs_to="observation", input_matrix=D)
    joint = reference.joint(truth, X[:40] - U[:40] @ D.T)
    assert_allclose(
        with_observation.score(X[:40], **short), joint.log_likelihood / 40, rtol=1e-9
    )
    assert_allclose(
        with_observation.inverse_transform(states, inputs=U),
        states @ truth["B"].T + truth["offset"] + U @ D.T,
    )
    fitted = KalmanSmoother(2).fit(X, inputs=U)
    # what an input does to the observations does not depend on the state's coordinates
    assert_allclose(
        fitted.observation_matrix_ @ fitted.input_matrix_, truth["B"] @ G, atol=0.15
    )
    assert fitted.score(X, inputs=U) >= with_state.score(X, inputs=U)
    Y, _ = with_observation.sample(n, inputs=U, random_state=1)
    other = KalmanSmoother(2, inputs_to="observation").fit(Y, inputs=U)
    assert_allclose(other.input_matrix_, D, atol=0.15)
    with pytest.raises(ValueError, match="fitted with inputs"):
        fitted.predict(X)
    with pytest.raises(ValueError, match="this one was not"):
        KalmanSmoother(1).fit(X).predict(X, inputs=U)
    with pytest.raises(ValueError, match="known at every step"):
        KalmanSmoother(1).fit(X, inputs=np.where(U > 2, np.nan, U))
    means, _ = fitted.forecast(X[:-5], 5, inputs=U[:-5], future_inputs=U[-5:])
    blind = X.copy()
    blind[-5:] = np.nan
    expected = fitted.inverse_transform(fitted.transform(blind, inputs=U))[-5:]
    assert_allclose(means, expected, rtol=1e-9, atol=1e-9)


def test_three_endings_and_warm_start(nile):
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=2"):
        short = KalmanSmoother(1, max_iter=2).fit(nile)
    assert not short.converged_
    assert short.n_iter_ == 2
    short.set_params(warm_start=True, max_iter=200)
    before = short.log_likelihood_
    short.fit(nile)
    assert short.log_likelihood_ >= before - 1e-6
    assert short.converged_


def test_n_init_takes_the_best(nile):
    one = KalmanSmoother(2, max_iter=60, tol=1e-5, random_state=0)
    many = clone(one).set_params(n_init=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert many.fit(nile).log_likelihood_ >= one.fit(nile).log_likelihood_ - 1e-3


# ---------------------------------------------------------------------------------------------
# Inference


@pytest.fixture(scope="module")
def example():
    model = reference.random_model(11, 2, 3)
    return model, [reference.simulate(model, n, n, 0.2)[0] for n in (12, 1, 30)]


def test_forecast_is_the_joint_distribution(example):
    model, sequences = example
    estimator = known(model)
    means, covariances = estimator.forecast(sequences, 4)
    assert means.shape == (3, 4, 3)
    assert covariances.shape == (3, 4, 3, 3)
    for i, X in enumerate(sequences):
        padded = np.vstack([X, np.full((4, 3), np.nan)])
        joint = reference.joint(model, padded)
        B = model["B"]
        assert_allclose(means[i], joint.means[-4:] @ B.T + model["offset"], rtol=1e-9, atol=1e-9)
        assert_allclose(
            covariances[i], B @ joint.covariances[-4:] @ B.T + model["R"], rtol=1e-9, atol=1e-9
        )
    single = estimator.forecast(sequences[0], 4)
    assert_allclose(single.means, means[0], rtol=1e-12)
    with pytest.raises(ValueError, match="n_steps"):
        estimator.forecast(sequences[0], 0)


def test_filter_update_walks_through_filter(example):
    model, sequences = example
    estimator = known(model)
    X = sequences[2]
    filtered = estimator.filter(X)
    mean = covariance = None
    for t, x in enumerate(X):
        mean, covariance = estimator.filter_update(mean, covariance, x)
        assert_allclose(mean, filtered.means[t], rtol=1e-9, atol=1e-10)
        assert_allclose(covariance, filtered.covariances[t], rtol=1e-9, atol=1e-10)


def test_posterior_draws(example):
    model, sequences = example
    X = sequences[0]
    estimator = known(model)
    draws = estimator.sample_posterior(X, n_draws=4000, random_state=0)
    assert draws.shape == (4000, len(X), 2)
    joint = reference.joint(model, X)
    assert_allclose(draws.mean(axis=0), joint.means, atol=0.08)
    flat_draws = draws.reshape(4000, -1)
    assert_allclose(np.cov(flat_draws.T), joint.covariance, atol=0.1)
    several = estimator.sample_posterior(sequences, n_draws=2, random_state=0)
    assert [part.shape for part in several] == [(2, len(X), 2) for X in sequences]


def test_samples_have_the_model_s_moments():
    model = reference.random_model(12, 2, 2)
    estimator = known(model)
    X, states = estimator.sample(5, n_sequences=4000, random_state=0)
    drawn = np.stack(X).reshape(4000, -1)
    nothing = reference.joint(model, np.full((5, 2), np.nan))
    big_B = np.kron(np.eye(5), model["B"])
    expected = big_B @ nothing.covariance @ big_B.T + np.kron(np.eye(5), model["R"])
    assert_allclose(np.cov(drawn.T), expected, atol=0.12 * expected.max())
    assert states[0].shape == (5, 2)
    one, _ = estimator.sample(7, random_state=1)
    assert_array_equal(one, estimator.sample(7, random_state=1)[0])


def test_time_varying_parameters():
    model = reference.random_model(13, 2, 2)
    rng = np.random.default_rng(0)
    model["A"] = model["A"] * rng.uniform(0.3, 1.2, size=(25, 1, 1))
    model["Q"] = model["Q"] * rng.uniform(0.3, 1.2, size=(25, 1, 1))
    X = rng.normal(size=(20, 2))
    X[3, 1] = np.nan
    estimator = known(model)
    joint = reference.joint(model, X)
    assert_allclose(estimator.transform(X), joint.means, rtol=1e-9, atol=1e-9)
    assert_allclose(estimator.score_sequences([X, X[:5]])[0], joint.log_likelihood, rtol=1e-10)
    means, _ = estimator.forecast(X, 5)
    padded = np.vstack([X, np.full((5, 2), np.nan)])
    expected = reference.joint(model, padded).means[-5:] @ model["B"].T + model["offset"]
    assert_allclose(means, expected, rtol=1e-9, atol=1e-9)
    assert estimator.sample(25, random_state=0)[0].shape == (25, 2)
    assert estimator.sample_posterior(X, 3, random_state=0).shape == (3, 20, 2)
    for call in (
        lambda: estimator.forecast(X, 6),
        lambda: estimator.sample(26),
        lambda: estimator.transform(np.zeros((26, 2))),
    ):
        with pytest.raises(ValueError, match="has 25 times, fewer than"):
            call()


def test_perfect_observations_that_contradict():
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[1.0]], transition_covariance=0.0, observation_matrix=[[1.0]],
        observation_covariance=0.0, initial_state_mean=[0.0], initial_state_covariance=1.0,
    )  # fmt: skip
    assert np.isfinite(model.score([[2.0], [2.0], [2.0]]))
    assert model.score([[2.0], [2.0], [3.0]]) == -np.inf
    steps = model.score_samples([[2.0], [2.0], [3.0]])
    assert np.isneginf(steps[2])
    with pytest.raises(ValueError, match="step 2 of sequence 0"):
        model.predict([[2.0], [2.0], [3.0]])


def test_continues(nile):
    """Inference after training goes on from its end, as if both were one series."""
    train, test = nile[:70], nile[70:]
    fitted = KalmanSmoother(1, **LEVEL_INIT).fit(train)
    restarted = fitted.score_samples(test)
    fitted.set_params(continues=True)
    fitted_scores = fitted.score_samples(test)
    fitted.set_params(continues=False)
    whole = fitted.score_samples(nile)[70:]
    assert_allclose(fitted_scores, whole, rtol=1e-9)
    assert restarted[0] < whole[0]
    fitted.set_params(continues=True)
    with pytest.raises(ValueError, match="fitted on one sequence"):
        KalmanSmoother(1, continues=True).fit([train, test]).score(test)


# ---------------------------------------------------------------------------------------------
# Sizes and extremes


def test_a_million_steps():
    """Unit root, one million steps: nothing drifts."""
    rng = np.random.default_rng(0)
    n = 1_000_000
    X = (np.cumsum(rng.normal(size=n)) + rng.normal(size=n)).reshape(-1, 1)
    model = level(1.0, 1.0, vague=1e7)
    total = model.score_sequences(X)[0]
    f = (1 + np.sqrt(5)) / 2 + 1  # stationary innovation variance: golden ratio plus one
    assert_allclose(total / n, -0.5 * (np.log(2 * np.pi * f) + 1), atol=3e-3)
    head = model.score_samples(X[:2000])
    assert_allclose(model.score_samples(X)[:2000], head, rtol=1e-9, atol=1e-12)
    gaps = X.copy()
    gaps[rng.uniform(size=n) < 0.2] = np.nan
    assert_allclose(
        model.score_samples(gaps)[:2000], model.score_samples(gaps[:2000]), rtol=1e-9, atol=1e-12
    )


def test_five_hundred_features():
    rng = np.random.default_rng(0)
    B = rng.normal(size=(500, 3))
    model = {
        "A": 0.9 * np.eye(3), "Q": np.eye(3), "B": B, "R": np.diag(rng.uniform(0.5, 2, 500)),
        "offset": rng.normal(size=500), "mean": np.zeros(3), "covariance": np.eye(3),
    }  # fmt: skip
    X = reference.simulate(model, 4, 0)[0]
    estimator = known(model)
    assert_allclose(
        estimator.score_sequences(X)[0], reference.joint(model, X).log_likelihood, rtol=1e-9
    )
    X[rng.uniform(size=X.shape) < 0.3] = np.nan
    assert_allclose(estimator.transform(X), reference.joint(model, X).means, rtol=1e-8, atol=1e-8)
    long = reference.simulate(model, 60, 1, 0.1)[0]
    assert KalmanSmoother(2, max_iter=20, tol=1e-2).fit(long).score(long) > -1000


def test_one_row_and_empty_sequences():
    X = [np.array([[1.0, 2.0]]), np.array([[np.nan, np.nan]] * 3), np.array([[0.5, np.nan]] * 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KalmanSmoother(1, max_iter=10).fit(X)
        alone = KalmanSmoother(3, max_iter=5).fit(np.array([[1.0, 2.0]]))
    assert np.all(np.isfinite(np.concatenate(list(fitted.transform(X)))))
    assert_array_equal(fitted.score_samples(X)[1], 0.0)
    assert np.isfinite(alone.score([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="infinity"):
        fitted.predict(np.array([[1.0, np.inf]]))


def test_warm_start_of_other_columns_and_inputs_that_never_came(nile):
    wide = np.hstack([nile, nile])
    fitted = KalmanSmoother(warm_start=True, tol=1.0).fit(wide)
    with pytest.raises(ValueError, match="go on from 2 features, but X has 1"):
        fitted.fit(nile)
    assert fitted.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"shape \(n_features, n_components\), got \(1,\)"):
        KalmanSmoother.from_parameters(
            transition_matrix=[[1.0]], transition_covariance=1.0, observation_matrix=[1.0],
            observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=1.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="input_matrix_init is for a fit with inputs"):
        KalmanSmoother(input_matrix_init=[[1.0]]).fit(nile)


def test_memory(monkeypatch):
    """A long fit holds no (n_steps, d, d); score needs little beyond the data."""
    import tracemalloc

    rng = np.random.default_rng(0)
    d, n = 8, 60_000
    truth = reference.random_model(0, d, 2)
    estimator = known(truth)
    X = rng.normal(size=(n, 2))
    X[::7, 0] = np.nan
    whole = n * d * d * 8
    model = value(truth, diag=False)
    estimator.score(X[:3000])
    tracemalloc.start()
    estimator.score(X)
    score_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    model.e_step(X, np.array([0, n], dtype=np.intp))
    fit_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert score_peak < 8 * X.nbytes
    assert fit_peak < whole / 2


# ---------------------------------------------------------------------------------------------
# The contract


def test_check_estimator_fails_exactly_the_two_invariances():
    estimator = KalmanSmoother()
    expected = expected_failed_checks(estimator)
    assert set(expected) == {
        "check_methods_sample_order_invariance", "check_methods_subset_invariance",
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"] for r in results if r["status"] in ("failed", "xfail")}
    assert failed == set(expected)


def test_every_form_gives_the_same_bits(example):
    model, _ = example
    X = np.stack([reference.simulate(model, 15, i, 0.2)[0] for i in range(6)])
    rows = X.reshape(-1, 3)
    groups = np.repeat(np.arange(6), 15)
    estimator = known(model)
    from_groups = estimator.transform(rows, groups=groups)
    assert_array_equal(estimator.transform(rows, lengths=[15] * 6), from_groups)
    assert_array_equal(estimator.transform(X).reshape(-1, 2), from_groups)
    assert_array_equal(np.concatenate(list(estimator.transform(list(X)))), from_groups)
    assert_array_equal(estimator.set_params(n_jobs=2).transform(X).reshape(-1, 2), from_groups)
    fits = [
        KalmanSmoother(2, max_iter=5, tol=1.0).fit(*arguments, **keywords)
        for arguments, keywords in (((rows,), {"groups": groups}), ((X,), {}), ((list(X),), {}))
    ]
    for other in fits[1:]:
        assert_array_equal(other.transition_matrix_, fits[0].transition_matrix_)


def test_n_jobs_gives_the_same_bits():
    model = reference.random_model(1, 2, 2)
    X = [reference.simulate(model, 400, i, 0.1)[0] for i in range(100)]
    one, two = (KalmanSmoother(2, max_iter=4, tol=1.0, n_jobs=jobs).fit(X) for jobs in (1, 2))
    assert_array_equal(one.transition_matrix_, two.transition_matrix_)
    assert_array_equal(one.score_sequences(X), two.score_sequences(X))


def test_sequences_are_exchangeable_and_independent(example):
    """What stands in for the two declared checks: sequences permute, and each is by itself."""
    model, sequences = example
    estimator = known(model)
    together = estimator.smooth(sequences)
    backwards = estimator.smooth(sequences[::-1])
    for i in range(3):
        alone = estimator.smooth(sequences[i])
        for field in range(3):
            assert_allclose(together[field][i], alone[field], rtol=1e-10, atol=1e-12)
            assert_allclose(together[field][i], backwards[field][2 - i], rtol=1e-10, atol=1e-12)


def test_complete_collections_share_covariances():
    model = reference.random_model(2, 2, 2)
    X = np.stack([reference.simulate(model, 20, i)[0] for i in range(5)])
    posterior = known(model).smooth(X)
    assert posterior.covariances.strides[0] == 0
    dense = known(model).smooth(X.reshape(-1, 2), groups=np.repeat(np.arange(5), 20))
    for shared, full in zip(posterior, dense):
        assert_allclose(np.reshape(shared, full.shape), full, rtol=1e-12, atol=1e-13)
    ragged = known(model).smooth([*X, X[0][:7]])
    assert_allclose(ragged.covariances[5], reference.joint(model, X[0][:7]).covariances, atol=1e-10)
    assert ragged.covariances[0] is not None


def test_search_over_a_list_of_sequences():
    truth = reference.random_model(14, 2, 3, radius=0.9, diag=True)
    X = [reference.simulate(truth, 60, i, 0.1)[0] for i in range(12)]
    search = GridSearchCV(
        KalmanSmoother(max_iter=60, tol=1e-4), {"n_components": [1, 2]}, cv=3
    ).fit(X)
    assert search.best_params_["n_components"] == 2
    scaled = make_pipeline(Stepwise(StandardScaler()), KalmanSmoother(2, max_iter=60, tol=1e-4))
    assert np.all(np.isfinite(cross_val_score(scaled, X, cv=3)))


def test_time_series_split(nile):
    scores = cross_val_score(
        KalmanSmoother(1, **LEVEL_INIT, continues=True), nile, cv=TimeSeriesSplit(4)
    )
    assert np.all(scores > -7.2)


def test_pipeline_into_a_classifier():
    rng = np.random.default_rng(0)
    labels = (np.arange(300) // 50) % 2
    X = (4 * labels + rng.normal(scale=3, size=300)).reshape(-1, 1)
    pipeline = make_pipeline(KalmanSmoother(1), LogisticRegression()).fit(X, labels)
    assert pipeline.score(X, labels) > 0.9


def test_inputs_are_routed(nile):
    import sklearn

    U = np.arange(100.0).reshape(-1, 1) / 100
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            KalmanSmoother(1, continues=True, max_iter=300, tol=1e-5), nile,
            cv=TimeSeriesSplit(3), params={"inputs": U},
        )  # fmt: skip
    assert np.all(np.isfinite(scores))


def test_information_criteria(nile):
    fitted = KalmanSmoother(1, **LEVEL_INIT).fit(nile)
    total = fitted.score_sequences(nile).sum()
    assert_allclose(fitted.aic(nile), -2 * total + 2 * 2)
    assert_allclose(fitted.bic(nile), -2 * total + np.log(100) * 2)
    X = [reference.simulate(reference.random_model(0, 2, 3), 30, i)[0] for i in range(5)]
    free = KalmanSmoother(2, max_iter=5, tol=1.0).fit(X)
    # A 4, Gamma 3, B 6, Sigma 3, offset 3, mu0 2, P0 3, less the gauge 4
    assert free._n_free_parameters() == 4 + 3 + 6 + 3 + 3 + 2 + 3 - 4


@pytest.mark.parametrize(
    "params, message",
    [
        ({"n_components": 0}, "n_components"),
        ({"observation_covariance_type": "tied"}, "observation_covariance_type must be one of"),
        ({"initial_state": "flat"}, "initial_state must be one of"),
        ({"acceleration": "newton"}, "acceleration must be 'squarem' or None, got 'newton'"),
        ({"inputs_to": "neither"}, "inputs_to must be one of"),
        ({"transition_matrix_init": [[1.0, 0.0]]}, "transition_matrix_init must have shape"),
        ({"transition_covariance_init": -1.0}, "positive semi-definite"),
        ({"initial_state": "diffuse", "initial_state_mean_init": [0.0]}, "must be None"),
    ],
)
def test_bad_parameters(params, message):
    X = np.random.default_rng(0).normal(size=(10, 2))
    model = KalmanSmoother().fit(X)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.set_params(**params).fit(X)
    after = {name: vars(model)[name] for name in before if name.endswith("_")}
    assert all(after[name] is before[name] for name in after)


def test_bad_calls_say_what_is_wrong(nile):
    known_level = {
        "transition_matrix": [[1.0]], "transition_covariance": 1.0, "observation_matrix": [[1.0]],
        "observation_covariance": 1.0, "initial_state_mean": [0.0],
        "initial_state_covariance": 1.0,
    }  # fmt: skip
    plain = level(1469.1, 15099.0)
    varying = KalmanSmoother.from_parameters(
        **known_level | {"transition_matrix": np.ones((1, 1, 1))}
    )
    fitted = KalmanSmoother(1, inputs_to="observation", max_iter=2, tol=1.0).fit(
        nile, inputs=np.arange(100.0)
    )
    U = np.zeros((3, 1))
    for call, message in (
        (lambda: plain.filter_update([0.0], None, [1.0]), "go together"),
        (lambda: plain.filter_update(None, [[1.0]], [1.0]), "go together"),
        (lambda: plain.filter_update(None, None, [1.0, 2.0]), "2 features"),
        (lambda: plain.inverse_transform([]), "empty collection"),
        (lambda: plain.inverse_transform(np.zeros((3, 2))), "n_components=1"),
        (lambda: plain.inverse_transform(U, inputs=U), "this one was not"),
        (lambda: KalmanSmoother().fit([nile, nile], inputs=[]), "inputs is empty"),
        (lambda: KalmanSmoother().fit([nile, nile], inputs=[nile]), "one array for each sequence"),
        (lambda: fitted.inverse_transform(U), "pass inputs="),
        (lambda: fitted.inverse_transform(U, inputs=U[:2]), "got 2 rows for 3 steps"),
        (lambda: fitted.inverse_transform([U, U], inputs=[U]), "got 1 for 2 sequences"),
        (lambda: varying.score(nile), "has 1 times, fewer than"),
        (lambda: varying.set_params(warm_start=True).fit(nile), "time axis"),
        (
            lambda: KalmanSmoother.from_parameters(
                **known_level | {"transition_matrix": np.ones((0, 1, 1))}
            ).score(nile),
            "has 0 times",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    states = [U, U[:1]]
    several = fitted.inverse_transform(states, inputs=states)
    assert [part.shape for part in several] == [(3, 1), (1, 1)]


def test_feature_names_and_containers(nile):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(nile, columns=["flow"])
    model = KalmanSmoother(1).fit(frame).set_output(transform="pandas")
    out = model.transform(frame)
    assert list(out.columns) == ["kalmansmoother0"]
    assert model.feature_names_in_.tolist() == ["flow"]
    with pytest.raises(ValueError, match="set_output"):
        model.transform([frame, frame])


# --- States that die out --------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("A", "Q"),
    [
        ([[0.5, 0.3], [0.2, 0.1]], [0.0, 0.0]), ([[0.6, 0.3], [-0.1, 0.2]], [0.0, 0.0]),
        ([[0.3, 0.0], [0.0, 0.9]], [0.0, 1.0]), ([[0.6, 0.5], [-0.5, 0.6]], [0.0, 0.0]),
        (np.diag([0.3, 0.9, 0.9, 0.9, 0.9]), [0.0, 1.0, 1.0, 1.0, 1.0]),
        (np.diag([0.3, 1.0]), [0.0, 0.0]),
    ],
)  # fmt: skip
def test_a_shrinking_state_without_noise_is_smoothed(A, Q, gaps, inputs):
    """Its predicted covariance falls to rounding, by which a plain smoother divides."""
    A, d, n = np.asarray(A, dtype=float), len(A), 60
    model = {
        "A": A, "Q": np.diag(Q), "B": np.eye(d)[: d - 1] + 1.0, "R": np.eye(d - 1),
        "offset": np.zeros(d - 1), "mean": np.ones(d), "covariance": np.eye(d),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    X, U = rng.normal(size=(n, d - 1)), rng.normal(size=(n, 1))
    if gaps:
        X[::4] = np.nan
    G = np.eye(d)[:, :1]
    estimator = KalmanSmoother.from_parameters(
        transition_matrix=A, transition_covariance=model["Q"], observation_matrix=model["B"],
        observation_covariance=model["R"], initial_state_mean=model["mean"],
        initial_state_covariance=model["covariance"], input_matrix=G if inputs else None,
    )  # fmt: skip
    given = {"inputs": U} if inputs else {}
    posterior = estimator.smooth(X, **given)
    expected = reference.joint(model, X, U @ G.T if inputs else None)
    assert_allclose(posterior.means, expected.means, atol=2e-8)
    assert_allclose(posterior.covariances, expected.covariances, atol=1e-9)
    assert_allclose(posterior.lag_one_covariances, expected.lag_one, atol=1e-9)
    assert_allclose(estimator.predict(X, **given), posterior.means, atol=2e-8)


def test_a_stream_of_known_states_goes_on_from_given_parameters():
    rng = np.random.default_rng(0)
    X, S = rng.normal(size=(20, 2)), rng.normal(size=(20, 1))
    model = KalmanSmoother.from_parameters(
        transition_matrix=[[0.5]], transition_covariance=1.0, observation_matrix=[[1.0], [0.5]],
        observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=1.0,
    )  # fmt: skip
    model.partial_fit(X, states=S).partial_fit(X)
    assert np.isfinite(model.score(X))
