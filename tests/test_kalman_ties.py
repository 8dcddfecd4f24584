"""Entries of a parameter that are learned together (`fixed` with names)."""

import numpy as np
import pytest
import references_kalman as reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from test_kalman_time_axis_learning import PARAMETERS, fitted_model, iterate

from sklseq import KalmanSmoother

TIES = {
    "A": np.array([["c", "s"], ["s", "c"]]),
    "Q": np.array([["q", ""], ["", "q"]]),
    "B": np.array([["b", ""], ["b", "e"], ["", "b"]]),
    "R": np.array([["r", "", ""], ["", "r", ""], ["", "", "u"]]),
    "offset": np.array(["o", "o", ""]),
}
NOISE = {"Q": np.array([["q", "k"], ["k", "q"]]), "R": TIES["R"]}


def example(diag=True, missing=0.2):
    model = reference.random_model(51, 2, 3, diag=diag)
    model["A"] = np.array([[0.8, 0.4], [-0.4, 0.8]])
    model["Q"] = np.array([[1.0, 0.0], [0.0, 2.0]])
    model["B"] = np.array([[1.0, 0.3], [-2.0, 0.5], [0.0, 0.5]])
    model["offset"] = np.array([1.0, 2.0, 0.3])
    X = [reference.simulate(model, n, n, missing)[0] for n in (12, 1, 9)]
    return model, X


def estimator_of(model, ties, *, diag, **params):
    given = {f"{PARAMETERS[key]}_init": model[key] for key in PARAMETERS}
    fixed = {PARAMETERS[key]: names for key, names in ties.items()}
    return KalmanSmoother(
        2, observation_covariance_type="diag" if diag else "full", fixed=fixed, reg_covar=1e-9,
        **given, **params,
    )  # fmt: skip


def groups(names):
    return [np.argwhere(names == name) for name in np.unique(names[names != ""])]


@pytest.mark.parametrize("diag, missing", [(True, 0.3), (False, 0.0)])
@pytest.mark.parametrize("key", list(TIES))
def test_m_step_is_the_maximum_along_the_ties(key, diag, missing):
    """Against a search over the tied entries of the expected density of the dense joint."""
    model, X = example(diag, missing)
    names = TIES[key]
    if key == "R" and not diag:
        model["R"] = np.diag(np.diag(model["R"]))
    held = {name: True for other, name in PARAMETERS.items() if other != key}
    estimator = estimator_of(model, {key: names}, diag=diag)
    estimator.set_params(fixed={**held, **estimator.fixed})
    got = fitted_model(iterate(estimator, X))
    assert_array_equal(got[key][names == ""], model[key][names == ""])
    for entries in groups(names):
        ratios = got[key][tuple(entries.T)] / model[key][tuple(entries.T)]
        assert_allclose(ratios, ratios[0], rtol=1e-10)

    def loss(logs_or_factors):
        new = model[key].copy()
        for entries, factor in zip(groups(names), logs_or_factors):
            new[tuple(entries.T)] = model[key][tuple(entries.T)] * factor
        if key in "QR" and np.linalg.eigvalsh(new)[0] <= 0:
            return np.inf
        return -reference.expected_log_density(model, model | {key: new}, X)

    start = np.ones(len(groups(names)))
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-11})
    factors = [
        (got[key][tuple(entries[0])] / model[key][tuple(entries[0])]) for entries in groups(names)
    ]
    assert_allclose(factors, best.x, rtol=1e-4, atol=1e-4)
    assert loss(start) > best.fun + 1e-4


@pytest.mark.parametrize("diag", [True, False])
@pytest.mark.parametrize("acceleration", ["squarem", None])
@pytest.mark.parametrize("initial_state", ["learn", "stationary"])
def test_likelihood_never_falls(diag, acceleration, initial_state):
    model, X = example(diag)
    if not diag:
        model["R"] = np.diag(np.diag(model["R"]))
    ties = TIES | ({} if diag else {"Q": NOISE["Q"]})
    estimator = estimator_of(model, ties, diag=diag)
    if initial_state == "stationary":
        estimator.set_params(
            initial_state="stationary", initial_state_mean_init=None,
            initial_state_covariance_init=None,
        )  # fmt: skip
    estimator.set_params(acceleration=acceleration, max_iter=25, tol=0.0)
    with pytest.warns(match="did not converge"):
        estimator.fit(X)
    path = estimator.log_likelihoods_
    assert path[-1] > path[0] + 0.01
    assert np.all(np.diff(path) >= -1e-10 * np.maximum(1, np.abs(path[:-1])))
    A = estimator.transition_matrix_
    assert_allclose([A[0, 0], A[0, 1]], [A[1, 1], -A[1, 0]], rtol=1e-9)
    total = sum(reference.joint(fitted_model(estimator), part).log_likelihood for part in X)
    assert_allclose(path[-1] * sum(map(len, X)), total, rtol=1e-8)


def test_the_stochastic_cycle_reaches_the_maximum():
    """A cycle of period 12 with one variance, started in its stationary distribution: as far as a
    general optimiser on the exact likelihood."""
    rng = np.random.default_rng(0)
    angle, n = 2 * np.pi / 12, 200
    A = 0.95 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    s, X = np.zeros(2), np.empty((n, 1))
    for t in range(n):
        s = A @ s + 0.5 * rng.normal(size=2)
        X[t] = s[0] + 0.3 * rng.normal()
    estimator = KalmanSmoother(
        2, initial_state="stationary", tol=1e-10, max_iter=2000,
        transition_matrix_init=[[0.7, 0.4], [-0.4, 0.7]], transition_covariance_init=[1.0, 1.0],
        observation_matrix_init=[[1.0, 0.0]], observation_offset_init=[0.0],
        fixed={"transition_matrix": [["c", "s"], ["s", "c"]],
               "transition_covariance": [["q", ""], ["", "q"]],
               "observation_matrix": True, "observation_offset": True},
    ).fit(X)  # fmt: skip

    def loss(vector):
        c, s, q, r = vector
        variance = np.exp(q) / (1 - c * c - s * s) if c * c + s * s < 1 else 0.0
        if not variance:
            return 1e9
        return -KalmanSmoother.from_parameters(
            transition_matrix=[[c, s], [-s, c]], transition_covariance=np.exp(q),
            observation_matrix=[[1.0, 0.0]], observation_covariance=np.exp(r),
            initial_state_mean=[0.0, 0.0], initial_state_covariance=variance,
        ).score_sequences(X)[0]  # fmt: skip

    here = [
        *estimator.transition_matrix_[0], np.log(estimator.transition_covariance_[0, 0]),
        np.log(estimator.observation_covariance_[0, 0]),
    ]  # fmt: skip
    assert_allclose(loss(here), -estimator.score_sequences(X)[0], rtol=1e-9)
    for start in (here, [0.7, 0.4, 0.0, -1.0]):
        best = minimize(loss, start, method="Nelder-Mead",
                        options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 2000})  # fmt: skip
        assert loss(here) < best.fun + 1e-4
    assert estimator._n_free_parameters() == 4
    errors = estimator.standard_errors(X)
    assert_allclose(errors.transition_matrix[0], errors.transition_matrix[1, ::-1], rtol=1e-12)
    assert errors.transition_covariance[0, 1] == 0.0 < errors.transition_covariance[1, 1]


@pytest.mark.parametrize(
    "key, names, message",
    [
        ("A", [["a", "a"], ["", ""]], "all or none must start at 0"),
        ("A", [["a", "a"]], r"a boolean mask of shape \(2, 2\)"),
        ("Q", [["a", "b"], ["c", "d"]], "must be symmetric"),
        ("R", [["a", "b", ""], ["b", "", ""], ["", "", ""]], "names off the diagonal"),
        ("mean", ["a", "a"], "fixed may tie entries of"),
    ],
)
def test_bad_ties_say_what_is_wrong(key, names, message):
    model, X = example()
    model["A"] = np.diag([0.5, 0.5])
    with pytest.raises(ValueError, match=message):
        estimator_of(model, {key: names}, diag=True).fit(X)


def cycle(**params):
    return KalmanSmoother(
        2, transition_matrix_init=[[0.9, 0.3], [-0.3, 0.9]], observation_matrix_init=[[1.0, 0.0]],
        max_iter=8, **params,
    )  # fmt: skip


CYCLE = {"transition_matrix": [["c", "s"], ["s", "c"]], "observation_matrix": True}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_ties_are_those_of_the_fit_and_bind_a_warm_start():
    X = np.cumsum(np.random.default_rng(0).normal(size=(60, 1)), axis=0)
    fitted = cycle(fixed=CYCLE).fit(X)
    expected = fitted.bic(X)
    assert fitted.set_params(transition_matrix_init=None).bic(X) == expected
    untied = cycle(fixed={"observation_matrix": True}, warm_start=True).fit(X)
    with pytest.raises(ValueError, match="which fixed ties, are not in the ratios"):
        untied.set_params(fixed=CYCLE).fit(X)
    again = cycle(fixed=CYCLE, warm_start=True).fit(X).fit(X).transition_matrix_
    np.testing.assert_allclose(again, [again[0], [-again[0, 1], again[0, 0]]], rtol=1e-12)


def test_names_may_be_objects_and_have_the_shape_of_the_matrix():
    X = np.random.default_rng(0).normal(size=(30, 1))
    names = np.array(CYCLE["transition_matrix"], dtype=object)
    params = {"max_iter": 1, "tol": 1.0}
    a = cycle(fixed=CYCLE | {"transition_matrix": names}).set_params(**params).fit(X)
    b = cycle(fixed=CYCLE).set_params(**params).fit(X)
    np.testing.assert_array_equal(a.transition_matrix_, b.transition_matrix_)
    with pytest.raises(ValueError, match=r"a name for each entry of transition_matrix_init"):
        cycle(fixed=CYCLE | {"transition_matrix": "a"}).fit(X)


def test_a_stream_from_known_parameters_holds_what_is_fixed():
    X = np.cumsum(np.random.default_rng(0).normal(size=(60, 1)), axis=0)
    known = {
        "transition_matrix": [[0.7]], "transition_covariance": 1.0, "observation_matrix": [[1.0]],
        "observation_covariance": 1.0, "initial_state_mean": [0.0], "initial_state_covariance": 1.0,
    }  # fmt: skip
    held = {"fixed": "transition_matrix", "transition_matrix_init": [[0.7]]}
    model = KalmanSmoother.from_parameters(**known, **held).partial_fit(X)
    np.testing.assert_array_equal(model.transition_matrix_, [[0.7]])
    assert model.observation_covariance_[0, 0] != 1.0
    assert KalmanSmoother.from_parameters(**known).partial_fit(X).transition_matrix_[0, 0] != 0.7
