"""hmmlearn's EM iterates, with its priors switched off, on ragged sequences.

hmmlearn is a test peer (the extra "peers"); where it is absent these tests skip.
"""

import warnings

import numpy as np
import pytest
from references import FAMILIES
from sklearn.exceptions import ConvergenceWarning

from sklseq import CategoricalHMM, GaussianHMM, PoissonHMM

peer = pytest.importorskip("hmmlearn.hmm", reason="needs hmmlearn (the extra 'peers')")

LENGTHS = [40, 7, 1, 25, 60]


def problem(name, n_features=3):
    rng = np.random.default_rng(4)
    family = next(f for f in FAMILIES if f.name == name)
    truth = family.random_parameters(rng, 3, n_features)
    sequences = [family.sample(rng, n, truth) for n in LENGTHS]
    return sequences, family.random_parameters(rng, 3, n_features)


def ours(estimator, sequences):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(sequences)


def starts(parameters):
    return {f"{name}_init": value for name, value in parameters.items()}


@pytest.mark.parametrize("n_iter", [1, 2, 10])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_gaussian_iterates(covariance_type, n_iter):
    sequences, start = problem(f"gaussian-{covariance_type}")
    theirs = peer.GaussianHMM(
        3,
        covariance_type,
        n_iter=n_iter,
        tol=-np.inf,
        init_params="",
        covars_prior=0.0,
        covars_weight=1.0,
        min_covar=0.0,
        implementation="log",
    )
    theirs.startprob_, theirs.transmat_ = start["startprob"], start["transmat"]
    theirs.means_, theirs.covars_ = start["means"], start["covars"]
    X = np.vstack(sequences)
    theirs.fit(X, LENGTHS)

    model = GaussianHMM(
        3, covariance_type=covariance_type, **starts(start), max_iter=n_iter, tol=0.0
    )
    ours(model, sequences)
    np.testing.assert_allclose(model.startprob_, theirs.startprob_, atol=1e-6)
    np.testing.assert_allclose(model.transmat_, theirs.transmat_, atol=1e-6)
    np.testing.assert_allclose(model.means_, theirs.means_, atol=1e-6)
    full = np.array([
        {
            "full": lambda k: model.covars_[k],
            "tied": lambda k: model.covars_,
            "diag": lambda k: np.diag(model.covars_[k]),
            "spherical": lambda k: model.covars_[k] * np.eye(3),
        }[covariance_type](k)
        for k in range(3)
    ])
    their_full = np.asarray(theirs.covars_)
    if len(their_full) == 9:  # what hmmlearn makes of "spherical": one matrix a state and column
        their_full = their_full[::3]
    np.testing.assert_allclose(full, their_full, atol=1e-6)

    assert model.score_sequences(sequences).sum() == pytest.approx(theirs.score(X, LENGTHS))
    # hmmlearn's history has the likelihood before each M-step
    np.testing.assert_allclose(
        model.log_likelihoods_[:-1] * len(X), list(theirs.monitor_.history)[-n_iter:], rtol=1e-8
    )
    total, states = theirs.decode(X, LENGTHS)
    our_total, our_states = model.decode(X, lengths=LENGTHS)
    assert our_total == pytest.approx(total)
    np.testing.assert_array_equal(our_states, states)
    np.testing.assert_allclose(
        model.predict_proba(X, lengths=LENGTHS), theirs.predict_proba(X, LENGTHS), atol=1e-6
    )


@pytest.mark.parametrize("n_iter", [1, 10])
def test_categorical_iterates(n_iter):
    sequences, start = problem("categorical", n_features=1)
    sequences = [X.astype(int) for X in sequences]
    theirs = peer.CategoricalHMM(3, n_iter=n_iter, tol=-np.inf, init_params="")
    theirs.startprob_, theirs.transmat_ = start["startprob"], start["transmat"]
    theirs.emissionprob_ = start["emissionprob"]
    X = np.vstack(sequences)
    theirs.fit(X, LENGTHS)
    model = ours(CategoricalHMM(3, **starts(start), max_iter=n_iter, tol=0.0), sequences)
    np.testing.assert_allclose(model.startprob_, theirs.startprob_, atol=1e-6)
    np.testing.assert_allclose(model.transmat_, theirs.transmat_, atol=1e-6)
    np.testing.assert_allclose(model.emissionprob_, theirs.emissionprob_, atol=1e-6)


@pytest.mark.parametrize("n_iter", [1, 10])
def test_poisson_iterates(n_iter):
    sequences, start = problem("poisson", n_features=2)
    sequences = [X.astype(int) for X in sequences]
    theirs = peer.PoissonHMM(
        3, n_iter=n_iter, tol=-np.inf, init_params="", lambdas_prior=0.0, lambdas_weight=0.0
    )
    theirs.startprob_, theirs.transmat_ = start["startprob"], start["transmat"]
    theirs.lambdas_ = start["rates"]
    X = np.vstack(sequences)
    theirs.fit(X, LENGTHS)
    model = ours(PoissonHMM(3, **starts(start), max_iter=n_iter, tol=0.0), sequences)
    np.testing.assert_allclose(model.startprob_, theirs.startprob_, atol=1e-6)
    np.testing.assert_allclose(model.transmat_, theirs.transmat_, atol=1e-6)
    np.testing.assert_allclose(model.rates_, theirs.lambdas_, atol=1e-6)
