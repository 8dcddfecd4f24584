"""Sources read inside the recursion against the same log-densities given as an array."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklseq._gaussian_density import log_density_diag, log_density_full
from sklseq._gaussian_moments import moments

from sklseq.hmm import _forward_backward as kernels

LENGTHS = {
    "one row": [1],
    "ragged": [130, 1, 7, 64, 65, 100, 3, 200, 31, 2],
    "long": [9_001],  # cut into chunks
    "both": [20, 5_000, 300],
}


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)


def random_chain(rng, n_states, sticky=0.0):
    transmat = rng.dirichlet(np.ones(n_states), size=n_states)
    transmat = sticky * np.eye(n_states) + (1 - sticky) * transmat
    return rng.dirichlet(np.ones(n_states)), transmat


def gaussian(rng, n_states, n_features, n_steps, kind):
    """(source, the same log-densities, the statistics of given posteriors)."""
    X = 3 * rng.standard_normal((n_steps, n_features))
    if kind == "missing":
        X[rng.random(X.shape) < 0.2] = np.nan
    means = 2 * rng.standard_normal((n_states, n_features))
    log_obs = np.empty((n_steps, n_states))
    if kind == "full":
        factors = np.tril(rng.standard_normal((n_states, n_features, n_features))) / 3
        spread = factors + np.eye(n_features)
        spread[:, range(n_features), range(n_features)] = 0.5 + rng.random((n_states, n_features))
        log_density_full(X, means, spread, log_obs)
    else:
        spread = 0.5 + rng.random((n_states, n_features))
        log_density_diag(X, means, spread, log_obs)
    full = kind == "full"
    source = kernels.gaussian_source(X, means, spread.reshape(-1), full)

    def statistics(posteriors):
        sums = np.zeros(source.n_statistics)
        moments(X, posteriors, means, full, sums)
        return sums

    return source, log_obs, statistics


def codes(rng, n_states, n_categories, n_steps):
    table = rng.dirichlet(np.full(n_categories, 0.3), size=n_states)
    table[rng.random(table.shape) < 0.1] = 0.0
    values = rng.integers(-1, n_categories, n_steps).astype(np.int32)
    with np.errstate(divide="ignore"):
        log_table = np.log(np.ascontiguousarray(table.T))
    log_obs = np.where(values[:, None] < 0, 0.0, log_table[values])
    source = kernels.code_source(values, log_table)

    def statistics(posteriors):
        by_code = np.zeros((n_categories + 1, n_states))
        np.add.at(by_code, values, posteriors)
        return by_code

    return source, log_obs, statistics


def both(kind, rng, n_states, n_features, n_steps):
    if kind == "codes":
        return codes(rng, n_states, 4 * n_features, n_steps)
    return gaussian(rng, n_states, n_features, n_steps, kind)


def outcomes(chain, evidence, offsets, n_steps):
    """Everything that the passes give."""
    startprob, transmat = chain
    n_states, n_sequences = len(startprob), len(offsets) - 1
    filtered, posteriors = np.full((2, n_steps, n_states), np.nan)
    increments, states = np.full(n_steps, np.nan), np.full(n_steps, -1, dtype=np.intp)
    totals, smoothed, best = np.full((3, n_sequences), np.nan)
    final, counts = np.full((n_sequences, n_states), np.nan), np.zeros(transmat.shape)
    kernels.forward(startprob, transmat, evidence, offsets, filtered, increments)
    kernels.log_likelihood(startprob, transmat, evidence, offsets, totals, final)
    kernels.forward_backward(
        startprob, transmat, evidence, offsets, posteriors, counts, smoothed
    )
    with np.errstate(divide="ignore"):
        logs = np.log(startprob), np.log(transmat)
    kernels.viterbi(*logs, evidence, offsets, states, best)
    return filtered, increments, totals, final, posteriors, counts, smoothed, states, best


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("n_states, n_features", [(1, 1), (2, 1), (3, 2), (5, 5), (10, 7), (16, 3)])
@pytest.mark.parametrize("kind", ["diag", "missing", "full", "codes"])
def test_a_source_is_its_log_densities_to_the_bit(kind, n_states, n_features, lengths, rng):
    offsets = offsets_of(lengths)
    n_steps = offsets[-1]
    source, log_obs, _ = both(kind, rng, n_states, n_features, n_steps)
    chain = random_chain(rng, n_states)
    for one, other in zip(
        outcomes(chain, source, offsets, n_steps), outcomes(chain, log_obs, offsets, n_steps)
    ):
        assert_array_equal(one, other)


def assert_statistics(kind, chain, source, log_obs, statistics, offsets):
    """One pass against posteriors in memory and sums over them."""
    startprob, transmat = chain
    n_states, n_sequences = len(startprob), len(offsets) - 1
    posteriors, counts = np.empty(log_obs.shape), np.zeros(transmat.shape)
    totals = np.empty(n_sequences)
    kernels.forward_backward(startprob, transmat, log_obs, offsets, posteriors, counts, totals)
    starts, ends = np.full((2, n_sequences, n_states), np.nan)
    own_counts, own_totals = np.ones(transmat.shape), np.empty(n_sequences)
    sums = np.zeros(source.n_statistics)
    kernels.expected_statistics(
        startprob, transmat, source, offsets, starts, ends, own_counts, sums, own_totals
    )
    assert_array_equal(own_totals, totals)
    assert_allclose(own_counts - 1, counts, rtol=1e-11, atol=1e-11)
    assert_allclose(starts, posteriors[offsets[:-1]], rtol=1e-13, atol=1e-15)
    assert_allclose(ends, posteriors[offsets[1:] - 1], rtol=1e-13, atol=1e-15)
    expected = statistics(posteriors)
    if kind == "codes":
        sums = sums.reshape(len(expected) + 1, -1)[:-1, :n_states]
    elif kind == "full":  # of the second moments the lower triangles
        n_features = source.n_statistics // n_states
        n_features = int((np.sqrt(4 * n_features - 3) - 1) / 2)
        lower = np.tri(n_features, dtype=bool)
        keep = np.concatenate(
            [np.ones(n_states * (1 + n_features), dtype=bool), np.tile(lower.ravel(), n_states)]
        )
        sums, expected = sums[keep], expected[keep]
    assert_allclose(sums, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("n_states, n_features", [(1, 1), (2, 1), (5, 5), (10, 7), (16, 3)])
@pytest.mark.parametrize("kind", ["diag", "missing", "full", "codes"])
def test_statistics_in_one_pass(kind, n_states, n_features, lengths, rng):
    offsets = offsets_of(lengths)
    problem = both(kind, rng, n_states, n_features, offsets[-1])
    assert_statistics(kind, random_chain(rng, n_states), *problem, offsets)


@pytest.mark.parametrize("sticky", [1 - 1e-4, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("kind", ["diag", "full", "codes"])
def test_statistics_of_what_the_lanes_cannot_do(kind, sticky, rng):
    """Chains that do not forget, and states that would be flushed: the plain and the log pass."""
    offsets = offsets_of([40, 6_000, 300, 1])
    source, log_obs, statistics = both(kind, rng, 3, 2, offsets[-1])
    if kind == "codes":  # nothing is impossible, or A = I leaves no path
        source, log_obs, statistics = possible_codes(rng, offsets[-1])
    assert_statistics(
        kind, random_chain(rng, 3, sticky), source, log_obs, statistics, offsets
    )


def possible_codes(rng, n_steps):
    log_table = np.log(np.ascontiguousarray(rng.dirichlet(np.ones(6), size=3).T))
    values = rng.integers(6, size=n_steps).astype(np.int32)

    def statistics(posteriors):
        by_code = np.zeros((7, 3))
        np.add.at(by_code, values, posteriors)
        return by_code

    return kernels.code_source(values, log_table), log_table[values], statistics


def test_vanishing_start_probabilities_need_no_log_space(rng):
    """EM drives the start of a single sequence to 0 by way of 1e-150: the value is the limit's."""
    source, _, _ = gaussian(rng, 3, 1, 500, "diag")
    transmat = random_chain(rng, 3)[1]
    totals, final = np.empty(1), np.empty((1, 3))
    values = []
    for tiny in (0.0, 1e-150, 1e-250, 1e-310):
        startprob = np.array([1.0, tiny, tiny])
        kernels.log_likelihood(startprob, transmat, source, offsets_of([500]), totals, final)
        values.append(totals[0])
    assert_allclose(values, values[0], rtol=1e-14)
