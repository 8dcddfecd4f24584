"""The oracles agree with each other before they judge anything else."""

import numpy as np
import pytest
from references import (
    best_paths,
    enumerate_paths,
    log_backward,
    log_conditionals,
    log_filter,
    log_forward,
    log_smooth,
    log_viterbi,
    random_chain,
    stationary_distribution,
)
from scipy.special import logsumexp


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("n_steps", [1, 2, 6])
def test_passes_in_log_space_equal_the_sum_over_all_paths(rng, n_steps, zeros):
    chain = random_chain(rng, 3)
    if zeros:  # left to right
        chain = {"startprob": np.array([1.0, 0, 0]), "transmat": np.triu(chain["transmat"])}
        chain["transmat"] /= chain["transmat"].sum(1, keepdims=True)
    log_obs = rng.normal(scale=3.0, size=(n_steps, 3))
    slow = enumerate_paths(**chain, log_obs=log_obs)

    alpha = log_forward(**chain, log_obs=log_obs)
    np.testing.assert_allclose(logsumexp(alpha[-1]), slow.log_likelihood, rtol=1e-12)
    filtered = np.exp(alpha - logsumexp(alpha, axis=1, keepdims=True))
    np.testing.assert_allclose(filtered, slow.filtered, atol=1e-12)
    np.testing.assert_allclose(
        log_backward(chain["transmat"], log_obs), slow.log_backward, atol=1e-12
    )
    smoothed = log_smooth(**chain, log_obs=log_obs)
    np.testing.assert_allclose(smoothed.posteriors, slow.posteriors, atol=1e-12)
    np.testing.assert_allclose(smoothed.transition_counts, slow.transition_counts, atol=1e-12)
    np.testing.assert_allclose(
        np.exp(log_filter(**chain, log_obs=log_obs)[0]), slow.filtered, atol=1e-12
    )
    np.testing.assert_allclose(
        log_conditionals(**chain, log_obs=log_obs).sum(), slow.log_likelihood, rtol=1e-12
    )
    value, path = log_viterbi(**chain, log_obs=log_obs)
    values, paths = best_paths(**chain, log_obs=log_obs, n_paths=1)
    assert value == pytest.approx(values[0])
    np.testing.assert_array_equal(path, paths[0])


def test_stationary_distribution(rng):
    transmat = random_chain(rng, 4)["transmat"]
    np.testing.assert_allclose(
        stationary_distribution(transmat), np.linalg.matrix_power(transmat, 500)[0], atol=1e-12
    )


def test_every_oracle_m_step_raises_the_likelihood(family, rng):
    truth = family.random_parameters(rng, 2, 2)
    sequences = [family.sample(rng, n, truth) for n in (12, 30, 1)]
    sequences[1][3] = np.nan
    sequences[1][7, 0] = np.nan
    parameters = family.random_parameters(rng, 2, 2)
    history = []
    for _ in range(6):
        parameters, log_likelihood = family.em_step(sequences, parameters)
        history.append(log_likelihood)
    assert np.all(np.diff(history) > -1e-9)
    assert history[-1] > history[0] + 1e-3
