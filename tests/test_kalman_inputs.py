"""Inputs to the state and to the observation at once."""

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime

from sklseq import KalmanSmoother


def example(missing=0.2):
    model = reference.random_model(41, 2, 3, diag=True)
    rng = np.random.default_rng(0)
    model |= {"to_state": rng.normal(size=(2, 2)), "to_observation": rng.normal(size=(3, 2))}
    U = [rng.normal(size=(n, 2)) for n in (9, 1, 7)]
    X = [rng.normal(size=(len(u), 3)) for u in U]
    for part in X:
        part[rng.uniform(size=part.shape) < missing] = np.nan
    return model, X, U


def effects(model, u):
    return u @ model["to_state"].T, u @ model["to_observation"].T


def estimator_of(model, **params):
    return KalmanSmoother.from_parameters(
        transition_matrix=model["A"], transition_covariance=model["Q"],
        observation_matrix=model["B"], observation_covariance=model["R"],
        observation_offset=model["offset"], initial_state_mean=model["mean"],
        initial_state_covariance=model["covariance"], inputs_to="both",
        input_matrix=np.vstack([model["to_state"], model["to_observation"]]), **params,
    )  # fmt: skip


def test_inference_is_that_of_the_joint_distribution():
    model, X, U = example()
    estimator = estimator_of(model)
    smoothed, scores = estimator.smooth(X, inputs=U), estimator.score_sequences(X, inputs=U)
    filtered, fresh = estimator.filter(X, inputs=U), np.random.default_rng(1).normal(size=(3, 4, 2))
    forecast = estimator.forecast(X, 4, inputs=U, future_inputs=fresh)
    for i, (part, u) in enumerate(zip(X, U)):
        drift, shift = effects(model, u)
        joint = reference.joint(model, part - shift, drift)
        assert_allclose(smoothed.means[i], joint.means, rtol=1e-9, atol=1e-9)
        assert_allclose(scores[i], joint.log_likelihood, rtol=1e-9)
        drift, shift = effects(model, np.vstack([u, fresh[i]]))
        padded = np.vstack([part, np.full((4, 3), np.nan)])
        joint = reference.joint(model, padded - shift, drift)
        expected = (joint.means @ model["B"].T + model["offset"] + shift)[-4:]
        assert_allclose(forecast.means[i], expected, rtol=1e-9, atol=1e-9)
    mean = covariance = None
    for t, (x, u) in enumerate(zip(X[0], U[0])):
        mean, covariance = estimator.filter_update(mean, covariance, x, inputs=u)
        assert_allclose(mean, filtered.means[0][t], rtol=1e-9, atol=1e-10)
    signal = estimator.inverse_transform(smoothed.means[0], inputs=U[0])
    expected = smoothed.means[0] @ model["B"].T + model["offset"] + effects(model, U[0])[1]
    assert_allclose(signal, expected, rtol=1e-12)
    drawn, states = estimator.sample(9, inputs=U[0], random_state=0)
    rest = drawn - states @ model["B"].T - model["offset"] - effects(model, U[0])[1]
    assert np.all(np.abs(rest) < 6 * np.sqrt(np.diag(model["R"])))


@pytest.mark.parametrize("acceleration", ["squarem", None])
def test_one_step_is_the_maximum_and_none_falls(acceleration):
    model, X, U = example()
    init = {
        "transition_matrix_init": model["A"], "transition_covariance_init": model["Q"],
        "observation_matrix_init": model["B"], "observation_covariance_init": model["R"],
        "observation_offset_init": model["offset"], "initial_state_mean_init": model["mean"],
        "initial_state_covariance_init": model["covariance"],
        "input_matrix_init": np.vstack([model["to_state"], model["to_observation"]]),
    }  # fmt: skip
    mask = np.zeros((5, 2), dtype=bool)
    mask[0, 1] = mask[2:, 0] = True  # the first input moves the state alone
    estimator = KalmanSmoother(
        2, inputs_to="both", fixed={"input_matrix": mask}, tol=0.0, acceleration=acceleration,
        max_iter=1, reg_covar=1e-9, **init,
    )  # fmt: skip
    with pytest.warns(match="did not converge"):
        estimator.fit(X, inputs=U)
    new = estimator.input_matrix_
    assert_array_equal(new[mask], init["input_matrix_init"][mask])
    moved = {
        "A": estimator.transition_matrix_, "B": estimator.observation_matrix_,
        "offset": estimator.observation_offset_, "mean": estimator.initial_state_mean_,
    }  # fmt: skip

    def value(entries):
        matrix = new.copy()
        matrix[~mask] = entries
        parts = {"to_state": matrix[:2], "to_observation": matrix[2:]}
        return reference.expected_log_density(model, model | moved | parts, X, U)

    assert_allclose(approx_fprime(new[~mask], value, 1e-6), 0.0, atol=1e-3)
    estimator.set_params(max_iter=20)
    with pytest.warns(match="did not converge"):
        estimator.fit(X, inputs=U)
    path = estimator.log_likelihoods_
    assert np.all(np.diff(path) >= -1e-10 * np.maximum(1, np.abs(path[:-1])))
    assert_allclose(estimator.score(X, inputs=U), path[-1], rtol=1e-8)
    assert_array_equal(estimator.input_matrix_[mask], init["input_matrix_init"][mask])


def test_rows_of_both_are_asked_for():
    _, X, U = example()
    with pytest.raises(ValueError, match=r"input_matrix_init must have shape \(5, 2\)"):
        KalmanSmoother(2, inputs_to="both", input_matrix_init=np.zeros((2, 2))).fit(X, inputs=U)


def test_fit_predict_of_a_model_that_continues_is_of_the_training_data():
    """Which begin where they began, and not at their own end."""
    X = np.cumsum(np.random.default_rng(0).normal(size=(40, 1)), axis=0)
    expected = KalmanSmoother().fit(X).predict(X)
    for method in ("fit_predict", "fit_transform"):
        np.testing.assert_array_equal(getattr(KalmanSmoother(continues=True), method)(X), expected)
        several = [X[:20], X[20:]]
        assert len(getattr(KalmanSmoother(continues=True), method)(several)) == 2
