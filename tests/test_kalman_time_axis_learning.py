"""Learning the rest of a KalmanSmoother whose A, Gamma, B or Sigma is known step by step."""

import warnings

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime, minimize
from sklearn.exceptions import ConvergenceWarning
from test_kalman_time_axis import N_TIMES, known, sequences_of, timed

from sklseq import KalmanSmoother

PARAMETERS = {
    "A": "transition_matrix", "Q": "transition_covariance", "B": "observation_matrix",
    "R": "observation_covariance", "offset": "observation_offset", "mean": "initial_state_mean",
    "covariance": "initial_state_covariance",
}  # fmt: skip


def learner(model, fixed, *, diag, **params):
    """An estimator that starts at a reference model."""
    given = {f"{PARAMETERS[key]}_init": value for key, value in model.items()}
    return KalmanSmoother(
        len(model["mean"]), observation_covariance_type="diag" if diag else "full",
        fixed=fixed, reg_covar=1e-9, **given, **params,
    )  # fmt: skip


def fitted_model(estimator):
    return {key: getattr(estimator, f"{name}_") for key, name in PARAMETERS.items()}


def iterate(estimator, X, n_iter=1, **kwargs):
    estimator.set_params(max_iter=n_iter, acceleration=None, tol=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, **kwargs)


@pytest.mark.parametrize("diag, missing", [(True, 0.3), (False, 0.0), (True, 0.0)])
@pytest.mark.parametrize("axes", ["A", "Q", "B", "R", "AQ", "BR", "AQBR", "QB"])
def test_m_step_is_the_maximum_of_the_expected_density(axes, diag, missing):
    """Coefficients under the noise of before, then the noise: no slope is left in either."""
    model = timed(21, 2, 3, axes, diag=diag)
    X = sequences_of(3, lengths=(8, 1, 5), missing=missing)
    fixed = tuple(PARAMETERS[axis] for axis in axes)
    got = fitted_model(iterate(learner(model, fixed, diag=diag), X))
    for axis in axes:
        assert_array_equal(got[axis], model[axis])
    coefficients = {key: got[key] for key in ("A", "B", "offset", "mean")}

    def slope_of(base, key):
        """By the entries of one parameter; of a covariance the symmetric ones."""
        shape = base[key].shape
        free = np.diag_indices(shape[0]) if key == "R" and diag else np.indices(shape)
        if key in ("Q", "R", "covariance") and not (key == "R" and diag):
            free = np.tril_indices(shape[0])

        def value(entries):
            new = base[key].copy()
            new[tuple(free)] = entries.reshape(new[tuple(free)].shape)
            if key in ("Q", "R", "covariance"):
                new.T[tuple(free)] = new[tuple(free)]
            return reference.expected_log_density(model, base | {key: new}, X)

        return approx_fprime(base[key][tuple(free)].ravel(), value, 1e-6)

    old_noise = model | coefficients
    for key in coefficients:
        if key not in axes:
            assert_allclose(slope_of(old_noise, key), 0.0, atol=2e-3)
            assert np.abs(slope_of(model, key)).max() > 0.05  # before it was not there
    for key in ("Q", "R"):
        if key not in axes:
            assert_allclose(slope_of(got, key), 0.0, atol=2e-3)


@pytest.mark.parametrize("diag", [True, False])
@pytest.mark.parametrize("axes", ["A", "Q", "B", "R", "AQBR"])
@pytest.mark.parametrize("acceleration", ["squarem", None])
def test_likelihood_never_falls(axes, diag, acceleration):
    model = timed(22, 2, 3, axes, diag=diag)
    X = sequences_of(3, seed=1, missing=0.3)
    estimator = learner(
        model, tuple(PARAMETERS[axis] for axis in axes), diag=diag, max_iter=25, tol=0.0,
        acceleration=acceleration,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X)
    path = estimator.log_likelihoods_
    assert path[-1] > path[0] + 0.01
    assert np.all(np.diff(path) >= -1e-10 * np.maximum(1, np.abs(path[:-1])))
    # the value at the end, by the joint distribution
    total = sum(reference.joint(fitted_model(estimator), part).log_likelihood for part in X)
    assert_allclose(path[-1] * sum(map(len, X)), total, rtol=1e-8)
    assert_allclose(estimator.score(X), path[-1], rtol=1e-8)


def test_a_process_sampled_at_irregular_times():
    """An Ornstein-Uhlenbeck process: A and Gamma follow from the gaps, scale and noise are learned;
    the maximum is that of a general optimiser."""
    rng = np.random.default_rng(0)
    n = 80
    gaps = rng.uniform(0.2, 2.0, size=n)
    A = np.exp(-0.3 * gaps)[:, None, None]
    Gamma = 1 - A**2
    s = np.zeros(n)
    s[0] = rng.normal()
    for t in range(1, n):
        s[t] = A[t, 0, 0] * s[t - 1] + np.sqrt(Gamma[t, 0, 0]) * rng.normal()
    X = (2 + 1.5 * s + 0.4 * rng.normal(size=n))[:, None]
    X[30:33] = np.nan
    start = {
        "transition_matrix_init": A, "transition_covariance_init": Gamma,
        "initial_state_mean_init": [0.0], "initial_state_covariance_init": 1.0,
    }  # fmt: skip
    fixed = tuple(name.removesuffix("_init") for name in start)
    estimator = KalmanSmoother(1, fixed=fixed, tol=1e-11, max_iter=3000, **start).fit(X)

    def loss(vector):
        b, offset, log_noise = vector
        model = {
            "A": A, "Q": Gamma, "B": np.array([[b]]), "R": np.array([[np.exp(log_noise)]]),
            "offset": np.array([offset]), "mean": np.zeros(1), "covariance": np.eye(1),
        }  # fmt: skip
        return -known(model).score_sequences(X)[0]

    best = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead",
                    options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 1000})  # fmt: skip
    assert_allclose(estimator.score_sequences(X)[0], -best.fun, atol=1e-5)
    assert_allclose(abs(estimator.observation_matrix_[0, 0]), abs(best.x[0]), rtol=1e-3)
    assert_allclose(estimator.observation_covariance_[0, 0], np.exp(best.x[2]), rtol=1e-2)
    # the three known ones do not count
    assert estimator._n_free_parameters() == 3


def test_free_entries_beside_known_rows():
    """By a mask: known regressors in one column of B, a loading learned in the other."""
    rng = np.random.default_rng(1)
    n = 150
    Z = rng.normal(size=n)
    level = np.cumsum(0.3 * rng.normal(size=n))
    X = np.column_stack([level + 2.0 * Z, 1.7 * level + 2.0 * Z]) + 0.1 * rng.normal(size=(n, 2))
    B = np.zeros((n, 2, 2))
    B[:, 0] = np.column_stack([np.ones(n), Z])
    B[:, 1, 1] = Z
    B[:, 1, 0] = 0.5  # learned
    estimator = KalmanSmoother(
        2, observation_matrix_init=B, transition_matrix_init=np.eye(2),
        transition_covariance_init=[0.1, 0.1], observation_offset_init=[0.0, 0.0],
        initial_state="diffuse", transition_covariance_type="diag", max_iter=500,
        fixed={
            "observation_matrix": np.array([[True, True], [False, True]]),
            "transition_matrix": True, "observation_offset": True,
        },
    ).fit(X)  # fmt: skip
    learned = estimator.observation_matrix_
    assert_array_equal(learned[:, 0], B[:, 0])
    assert_array_equal(learned[:, 1, 1], Z)
    assert np.ptp(learned[:, 1, 0]) == 0.0
    assert abs(learned[0, 1, 0] - 1.7) < 0.1


def test_weights_known_from_the_sensors():
    """Sigma_t known, the rest of a static regression learned: weighted least squares."""
    rng = np.random.default_rng(2)
    n = 60
    noise = rng.uniform(0.1, 4.0, size=n)
    U = rng.normal(size=(n, 2))
    X = (1.0 + U @ [2.0, -1.0] + np.sqrt(noise) * rng.normal(size=n))[:, None]
    estimator = KalmanSmoother(
        1, inputs_to="observation", observation_covariance_init=noise[:, None, None],
        observation_matrix_init=[[0.0]], transition_matrix_init=[[0.0]],
        transition_covariance_init=1.0,
        fixed=("observation_covariance", "observation_matrix", "transition_matrix",
               "transition_covariance"),
    ).fit(X, inputs=U)  # fmt: skip
    design = np.column_stack([np.ones(n), U]) / np.sqrt(noise)[:, None]
    expected = np.linalg.lstsq(design, X[:, 0] / np.sqrt(noise), rcond=None)[0]
    assert_allclose(estimator.observation_offset_, expected[:1], rtol=1e-7)
    assert_allclose(estimator.input_matrix_[0], expected[1:], rtol=1e-7)


def test_known_states_with_a_time_axis():
    """All states known: the regressions in closed form, weighted by the known noise."""
    model = timed(23, 2, 2, "QR", diag=True)
    rng = np.random.default_rng(3)
    X, S = rng.normal(size=(N_TIMES, 2)), rng.normal(size=(N_TIMES, 2))
    fixed = ("transition_covariance", "observation_covariance")
    estimator = learner(model, fixed, diag=True).fit(X, states=S)
    system, right = np.zeros((4, 4)), np.zeros(4)
    for t in range(1, N_TIMES):
        precision = np.linalg.inv(model["Q"][t])
        system += np.kron(precision, np.outer(S[t - 1], S[t - 1]))
        right += np.kron(precision @ S[t], S[t - 1])
    assert_allclose(estimator.transition_matrix_.ravel(), np.linalg.solve(system, right), rtol=1e-7)
    for j in range(2):
        design = np.column_stack([S, np.ones(N_TIMES)]) / np.sqrt(model["R"][:, j, j])[:, None]
        expected = np.linalg.lstsq(design, X[:, j] / np.sqrt(model["R"][:, j, j]), rcond=None)[0]
        got = np.append(estimator.observation_matrix_[j], estimator.observation_offset_[j])
        assert_allclose(got, expected, rtol=1e-7)


def test_continues_at_the_next_entry():
    model = timed(24, 2, 2, "AQBR", diag=True)
    X = sequences_of(2, lengths=(N_TIMES,), missing=0.2)[0]
    fixed = tuple(PARAMETERS[key] for key in ("A", "Q", "B", "R", "mean", "covariance"))
    estimator = iterate(learner(model, fixed, diag=True, continues=False), X[:10])
    whole = estimator.score_samples(X)
    estimator.set_params(continues=True)
    assert_allclose(estimator.score_samples(X[10:]), whole[10:], rtol=1e-8)
    means, _ = estimator.forecast(X[10:13], 3)
    estimator.set_params(continues=False)
    assert_allclose(means, estimator.forecast(X[:13], 3).means, rtol=1e-8)
    estimator.set_params(continues=True)
    with pytest.raises(ValueError, match="has 6 times, fewer than"):
        estimator.score(np.zeros((7, 2)))


def test_a_stream_of_chunks():
    model = timed(25, 2, 2, "AR", diag=False)
    X = sequences_of(2, lengths=(N_TIMES, 12))
    fixed = ("transition_matrix", "observation_covariance")
    estimator = learner(model, fixed, diag=False).partial_fit([X[0]])
    for part in X:
        estimator.partial_fit([part])
    assert estimator.score(X) > known(model).score(X)
    estimator.set_params(continues=True)
    with pytest.raises(ValueError, match="without a time axis"):
        estimator.partial_fit(X[0]).partial_fit(X[0])


@pytest.mark.parametrize(
    "model, fixed, message",
    [
        (timed(1, 2, 2, "A"), (), "transition_matrix has a time axis, which fit takes as known"),
        (timed(1, 2, 2, "R"), (), "observation_covariance has a time axis, .*: name it in fixed.$"),
        (timed(1, 2, 2, "B"), {"observation_matrix": np.eye(2, dtype=bool)}, "by a mask"),
        (timed(1, 2, 2, "A") | {"Q": np.diag([1.0, 0.0])},
         ("transition_covariance", "transition_matrix", "x"), "fixed may hold"),
        (timed(1, 2, 2, "Q") | {"R": np.diag([1.0, 0.0])},
         ("transition_covariance", "observation_covariance"),
         "observation_matrix is to be learned where observation_covariance has no noise"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_said(model, fixed, message):
    with pytest.raises(ValueError, match=message):
        learner(model, fixed, diag=False).fit(sequences_of(2))


def test_no_noise_at_a_step_and_no_stationary_start():
    model = timed(1, 2, 2, "Q", diag=True)
    model["Q"][4, 1] = model["Q"][4, :, 1] = 0.0
    with pytest.raises(ValueError, match="transition_covariance has no noise at step 4"):
        learner(model, "transition_covariance", diag=True).fit(sequences_of(2))
    fixed = {"transition_covariance": True, "transition_matrix": np.array([[0, 0], [1, 1]], bool)}
    iterate(learner(model, fixed, diag=True), sequences_of(2))
    with pytest.raises(ValueError, match="'stationary' needs a transition without a time axis"):
        KalmanSmoother(
            2, initial_state="stationary", transition_covariance_init=model["Q"],
            fixed="transition_covariance",
        ).fit(sequences_of(2))  # fmt: skip
