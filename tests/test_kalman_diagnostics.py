"""Innovations and standard errors of KalmanSmoother, against the joint Gaussian and others."""

import warnings

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from test_kalman_time_axis import N_TIMES, known, sequences_of, timed

from sklseq import KalmanSmoother
from sklseq.datasets import load_nile


@pytest.fixture(scope="module")
def nile():
    return np.asarray(load_nile().data, dtype=float).reshape(-1, 1)


# ---------------------------------------------------------------------------------------------
# Innovations


def predicted(model, X, t):
    """E and Cov of x_t given the steps before, and B S_t given them."""
    blank = X[: t + 1].copy()
    blank[t] = np.nan
    joint = reference.joint(model, blank)
    B, R = reference.at(model["B"], t), reference.at(model["R"], t)
    return B @ joint.means[t] + model["offset"], B @ joint.covariances[t] @ B.T + R


@pytest.mark.parametrize("axes", ["", "AQBR"])
def test_innovations_are_those_of_the_joint_distribution(axes):
    model = timed(31, 2, 3, axes)
    sequences = sequences_of(3, lengths=(10, 1, 6))
    raw, covariances, standardised = known(model).innovations(sequences)
    scores = known(model).score_samples(sequences)
    for i, X in enumerate(sequences):
        for t, x in enumerate(X):
            mean, F = predicted(model, X, t)
            assert_allclose(raw[i][t], x - mean, rtol=1e-9, atol=1e-10)
            assert_allclose(covariances[i][t], F, rtol=1e-9, atol=1e-10)
            seen = ~np.isnan(x)
            L = np.linalg.cholesky(F[np.ix_(seen, seen)])
            z = standardised[i][t]
            assert_allclose(z[seen], np.linalg.solve(L, (x - mean)[seen]), rtol=1e-8, atol=1e-9)
            assert np.isnan(z[~seen]).all() and np.isnan(raw[i][t][~seen]).all()
            density = -0.5 * (z[seen] @ z[seen] + seen.sum() * np.log(2 * np.pi))
            assert_allclose(density - np.log(np.diag(L)).sum(), scores[i][t], rtol=1e-8, atol=1e-9)
    flat = known(model).innovations(np.concatenate(sequences), lengths=[10, 1, 6])
    assert_array_equal(flat.standardised, np.concatenate(standardised))


def test_innovations_against_statsmodels(nile):
    structural = pytest.importorskip("statsmodels.tsa.statespace.structural")
    theirs = structural.UnobservedComponents(nile[:, 0], "local level")
    results = theirs.smooth([15099.0, 1469.1])
    ours = KalmanSmoother.from_parameters(
        transition_matrix=[[1.0]], transition_covariance=1469.1, observation_matrix=[[1.0]],
        observation_covariance=15099.0, initial_state_mean=[0.0], initial_state_covariance=1e6,
    ).innovations(nile)  # fmt: skip
    f = results.filter_results
    assert_allclose(ours.raw[:, 0], f.forecasts_error[0], rtol=1e-9)
    assert_allclose(ours.covariances[:, 0, 0], f.forecasts_error_cov[0, 0], rtol=1e-9)
    assert_allclose(ours.standardised[:, 0], f.standardized_forecasts_error[0], rtol=1e-9)


def test_innovations_of_what_was_certain_and_with_inputs(nile):
    constant = KalmanSmoother.from_parameters(
        transition_matrix=[[1.0]], transition_covariance=0.0, observation_matrix=[[1.0], [1.0]],
        observation_covariance=0.0, initial_state_mean=[0.0], initial_state_covariance=4.0,
    )  # fmt: skip
    _, covariances, z = constant.innovations([[3.0, 3.0], [3.0, np.nan], [3.0, 3.0]])
    assert_allclose(z, [[1.5, 0.0], [0.0, np.nan], [0.0, 0.0]], atol=1e-7)
    assert_allclose(covariances[0], 4.0)
    with pytest.raises(ValueError, match="step 1 of sequence 0"):
        constant.innovations([[3.0, 3.0], [2.0, 3.0]])
    rng = np.random.default_rng(0)
    U = rng.normal(size=(len(nile), 2))
    for inputs_to, rows in (("state", 1), ("observation", 1)):
        model = KalmanSmoother.from_parameters(
            transition_matrix=[[0.9]], transition_covariance=2.0, observation_matrix=[[1.0]],
            observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=4.0,
            input_matrix=np.full((rows, 2), 3.0), inputs_to=inputs_to,
        )  # fmt: skip
        shift = U @ [3.0, 3.0]
        if inputs_to == "state":
            for t in range(1, len(U)):
                shift[t] = 0.9 * (shift[t - 1] if t > 1 else 0.0) + U[t] @ [3.0, 3.0]
            shift[0] = 0.0
        plain = KalmanSmoother.from_parameters(
            transition_matrix=[[0.9]], transition_covariance=2.0, observation_matrix=[[1.0]],
            observation_covariance=1.0, initial_state_mean=[0.0], initial_state_covariance=4.0,
        )  # fmt: skip
        expected = plain.innovations(nile - shift[:, None])
        assert_allclose(model.innovations(nile, inputs=U).raw, expected.raw, rtol=1e-9, atol=1e-7)


# ---------------------------------------------------------------------------------------------
# Standard errors


LEVEL = {
    "transition_matrix_init": [[1.0]], "observation_matrix_init": [[1.0]],
    "observation_offset_init": [0.0], "initial_state_mean_init": [0.0],
    "initial_state_covariance_init": 1e7,
    "fixed": ("transition_matrix", "observation_matrix", "observation_offset",
              "initial_state_mean", "initial_state_covariance"),
}  # fmt: skip


def hessian(function, x, steps):
    """Plain central differences, four corners a pair."""
    K = len(x)
    result = np.empty((K, K))
    for i in range(K):
        for j in range(K):
            a, b = steps[i] * np.eye(K)[i], steps[j] * np.eye(K)[j]
            result[i, j] = (
                function(x + a + b) - function(x + a - b) - function(x - a + b)
                + function(x - a - b)
            ) / (4 * steps[i] * steps[j])  # fmt: skip
    return result


def test_the_nile_against_statsmodels(nile):
    """Durbin and Koopman's local level, 15099 and 1469.1; observed information of the same model in
    statsmodels, by its complex-step Hessian."""
    mlemodel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel")

    class Level(mlemodel.MLEModel):
        def __init__(self):
            super().__init__(nile[:, 0], k_states=1)
            self["design", 0, 0] = self["transition", 0, 0] = self["selection", 0, 0] = 1.0
            self.ssm.initialize_known(np.zeros(1), np.array([[1e7]]))

        param_names = ("noise", "level")
        start_params = np.array([15099.0, 1469.1])

        def update(self, params, **kwargs):
            params = super().update(params, **kwargs)
            self["obs_cov", 0, 0], self["state_cov", 0, 0] = params

    fitted = KalmanSmoother(1, tol=1e-12, max_iter=2000, reg_covar=1e-9, **LEVEL).fit(nile)
    errors = fitted.standard_errors(nile)
    noise, level = fitted.observation_covariance_[0, 0], fitted.transition_covariance_[0, 0]
    assert_allclose([noise, level], [15099, 1469], rtol=2e-3)
    theirs = Level().smooth([noise, level], cov_type="approx", cov_kwds={"approx_centered": True})
    ours = [errors.observation_covariance[0, 0], errors.transition_covariance[0, 0]]
    assert_allclose(ours, theirs.bse, rtol=1e-3)
    for name in LEVEL["fixed"]:
        assert_array_equal(getattr(errors, name), 0.0)
    assert errors.input_matrix is None


def test_errors_are_those_of_a_plain_hessian():
    """Every kind of parameter at once, against differences of score_sequences."""
    truth = reference.random_model(5, 2, 2, diag=True)
    truth["B"] = np.eye(2)
    X = [reference.simulate(truth, 120, i, 0.1)[0] for i in range(4)]
    rng = np.random.default_rng(0)
    U = [rng.normal(size=(len(part), 1)) for part in X]
    start = {
        "observation_matrix_init": np.eye(2), "initial_state_covariance_init": truth["covariance"],
        "transition_matrix_init": truth["A"],
    }  # fmt: skip
    held = {"observation_matrix": True, "initial_state_covariance": True,
            "transition_matrix": np.array([[False, False], [True, False]])}  # fmt: skip
    fitted = KalmanSmoother(2, fixed=held, tol=1e-11, max_iter=3000, **start).fit(X, inputs=U)
    errors = fitted.standard_errors(X, inputs=U)

    names = ("transition_matrix", "transition_covariance", "observation_matrix",
             "observation_covariance", "observation_offset", "initial_state_mean",
             "initial_state_covariance", "input_matrix")  # fmt: skip
    base = {name: getattr(fitted, f"{name}_") for name in names}
    free = [
        *(("transition_matrix", [e]) for e in ((0, 0), (0, 1), (1, 1))),
        *(("transition_covariance", e) for e in ([(0, 0)], [(1, 0), (0, 1)], [(1, 1)])),
        *(("observation_covariance", [(i, i)]) for i in range(2)),
        *(("observation_offset", [(i,)]) for i in range(2)),
        *(("initial_state_mean", [(i,)]) for i in range(2)),
        *(("input_matrix", [(i, 0)]) for i in range(2)),
    ]

    def log_likelihood(vector):
        values = {name: value.copy() for name, value in base.items()}
        for (name, entries), move in zip(free, vector):
            for entry in entries:
                values[name][entry] += move
        return KalmanSmoother.from_parameters(**values).score_sequences(X, inputs=U).sum()

    expected_sizes = np.array([getattr(errors, name)[entries[0]] for name, entries in free])
    information = -hessian(log_likelihood, np.zeros(len(free)), 0.02 * expected_sizes)
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    assert_allclose(expected_sizes, expected, rtol=2e-3)
    assert errors.transition_matrix[1, 0] == 0.0
    assert_array_equal(errors.transition_covariance, errors.transition_covariance.T)


def test_errors_without_fixed_parameters():
    """Within the coordinates that fit chooses: what no coordinates change has the errors that it
    has in any others."""
    truth = reference.random_model(6, 2, 4, diag=True)
    X = reference.simulate(truth, 400, 0)[0]
    fitted = KalmanSmoother(2, initial_state="stationary", tol=1e-11, max_iter=3000).fit(X)
    errors = fitted.standard_errors(X)
    assert_array_equal(errors.transition_covariance, 0.0)
    # turned so that B[0, 1] = 0, which is held, as is Gamma = I
    angle = np.arctan2(fitted.observation_matrix_[0, 1], fitted.observation_matrix_[0, 0])
    T = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    B = fitted.observation_matrix_ @ T.T
    B[0, 1] = 0.0
    mask = np.zeros((4, 2), dtype=bool)
    mask[0, 1] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        turned = KalmanSmoother(
            2, initial_state="stationary", max_iter=0, observation_matrix_init=B,
            transition_matrix_init=T @ fitted.transition_matrix_ @ T.T,
            transition_covariance_init=np.eye(2),
            observation_covariance_init=fitted.observation_covariance_,
            observation_offset_init=fitted.observation_offset_,
            fixed={"observation_matrix": mask, "transition_covariance": True},
        ).fit(X)  # fmt: skip
    assert_allclose(turned.score(X), fitted.score(X), rtol=1e-9)
    other = turned.standard_errors(X)
    for name in ("observation_covariance", "observation_offset"):
        assert_allclose(getattr(errors, name), getattr(other, name), rtol=1e-3)
    assert np.all(errors.initial_state_covariance > 0)  # it moves with A


def test_edge_elsewhere_and_what_cannot_be_told(nile):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(81, 1))
    white = noise[1:] - 0.5 * noise[:-1]  # no level beneath: its variance would be negative
    fitted = KalmanSmoother(1, tol=1e-12, max_iter=2000, **LEVEL).fit(white)
    with pytest.warns(ConvergenceWarning, match="1 variances or covariances are at the edge"):
        errors = fitted.standard_errors(white)
    assert np.isnan(errors.transition_covariance[0, 0])
    # the other is that of a sample variance
    variance = fitted.observation_covariance_[0, 0]
    assert_allclose(errors.observation_covariance[0, 0], variance * np.sqrt(2 / 79), rtol=0.01)
    level = KalmanSmoother(1, **LEVEL).fit(nile)
    with pytest.warns(ConvergenceWarning, match="not at its maximum: a Newton step would gain"):
        level.standard_errors(nile[:60])
    two = KalmanSmoother(2, fixed="observation_offset", observation_offset_init=[900.0], max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        two.fit(nile)
        with pytest.raises(ValueError, match="observed information is not positive definite"):
            two.standard_errors(nile)
    model = reference.random_model(1, 1, 1)
    with pytest.raises(ValueError, match="from_parameters does not say which"):
        known(model).standard_errors(nile[:N_TIMES])
