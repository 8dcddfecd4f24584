"""The chain kernels against enumeration of all paths and against passes in log space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from references_chain import (
    log,
    log_space_passes,
    log_space_viterbi,
    path_filtered,
    path_log_backward,
    path_log_likelihood,
    path_log_probability,
    path_posteriors,
    path_viterbi,
)
from scipy.stats import multivariate_normal, norm
from sklseq._gaussian_density import log_density_diag, log_density_full

from sklseq.hmm import _forward_backward as kernels

# Both sides of the border between the lane kernels (K <= 16) and the row kernels.
STATE_COUNTS = [1, 2, 3, 5, 8, 10, 16, 17, 24, 50]


# ---- calling the kernels as the package does --------------------------------------------------


def run_forward(startprob, transmat, log_obs, offsets):
    filtered = np.full(log_obs.shape, np.nan)
    increments = np.full(len(log_obs), np.nan)
    kernels.forward(startprob, transmat, log_obs, offsets, filtered, increments)
    return filtered, increments


def run_log_likelihood(startprob, transmat, log_obs, offsets):
    totals = np.full(len(offsets) - 1, np.nan)
    final = np.full((len(offsets) - 1, len(startprob)), np.nan)
    kernels.log_likelihood(startprob, transmat, log_obs, offsets, totals, final)
    return totals, final


def run_forward_backward(startprob, transmat, log_obs, offsets):
    posteriors = np.full(log_obs.shape, np.nan)
    counts = np.zeros(transmat.shape)
    totals = np.full(len(offsets) - 1, np.nan)
    kernels.forward_backward(startprob, transmat, log_obs, offsets, posteriors, counts, totals)
    return posteriors, counts, totals


def run_viterbi(startprob, transmat, log_obs, offsets):
    states = np.full(len(log_obs), -1, dtype=np.intp)
    totals = np.full(len(offsets) - 1, np.nan)
    kernels.viterbi(log(startprob), log(transmat), log_obs, offsets, states, totals)
    return states, totals


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)


def random_chain(rng, n_states, n_steps, zeros=0.0, scale=3.0, impossible=0.0):
    """A random chain with a share of structural zeros and of impossible observations."""
    startprob = rng.dirichlet(np.ones(n_states))
    transmat = rng.dirichlet(np.ones(n_states), size=n_states)
    keep = rng.random((n_states, n_states)) >= zeros
    np.fill_diagonal(keep, True)
    transmat = np.where(keep, transmat, 0)
    transmat /= transmat.sum(axis=1, keepdims=True)
    keep = rng.random(n_states) >= zeros
    keep[rng.integers(n_states)] = True
    startprob = np.where(keep, startprob, 0) / (startprob * keep).sum()
    log_obs = scale * rng.standard_normal((n_steps, n_states))
    log_obs[rng.random(log_obs.shape) < impossible] = -np.inf
    return startprob, transmat, log_obs


def check_against_log_space(startprob, transmat, log_obs, offsets, rtol=1e-9, atol=1e-10):
    """All summing kernels at once, sequence by sequence, against the log-space passes."""
    filtered, increments = run_forward(startprob, transmat, log_obs, offsets)
    totals, final = run_log_likelihood(startprob, transmat, log_obs, offsets)
    posteriors, counts, totals_smoothed = run_forward_backward(
        startprob, transmat, log_obs, offsets
    )
    expected_counts = np.zeros_like(counts)
    for s in range(len(offsets) - 1):
        rows = slice(offsets[s], offsets[s + 1])
        expected = log_space_passes(startprob, transmat, log_obs[rows])
        assert_allclose(filtered[rows], expected[0], rtol=rtol, atol=atol)
        assert_allclose(increments[rows], expected[1], rtol=rtol, atol=atol)
        assert_allclose(final[s], expected[0][-1], rtol=rtol, atol=atol)
        assert_allclose(totals[s], expected[1].sum(), rtol=rtol, atol=atol)
        assert_allclose(totals_smoothed[s], expected[1].sum(), rtol=rtol, atol=atol)
        assert_allclose(posteriors[rows], expected[2], rtol=rtol, atol=atol)
        expected_counts += expected[3]
    assert_allclose(counts, expected_counts, rtol=rtol, atol=atol * len(log_obs))
    assert (counts[transmat == 0] == 0).all()


# ---- against enumeration of all paths ---------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(1, 4),
    n_steps=st.integers(1, 6),
    zeros=st.sampled_from([0.0, 0.5]),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    impossible=st.sampled_from([0.0, 0.3]),
)
def test_all_kernels_equal_their_definitions(seed, n_states, n_steps, zeros, scale, impossible):
    rng = np.random.default_rng(seed)
    chain = random_chain(rng, n_states, n_steps, zeros, scale, impossible)
    _, transmat, log_obs = chain
    offsets = offsets_of([n_steps])
    total = path_log_likelihood(*chain)

    assert_allclose(run_log_likelihood(*chain, offsets)[0], total, rtol=1e-12, atol=1e-12)
    log_backward = np.full(log_obs.shape, np.nan)
    kernels.backward(transmat, log_obs, offsets, log_backward)
    assert_allclose(log_backward, path_log_backward(transmat, log_obs), rtol=1e-12, atol=1e-12)

    posteriors, counts, totals = run_forward_backward(*chain, offsets)
    filtered, increments = run_forward(*chain, offsets)
    assert_allclose(totals, total, rtol=1e-12, atol=1e-12)
    if total == -np.inf:
        assert (posteriors == 0).all() and (counts == 0).all()
        assert increments[-1] == -np.inf and (filtered[-1] == 0).all()
        return
    expected_posteriors, expected_counts = path_posteriors(*chain)
    assert_allclose(posteriors, expected_posteriors, atol=1e-11)
    assert_allclose(counts, expected_counts, atol=1e-11)
    expected_filtered, expected_increments = path_filtered(*chain)
    assert_allclose(filtered, expected_filtered, atol=1e-11)
    assert_allclose(increments, expected_increments, rtol=1e-11, atol=1e-11)

    states, best = run_viterbi(*chain, offsets)
    expected_best = path_viterbi(*chain)[1]
    assert_allclose(best, expected_best, rtol=1e-12, atol=1e-12)
    assert_allclose(path_log_probability(*chain, states), expected_best, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3])
def test_ties_go_to_the_lowest_state(n_states):
    startprob = np.full(n_states, 1 / n_states)
    transmat = np.full((n_states, n_states), 1 / n_states)
    log_obs = np.zeros((5, n_states))
    states, _ = run_viterbi(startprob, transmat, log_obs, offsets_of([5]))
    assert_array_equal(states, path_viterbi(startprob, transmat, log_obs)[0])
    assert (states == 0).all()


# ---- against log space: longer, larger, ragged ------------------------------------------------


@pytest.mark.parametrize("n_states", STATE_COUNTS)
@pytest.mark.parametrize("zeros, impossible", [(0, 0), (0.4, 0), (0.4, 0.1)])
def test_ragged_batches_equal_log_space(n_states, zeros, impossible):
    rng = np.random.default_rng(n_states)
    lengths = [1, 7, 130, 1, 64, 65, 3, 200, 31, 2, 17]
    chain = random_chain(rng, n_states, sum(lengths), zeros, 2.0, impossible)
    check_against_log_space(*chain, offsets_of(lengths))


@pytest.mark.parametrize("n_states", STATE_COUNTS)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_viterbi_of_ragged_batches(n_states, scale):
    rng = np.random.default_rng(n_states)
    lengths = [1, 7, 130, 1, 64, 65, 3, 200, 31, 2, 17]
    startprob, transmat, log_obs = random_chain(rng, n_states, sum(lengths), 0.3, scale)
    offsets = offsets_of(lengths)
    states, totals = run_viterbi(startprob, transmat, log_obs, offsets)
    for s in range(len(lengths)):
        rows = slice(offsets[s], offsets[s + 1])
        expected, total = log_space_viterbi(log(startprob), log(transmat), log_obs[rows])
        assert_array_equal(states[rows], expected)
        assert_allclose(totals[s], total, rtol=1e-12)


@pytest.mark.parametrize("n_states", [2, 5, 12, 20])
def test_viterbi_with_many_ties(n_states):
    """Small whole numbers are exact in any order, so the tie rule decides nearly every step."""
    rng = np.random.default_rng(n_states)
    lengths = [5000, 60, 1, 77, 300]
    log_startprob = -rng.integers(0, 2, n_states).astype(float)
    log_transmat = -rng.integers(0, 3, (n_states, n_states)).astype(float)
    log_obs = -rng.integers(0, 3, (sum(lengths), n_states)).astype(float)
    offsets = offsets_of(lengths)
    states = np.empty(len(log_obs), dtype=np.intp)
    totals = np.empty(len(lengths))
    kernels.viterbi(log_startprob, log_transmat, log_obs, offsets, states, totals)
    for s in range(len(lengths)):
        rows = slice(offsets[s], offsets[s + 1])
        expected, total = log_space_viterbi(log_startprob, log_transmat, log_obs[rows])
        assert_array_equal(states[rows], expected)
        assert totals[s] == total


def sticky_chain(rng, n_states, n_steps, stay=0.9):
    """A chain that mixes well, with data simulated from it (unit-variance Gaussians)."""
    transmat = np.full((n_states, n_states), (1 - stay) / max(n_states - 1, 1))
    np.fill_diagonal(transmat, stay if n_states > 1 else 1.0)
    startprob = np.full(n_states, 1 / n_states)
    states = np.zeros(n_steps, dtype=np.intp)
    states[1:] = np.cumsum(rng.random(n_steps - 1) > stay) % n_states
    x = 2.0 * states + rng.standard_normal(n_steps)
    log_obs = norm.logpdf(x[:, None], 2.0 * np.arange(n_states))
    return startprob, transmat, log_obs


@pytest.mark.parametrize("n_states", [1, 2, 5, 11, 20])
def test_long_sequences_equal_log_space(n_states):
    """Long enough to be cut into chunks, with short company and a length that divides nothing."""
    rng = np.random.default_rng(0)
    lengths = [9001, 40, 4500]
    startprob, transmat, log_obs = sticky_chain(rng, n_states, sum(lengths))
    offsets = offsets_of(lengths)
    check_against_log_space(startprob, transmat, log_obs, offsets)
    states, totals = run_viterbi(startprob, transmat, log_obs, offsets)
    for s in range(len(lengths)):
        rows = slice(offsets[s], offsets[s + 1])
        expected, total = log_space_viterbi(log(startprob), log(transmat), log_obs[rows])
        assert_array_equal(states[rows], expected)
        assert_allclose(totals[s], total, rtol=1e-12)


@pytest.mark.parametrize("n_states", [2, 5, 20])
@pytest.mark.parametrize("kind", ["identity", "periodic", "nearly_identity", "left_right"])
def test_long_sequences_that_do_not_forget(n_states, kind):
    """Chunks cannot be started from a warm-up here: the kernel must notice."""
    rng = np.random.default_rng(1)
    n_steps = 6000
    startprob, _, log_obs = random_chain(rng, n_states, n_steps, scale=0.02)
    if kind == "identity":
        transmat = np.eye(n_states)
    elif kind == "periodic":
        transmat = np.roll(np.eye(n_states), 1, axis=1)
    elif kind == "nearly_identity":
        transmat = np.eye(n_states) * (1 - 1e-6) + 1e-6 / n_states
    else:
        transmat = np.triu(np.full((n_states, n_states), 1e-3))
        np.fill_diagonal(transmat, 1)
    transmat = transmat / transmat.sum(axis=1, keepdims=True)
    check_against_log_space(startprob, transmat, log_obs, offsets_of([n_steps]), 1e-8, 1e-9)
    states, total = run_viterbi(startprob, transmat, log_obs, offsets_of([n_steps]))
    expected, expected_total = log_space_viterbi(log(startprob), log(transmat), log_obs)
    assert_array_equal(states, expected)
    assert_allclose(total, expected_total, rtol=1e-12)


# ---- a sequence alone, in company, in any order -----------------------------------------------


@pytest.mark.parametrize("n_states", STATE_COUNTS)
def test_company_does_not_change_a_bit(n_states):
    rng = np.random.default_rng(n_states)
    lengths = np.array([5, 4321, 130, 1, 64, 65, 3, 200, 31, 2, 17, 17, 17, 90])
    offsets = offsets_of(lengths)
    chain = sticky_chain(rng, n_states, lengths.sum(), stay=0.7)
    startprob, transmat, log_obs = chain
    kernels_and_axes = [run_forward, run_log_likelihood, run_forward_backward, run_viterbi]
    together = [run(*chain, offsets) for run in kernels_and_axes]

    order = rng.permutation(len(lengths))
    pieces = [log_obs[offsets[s] : offsets[s + 1]] for s in order]
    permuted_offsets = offsets_of(lengths[order])
    permuted = [
        run(startprob, transmat, np.concatenate(pieces), permuted_offsets)
        for run in kernels_and_axes
    ]
    for place, s in enumerate(order):
        alone = [
            run(startprob, transmat, pieces[place].copy(), offsets_of([lengths[s]]))
            for run in kernels_and_axes
        ]
        for whole, other, own in zip(together, permuted, alone):
            for name, (x, y, z) in enumerate(zip(whole, other, own)):
                if x.shape == transmat.shape and name == 1 and len(whole) == 3:
                    continue  # counts are summed over sequences
                rows = slice(offsets[s], offsets[s + 1]) if len(x) == len(log_obs) else [s]
                moved = (
                    slice(permuted_offsets[place], permuted_offsets[place + 1])
                    if len(x) == len(log_obs)
                    else [place]
                )
                assert_array_equal(x[rows], z)
                assert_array_equal(y[moved], z)
    assert_allclose(together[2][1], permuted[2][1], rtol=1e-12)


def test_transition_counts_are_added_to():
    rng = np.random.default_rng(0)
    startprob, transmat, log_obs = random_chain(rng, 3, 50)
    offsets = offsets_of([50])
    counts = run_forward_backward(startprob, transmat, log_obs, offsets)[1]
    twice = counts.copy()
    kernels.forward_backward(
        startprob, transmat, log_obs, offsets, np.empty((50, 3)), twice, np.empty(1)
    )
    assert_allclose(twice, 2 * counts, rtol=1e-14)
    assert_allclose(counts.sum(), 49, rtol=1e-12)


@pytest.mark.parametrize("n_states", [2, 5, 20])
def test_block_by_block_equals_at_once(n_states):
    rng = np.random.default_rng(3)
    startprob, transmat, log_obs = sticky_chain(rng, n_states, 20_000)
    at_once, last = run_log_likelihood(startprob, transmat, log_obs, offsets_of([20_000]))
    total, start = 0.0, startprob
    for first in range(0, 20_000, 6000):
        block = log_obs[first : first + 6000]
        value, final = run_log_likelihood(start, transmat, block, offsets_of([len(block)]))
        total += value[0]
        start = final[0] @ transmat
    assert_allclose(total, at_once[0], rtol=1e-13)
    assert_allclose(final, last, atol=1e-13)


# ---- what the scaled pass alone would get wrong -----------------------------------------------


@pytest.mark.parametrize("n_spectators", [0, 20])
def test_rescue_when_all_reachable_states_underflow(n_spectators):
    """A = I, means 0 and 38, observations 0 then 38: every product is below the smallest double."""
    n_states = 2 + n_spectators
    means = np.concatenate([[0.0, 38.0], np.full(n_spectators, 19.0)])
    startprob = np.full(n_states, 1 / n_states)
    log_obs = norm.logpdf(np.array([[0.0], [38.0]]), means)
    log_obs[:, 2:] -= 5000
    check_against_log_space(startprob, np.eye(n_states), log_obs, offsets_of([2]))


@pytest.mark.parametrize("n_spectators", [0, 20])
@pytest.mark.parametrize("tiny", [0.0, 1e-300, 1e-120, 1e-40])
def test_rescue_when_a_flushed_state_would_have_won(n_spectators, tiny):
    """The silent case: state 2 is 450 nats behind at first, and explains all that follows."""
    n_states = 3 + n_spectators
    means = np.concatenate([[0.0, 60.0, 30.0], np.full(n_spectators, 0.0)])
    deviations = np.concatenate([[1.0, 1.0, 30.0], np.full(n_spectators, 1.0)])
    startprob = np.full(n_states, 1 / n_states)
    transmat = np.eye(n_states) + tiny
    transmat /= transmat.sum(axis=1, keepdims=True)
    x = np.concatenate([[0.0], np.full(900, 60.0)])
    log_obs = norm.logpdf(x[:, None], means, deviations)
    check_against_log_space(startprob, transmat, log_obs, offsets_of([901]))


@pytest.mark.parametrize("n_states", [2, 4, 20])
def test_left_right_chain_far_from_its_data(n_states):
    """States left behind lose hundreds of nats per step; they must stay exact or be exactly 0."""
    transmat = np.eye(n_states) * 0.9 + np.eye(n_states, k=1) * 0.1
    transmat[-1, -1] = 1
    startprob = np.eye(n_states)[0]
    x = np.repeat(60.0 * np.arange(n_states), 20)
    log_obs = norm.logpdf(x[:, None], 60.0 * np.arange(n_states))
    check_against_log_space(startprob, transmat, log_obs, offsets_of([len(x)]))


@pytest.mark.parametrize("value", [-1e5, -1e18, -1e200, 1e5, 1e18])
@pytest.mark.parametrize("n_states", [1, 3, 20])
def test_extreme_densities(value, n_states):
    rng = np.random.default_rng(0)
    startprob, transmat, log_obs = random_chain(rng, n_states, 40, 0.3)
    log_obs[7] += value
    log_obs[20, 0] = value
    check_against_log_space(startprob, transmat, log_obs, offsets_of([40]), 1e-8, 1e-8)


@pytest.mark.parametrize("n_states", [2, 20])
def test_unreachable_state_that_would_explain_everything(n_states):
    """Its backward message grows without bound; it must not turn into NaN."""
    startprob = np.eye(n_states)[0]
    transmat = np.full((n_states, n_states), 1 / (n_states - 1))
    transmat[:, 1] = 0
    transmat[1] = np.eye(n_states)[1]
    log_obs = np.full((3000, n_states), -5.0)
    log_obs[:, 1] = 0
    check_against_log_space(startprob, transmat, log_obs, offsets_of([3000]), 1e-9, 1e-10)


@pytest.mark.parametrize("n_states", [1, 2, 16, 20])
@pytest.mark.parametrize("n_steps", [1, 2, 90, 6000])
def test_impossible_sequences(n_states, n_steps):
    """-inf and zeros, never NaN; the neighbours do not notice."""
    rng = np.random.default_rng(0)
    startprob, transmat, log_obs = random_chain(rng, n_states, 3 * n_steps, scale=1.0)
    offsets = offsets_of([n_steps, n_steps, n_steps])
    alone = run_forward_backward(startprob, transmat, log_obs, offsets_of([n_steps, n_steps]))
    bad = n_steps // 2
    log_obs[2 * n_steps + bad] = -np.inf
    posteriors, counts, totals = run_forward_backward(startprob, transmat, log_obs, offsets)
    assert totals[2] == -np.inf
    assert (posteriors[2 * n_steps :] == 0).all()
    assert_allclose(counts, alone[1], rtol=1e-12)
    assert_array_equal(totals[:2], alone[2])
    filtered, increments = run_forward(startprob, transmat, log_obs, offsets)
    increments, filtered = increments[2 * n_steps :], filtered[2 * n_steps :]
    assert np.isfinite(increments[:bad]).all() and (increments[bad:] == -np.inf).all()
    assert_allclose(filtered[:bad].sum(axis=1), 1)
    assert (filtered[bad:] == 0).all()
    likelihoods, final = run_log_likelihood(startprob, transmat, log_obs, offsets)
    assert likelihoods[2] == -np.inf and (final[2] == 0).all()
    states, best = run_viterbi(startprob, transmat, log_obs, offsets)
    assert best[2] == -np.inf and ((states >= 0) & (states < n_states)).all()


@pytest.mark.parametrize("n_states", [3, 20])
def test_infinite_density_is_safe(n_states):
    """A density of +inf has no meaning; whatever comes out, states are valid."""
    rng = np.random.default_rng(0)
    chain = random_chain(rng, n_states, 30)
    chain[2][11, 1] = np.inf
    for run in (run_forward, run_log_likelihood, run_forward_backward):
        run(*chain, offsets_of([30]))
    states, _ = run_viterbi(*chain, offsets_of([30]))
    assert ((states >= 0) & (states < n_states)).all()


# ---- accuracy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_states", [2, 5])
def test_a_million_steps_to_1e_8(n_states):
    """Against the same recursion in 80-bit arithmetic; log space itself is off by 1e-5 here."""
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("long double is no wider than double on this machine")
    rng = np.random.default_rng(0)
    n_steps = 1_000_000 if n_states == 2 else 100_000
    startprob, transmat, log_obs = sticky_chain(rng, n_states, n_steps)
    extended = np.longdouble
    wide_transmat, state = transmat.astype(extended), startprob.astype(extended)
    shift = log_obs.max(axis=1, keepdims=True)
    evidence = np.exp((log_obs - shift).astype(extended))
    total, product = extended(0), extended(1)
    for t in range(n_steps):
        state = evidence[t] * (wide_transmat.T @ state if t else state)
        total_t = state.sum()
        state /= total_t
        product *= total_t
        if product < 1e-250:
            total += np.log(product)
            product = extended(1)
    total += np.log(product) + shift.astype(extended).sum()
    offsets = offsets_of([n_steps])
    assert abs(run_log_likelihood(startprob, transmat, log_obs, offsets)[0][0] - total) < 1e-8
    posteriors, _, totals = run_forward_backward(startprob, transmat, log_obs, offsets)
    assert abs(totals[0] - total) < 1e-8
    assert_allclose(posteriors.sum(axis=1), 1, atol=1e-12)


# ---- posterior draws --------------------------------------------------------------------------


def test_posterior_draws_have_the_posterior_distribution():
    rng = np.random.default_rng(0)
    startprob, transmat, log_obs = random_chain(rng, 3, 10, zeros=0.3, scale=1.0)
    offsets = offsets_of([4, 6])
    filtered, _ = run_forward(startprob, transmat, log_obs, offsets)
    n_draws = 40_000
    states = np.empty((n_draws, 10), dtype=np.intp)
    kernels.sample_backward(transmat, filtered, offsets, rng.random((n_draws, 10)), states)
    for rows in (slice(0, 4), slice(4, 10)):
        posteriors, counts = path_posteriors(startprob, transmat, log_obs[rows])
        drawn = states[:, rows]
        frequencies = (drawn[:, :, None] == np.arange(3)).mean(axis=0)
        assert_allclose(frequencies, posteriors, atol=4 * 0.5 / np.sqrt(n_draws))
        pairs = np.zeros((3, 3))
        np.add.at(pairs, (drawn[:, :-1].ravel(), drawn[:, 1:].ravel()), 1 / n_draws)
        assert_allclose(pairs, counts, atol=4 / np.sqrt(n_draws))
        assert (pairs[transmat == 0] == 0).all()


def test_posterior_draws_at_the_ends_of_the_unit_interval():
    transmat = np.array([[0.0, 0.5, 0.5, 0.0], [0.0, 1, 0, 0], [0, 0, 1, 0], [0.25] * 4])
    filtered = np.array([[0.0, 0.5, 0.5, 0.0], [0.0, 0.5, 0.5, 0.0]])
    states = np.empty((2, 2), dtype=np.intp)
    uniforms = np.array([[0.0, 0.0], [np.nextafter(1, 0)] * 2])
    kernels.sample_backward(transmat, filtered, offsets_of([2]), uniforms, states)
    assert_array_equal(states, [[1, 1], [2, 2]])


# ---- log-densities ----------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (9, 1, 2), (64, 3, 5), (100, 5, 10), (67, 2, 17), (1000, 7, 3), (130, 20, 50)]


@pytest.mark.parametrize("n_rows, n_features, n_states", SHAPES)
def test_diagonal_density(n_rows, n_features, n_states):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)) * 3
    means = rng.standard_normal((n_states, n_features))
    variances = rng.uniform(0.1, 3, (n_states, n_features))
    terms = norm.logpdf(X[:, None, :], means, np.sqrt(variances))
    log_obs = np.full((n_rows, n_states), np.nan)
    log_density_diag(X, means, 1 / variances, log_obs)
    assert_allclose(log_obs, terms.sum(axis=2), rtol=1e-12, atol=1e-12)

    whole = log_obs.copy()
    missing = rng.random(X.shape) < 0.3
    missing[0] = True
    X[missing] = np.nan
    log_density_diag(X, means, 1 / variances, log_obs)
    expected = np.where(missing[:, None, :], 0, terms).sum(axis=2)
    assert_allclose(log_obs, expected, rtol=1e-12, atol=1e-12)
    assert (log_obs[0] == 0).all()
    complete = ~missing.any(axis=1)
    assert_array_equal(log_obs[complete], whole[complete])


@pytest.mark.parametrize("n_rows, n_features, n_states", SHAPES)
def test_full_density(n_rows, n_features, n_states):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)) * 3
    means = rng.standard_normal((n_states, n_features))
    factors = rng.standard_normal((n_states, n_features, n_features))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.5 * np.eye(n_features)
    whitening = np.linalg.inv(np.linalg.cholesky(covariances))
    log_obs = np.full((n_rows, n_states), np.nan)
    log_density_full(X, means, np.ascontiguousarray(whitening), log_obs)
    expected = np.stack(
        [multivariate_normal.logpdf(X, m, c).reshape(n_rows) for m, c in zip(means, covariances)],
        axis=1,
    )
    assert_allclose(log_obs, expected, rtol=1e-9, atol=1e-9)


def test_densities_of_a_row_do_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((203, 3))
    X[50, 1] = np.nan
    means = rng.standard_normal((4, 3))
    precisions = rng.uniform(0.5, 2, (4, 3))
    whitening = np.tril(rng.uniform(0.5, 2, (4, 3, 3)))
    together, alone = np.empty((203, 4)), np.empty((1, 4))
    log_density_diag(X, means, precisions, together)
    for n in range(203):
        log_density_diag(X[n : n + 1], means, precisions, alone)
        assert_array_equal(together[n : n + 1], alone)
    X = np.nan_to_num(X)
    log_density_full(X, means, whitening, together)
    for n in range(203):
        log_density_full(X[n : n + 1], means, whitening, alone)
        assert_array_equal(together[n : n + 1], alone)


def test_density_far_from_the_mean_is_finite_or_minus_infinity():
    X = np.array([[1e8], [1e160], [-1e300]])
    log_obs = np.empty((3, 1))
    log_density_diag(X, np.zeros((1, 1)), np.ones((1, 1)), log_obs)
    assert_allclose(log_obs[0], -0.5e16, rtol=1e-12)
    assert (log_obs[1:] == -np.inf).all()
