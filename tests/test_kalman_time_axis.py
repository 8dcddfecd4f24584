"""KalmanSmoother with parameters that change in time, against the dense joint Gaussian."""

import itertools

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose, assert_array_equal

from sklseq import KalmanSmoother

N_TIMES = 16
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
AXES = [axes for k in (1, 2, 4) for axes in itertools.combinations("AQBR", k)]


def timed(seed, d, p, axes, *, diag=False):
    """A random model of which `axes` change in time."""
    model = reference.random_model(seed, d, p, diag=diag)
    rng = np.random.default_rng(seed)
    for name in axes:
        change = rng.uniform(0.3, 1.2, size=(N_TIMES, 1, 1))
        if name == "B":  # rows of their own, not only of their own size
            change = rng.normal(size=(N_TIMES, *model["B"].shape))
        model[name] = model[name] * change
    return model


def known(model, **params):
    return KalmanSmoother.from_parameters(
        transition_matrix=model["A"], transition_covariance=model["Q"],
        observation_matrix=model["B"], observation_covariance=model["R"],
        observation_offset=model["offset"], initial_state_mean=model["mean"],
        initial_state_covariance=model["covariance"], **params,
    )  # fmt: skip


def sequences_of(p, seed=0, lengths=(N_TIMES, 1, 9, N_TIMES), missing=0.25):
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(n, p)) for n in lengths]
    for part in X:
        part[rng.uniform(size=part.shape) < missing] = np.nan
    if missing:
        X[0][5] = np.nan
    return X


@pytest.mark.parametrize("axes", AXES, ids="".join)
@pytest.mark.parametrize(
    "d, p, missing", [(2, 2, 0.25), (1, 3, 0.0), (3, 1, 0.25), (2, 5, 0.25)]
)
@pytest.mark.parametrize("diag", [True, False])
def test_inference_is_that_of_the_joint_distribution(axes, d, p, diag, missing):
    model = timed(3, d, p, axes, diag=diag)
    estimator = known(model)
    sequences = sequences_of(p, missing=missing)
    smoothed, filtered = estimator.smooth(sequences), estimator.filter(sequences)
    scores, steps = estimator.score_sequences(sequences), estimator.score_samples(sequences)
    for i, X in enumerate(sequences):
        joint = reference.joint(model, X)
        assert_allclose(smoothed.means[i], joint.means, **CLOSE)
        assert_allclose(smoothed.covariances[i], joint.covariances, **CLOSE)
        assert_allclose(smoothed.lag_one_covariances[i], joint.lag_one, **CLOSE)
        assert_allclose(scores[i], joint.log_likelihood, rtol=1e-10, atol=1e-10)
    means, covariances, log_density = reference.filtered(model, sequences[2])
    assert_allclose(filtered.means[2], means, **CLOSE)
    assert_allclose(filtered.covariances[2], covariances, **CLOSE)
    assert_allclose(steps[2], log_density, **CLOSE)
    flat, lengths = np.concatenate(sequences), [len(X) for X in sequences]
    assert_array_equal(estimator.transform(flat, lengths=lengths), np.concatenate(smoothed.means))
    assert_allclose(estimator.score(sequences), sum(scores) / sum(lengths), rtol=1e-12)
    assert_allclose(np.concatenate(steps).mean(), estimator.score(sequences), rtol=1e-12)


@pytest.mark.parametrize("axes", ["B", "R", "AQBR"])
def test_the_rest_of_the_methods(axes):
    model = timed(5, 2, 3, axes)
    estimator = known(model)
    X = sequences_of(3, lengths=(12,))[0]
    means, covariances = estimator.forecast(X, 4)
    joint = reference.joint(model, np.vstack([X, np.full((4, 3), np.nan)]))
    for t in range(4):
        B, R = reference.at(model["B"], 12 + t), reference.at(model["R"], 12 + t)
        assert_allclose(means[t], B @ joint.means[12 + t] + model["offset"], **CLOSE)
        assert_allclose(covariances[t], B @ joint.covariances[12 + t] @ B.T + R, **CLOSE)
    states = estimator.transform(X)
    signal = np.array([reference.at(model["B"], t) @ s for t, s in enumerate(states)])
    assert_allclose(estimator.inverse_transform(states), signal + model["offset"], **CLOSE)
    both = np.concatenate([states, states[:5]])
    assert_allclose(
        estimator.inverse_transform(both, lengths=[12, 5]) - model["offset"],
        np.concatenate([signal, signal[:5]]), **CLOSE,
    )  # fmt: skip
    assert_allclose(estimator.inverse_transform([states, states[:5]])[1], (
        signal[:5] + model["offset"]), **CLOSE)  # fmt: skip


@pytest.mark.parametrize("axes", ["B", "R", "AQBR"])
def test_draws_have_the_moments_of_the_joint_distribution(axes):
    model = timed(6, 2, 2, axes)
    estimator = known(model)
    n = 6
    drawn, states = estimator.sample(n, n_sequences=6000, random_state=0)
    nothing = reference.joint(model, np.full((n, 2), np.nan))
    B, R = reference.block_diagonal(model["B"], n), reference.block_diagonal(model["R"], n)
    expected = B @ nothing.covariance @ B.T + R
    got = np.cov(np.stack(drawn).reshape(6000, -1).T)
    assert_allclose(got, expected, atol=0.1 * expected.max())
    assert_allclose(np.diag(got), np.diag(expected), rtol=0.12)
    assert states[0].shape == (n, 2)
    X = sequences_of(2, lengths=(n, 3))
    draws = estimator.sample_posterior(X, n_draws=6000, random_state=0)
    for part, paths in zip(X, draws):
        joint = reference.joint(model, part)
        scale = np.sqrt(np.diag(joint.covariance)).max()
        assert_allclose(paths.mean(axis=0), joint.means, atol=0.07 * scale)
        assert_allclose(np.cov(paths.reshape(6000, -1).T), joint.covariance, atol=0.1 * scale**2)


def test_filter_update_takes_the_matrices_of_the_step():
    model = timed(7, 2, 3, "AQBR")
    estimator = known(model)
    X = sequences_of(3, lengths=(10,))[0]
    filtered = estimator.filter(X)
    names = {
        "transition_matrix": "A", "transition_covariance": "Q", "observation_matrix": "B",
        "observation_covariance": "R",
    }  # fmt: skip
    mean = covariance = None
    for t, x in enumerate(X):
        step = {name: model[key][t] for name, key in names.items() if t or key in "BR"}
        mean, covariance = estimator.filter_update(mean, covariance, x, **step)
        assert_allclose(mean, filtered.means[t], rtol=1e-9, atol=1e-10)
        assert_allclose(covariance, filtered.covariances[t], rtol=1e-9, atol=1e-10)
    for name in names:
        step = {other: model[key][3] for other, key in names.items() if other != name}
        with pytest.raises(ValueError, match=f"{name} has a time axis and filter_update"):
            estimator.filter_update(mean, covariance, X[3], **step)
    # and of a model whose matrices do not change: only for this step
    constant = known(reference.random_model(7, 2, 3))
    other = constant.filter_update(mean, covariance, X[3], transition_covariance=2.0)
    twice = known(reference.random_model(7, 2, 3) | {"Q": 2.0})
    for got, expected in zip(other, twice.filter_update(mean, covariance, X[3])):
        assert_allclose(got, expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"observation_matrix must have shape \(3, 2\)"):
        constant.filter_update(mean, covariance, X[3], observation_matrix=np.eye(2))


@pytest.mark.parametrize("name", ["A", "Q", "B", "R"])
def test_where_the_axis_ends(name):
    parameter = {
        "A": "transition_matrix", "Q": "transition_covariance", "B": "observation_matrix",
        "R": "observation_covariance",
    }[name]  # fmt: skip
    estimator = known(timed(8, 2, 2, name))
    X = np.zeros((N_TIMES, 2))
    estimator.score(X)
    longer = np.zeros((N_TIMES + 1, 2))
    message = f"{parameter} has {N_TIMES} times, fewer than"
    for call in (
        lambda: estimator.transform(longer),
        lambda: estimator.score([X, longer]),
        lambda: estimator.score_samples(longer),
        lambda: estimator.filter(longer),
        lambda: estimator.smooth(longer),
        lambda: estimator.sample_posterior(longer, 2),
        lambda: estimator.forecast(X, 1),
        lambda: estimator.sample(N_TIMES + 1),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if name == "B":
        with pytest.raises(ValueError, match=message):
            estimator.inverse_transform(longer)


@pytest.mark.parametrize("diag", [True, False])
def test_sensors_that_are_perfect_at_some_steps(diag):
    """Sigma_t is singular here and there: the limit of a small variance."""
    model = timed(9, 3, 2, "BR", diag=diag)
    root = np.array([[1.0, 0.0], [0.0, 0.0]]) if diag else np.array([[1.0, 0.0], [2.0, 0.0]])
    model["R"][[2, 7]] = root @ root.T
    small = model | {"R": model["R"].copy()}
    small["R"][[2, 7]] += 1e-9 * np.eye(2)
    X = sequences_of(2, lengths=(10,))[0]
    exact, near = known(model).smooth(X), reference.joint(small, X)
    assert_allclose(exact.means, near.means, rtol=1e-5, atol=1e-5)
    assert_allclose(exact.covariances, near.covariances, rtol=1e-5, atol=1e-5)
    assert_allclose(
        known(model).score_sequences(X)[0], near.log_likelihood, rtol=1e-6, atol=1e-6
    )


def test_a_regression_whose_rows_are_known():
    """A state that never moves, seen through time-varying rows: ridge regression."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    Z = rng.normal(size=(40, 3))
    x = Z @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=40)
    model = KalmanSmoother.from_parameters(
        transition_matrix=np.eye(3), transition_covariance=0.0, observation_matrix=Z[:, None],
        observation_covariance=0.09, initial_state_mean=np.zeros(3), initial_state_covariance=1.0,
    )  # fmt: skip
    ridge = Ridge(alpha=0.09, fit_intercept=False).fit(Z, x)
    assert_allclose(model.transform(x[:, None])[0], ridge.coef_, rtol=1e-9)


def test_statsmodels_time_varying_regression():
    """Design and obs_cov that change, against statsmodels."""
    mlemodel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel")
    rng = np.random.default_rng(1)
    n = 60
    Z, noise = rng.normal(size=(n, 2)), rng.uniform(0.2, 2.0, size=n)
    x = rng.normal(size=n)
    theirs = mlemodel.MLEModel(x, k_states=2, k_posdef=2)
    theirs["design"] = Z.T[None]
    theirs["obs_cov"] = noise[None, None]
    theirs["transition"], theirs["selection"] = np.eye(2), np.eye(2)
    theirs["state_cov"] = np.diag([0.1, 0.3])
    theirs.initialize_known(np.zeros(2), np.eye(2))
    results = theirs.ssm.smooth()
    ours = KalmanSmoother.from_parameters(
        transition_matrix=np.eye(2), transition_covariance=[0.1, 0.3],
        observation_matrix=Z[:, None], observation_covariance=noise[:, None, None],
        initial_state_mean=np.zeros(2), initial_state_covariance=1.0,
    )  # fmt: skip
    assert_allclose(ours.score_samples(x[:, None]), results.llf_obs, rtol=1e-9)
    assert_allclose(ours.transform(x[:, None]), results.smoothed_state.T, rtol=1e-8, atol=1e-9)
