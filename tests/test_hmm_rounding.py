"""Large counts and nearly dependent columns: a log-likelihood with its digits, or a known loss.

EM never lowers its objective; a fall that is rounding must not read as a fault of the package.
"""

import warnings
from fractions import Fraction
from math import comb, log

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaln
from sklearn.exceptions import ConvergenceWarning

from sklseq import GaussianHMM, GaussianMixtureHMM, MultinomialHMM, PoissonHMM
from sklseq.hmm._multinomial import MultinomialEmission
from sklseq.hmm._poisson import PoissonEmission
from sklseq.hmm._saddle_point import deviance, half_log


def poisson_exactly(count, rate):
    with mpmath.workdps(60):
        x, m = mpmath.mpf(count), mpmath.mpf(rate)
        return float(x * mpmath.log(m) - m - mpmath.loggamma(x + 1))


@pytest.mark.parametrize("count", [0, 0.01, 0.5, 1, 15, 15.9, 16, 17.5, 300, 5e3, 1e7, 1e9, 1e12])
def test_poisson_probabilities_of_any_count(count):
    rates = np.array([[f * count + c] for f, c in ((1, 1e-9), (1 + 1e-6, 1), (1.2, 2), (3, 1))])
    out = np.empty((1, len(rates)))
    PoissonEmission(rates).log_prob(np.array([[float(count)]]), out)
    expected = [poisson_exactly(count, rate) for rate in rates[:, 0]]
    assert_allclose(out[0], expected, rtol=1e-13, atol=1e-11)
    saddle = -deviance(count, rates[:, 0]) - half_log(np.array(count))
    assert_allclose(saddle, expected, rtol=1e-13, atol=1e-14)


def test_rows_of_large_and_small_and_missing_counts(rng):
    rates = np.array([[3.0, 1e9, 0.0], [5.0, 1.1e9, 2.0]])
    X = np.array([[2, 1e9, 0], [np.nan, 1.05e9, 1], [4, np.nan, 0], [1e9, np.nan, np.nan]])
    out = np.empty((4, 2))
    PoissonEmission(rates).log_prob(X, out)
    for t, row in enumerate(X):
        for k in range(2):
            terms = [
                (-np.inf if x > 0 and m == 0 else poisson_exactly(x, m) if m else 0.0)
                for x, m in zip(row, rates[k]) if not np.isnan(x)
            ]  # fmt: skip
            assert_allclose(out[t, k], sum(terms), rtol=1e-13, atol=1e-11)


def test_multinomial_probabilities_of_large_counts():
    """Against whole numbers: a table of binary fractions sums to 1 exactly."""
    counts, table = np.array([[5003.0, 1990.0, 3.0]]), np.array([[0.75, 0.25 - 2**-11, 2**-11]])
    out = np.empty((1, 1))
    MultinomialEmission(table).log_prob(counts, out)
    x = [int(count) for count in counts[0]]
    exact = Fraction(comb(sum(x), x[0]) * comb(x[1] + x[2], x[2]))
    for count, p in zip(x, table[0]):
        exact *= Fraction(p) ** count
    shift = 1 << 200  # the probability as a whole number of 2^-200 has enough digits
    assert_allclose(out[0, 0], log(int(exact * shift)) - 200 * log(2), rtol=1e-12)
    big = np.array([[6e8, 3e8, 1e8 + 7]])
    MultinomialEmission(np.array([[0.6, 0.3, 0.1]])).log_prob(big, out)
    plain = gammaln(big.sum() + 1) - gammaln(big + 1).sum() + (big @ np.log([0.6, 0.3, 0.1]))[0]
    assert_allclose(out[0, 0], plain, atol=1e-4)  # the plain form has no more
    assert -30 < out[0, 0] < -15


def fit_without_a_fall(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("error", message=".*bug of sklseq")
        model.fit(X)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1e7, 1e9, 1e11])
def test_em_on_large_counts_does_not_fall(size, seed):
    rng = np.random.default_rng(seed)
    rates = size * (1 + 1e-4 * np.repeat([0, 1], 100))[:, None]
    parameters = {"tol": 0.0, "max_iter": 40, "n_init": 2, "random_state": 0}
    fit_without_a_fall(PoissonHMM(2, **parameters), rng.poisson(rates).astype(float))
    X = rng.multinomial(int(size), [0.2, 0.3, 0.5], 200).astype(float)
    fit_without_a_fall(MultinomialHMM(2, **parameters), X)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("family", [GaussianHMM, GaussianMixtureHMM])
def test_em_on_nearly_dependent_columns_does_not_fall(family, covariance_type):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 30)) + 1e-7 * rng.normal(size=(50, 30))
        model = family(2, covariance_type=covariance_type, reg_covar=1e-12, tol=0.0, max_iter=30,
                       n_init=1, random_state=0)  # fmt: skip
        fit_without_a_fall(model, X)


def test_what_rounding_may_do_is_nothing_for_well_conditioned_models(rng):
    X = rng.normal(size=(100, 3))
    for covariance_type in ("full", "tied", "diag", "spherical"):
        model = GaussianHMM(2, covariance_type=covariance_type, max_iter=3, tol=1.0).fit(X)
        assert model._model().rounding < 1e-12


@pytest.mark.parametrize("size", [1e25, 1e100, 1e150])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_counts_that_no_one_counted(size, rng):
    """Their rates have no digits that would do; what is left is no warning of arithmetic."""
    X = rng.poisson(5, (30, 1)).astype(float)
    X[3] = size
    model = PoissonHMM(2, random_state=0, max_iter=5)
    fit_without_a_fall(model, X)
    assert np.isfinite(model.score(X))
    counts = rng.poisson(5, (30, 3)).astype(float)
    counts[3, 1] = size
    fit_without_a_fall(MultinomialHMM(2, random_state=0, max_iter=5), counts)
