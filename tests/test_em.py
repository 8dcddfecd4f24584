"""EM: monotone, equal to the oracle's M-steps, and honest about how it ended."""

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import estimator_class, fitted_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from references import (
    FAMILIES,
    categorical_m_step,
    stationary_distribution,
    stationary_m_step,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from sklseq import CategoricalHMM, GaussianHMM, PoissonHMM
from sklseq._em import run_em
from sklseq._sequences import Sequences
from sklseq.datasets import load_earthquakes, load_seizures
from sklseq.hmm._chain import _tilted_rows


def quietly(model, X, **params):
    """Fit without the warning that max_iter was reached, which these runs are meant to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, **params)


def assert_same_parameters(actual, expected, **tolerance):
    for name, value in expected.items():
        pairs = (
            zip(actual[name], value) if isinstance(value, list) else [(actual[name], value)]
        )
        for got, wanted in pairs:
            np.testing.assert_allclose(got, wanted, err_msg=name, **tolerance)


def flat(value):
    """All numbers of a parameter, also of a list of tables."""
    return np.concatenate([np.ravel(item) for item in value])


def ragged(family, rng, n_states=3, n_features=2, lengths=(9, 1, 25, 2)):
    truth = family.random_parameters(rng, n_states, n_features)
    return [family.sample(rng, n, truth) for n in lengths]


# --- Against the oracle -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("n_iter", [1, 7])
def test_em_iterates_equal_the_oracle(family, rng, started, n_iter, missing):
    sequences = ragged(family, rng)
    if missing:
        sequences[0][2] = np.nan
        sequences[0][4, 1] = np.nan
        sequences[1][0, 0] = np.nan
        sequences[2][rng.random(sequences[2].shape) < 0.2] = np.nan
    parameters = family.random_parameters(rng, 3, 2)
    model = quietly(started(parameters, max_iter=n_iter, tol=0.0), sequences)
    assert model.n_iter_ == n_iter
    history = []
    for _ in range(n_iter):
        parameters, log_likelihood = family.em_step(sequences, parameters)
        history.append(log_likelihood)
    history.append(family.log_likelihood(sequences, parameters))
    n_steps = sum(map(len, sequences))
    assert_same_parameters(fitted_parameters(model, parameters), parameters, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(model.log_likelihoods_, np.array(history) / n_steps, rtol=1e-9)


@given(
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(1, 4),
    n_features=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    missing=st.sampled_from([0.0, 0.3]),
    initial_state=st.sampled_from(["learn", "stationary"]),
)
@settings(max_examples=60)
def test_em_never_falls(family, seed, n_states, n_features, lengths, missing, initial_state):
    rng = np.random.default_rng(seed)
    truth = family.random_parameters(rng, n_states, n_features)
    sequences = [family.sample(rng, n, truth) for n in lengths]
    for X in sequences:
        X[rng.random(X.shape) < missing] = np.nan
    if np.isnan(np.concatenate(sequences)).all(axis=0).any():
        sequences[0][0] = 1.0  # a column with nothing observed is not what this test is about
    start = family.random_parameters(rng, n_states, n_features)
    if initial_state == "stationary":
        del start["startprob"]
    model = estimator_class(family)(
        n_states,
        initial_state=initial_state,
        **{f"{name}_init": value for name, value in start.items()},
        **family.estimator_parameters,
        max_iter=30,
        tol=0.0,
    )
    quietly(model, sequences)
    gains = np.diff(model.objectives_)
    assert np.all(gains >= -1e-9 * (1 + np.abs(model.objectives_[:-1])))
    np.testing.assert_array_equal(model.objectives_, model.log_likelihoods_)  # no prior here


def test_the_history_belongs_to_the_parameters(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    model = quietly(started(start, max_iter=12), sequences)
    assert model.log_likelihoods_.shape == (model.n_iter_ + 1,)
    assert model.objectives_.shape == (model.n_iter_ + 1,)
    n_steps = sum(map(len, sequences))
    first = family.log_likelihood(sequences, start) / n_steps
    assert model.log_likelihoods_[0] == pytest.approx(first, rel=1e-10)
    assert model.log_likelihoods_[-1] == pytest.approx(model.score(sequences), rel=1e-10)
    assert model.log_likelihood_ == model.log_likelihoods_[-1]


def test_max_iter_zero_is_the_start(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    model = quietly(started(start, max_iter=0), sequences)
    assert model.n_iter_ == 0
    assert_same_parameters(fitted_parameters(model, start), start, rtol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_equal_rows_of_the_transition_matrix_make_a_gaussian_mixture(rng, covariance_type):
    X = rng.normal(size=(200, 3)) + rng.integers(0, 3, 200)[:, None] * 2.5
    weights, means = np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 3))
    shapes = {
        "full": np.repeat(np.eye(3)[None], 3, 0),
        "tied": np.eye(3),
        "diag": np.ones((3, 3)),
        "spherical": np.ones(3),
    }
    mixture = GaussianMixture(
        3,
        covariance_type=covariance_type,
        weights_init=weights,
        means_init=means,
        precisions_init=shapes[covariance_type],
        max_iter=1,
        reg_covar=0.0,
    )
    chain = GaussianHMM(
        3,
        covariance_type=covariance_type,
        startprob_init=weights,
        transmat_init=np.tile(weights, (3, 1)),
        means_init=means,
        covars_init=shapes[covariance_type],
        max_iter=1,
    )
    quietly(mixture, X)
    quietly(chain, X)
    np.testing.assert_allclose(chain.means_, mixture.means_, rtol=1e-9)
    np.testing.assert_allclose(chain.covars_, mixture.covariances_, rtol=1e-8, atol=1e-10)

    independent = GaussianHMM.from_parameters(
        startprob=mixture.weights_,
        transmat=np.tile(mixture.weights_, (3, 1)),
        means=mixture.means_,
        covars=mixture.covariances_,
        covariance_type=covariance_type,
    )
    np.testing.assert_allclose(
        independent.score_samples(X), mixture.score_samples(X), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(independent.predict_proba(X), mixture.predict_proba(X), atol=1e-10)
    np.testing.assert_array_equal(independent.predict(X), mixture.predict(X))


def test_stationary_start_one_m_step(rng):
    """The transition matrix also moves the start distribution: compare with a numeric maximum."""
    family = next(f for f in FAMILIES if f.name == "poisson")
    start = family.random_parameters(rng, 3, 1)
    start["startprob"] = stationary_distribution(start["transmat"])
    sequences = [family.sample(rng, n, start) for n in (4, 6, 3, 5, 4, 2)]
    model = PoissonHMM(
        3,
        transmat_init=start["transmat"],
        rates_init=start["rates"],
        initial_state="stationary",
        max_iter=1,
    )
    quietly(model, sequences)
    smoothed = [family.smooth(X, start) for X in sequences]
    expected = stationary_m_step(smoothed, start["transmat"])
    np.testing.assert_allclose(model.transmat_, expected, atol=2e-5)
    np.testing.assert_allclose(
        model.startprob_, stationary_distribution(model.transmat_), atol=1e-10
    )
    long_run = quietly(model.set_params(max_iter=20, tol=0.0), sequences)
    assert np.all(np.diff(long_run.objectives_) >= -1e-10)


def test_stationary_start_with_many_short_sequences():
    """59 starts against 177 transitions: the start's term is no small correction here."""
    sequences = load_seizures().sequences
    model = PoissonHMM(5, initial_state="stationary", random_state=0).fit(sequences)
    assert model.converged_
    np.testing.assert_allclose(model.startprob_ @ model.transmat_, model.startprob_, atol=1e-10)
    assert np.all(np.diff(model.objectives_) >= -1e-12)
    free = PoissonHMM(5, random_state=0, n_init=10).fit(sequences)
    assert model.score(sequences) < free.score(sequences)
    assert model.score(sequences) > free.score(sequences) - 0.1


def test_stationary_needs_one_stationary_distribution():
    model = PoissonHMM(
        2, transmat_init=np.eye(2), rates_init=[[1.0], [5.0]], initial_state="stationary"
    )
    with pytest.raises(ValueError, match="stationary"):
        model.fit(load_earthquakes().data)
    # a start of its own would be ignored in silence
    model = PoissonHMM(2, startprob_init=[0.5, 0.5], initial_state="stationary")
    with pytest.raises(ValueError, match="startprob_init"):
        model.fit(load_earthquakes().data)


# --- Endings -----------------------------------------------------------------------------------


def test_converged(rng):
    X = np.concatenate([rng.normal(size=(60, 1)), rng.normal(loc=8, size=(60, 1))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = GaussianHMM(2, random_state=0).fit(X)
    assert model.converged_
    assert 0 < model.n_iter_ < 200
    assert model.objectives_[-1] - model.objectives_[-2] < model.tol


def test_max_iter_reached_warns_once(rng):
    X = rng.normal(size=(200, 2))
    model = GaussianHMM(3, max_iter=2, tol=1e-12, random_state=0)
    with pytest.warns(ConvergenceWarning, match="max_iter") as record:
        model.fit(X)
    assert len(record) == 1
    assert not model.converged_
    assert model.n_iter_ == 2


def test_tol_does_not_depend_on_the_amount_of_data(family, rng, started):
    start = family.random_parameters(rng, 2, 1)
    X = family.sample(rng, 60, start)
    other = family.random_parameters(rng, 2, 1)
    once = started(other, max_iter=500).fit([X])
    often = started(other, max_iter=500).fit([X] * 50)
    assert once.n_iter_ == often.n_iter_
    np.testing.assert_allclose(once.log_likelihoods_, often.log_likelihoods_, rtol=1e-8)


# --- Starts ------------------------------------------------------------------------------------


def test_more_starts_are_never_worse(rng):
    X = load_earthquakes().data
    few = quietly(PoissonHMM(4, n_init=1, random_state=3), X)
    many = quietly(PoissonHMM(4, n_init=8, random_state=3), X)
    assert many.objectives_[-1] >= few.objectives_[-1] - 1e-3


def test_random_state_fixes_the_result(family, rng):
    sequences = ragged(family, rng, lengths=(40, 30))
    make = estimator_class(family)
    one = quietly(make(3, random_state=7, **family.estimator_parameters), sequences)
    two = quietly(make(3, random_state=7, **family.estimator_parameters), sequences)
    np.testing.assert_array_equal(one.transmat_, two.transmat_)
    np.testing.assert_array_equal(one.log_likelihoods_, two.log_likelihoods_)


def test_n_jobs_changes_no_bit_of_a_fit(rng, monkeypatch):
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 16_384)
    base = rng.normal(size=(40_000, 2)) + (np.arange(40_000) // 500 % 2)[:, None]
    sequences = np.split(base, np.arange(800, 40_000, 800))
    models = [
        quietly(GaussianHMM(2, n_jobs=n_jobs, max_iter=4, n_init=2, random_state=0), sequences)
        for n_jobs in (None, 1, 2)
    ]
    for model in models[1:]:
        for name in ("startprob_", "transmat_", "means_", "covars_", "log_likelihoods_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(models[0], name))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_backend_of_joblib_changes_no_bit(rng, backend, monkeypatch):
    """Where the user has chosen a backend the shards go there."""
    monkeypatch.setattr("sklseq.hmm._chain.SOURCE_SHARD_STEPS", 16_384)
    sequences = [rng.normal(size=(9000, 2)) + i for i in range(4)]
    params = {"n_jobs": 2, "max_iter": 2, "n_init": 1, "random_state": 0}
    here = quietly(GaussianHMM(2, **params), sequences)
    with parallel_config(backend):
        there = quietly(GaussianHMM(2, **params), sequences)
        score = there.score(sequences)
    np.testing.assert_array_equal(there.means_, here.means_)
    np.testing.assert_array_equal(there.log_likelihoods_, here.log_likelihoods_)
    assert score == here.score(sequences)


def test_order_of_sequences_does_not_matter(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    one = quietly(started(start, max_iter=5, tol=0.0), sequences)
    two = quietly(started(start, max_iter=5, tol=0.0), sequences[::-1])
    expected = fitted_parameters(one, start)
    assert_same_parameters(fitted_parameters(two, start), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_shift_and_scale_of_x(rng, covariance_type):
    """X -> a X + b moves the means, scales the covariances, and costs log |a| a number."""
    family = next(f for f in FAMILIES if f.name == f"gaussian-{covariance_type}")
    sequences = ragged(family, rng, lengths=(40, 25))
    make = {"covariance_type": covariance_type, "random_state": 0, "max_iter": 20, "tol": 0.0}
    a, b = 16.0, 1000.0
    one = quietly(GaussianHMM(3, **make), sequences)
    two = quietly(GaussianHMM(3, **make), [a * X + b for X in sequences])
    np.testing.assert_allclose(two.means_, a * one.means_ + b, rtol=1e-7)
    np.testing.assert_allclose(two.covars_, a**2 * one.covars_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        two.log_likelihoods_, one.log_likelihoods_ - 2 * np.log(a), rtol=1e-8
    )


def test_warm_start_goes_on_where_the_last_fit_ended(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    whole = quietly(started(start, max_iter=8, tol=0.0), sequences)
    halves = quietly(started(start, max_iter=4, tol=0.0, warm_start=True), sequences)
    first = halves.log_likelihoods_.copy()
    quietly(halves, sequences)
    assert halves.n_iter_ == 4
    expected = fitted_parameters(whole, start)
    assert_same_parameters(fitted_parameters(halves, start), expected, rtol=1e-10, atol=1e-13)
    assert halves.log_likelihoods_[0] == pytest.approx(first[-1], rel=1e-12)


def test_verbose_prints_one_line_an_iteration(rng, capsys):
    X = rng.normal(size=(100, 1))
    quietly(GaussianHMM(2, max_iter=4, tol=0.0, random_state=0), X)
    assert capsys.readouterr().out == ""
    start = {
        "startprob_init": [0.5, 0.5],
        "transmat_init": [[0.6, 0.4], [0.4, 0.6]],
        "means_init": [[-1.0], [1.0]],
        "covars_init": [[1.0], [1.0]],
    }
    quietly(GaussianHMM(2, max_iter=4, tol=0.0, verbose=2, **start), X)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) >= 4
    for number, line in enumerate(lines[:4], start=1):
        assert f"iteration {number}" in line
        assert re.search(r"gain \S+", line)
        assert re.search(r"[\d.e+-]+ s\b", line), "the time it took"
    assert len(lines) == 5 and "stopped after 4 iterations" in lines[4]


def test_verbose_1_prints_one_line_a_start_and_a_summary(rng, capsys):
    X = rng.normal(size=(100, 1))
    for n_init in (1, 4):
        model = GaussianHMM(2, n_init=n_init, max_iter=50, random_state=0, verbose=1)
        quietly(model, X)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == (1 if n_init == 1 else n_init + 1)
        assert all(line.startswith("[GaussianHMM] ") and len(line) <= 130 for line in lines)
        for number, line in enumerate(lines[:-1], start=1):
            assert f"start {number} of 4: objective" in line
        ended = "converged" if model.converged_ else "stopped"
        assert f"{ended} after {model.n_iter_} iterations: objective" in lines[-1]
        assert f"{model.objectives_[-1]:.8g}" in lines[-1] and "steps/s" in lines[-1]


def test_a_long_fit_is_told_of_every_ten_seconds(rng, capsys, monkeypatch):
    monkeypatch.setattr("sklseq._progress.EVERY", 0.0)
    quietly(GaussianHMM(2, n_init=1, max_iter=3, tol=0.0, random_state=0, verbose=1),
            rng.normal(size=(100, 1)))  # fmt: skip
    assert len(capsys.readouterr().out.splitlines()) == 4


# --- Constraints ---------------------------------------------------------------------------------


def test_fixed_parameters_do_not_move(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    for name in start:
        model = quietly(started(start, max_iter=5, fixed=(name,)), sequences)
        assert_same_parameters(
            fitted_parameters(model, [name]), {name: start[name]}, rtol=1e-14, atol=0
        )
        assert np.all(np.diff(model.objectives_) >= -1e-10)
        others = [other for other in start if other != name]
        assert any(
            not np.allclose(flat(getattr(model, f"{other}_")), flat(start[other]))
            for other in others
        )


def test_fixed_needs_a_value(rng):
    with pytest.raises(ValueError, match="transmat"):
        GaussianHMM(2, fixed=("transmat",)).fit(rng.normal(size=(30, 1)))
    with pytest.raises(ValueError, match="fixed"):
        GaussianHMM(2, fixed=("no such name",)).fit(rng.normal(size=(30, 1)))


def test_structural_zeros_stay_zero_to_the_bit(family, rng, started):
    """A left-right chain, also after many iterations and in every start."""
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    start["startprob"] = np.array([1.0, 0.0, 0.0])
    start["transmat"] = np.array([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 1.0]])
    model = quietly(started(start, max_iter=25, tol=0.0), sequences)
    assert np.all(model.transmat_[start["transmat"] == 0] == 0)
    assert np.all(model.startprob_[1:] == 0)
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0, rtol=1e-12)


def test_structural_zeros_with_random_starts(rng):
    X = rng.normal(size=(80, 1)) + np.repeat([0.0, 5.0, 10.0, 15.0], 20)[:, None]
    zeros = np.triu(np.ones((4, 4))) * (1 - np.triu(np.ones((4, 4)), 2))
    model = GaussianHMM(
        4,
        startprob_init=[1, 0, 0, 0],
        transmat_init=zeros / zeros.sum(1, keepdims=True),
        random_state=0,
    )
    quietly(model, X)
    assert np.all(model.transmat_[zeros == 0] == 0)
    path = model.predict(X)
    assert np.all(np.diff(path) >= 0)


def test_zeros_of_the_emission_stay_zero_also_with_alpha(rng):
    table = np.array([[0.5, 0.5, 0.0], [0.0, 0.3, 0.7]])
    X = rng.integers(0, 3, size=(100, 1))
    for alpha in (0.0, 0.5):
        model = CategoricalHMM(2, emissionprob_init=table, alpha=alpha, random_state=0)
        quietly(model, X)
        assert np.all(model.emissionprob_[table == 0] == 0)
        np.testing.assert_allclose(model.emissionprob_.sum(axis=1), 1.0)


def test_a_starving_state_keeps_its_parameters_and_one_warning_names_it(family, rng, started):
    sequences = ragged(family, rng)
    start = family.random_parameters(rng, 3, 2)
    start["startprob"] = np.array([0.4, 0.6, 0.0])
    start["transmat"] = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.3, 0.3, 0.4]])
    model = started(start, max_iter=100, tol=1e-4)
    with pytest.warns(ConvergenceWarning) as record:
        model.fit(sequences)
    about_state = [str(w.message) for w in record if "2" in str(w.message)]
    assert len(about_state) == 1
    np.testing.assert_array_equal(model.transmat_[2], start["transmat"][2])
    for name in set(start) - {"startprob", "transmat"}:
        if name == "covars" and family.estimator_parameters["covariance_type"] == "tied":
            continue
        value = getattr(model, f"{name}_")
        pairs = zip(value, start[name]) if isinstance(start[name], list) else [(value, start[name])]
        for got, wanted in pairs:
            np.testing.assert_allclose(got[2], wanted[2], rtol=1e-12)
            assert np.isfinite(got).all()


# --- Hard data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_offset_of_1e8(rng, covariance_type):
    X = np.concatenate([rng.normal(size=(60, 2)), rng.normal(loc=6, size=(60, 2))])
    near = quietly(GaussianHMM(2, covariance_type=covariance_type, random_state=0), X)
    far = quietly(GaussianHMM(2, covariance_type=covariance_type, random_state=0), X + 1e8)
    order = [np.argsort(model.means_[:, 0]) for model in (near, far)]  # the names are free
    np.testing.assert_allclose(
        far.means_[order[1]] - 1e8, near.means_[order[0]], atol=1e-5
    )
    covars = [
        model.covars_ if covariance_type == "tied" else model.covars_[names]
        for model, names in zip((near, far), order)
    ]
    np.testing.assert_allclose(covars[1], covars[0], rtol=1e-4, atol=1e-6)
    assert far.score(X + 1e8) == pytest.approx(near.score(X), rel=1e-6)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: np.column_stack([rng.normal(size=50), np.full(50, 3.0)]),
        lambda rng: np.repeat(rng.normal(size=(2, 2)), 25, axis=0),
        lambda rng: np.full((50, 2), 7.0),
        lambda rng: np.column_stack([np.arange(50.0)] * 2),
        lambda rng: np.vstack([rng.normal(size=(49, 2)), [[1e8, -1e8]]]),
        lambda rng: rng.normal(size=(50, 2)) * [1e-150, 1e150],
        lambda rng: rng.normal(size=(1, 2)),
        lambda rng: rng.normal(size=(3, 2)),
    ],
    ids=[
        "a constant column",
        "repeated rows",
        "one point",
        "collinear columns",
        "an outlier at 1e8",
        "scales 1e300 apart",
        "one row",
        "three rows",
    ],
)
def test_degenerate_data_fits_without_nan(rng, covariance_type, make):
    X = make(rng)
    model = GaussianHMM(2, covariance_type=covariance_type, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("error", category=RuntimeWarning)
        model.fit(X)
    for name in ("startprob_", "transmat_", "means_", "covars_", "log_likelihoods_"):
        assert np.isfinite(getattr(model, name)).all(), name
    assert np.isfinite(model.score(X))
    assert model.predict(X).shape == (len(X),)
    gains = np.diff(model.objectives_)
    assert np.all(gains >= -1e-9 * (1 + np.abs(model.objectives_[:-1])))


def test_more_states_than_rows(family, rng):
    sequences = ragged(family, rng, lengths=(1, 2))
    model = estimator_class(family)(5, random_state=0, **family.estimator_parameters)
    quietly(model, sequences)
    assert np.isfinite(model.score(sequences))
    assert np.isfinite(model.transmat_).all()


def test_reg_covar_is_a_floor_in_units_of_the_column(rng):
    """Half of the rows are one point: that state's covariance is the floor and nothing else."""
    scale = np.array([1e-3, 1e4])
    X = np.vstack([np.zeros((30, 2)), rng.normal(loc=4.0, size=(30, 2))]) * scale
    floor = 1e-4 * X.std(axis=0) ** 2
    for covariance_type, expected in (("diag", floor), ("full", np.diag(floor))):
        model = GaussianHMM(
            2, reg_covar=1e-4, random_state=0, covariance_type=covariance_type
        )
        quietly(model, X)
        point = np.abs(model.means_[:, 0]).argmin()
        np.testing.assert_allclose(model.means_[point], 0.0, atol=1e-12)
        units = 1.0 if covariance_type == "diag" else np.outer(scale, scale)
        np.testing.assert_allclose(
            model.covars_[point] / units, expected / units, rtol=1e-9, atol=1e-15
        )


# --- Categorical: pseudo-counts ----------------------------------------------------------------


def test_alpha_is_a_pseudo_count_and_part_of_the_objective(rng):
    family = next(f for f in FAMILIES if f.name == "categorical")
    sequences = ragged(family, rng, n_features=1)
    start = family.random_parameters(rng, 3, 1)
    alpha = 0.7
    model = CategoricalHMM(
        3,
        **{f"{name}_init": value for name, value in start.items()},
        alpha=alpha,
        max_iter=1,
    )
    quietly(model, sequences)
    posteriors = np.concatenate([family.smooth(X, start).posteriors for X in sequences])
    (expected,) = categorical_m_step(np.concatenate(sequences), posteriors, [3], alpha)
    np.testing.assert_allclose(model.emissionprob_, expected, rtol=1e-9)

    quietly(model.set_params(max_iter=20, tol=0.0), sequences)
    assert np.all(np.diff(model.objectives_) >= -1e-12)
    n_steps = sum(map(len, sequences))
    prior = alpha * np.log(model.emissionprob_).sum() / n_steps
    assert model.objectives_[-1] - model.log_likelihoods_[-1] == pytest.approx(prior, rel=1e-9)


# --- The loop itself, on models that do what they are told ---------------------------------------


@dataclass(frozen=True)
class Scripted:
    """A model whose log-likelihoods are written down; its statistics are the place in them."""

    script: tuple
    place: int = 0

    def e_step(self, X, offsets):
        value = self.script[self.place]
        if isinstance(value, type):
            raise value
        return (np.array(self.place),), value * len(X)

    def part(self, rows):
        return self

    def m_step(self, statistics):
        return Scripted(self.script, int(statistics[0]) + 1)

    def log_prior(self):
        return 0.0

    def why_impossible(self, sequences):
        return "sequence 0 has probability zero"


def scripted(*scripts, max_iter=50, tol=1e-6):
    sequences = Sequences(np.zeros((10, 1)), np.array([0, 10]))
    return run_em([Scripted(script) for script in scripts], sequences, max_iter=max_iter, tol=tol)


def test_an_objective_that_falls_is_reported_as_a_bug_and_not_kept():
    with pytest.warns(ConvergenceWarning, match="fell") as record:
        result = scripted((-3.0, -2.0, -2.5, -1.0))
    assert len(record) == 1
    assert "bug" in str(record[0].message)
    assert result.objectives == [-3.0, -2.0]
    assert result.model.place == 1
    assert not result.converged


def test_rounding_is_no_fall():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scripted((-3.0, -2.0, -2.0 - 1e-13, -1.0))
    assert result.converged
    assert result.n_iter == 2


def test_the_three_endings_have_three_texts():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scripted((-3.0, -2.0, -2.0 + 1e-9)).converged
    with pytest.warns(ConvergenceWarning, match="max_iter=2") as reached:
        assert not scripted((-3.0, -2.0, -1.0, -0.5), max_iter=2).converged
    with pytest.warns(ConvergenceWarning, match="fell"):
        assert not scripted((-3.0, -2.0, -2.5)).converged
    assert "fell" not in str(reached[0].message)


def test_the_start_that_is_ahead_after_ten_iterations_is_finished():
    slow = tuple(np.linspace(-9.0, -8.0, 60))
    fast = tuple(np.linspace(-10.0, -1.0, 60))
    with pytest.warns(ConvergenceWarning, match="max_iter=20"):
        result = scripted(slow, fast, max_iter=20)
    np.testing.assert_allclose(result.objectives, fast[:21])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scripted(slow, (-5.0,) * 60, max_iter=20)
    assert result.converged
    assert result.objectives == [-5.0, -5.0]


def test_an_interrupted_fit_keeps_the_best_so_far():
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        result = scripted((-3.0, -2.0, KeyboardInterrupt))
    assert result.objectives == [-3.0, -2.0]
    assert not result.converged


def test_an_impossible_start_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="sequence 0 has probability zero"):
        scripted((-np.inf,))


def test_an_impossible_start_is_passed_over_and_only_all_of_them_are_an_error():
    impossible = (-np.inf,)
    result = scripted(impossible, (-3.0, -2.0, -2.0), impossible)
    assert result.objectives == [-3.0, -2.0, -2.0]
    with pytest.raises(ValueError, match="Cannot fit: sequence 0 has probability zero"):
        scripted(impossible, impossible)


def test_rounding_of_huge_counts_is_no_fault(rng):
    """At a log-likelihood of 1e13 nats its last digit is a thousandth of a posterior."""
    X = rng.poisson(3, (60, 1)) * 10**12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            hmm = PoissonHMM(2, random_state=seed).fit(X)
            assert hmm.converged_


@pytest.mark.parametrize("seed", [13, 17, 19])
def test_a_stationary_start_of_next_to_no_data_warns_of_nothing_numeric(seed):
    """Moves of 1e-319 expected counts, the most favoured ones by the start."""
    rng = np.random.default_rng(seed)
    n_steps, n_states = int(rng.integers(1, 8)), int(rng.integers(2, 6))
    X = rng.normal(size=(n_steps, 1))
    model = GaussianHMM(
        n_states, initial_state="stationary", random_state=seed, n_init=5, reg_covar=1e-6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("error", RuntimeWarning)
        model.fit(X)
    assert np.all(np.diff(model.objectives_) > -1e-9)


def test_tilted_rows_solve_their_equation(rng):
    """sum_j n_j / (level - t_j) = mass, for tilts and counts over hundreds of orders."""
    counts = 10.0 ** rng.uniform(-300, 0, size=(500, 4))
    counts[rng.random(counts.shape) < 0.2] = 0.0
    counts[:, 0] = rng.uniform(0.1, 1.0, size=500)
    tilt = rng.normal(size=(500, 4)) * 10.0 ** rng.uniform(-3, 6, size=(500, 1))
    mass = rng.uniform(0.2, 1.0, size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = _tilted_rows(counts, tilt, mass)
    np.testing.assert_allclose(rows.sum(axis=1), mass, rtol=1e-13)
    assert np.all((rows > 0) <= (counts > 0))
    # at the maximum n_j / a_j + t_j is one level for all j that matter
    for row, count, slope in zip(rows, counts, tilt):
        used = row > 1e-12
        level = count[used] / row[used] + slope[used]
        np.testing.assert_allclose(level, level[0], atol=1e-9 * np.abs(slope).max(), rtol=1e-9)
        assert np.all(level[0] >= slope[count > 0] - 1e-9 * np.abs(slope).max())
