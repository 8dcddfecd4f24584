"""Starting values: states that start alike, the race, the floor, and the numbers of the states."""

import warnings

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    MultinomialHMM,
    PoissonHMM,
)
from sklseq.hmm._chain import HMM
from sklseq.hmm._gaussian import GaussianEmission
from sklseq.hmm._start import tied_states


def accuracy(found, states, n_states) -> float:
    """Share of steps in the right state, under the best matching of the names."""
    counts = np.zeros((n_states, n_states))
    np.add.at(counts, (found, states), 1)
    rows, columns = linear_sum_assignment(-counts)
    return counts[rows, columns].sum() / len(states)


def regimes(rng, n=400, stay=0.95, n_states=2) -> np.ndarray:
    states = np.zeros(n, dtype=int)
    for t in range(1, n):
        states[t] = states[t - 1] if rng.random() < stay else rng.integers(n_states)
    return states


# --- States that start alike --------------------------------------------------------------------


@pytest.mark.parametrize("initial_state", ["stationary", "learn"])
@pytest.mark.parametrize("given_chain", [False, True])
def test_two_regimes_of_variance_with_one_mean(initial_state, given_chain):
    """statsmodels' Markov switching variance reaches the same maximum from its own start."""
    scale = np.repeat([1, 4, 1, 4, 1], 200)
    X = (scale * np.random.default_rng(0).normal(size=1000))[:, None]
    start = {"transmat_init": [[0.9, 0.1], [0.1, 0.9]]} if given_chain else {}
    hmm = GaussianHMM(
        2, initial_state=initial_state, means_init=[[0.0], [0.0]], fixed="means", random_state=0,
        **start,
    ).fit(X)  # fmt: skip
    if initial_state == "stationary":
        assert hmm.score_sequences(X).sum() == pytest.approx(-1972.343, abs=2e-3)
    np.testing.assert_allclose(np.sort(hmm.covars_.ravel()), [0.902, 16.649], atol=2e-3)
    assert hmm.converged_


def start_alike(name, rng):
    """(estimator with states that all start alike, data of two states that differ)."""
    states = regimes(rng)
    equal = {"startprob_init": [0.5, 0.5], "transmat_init": [[0.5, 0.5], [0.5, 0.5]]}
    table = [[0.4, 0.3, 0.3]] * 2
    if name == "gaussian":
        X = rng.normal(3.0 * states)[:, None]
        return GaussianHMM(2, means_init=[[1.0], [1.0]], covars_init=[[2.0], [2.0]], **equal), X
    if name == "tied":
        X = rng.normal(3.0 * states)[:, None]
        model = GaussianHMM(2, covariance_type="tied", means_init=[[1.0], [1.0]],
                            covars_init=[[2.0]], **equal)  # fmt: skip
        return model, X
    if name == "mixture":
        X = rng.normal(6.0 * states + rng.integers(0, 2, 400) * 2.0)[:, None]
        model = GaussianMixtureHMM(
            2, means_init=[[[0.0], [2.0]]] * 2, covars_init=np.ones((2, 2, 1)),
            weights_init=np.full((2, 2), 0.5), **equal,
        )  # fmt: skip
        return model, X
    if name == "poisson":
        X = rng.poisson(2 + 6 * states)[:, None]
        return PoissonHMM(2, rates_init=[[4.0], [4.0]], **equal), X
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    if name == "multinomial":
        X = rng.multinomial(10, probabilities[states])
        return MultinomialHMM(2, emissionprob_init=table, **equal), X
    X = (rng.random((400, 1)) > np.cumsum(probabilities, axis=1)[states]).sum(axis=1)[:, None]
    return CategoricalHMM(2, emissionprob_init=table, **equal), X


FAMILIES = ["gaussian", "tied", "mixture", "poisson", "multinomial", "categorical"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_start_in_which_all_states_have_one_emission_is_parted(rng, name):
    model, X = start_alike(name, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(random_state=0, max_iter=1000).fit(X)
    given = [f"{parameter}_init" for parameter in model._shapes()]
    free = clone(model).set_params(**dict.fromkeys(given, None)).fit(X)
    signature = model._emission().signature()
    assert not np.allclose(signature[0], signature[1], rtol=0.05)
    # one start against five: mixtures have many maxima
    tolerance = 2e-2 if name == "mixture" else 1e-4
    assert model.log_likelihood_ > free.log_likelihood_ - tolerance


def test_two_of_three_states_that_start_alike_are_parted(rng):
    states = regimes(rng, n_states=3)
    X = rng.normal(8.0 * np.minimum(states, 1) + 3.0 * (states == 2))[:, None]
    hmm = GaussianHMM(
        3, means_init=[[0.0], [9.0], [9.0]], covars_init=np.full((3, 1), 4.0),
        startprob_init=np.full(3, 1 / 3), transmat_init=(np.eye(3) + 1) / 4,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(np.sort(hmm.means_.ravel()), [0, 8, 11], atol=0.5)


def test_states_of_one_emission_and_other_places_in_the_chain_are_left_alone():
    """A left-right chain of two equal states is a dwell time, and meant."""
    emission = GaussianEmission(np.array([[0.0], [0.0], [5.0]]), np.ones((3, 1)), "diag")
    chain = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
    assert tied_states(HMM(np.array([1.0, 0, 0]), chain, emission), free_chain=False) == []
    symmetric = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.2, 0.2, 0.6]])
    (tied,) = tied_states(HMM(np.array([0.3, 0.3, 0.4]), symmetric, emission), free_chain=False)
    np.testing.assert_array_equal(tied, [0, 1])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_components_of_a_state_that_start_alike_are_parted(rng, covariance_type):
    states = regimes(rng)
    X = rng.normal(20.0 * states + rng.choice([0.0, 6.0], 400))[:, None]
    hmm = GaussianMixtureHMM(
        2, means_init=[[[3.0], [3.0]], [[23.0], [23.0]]], covariance_type=covariance_type,
        random_state=0,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(np.sort(hmm.means_.ravel()), [0, 6, 20, 26], atol=0.4)


def test_what_cannot_be_parted_is_said(rng):
    X = rng.normal(size=(50, 1))
    held = GaussianHMM(2, means_init=np.zeros((2, 1)), covars_init=np.ones((2, 1)),
                       fixed=("means", "covars"), random_state=0)  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="States 0, 1 of GaussianHMM start alike"):
        held.fit(X)
    with pytest.warns(ConvergenceWarning, match="start alike"):
        PoissonHMM(2, random_state=0).fit(np.full((30, 1), 4))


def test_a_warm_start_from_equal_states_parts_them(rng):
    X = rng.normal(5.0 * regimes(rng))[:, None]
    hmm = GaussianHMM.from_parameters(
        startprob=[0.5, 0.5], transmat=[[0.5, 0.5], [0.5, 0.5]], means=[[2.0], [2.0]],
        covars=[[4.0], [4.0]], warm_start=True,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(np.sort(hmm.means_.ravel()), [0, 5], atol=0.3)


# --- The race ------------------------------------------------------------------------------------


def test_more_starts_are_never_worse(rng):
    """40 data sets: 20 starts may not end below one, by more than 1e-3 nats in total."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n_states, n_true = rng.integers(2, 5, size=2)
        states = regimes(rng, 120, rng.choice([0.3, 0.9]), n_true)
        X = rng.normal(rng.normal(scale=2, size=n_true)[states])[:, None]
        params = {"max_iter": 2000, "random_state": seed}
        one = GaussianHMM(n_states, n_init=1, **params).fit(X)
        many = GaussianHMM(n_states, n_init=20, **params).fit(X)
        assert (many.log_likelihood_ - one.log_likelihood_) * len(X) >= -1e-3, seed
        assert many.converged_
        assert len(many.objectives_) == many.n_iter_ + 1
        assert np.all(np.diff(many.objectives_) > -1e-9)


# --- The floor -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_power_meter(seed):
    """Levels of 0 and 1.5 beside 3000: neither the floor nor k-means may melt them together."""
    rng = np.random.default_rng(seed)
    states = regimes(rng, 3000, 0.97, 4)
    levels, noise = np.array([0.0, 1.5, 1500.0, 3000.0]), np.array([0.3, 0.3, 8.0, 15.0])
    X = rng.normal(levels[states], noise[states])[:, None]
    hmm = GaussianHMM(4, random_state=seed).fit(X)
    assert accuracy(hmm.predict(X), states, 4) >= 0.99


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("estimator", [GaussianHMM, GaussianMixtureHMM])
def test_a_covariance_on_the_floor_is_said(rng, estimator, covariance_type):
    column = rng.normal(size=(60, 1))
    X = np.hstack([column, column])
    if covariance_type in ("diag", "spherical"):
        X = np.vstack([np.zeros((60, 2)), X + 9.0])
    model = estimator(2, covariance_type=covariance_type, random_state=0, reg_covar=1e-4)
    with pytest.warns(ConvergenceWarning, match=r"floor of reg_covar=0\.0001"):
        model.fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noise = rng.normal(size=(300, 2)) + 5.0 * regimes(rng, 300)[:, None]
        GaussianHMM(2, covariance_type=covariance_type, random_state=0).fit(noise)


@pytest.mark.parametrize("start", ["columns of two scales", "covars_init", "warm_start"])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_start_below_the_floor_is_raised_to_it(rng, start, covariance_type):
    """Rows that lie closer than the floor allows are more probable at the start than there."""
    levels = np.arange(80) // 40
    X = np.column_stack([rng.normal(size=80), 1e4 * levels + rng.normal(size=80)])
    X[:, 0] = np.where(start == "columns of two scales", X[:, 0], levels + 1e-5 * X[:, 0])
    variances = np.array([1e-10, 1.0])
    shapes = {"full": np.diag(variances)[None].repeat(2, 0), "tied": np.diag(variances),
              "diag": np.tile(variances, (2, 1)), "spherical": np.ones(2)}  # fmt: skip
    params = {"covariance_type": covariance_type, "reg_covar": 1e-3, "random_state": 0}
    below = shapes[covariance_type]
    if start == "covars_init":
        model = GaussianHMM(2, means_init=X[[0, 40]], covars_init=below, **params)
    elif start == "warm_start":
        model = GaussianHMM.from_parameters(
            startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.1, 0.9]], means=X[[0, 40]],
            covars=below, warm_start=True, **params,
        )  # fmt: skip
    else:
        model = GaussianHMM(2, **params)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model.fit(X)
    assert not [one for one in record if "bug" in str(one.message)]
    assert np.all(np.diff(model.objectives_) > -1e-9)
    assert model.converged_


# --- The numbers of the states -------------------------------------------------------------------


@pytest.mark.parametrize("given", ["means", "rates", "emissionprob", "mixture"])
def test_a_start_is_numbered_by_the_means_that_are_given(rng, given):
    """A chain that goes round: the moves are known once the states have their numbers."""
    states = np.arange(300) % 3
    places = np.array([9.0, 0.0, 4.0])
    turn = np.roll(np.eye(3), 1, axis=1)
    if given == "means":
        X = rng.normal(places[states], 0.1)[:, None]
        model = GaussianHMM(3, means_init=places[:, None], max_iter=0)
    elif given == "mixture":
        X = rng.normal(places[states], 0.1)[:, None]
        model = GaussianMixtureHMM(3, n_mix=1, means_init=places[:, None, None], max_iter=0)
    elif given == "rates":
        X = rng.poisson(np.array([99.0, 1.0, 30.0])[states])[:, None]
        model = PoissonHMM(3, rates_init=[[99.0], [1.0], [30.0]], max_iter=0)
    else:
        X = 20 * np.eye(3, dtype=int)[states] + 1
        model = MultinomialHMM(3, emissionprob_init=0.7 * np.eye(3) + 0.1, max_iter=0)
    for n_init in (1, 3):
        model.set_params(n_init=n_init, random_state=0).fit(X)
        np.testing.assert_allclose(model.transmat_, turn, atol=0.05)


def test_rows_that_cannot_be_told_apart_are_no_halves():
    """Differences whose squares are 0: k-means has one cluster where two were asked for."""
    X = np.random.default_rng(0).normal(size=(30, 3)) * 1e-282
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianHMM(3, random_state=0).fit(X)
    assert np.isfinite(model.score(X))
