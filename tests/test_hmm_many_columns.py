"""Diagonal covariance types are linear in the number of columns wherever they can be."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sklseq import GaussianHMM, GaussianMixtureHMM
from sklseq._covariance import COVARIANCES
from sklseq.hmm._gaussian import GaussianEmission

SHAPE = K, D = 3, 4


def covariances(covariance_type, rng):
    factors = rng.normal(size=(K, D, D))
    full = factors @ np.swapaxes(factors, 1, 2) + np.eye(D)
    if covariance_type == "full":
        return full
    if covariance_type == "tied":
        return full[0]
    return rng.uniform(0.5, 2, SHAPE if covariance_type == "diag" else K)


@pytest.mark.parametrize("covariance_type", COVARIANCES)
def test_what_a_type_says_without_its_matrices(covariance_type, rng):
    covariance, covars = COVARIANCES[covariance_type], covariances(covariance_type, rng)
    full = covariance.to_full(covars, D, K)
    assert_allclose(covariance.deviations(covars, K, D) ** 2, np.diagonal(full, 0, 1, 2))
    noise, components = rng.normal(size=(9, D)), rng.integers(0, K, 9)
    factors = np.linalg.cholesky(full)[components]
    drawn = covariance.correlate(noise, covars, components, K)
    assert_allclose(drawn, (factors @ noise[..., None])[..., 0])
    weights, out = rng.dirichlet(np.ones(K), 5), rng.normal(size=(5, D, D))
    expected = out + np.einsum("nk,kde->nde", weights, full)
    covariance.add_average(weights, covars, out)
    assert_allclose(out, expected)
    variances = rng.uniform(1, 2, D)
    assert_allclose(
        covariance.from_variances(variances, K), covariance.from_full(np.diag(variances), K)
    )


@pytest.mark.parametrize("covariance_type", COVARIANCES)
def test_moments_and_distances_of_a_mixture(covariance_type, rng):
    covars, means = covariances(covariance_type, rng), rng.normal(size=SHAPE)
    emission = GaussianEmission(means, covars, covariance_type)
    as_full = GaussianEmission(means, emission.full_covars(), "full")
    weights = rng.dirichlet(np.ones(K), 6)
    for name, values in as_full.expect(weights).items():
        assert_allclose(emission.expect(weights)[name], values, atol=1e-14)
    other = GaussianEmission(means + 1, covars, covariance_type)
    assert_allclose(
        emission.distances(other), as_full.distances(replaced(as_full, means + 1)), atol=1e-13
    )


def replaced(emission, means):
    return GaussianEmission(means, emission.covars, emission.covariance_type)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
@pytest.mark.parametrize("family", [GaussianHMM, GaussianMixtureHMM])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_thousands_of_columns_take_no_square_of_them(covariance_type, family, rng):
    n_columns = 3000  # a matrix of them takes 250 times the space of X
    X = rng.normal(size=(12, n_columns)) + np.repeat([0, 5], 6)[:, None]
    model = family(2, covariance_type=covariance_type, n_init=1, max_iter=2, random_state=0)
    if family is GaussianHMM:
        model.set_params(covars_weight=1.0, means_weight=1.0)
    tracemalloc.start()
    model.fit(X)
    assert model.predict(X).tolist() in ([0] * 6 + [1] * 6, [1] * 6 + [0] * 6)
    assert model.sample(3, random_state=0)[0].shape == (3, n_columns)
    if family is GaussianHMM:
        model.pseudo_residuals(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * X.nbytes


def test_the_start_of_a_diagonal_type_leaves_missing_entries_out(rng):
    X = rng.normal(size=(200, 2)) * [1, 10] + np.repeat([0, 50], 100)[:, None]
    X[rng.random(X.shape) < 0.4] = np.nan
    with pytest.warns(ConvergenceWarning):
        model = GaussianHMM(2, n_init=1, max_iter=1, random_state=0).fit(X)
    assert model.predict(X).tolist() in ([0] * 100 + [1] * 100, [1] * 100 + [0] * 100)
    inside = [np.nanvar(X[:100], axis=0), np.nanvar(X[100:], axis=0)]
    assert_allclose(np.sort(model.covars_, axis=0), np.sort(inside, axis=0), rtol=0.1)
