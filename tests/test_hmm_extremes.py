"""HMMs at the ends of what a double can hold: outliers, zeros, gaps, huge scales and counts."""

import numpy as np
import pytest

from sklseq import GaussianHMM, GaussianMixtureHMM


@pytest.mark.parametrize("model", [GaussianHMM(2, max_iter=2), GaussianMixtureHMM(2, max_iter=2)])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_values_whose_squares_overflow_are_named(model, missing):
    first, second = np.random.default_rng(0).normal(size=(2, 20, 2))
    first[0, 1] = np.nan if missing else 0.0
    model.fit([first, second])
    second[3, 1] = -1e160
    for method in (model.fit, model.score, model.predict, model.sample_posterior):
        with pytest.raises(ValueError, match=r"-1e\+160 at row 3 of sequence 1, column 1"):
            method([first, second])
    second[3, 1] = 1e150  # squares that a double can hold pass
    assert model.fit([first, second]).n_features_in_ == 2


def beside_an_outlier(size):
    """A state that is never visited, whose narrow density the outlier is far from."""
    model = GaussianHMM.from_parameters(
        startprob=[0, 1], transmat=[[1, 0], [0.2, 0.8]],
        means=[[3.0], [1.0]], covars=[[0.01], [1.0]],
    )
    x = 1 + np.random.default_rng(0).normal(size=(12, 1))
    x[3] = size
    return model, x


@pytest.mark.parametrize("size", [1e3, 1e8, -1e9, 1e15])
def test_messages_beside_an_outlier(size):
    model, x = beside_an_outlier(size)
    messages = model.forward_backward(x)
    np.testing.assert_allclose(messages.posteriors[:4], [[0, 1]] * 4, rtol=1e-15)
    np.testing.assert_allclose(messages.posteriors.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(messages.transition_counts.sum(), 11, rtol=1e-12)
    # state 1 is certain at the outlier, so that what follows is a sequence of its own
    after = GaussianHMM.from_parameters(
        startprob=model.transmat_[1], transmat=model.transmat_, means=model.means_,
        covars=model.covars_,
    ).forward_backward(x[4:])  # fmt: skip
    np.testing.assert_allclose(messages.posteriors[4:], after.posteriors, atol=1e-12)
    np.testing.assert_allclose(messages.log_backward[4:], after.log_backward, rtol=1e-12)


@pytest.mark.parametrize("n_states", [3, 20])
def test_the_best_paths_remember_what_came_before_an_outlier(n_states):
    """Two states alike but for their mean; the outlier is as far from both."""
    rng = np.random.default_rng(1)
    means = np.full((n_states, 2), 50.0)
    means[:2, 0] = [3, -3]  # the lowest index wins among equals: it must be the other
    means[:, 1] = 0
    transmat = np.full((n_states, n_states), 1e-3)
    np.fill_diagonal(transmat, 1)
    transmat /= transmat.sum(axis=1, keepdims=True)
    model = GaussianHMM.from_parameters(
        startprob=np.full(n_states, 1 / n_states), transmat=transmat, means=means,
        covars=np.ones((n_states, 2)),
    )  # fmt: skip
    x = rng.normal(size=(9, 2))
    x[:4, 0] -= 3
    x[4, 0], x[4:, 0] = 0, 0  # the steps that follow say nothing of the two
    x[4, 1] = 1e9
    assert model.predict(x).tolist() == [1] * 9
    totals, paths = model.decode(x, n_paths=3)
    assert paths[0].tolist() == [1] * 9
    assert paths.shape == (3, 9)
    assert np.ptp(totals) < 1e3
