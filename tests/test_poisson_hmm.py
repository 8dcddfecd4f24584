"""PoissonHMM: counts, several columns, zero rates, fractions, the seizure counts."""

import numpy as np
import pytest
from references import random_chain
from scipy.special import gammaln

from sklseq import PoissonHMM
from sklseq.datasets import load_earthquakes, load_seizures

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_one_state_is_a_poisson_distribution():
    X = load_earthquakes().data
    model = PoissonHMM(1).fit(X)
    assert model.rates_.shape == (1, 1)
    assert model.rates_[0, 0] == pytest.approx(X.mean(), rel=1e-12)
    # exact for 1 state: Zucchini & MacDonald, table 6.1
    assert -model.score_samples(X).sum() == pytest.approx(391.9189, abs=1e-4)


def test_fractions_have_the_density_by_the_gamma_function(rng):
    model = PoissonHMM.from_parameters(startprob=[1.0], transmat=[[1.0]], rates=[[2.5]])
    x = 1.7
    expected = x * np.log(2.5) - 2.5 - gammaln(x + 1)
    np.testing.assert_allclose(model.score_samples([[x]]), [expected], rtol=1e-12)
    PoissonHMM(2, random_state=0).fit(rng.gamma(2.0, size=(40, 1)))


def test_counts_are_not_negative(rng):
    X = rng.poisson(3.0, (30, 1))
    model = PoissonHMM(2, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"(?i)negative"):
        model.predict(X - 10)
    with pytest.raises(ValueError, match=r"(?i)negative"):
        PoissonHMM().fit(X - 10)
    with pytest.raises(ValueError, match="rates"):
        PoissonHMM.from_parameters(startprob=[1.0], transmat=[[1.0]], rates=[[-1.0]])


def test_a_state_that_only_ever_saw_zeros(rng):
    """A rate of zero: zeros have probability one there, anything else none; nothing is NaN."""
    X = np.concatenate([np.zeros(40), rng.poisson(30.0, 40)])[:, None]
    model = PoissonHMM(2, random_state=0).fit(X)
    assert np.isfinite(model.log_likelihoods_).all()
    low = model.rates_[:, 0].argmin()
    assert model.rates_[low, 0] < 1e-6
    np.testing.assert_array_equal(model.predict(X)[:40], low)
    assert np.isfinite(model.score(X))
    all_zero = PoissonHMM(2, random_state=0).fit(np.zeros((20, 1)))
    assert np.isfinite(all_zero.score(np.zeros((5, 1))))
    assert not np.isnan(all_zero.score_samples(np.ones((5, 1)))).any()


def test_large_counts(rng):
    X = rng.poisson(np.repeat([1e7, 2e7], 30))[:, None].astype(float)
    model = PoissonHMM(2, random_state=0).fit(X)
    np.testing.assert_allclose(np.sort(model.rates_[:, 0]), [1e7, 2e7], rtol=1e-3)


def test_aic_counts(rng):
    X = rng.poisson(4.0, (60, 2))
    model = PoissonHMM(3, random_state=0, max_iter=5).fit(X)
    free = 2 + 6 + 6
    assert model.aic(X) + 2 * model.score_samples(X).sum() == pytest.approx(2 * free)


def test_sample_gives_counts(rng):
    model = PoissonHMM.from_parameters(
        **random_chain(rng, 2), rates=np.array([[1.0, 9.0], [20.0, 0.0]])
    )
    X, states = model.sample(4000, random_state=0)
    np.testing.assert_array_equal(X, np.round(X))
    for state in range(2):
        np.testing.assert_allclose(
            X[states == state].mean(axis=0), model.rates_[state], atol=5 * np.sqrt(20 / 1000)
        )


def test_seizures_have_quiet_and_busy_patients():
    """Whole sequences, ragged by leaving visits out; NaN where a visit was missed."""
    sequences = [X[: 2 + i % 3] for i, X in enumerate(load_seizures().sequences)]
    sequences[0][1] = np.nan
    model = PoissonHMM(2, random_state=0).fit(sequences)
    assert model.converged_
    low, high = np.sort(model.rates_[:, 0])
    assert low < 8 < high
    assert [len(path) for path in model.predict(sequences)] == [len(X) for X in sequences]


def test_a_negative_count_beside_a_missing_one_is_refused():
    with pytest.raises(ValueError, match=r"Negative values.*row 2, column 0"):
        PoissonHMM(1).fit([[1.0], [np.nan], [-1.0]])
