"""Priors are proper densities and part of the objective; fixed entries, zeros and both at once."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import FAMILIES, full_covariances, stationary_distribution
from references_hmm_extra import (
    constrained_rows,
    gaussian_posterior_mode,
    log_dirichlet,
    log_normal_wishart,
)
from scipy import optimize, stats
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from test_hmm_known_states import ALL, class_of

from sklseq import CategoricalHMM, GaussianHMM, GaussianMixtureHMM, PoissonHMM

TYPES = ["full", "tied", "diag", "spherical"]


def quietly(estimator, X, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, **kwargs)


def started(family, parameters, **params):
    starts = {f"{name}_init": value for name, value in parameters.items()}
    if params.get("initial_state") == "stationary":
        del starts["startprob_init"]
    n_states = len(parameters["startprob"])
    return class_of(family)(n_states, **starts, **family.estimator_parameters, **params)


def assert_monotone(estimator):
    gains = np.diff(estimator.objectives_)
    assert np.all(gains >= -1e-10 * (1 + np.abs(estimator.objectives_[:-1]))), gains.min()


def emission_prior(family, rng):
    if family.name.startswith("gaussian"):
        return {"means_prior": 1.0, "means_weight": 2.5, "covars_prior": 2.0, "covars_weight": 4.0}
    if family.name.startswith("mixture"):
        return {"means_weight": 2.5, "covars_weight": 4.0, "weights_prior": 2.0}
    if family.name == "poisson":
        return {"rates_prior": 2.0, "rates_weight": 3.0}
    return {"alpha": 1.5}


# --- The chain ------------------------------------------------------------------------------------


def test_default_is_no_prior():
    for family in ALL:
        params = class_of(family)().get_params()
        assert params["startprob_prior"] is None
        assert params["transmat_prior"] is None
        assert params["stickiness"] == 0.0


def test_dirichlet_m_step_by_hand(rng):
    """One M-step from given values: expected counts and concentration minus one."""
    family = FAMILIES[2]
    parameters = family.random_parameters(rng, 3, 2)
    sequences = [family.sample(rng, n, parameters) for n in (20, 15)]
    concentration = rng.uniform(1.0, 4.0, (3, 3))
    of_start = rng.uniform(1.0, 4.0, 3)
    hmm = quietly(
        started(family, parameters, max_iter=1, transmat_prior=concentration, stickiness=2.0,
                startprob_prior=of_start),
        sequences,
    )  # fmt: skip
    smoothed = [family.smooth(X, parameters) for X in sequences]
    counts = sum(s.transition_counts for s in smoothed) + concentration - 1 + 2.0 * np.eye(3)
    starts = sum(s.posteriors[0] for s in smoothed) + of_start - 1
    np.testing.assert_allclose(hmm.transmat_, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(hmm.startprob_, starts / starts.sum())


def test_the_objective_is_the_likelihood_plus_the_density(rng):
    """Up to a constant: differences along the history are those of scipy's Dirichlet."""
    family = FAMILIES[2]
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 60, parameters)
    concentration = rng.uniform(1.0, 4.0, (3, 3))
    prior = {"transmat_prior": concentration, "stickiness": 1.5, "startprob_prior": 2.0}
    differences = []
    for max_iter in (0, 1, 5):
        hmm = quietly(started(family, parameters, max_iter=max_iter, **prior), X)
        density = log_dirichlet(hmm.transmat_, concentration + 1.5 * np.eye(3))
        density += log_dirichlet(hmm.startprob_, np.full((1, 3), 2.0))
        gap = (hmm.objectives_[-1] - hmm.log_likelihoods_[-1]) * len(X)
        differences.append(gap - density)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9)


@settings(max_examples=60)
@given(
    family=st.sampled_from(ALL),
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(1, 3),
    stationary=st.booleans(),
    zeros=st.booleans(),
    masks=st.booleans(),
)
def test_em_with_priors_zeros_and_held_entries_never_falls(
    family, seed, n_states, stationary, zeros, masks
):
    rng = np.random.default_rng(seed)
    truth = family.random_parameters(rng, n_states, 2)
    sequences = [family.sample(rng, n, truth) for n in (12, 5, 9)]
    start = family.random_parameters(rng, n_states, 2)
    if zeros and n_states == 3:
        start["transmat"][0, 2] = 0.0
        start["transmat"] /= start["transmat"].sum(axis=1, keepdims=True)
    held = rng.random((n_states, n_states)) < 0.3
    params = {
        "transmat_prior": rng.uniform(1.0, 3.0, (n_states, n_states)),
        "stickiness": 1.0,
        **emission_prior(family, rng),
        "fixed": {"transmat": held} if masks else (),
        "initial_state": "stationary" if stationary else "learn",
    }
    if family.name == "categorical":
        params["n_categories"] = [3, 4]
    if not stationary:
        params["startprob_prior"] = 2.0
    hmm = quietly(started(family, start, max_iter=15, tol=0.0, **params), sequences)
    assert_monotone(hmm)
    np.testing.assert_allclose(hmm.transmat_.sum(axis=1), 1.0)
    if zeros and n_states == 3:
        assert hmm.transmat_[0, 2] == 0.0
    if masks:
        np.testing.assert_allclose(hmm.transmat_[held], start["transmat"][held], rtol=1e-15)
    if stationary:
        np.testing.assert_allclose(hmm.startprob_ @ hmm.transmat_, hmm.startprob_, atol=1e-10)


def test_stickiness_keeps_states_longer(rng):
    X = rng.normal(size=(80, 1))
    plain, sticky = (
        quietly(GaussianHMM(2, random_state=0, stickiness=weight), X) for weight in (0.0, 500.0)
    )
    assert np.diag(sticky.transmat_).min() > 0.9
    assert np.diag(plain.transmat_).min() < np.diag(sticky.transmat_).min()
    assert np.all(sticky.expected_dwell_times_ > 10)


def test_a_row_without_moves_goes_to_the_mode_of_its_prior():
    """A state that nothing leaves has only the prior to say where it goes."""
    hmm = quietly(
        GaussianHMM(2, transmat_prior=[[2.0, 4.0], [3.0, 2.0]], covars_weight=1.0), [[0.0], [5.0]],
        states=[0, 1],
    )  # fmt: skip
    np.testing.assert_allclose(hmm.transmat_[1], [2 / 3, 1 / 3])


# --- Stationary start: numeric maximisation -------------------------------------------------------


@pytest.mark.parametrize("case", ["plain", "zeros", "held"])
def test_stationary_m_step_with_prior_equals_a_numeric_maximum(rng, case):
    family = FAMILIES[5]
    parameters = family.random_parameters(rng, 3, 1)
    transmat = parameters["transmat"]
    held = np.zeros((3, 3), dtype=bool)
    if case == "zeros":
        transmat[0, 2] = transmat[1, 0] = 0.0
        transmat /= transmat.sum(axis=1, keepdims=True)
    if case == "held":
        held[0, 1] = held[2, 2] = True
    parameters["startprob"] = stationary_distribution(transmat)
    sequences = [family.sample(rng, 8, parameters) for _ in range(6)]
    concentration = rng.uniform(1.0, 3.0, (3, 3))
    hmm = quietly(
        started(family, parameters, initial_state="stationary", transmat_prior=concentration,
                fixed={"transmat": held}, max_iter=1),
        sequences,
    )  # fmt: skip
    smoothed = [family.smooth(X, parameters) for X in sequences]
    starts = sum(s.posteriors[0] for s in smoothed)
    counts = sum(s.transition_counts for s in smoothed) + concentration - 1
    counts[transmat == 0] = 0.0
    free = (transmat > 0) & ~held
    mass = 1.0 - np.where(free, 0.0, transmat).sum(axis=1)

    def unpack(logits):
        rows = np.full((3, 3), -np.inf)
        rows[free] = logits
        return np.where(
            free, mass[:, None] * np.exp(rows - logsumexp(rows, axis=1, keepdims=True)), transmat
        )

    def negative(logits):
        matrix = unpack(logits)
        moves = (counts * np.log(np.where(matrix > 0, matrix, 1.0))).sum()
        return -moves - starts @ np.log(stationary_distribution(matrix))

    found = optimize.minimize(
        negative, np.log(transmat[free]), method="BFGS", options={"gtol": 1e-10, "maxiter": 500}
    )
    np.testing.assert_allclose(hmm.transmat_, unpack(found.x), atol=2e-6)
    reached = np.log(np.where(free, hmm.transmat_, 1.0))[free]
    assert negative(reached) <= found.fun + 1e-9


def test_a_stationary_start_has_no_prior_of_its_own():
    with pytest.raises(ValueError, match=r"startprob_prior needs initial_state='learn'"):
        GaussianHMM(initial_state="stationary", startprob_prior=2.0).fit(np.zeros((5, 1)))


# --- Emissions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_gaussian_m_step_is_the_posterior_mode(rng, covariance_type):
    family = next(f for f in FAMILIES if f.name == f"gaussian-{covariance_type}")
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 40, parameters)
    m0 = rng.normal(size=(3, 2))
    c0 = family.random_parameters(rng, 3, 2)["covars"]
    hmm = quietly(
        started(family, parameters, max_iter=1, means_prior=m0, means_weight=3.0, covars_prior=c0,
                covars_weight=5.0),
        X,
    )  # fmt: skip
    means, covars = gaussian_posterior_mode(
        X, family.smooth(X, parameters).posteriors, covariance_type,
        (m0, 3.0, full_covariances(c0, covariance_type, 3, 2), 5.0),
    )  # fmt: skip
    np.testing.assert_allclose(hmm.means_, means, rtol=1e-9)
    np.testing.assert_allclose(hmm.covars_, covars, rtol=1e-9, atol=1e-12)


def log_gaussian_prior(hmm, covariance_type, m0, kappa, c0, nu):
    """The density that the documentation names, of means and precisions."""
    total = 0.0
    full = full_covariances(hmm.covars_, covariance_type, 3, 2)
    c0 = full_covariances(c0, covariance_type, 3, 2)
    if covariance_type == "full":
        for k in range(3):
            total += log_normal_wishart(
                hmm.means_[k], np.linalg.inv(full[k]), m0[k], kappa, c0[k], nu
            )
    else:  # a normal-gamma for each column
        for k in range(3):
            for d in range(2):
                variance, prior = full[k, d, d], c0[k, d, d]
                total += stats.norm.logpdf(hmm.means_[k, d], m0[k, d], np.sqrt(variance / kappa))
                total += stats.gamma.logpdf(
                    1 / variance, (nu + 1) / 2, scale=1 / (nu * prior / 2)
                )
    return total


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_gaussian_objective_has_the_normal_wishart_density(rng, covariance_type):
    family = next(f for f in FAMILIES if f.name == f"gaussian-{covariance_type}")
    parameters = family.random_parameters(rng, 3, 2)
    X = family.sample(rng, 50, parameters)
    m0, c0 = rng.normal(size=(3, 2)), family.random_parameters(rng, 3, 2)["covars"]
    differences = []
    for max_iter in (0, 1, 6):
        hmm = quietly(
            started(family, parameters, max_iter=max_iter, means_prior=m0, means_weight=0.7,
                    covars_prior=c0, covars_weight=3.0),
            X,
        )  # fmt: skip
        density = log_gaussian_prior(hmm, covariance_type, m0, 0.7, c0, 3.0)
        differences.append((hmm.objectives_[-1] - hmm.log_likelihoods_[-1]) * len(X) - density)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_pseudo_observations(rng, covariance_type):
    """A prior that counts as n rows does what n rows of that mean and covariance do."""
    X = rng.normal(size=(25, 2)) * [1.0, 2.0]
    known = np.zeros(25, dtype=int)
    extra = rng.multivariate_normal([0.5, -0.5], [[1.0, 0.3], [0.3, 0.5]], size=40)
    centre, spread = extra.mean(axis=0), np.cov(extra.T, bias=True)
    c0 = {"full": spread[None], "tied": spread, "diag": np.diag(spread)[None],
          "spherical": np.array([np.trace(spread) / 2])}[covariance_type]  # fmt: skip
    shared = {"covariance_type": covariance_type, "n_components": 1, "reg_covar": 0.0}
    with_rows = GaussianHMM(**shared).fit(np.concatenate([X, extra]), states=np.zeros(65))
    with_prior = GaussianHMM(
        **shared, means_prior=centre, means_weight=40.0, covars_prior=c0, covars_weight=40.0
    ).fit(X, states=known)
    np.testing.assert_allclose(with_prior.means_, with_rows.means_, rtol=1e-10)
    np.testing.assert_allclose(with_prior.covars_, with_rows.covars_, rtol=1e-10)


def test_a_starving_state_goes_to_its_prior(rng):
    X = rng.normal(size=(30, 1))
    with pytest.warns(ConvergenceWarning, match="No step belongs to state 1"):
        hmm = GaussianHMM(
            2, means_prior=[[0.0], [7.0]], means_weight=1.0, covars_prior=3.0, covars_weight=2.0
        ).fit(X, states=np.zeros(30))
    assert hmm.means_[1, 0] == pytest.approx(7.0)
    assert hmm.covars_[1, 0] == pytest.approx(3.0)


def test_the_prior_keeps_a_single_point_from_being_a_state(rng):
    """Without prior the outlier gets a state of its own with the floor as variance."""
    X = rng.normal(size=(50, 1))
    X[20] = 30.0
    start = {"means_init": [[0.0], [30.0]], "covars_init": [[1.0], [1.0]]}
    bare = quietly(GaussianHMM(2, **start), X)
    held_up = quietly(GaussianHMM(2, **start, covars_weight=2.0), X)
    assert bare.covars_[1, 0] < 1e-3
    assert held_up.covars_[1, 0] > 1.0


def test_default_prior_is_the_moments_of_the_data(rng):
    X = rng.normal(loc=5.0, scale=3.0, size=(40, 2))
    explicit = GaussianHMM(
        1, means_prior=X.mean(axis=0), means_weight=2.0, covars_prior=X.var(axis=0)[None],
        covars_weight=3.0,
    ).fit(X)  # fmt: skip
    implicit = GaussianHMM(1, means_weight=2.0, covars_weight=3.0).fit(X)
    np.testing.assert_allclose(implicit.means_, explicit.means_)
    np.testing.assert_allclose(implicit.covars_, explicit.covars_)


def test_poisson_conjugate_answer(rng):
    """Gamma prior: (weight x prior + counts) / (weight + n), the density in the objective."""
    family = FAMILIES[5]
    parameters = family.random_parameters(rng, 2, 2)
    X = family.sample(rng, 40, parameters)
    prior = rng.uniform(1.0, 6.0, (2, 2))
    posteriors = family.smooth(X, parameters).posteriors
    differences = []
    for max_iter in (0, 1, 4):
        hmm = quietly(
            started(family, parameters, max_iter=max_iter, rates_prior=prior, rates_weight=2.5), X
        )
        if max_iter == 1:
            expected = (2.5 * prior + posteriors.T @ X) / (2.5 + posteriors.sum(axis=0)[:, None])
            np.testing.assert_allclose(hmm.rates_, expected)
        density = stats.gamma.logpdf(hmm.rates_, 1 + 2.5 * prior, scale=1 / 2.5).sum()
        differences.append((hmm.objectives_[-1] - hmm.log_likelihoods_[-1]) * len(X) - density)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-9)


def test_the_published_error_of_a_peer():
    """hmmlearn#469: prior (50, 1) at rates (15, 26); the conjugate answer there is in its issue.

    A gamma density of shape 50 and rate 1 is a weight of 1 and a prior of 49 here.
    """
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.poisson(15, 60), rng.poisson(26, 50)])[:, None].astype(float)
    states = np.repeat([0, 1], [60, 50])
    hmm = PoissonHMM(2, rates_prior=49.0, rates_weight=1.0).fit(X, states=states)
    np.testing.assert_allclose(
        hmm.rates_.ravel(), [(49 + X[:60].sum()) / 61, (49 + X[60:].sum()) / 51]
    )


def test_mixture_prior(rng):
    family = next(f for f in ALL if f.name == "mixture-diag")
    parameters = family.random_parameters(rng, 2, 2)
    X = family.sample(rng, 60, parameters)
    hmm = quietly(
        started(family, parameters, max_iter=1, weights_prior=3.0, means_prior=1.0,
                means_weight=2.0, covars_prior=1.5, covars_weight=4.0),
        X,
    )  # fmt: skip
    from references_hmm_extra import mixture_log_joint

    joint = mixture_log_joint(X, parameters, "diag")
    share = np.exp(joint - logsumexp(joint, axis=2, keepdims=True))
    share *= family.smooth(X, parameters).posteriors[:, :, None]
    mass = share.sum(axis=0) + 2.0
    np.testing.assert_allclose(hmm.weights_, mass / mass.sum(axis=1, keepdims=True))
    for k in range(2):
        means, covars = gaussian_posterior_mode(
            X, share[:, k], "diag", (np.ones((2, 2)), 2.0, np.stack([1.5 * np.eye(2)] * 2), 4.0)
        )
        np.testing.assert_allclose(hmm.means_[k], means, rtol=1e-9)
        np.testing.assert_allclose(hmm.covars_[k], covars, rtol=1e-9)


# --- Held entries ---------------------------------------------------------------------------------


def test_held_entries_of_the_chain_against_a_numeric_maximum(rng):
    family = FAMILIES[4]
    parameters = family.random_parameters(rng, 4, 1)
    sequences = [family.sample(rng, 25, parameters) for _ in range(4)]
    held = rng.random((4, 4)) < 0.35
    held_start = np.array([True, False, False, False])
    held_table = rng.random(np.shape(parameters["emissionprob"])) < 0.3
    hmm = quietly(
        started(family, parameters, max_iter=1, n_categories=3,
                fixed={"transmat": held, "startprob": held_start, "emissionprob": held_table}),
        sequences,
    )  # fmt: skip
    smoothed = [family.smooth(X, parameters) for X in sequences]
    counts = sum(s.transition_counts for s in smoothed)
    expected = constrained_rows(counts, parameters["transmat"], ~held)
    np.testing.assert_allclose(hmm.transmat_, expected, atol=1e-6)
    np.testing.assert_allclose(hmm.transmat_[held], parameters["transmat"][held], rtol=1e-15)
    starts = sum(s.posteriors[0] for s in smoothed)[None]
    expected = constrained_rows(starts, parameters["startprob"][None], ~held_start[None])
    np.testing.assert_allclose(hmm.startprob_, expected[0], atol=1e-6)
    assert hmm.startprob_[0] == pytest.approx(parameters["startprob"][0], rel=1e-15)
    X = np.concatenate(sequences)[:, 0].astype(int)
    posteriors = np.concatenate([s.posteriors for s in smoothed])
    counts = np.stack([posteriors[v == X].sum(axis=0) for v in range(3)], axis=1)
    expected = constrained_rows(counts, parameters["emissionprob"], ~held_table)
    np.testing.assert_allclose(hmm.emissionprob_, expected, atol=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("with_prior", [False, True])
def test_some_means_of_a_state_held(rng, covariance_type, with_prior):
    """EM rises, and where it ends nothing that may move can be better: a numeric gradient of 0."""
    family = next(f for f in FAMILIES if f.name == f"gaussian-{covariance_type}")
    parameters = family.random_parameters(rng, 2, 3)
    X = family.sample(rng, 80, parameters)
    held = np.array([[True, False, False], [False, True, True]])
    prior = {"means_prior": 0.5, "means_weight": 3.0} if with_prior else {}
    hmm = quietly(
        started(family, parameters, fixed={"means": held}, tol=1e-13, max_iter=3000, **prior), X
    )
    assert_monotone(hmm)
    np.testing.assert_array_equal(hmm.means_[held], parameters["means"][held])
    full = full_covariances(hmm.covars_, covariance_type, 2, 3)

    def objective(free):
        means = hmm.means_.copy()
        means[~held] = free
        other = {"startprob": hmm.startprob_, "transmat": hmm.transmat_, "means": means,
                 "covars": hmm.covars_}  # fmt: skip
        total = family.log_likelihood([X], other)
        if with_prior:
            for k in range(2):
                deviation = means[k] - 0.5
                total -= 1.5 * deviation @ np.linalg.solve(full[k], deviation)
        return total

    at = hmm.means_[~held]
    gradient = optimize.approx_fprime(at, objective, 1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=2e-3)


def test_masks_of_covariances_hold_whole_matrices(rng):
    X = rng.normal(size=(30, 2))
    start = {"means_init": [[0, 0], [1, 1]], "covars_init": [np.eye(2), 2 * np.eye(2)]}
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[1] = True
    hmm = quietly(GaussianHMM(2, covariance_type="full", **start, fixed={"covars": mask}), X)
    np.testing.assert_array_equal(hmm.covars_[1], 2 * np.eye(2))
    assert not np.allclose(hmm.covars_[0], np.eye(2))
    mask[0, 0, 0] = True
    with pytest.raises(ValueError, match=r"fixed\['covars'\] must hold all or none"):
        GaussianHMM(2, covariance_type="full", **start, fixed={"covars": mask}).fit(X)


def test_mixture_masks(rng):
    family = next(f for f in ALL if f.name == "mixture-full")
    parameters = family.random_parameters(rng, 2, 2)
    X = family.sample(rng, 50, parameters)
    masks = {
        "means": np.array([[[True, True], [False, True]], [[False, False], [False, False]]]),
        "weights": np.array([[True, True], [False, False]]),
        "covars": np.broadcast_to(np.array([[True, False], [False, False]])[:, :, None, None],
                                  (2, 2, 2, 2)),
    }  # fmt: skip
    hmm = quietly(started(family, parameters, fixed=masks, max_iter=20, tol=0.0), X)
    assert_monotone(hmm)
    for name, mask in masks.items():
        fitted = getattr(hmm, f"{name}_")
        np.testing.assert_allclose(fitted[mask], parameters[name][mask], rtol=1e-15)
        assert np.all(fitted[~mask] != parameters[name][~mask])
    free = 1 + 2 * 1 + 1 + 5 + 3 * 3  # start, moves, weights, means, covariances
    assert hmm._n_free_parameters() == free


def test_zero_means_a_state_has_fewer_gaussians(rng):
    X = rng.normal(size=(40, 1))
    hmm = quietly(GaussianMixtureHMM(2, n_mix=2, weights_init=[[0.5, 0.5], [1.0, 0.0]],
                                     weights_prior=2.0, random_state=0), X)  # fmt: skip
    assert hmm.weights_[1].tolist() == [1.0, 0.0]
    assert hmm.weights_[0].min() > 0
    assert_monotone(hmm)


# --- What may be given ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"transmat_prior": 0.5}, r"transmat_prior must be at least 1 .* got 0.5"),
        ({"transmat_prior": np.ones((3, 3))}, r"broadcasts to shape \(2, 2\), got shape \(3, 3\)"),
        ({"startprob_prior": [1.0, 0.0]}, r"startprob_prior must be at least 1"),
        ({"stickiness": -1.0}, "stickiness"),
        ({"means_prior": 1.0}, r"means_prior needs a positive means_weight"),
        ({"covars_prior": 1.0}, r"covars_prior needs a positive covars_weight"),
        ({"covars_prior": -1.0, "covars_weight": 1.0}, r"covars_prior must be positive"),
        ({"covars_prior": np.ones((3, 2)), "covars_weight": 1.0}, "covars_prior must be a number"),
        ({"means_prior": np.nan, "means_weight": 1.0}, "means_prior"),
        ({"means_weight": -1.0}, "means_weight"),
        ({"means_prior": [1.0, 2.0, 3.0], "means_weight": 1.0}, "means_prior must be a number or"),
    ],
)
def test_errors_name_the_parameter(params, message):
    with pytest.raises(ValueError, match=message):
        GaussianHMM(2, **params).fit(np.arange(8.0).reshape(4, 2))


def test_errors_of_other_families():
    with pytest.raises(ValueError, match="rates_prior needs a positive rates_weight"):
        PoissonHMM(rates_prior=2.0).fit([[1.0], [2.0]])
    with pytest.raises(ValueError, match="weights_prior must be at least 1"):
        GaussianMixtureHMM(weights_prior=0.2).fit([[1.0], [2.0]])
    with pytest.raises(ValueError, match="transmat_prior must be at least 1"):
        CategoricalHMM(transmat_prior=0.2).fit([[1], [0]])


# --- Left-right models --------------------------------------------------------------------------


def test_left_right_starts_from_equal_parts(rng):
    """Clusters have no order in time; equal parts of each sequence have."""
    steps = [np.repeat(np.arange(5), rng.integers(4, 9, 5)) for _ in range(12)]
    values = np.array([3.0, 0.0, 6.0, 1.0, 4.0])
    sequences = [values[s][:, None] + 0.3 * rng.normal(size=(len(s), 1)) for s in steps]
    left_right = np.eye(5) * 0.8 + np.eye(5, k=1) * 0.2
    left_right[-1] = [0, 0, 0, 0, 1]
    hmm = GaussianHMM(
        5, startprob_init=np.eye(5)[0], transmat_init=left_right, n_init=1, random_state=0
    ).fit(sequences)
    np.testing.assert_allclose(hmm.means_.ravel(), values, atol=0.2)
    np.testing.assert_array_equal(hmm.transmat_ == 0, left_right == 0)
    for found, truth in zip(hmm.predict(sequences), steps):
        assert np.mean(found == truth) > 0.95
        assert np.all(np.diff(found) >= 0)


def test_sequences_shorter_than_the_states(rng):
    from sklseq.hmm._start import is_left_right, segment_labels

    assert segment_labels(np.array([0, 2, 7]), 3).tolist() == [0, 1, 0, 0, 1, 1, 2]
    assert is_left_right(np.array([[0.5, 0.5], [0.0, 1.0]]))
    assert not is_left_right(np.eye(2))
    assert not is_left_right(np.full((2, 2), 0.5))
    assert not is_left_right(np.ones((1, 1)))
