"""Random HMMs with zeros, tiny arcs, outliers, gaps and huge scales against exact enumeration."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from references import enumerate_paths
from references_chain import log_space_passes
from references_exact import enumerate_exactly
from sklseq.hmm._list_viterbi import list_viterbi

from sklseq import GaussianHMM
from sklseq.hmm import _forward_backward as kernels

N_PATHS = 3


def random_rows(rng, n_rows, n_states, kind):
    rows = rng.dirichlet(np.full(n_states, rng.choice([0.3, 1.0, 5.0])), size=n_rows)
    chosen = rng.random(rows.shape) < 0.4
    if kind == "zeros":
        rows[chosen] = 0
    elif kind == "tiny":
        rows = np.where(chosen, 10.0 ** -rng.integers(5, 300), rows)
    elif kind == "left-right":
        rows *= np.arange(n_states) >= np.arange(n_rows)[:, None]
    dead = rows.sum(axis=1) == 0
    rows[dead, rng.integers(0, n_states, dead.sum())] = 1
    return rows / rows.sum(axis=1, keepdims=True)


def random_case(seed):
    """A Gaussian HMM and a sequence that few models would have made."""
    rng = np.random.default_rng(seed)
    n_states, n_steps = rng.integers(2, 4), rng.integers(1, 7)
    kind = rng.choice(["mixing", "zeros", "tiny", "left-right"])
    transmat = random_rows(rng, n_states, n_states, kind)
    startprob = random_rows(rng, 1, n_states, rng.choice(["mixing", "zeros", "tiny"]))[0]
    means = rng.normal(size=n_states) * 10 ** rng.uniform(-1, 3)
    variances = 10 ** rng.uniform(-3, 3, n_states)
    if rng.random() < 0.2:
        variances[:] = variances[0]
    x = rng.normal(size=n_steps) * 10 ** rng.uniform(-1, 3) + rng.choice(means)
    outliers = rng.integers(0, n_steps, rng.integers(0, 3))
    x[outliers] = rng.choice([-1, 1]) * 10 ** rng.uniform(2, 9)
    if rng.random() < 0.3:
        x[rng.integers(n_steps)] = np.nan
    log_obs = np.zeros((n_steps, n_states))
    model = GaussianHMM.from_parameters(
        startprob=startprob, transmat=transmat, means=means[:, None], covars=variances[:, None]
    )
    chain = model._model()
    chain.emission.log_prob(x[:, None], log_obs)
    return SimpleNamespace(
        startprob=chain.startprob, transmat=chain.transmat, log_obs=log_obs, model=model,
        x=x[:, None], rng=rng,
    )  # fmt: skip


def run_kernels(startprob, transmat, evidence, offsets):
    """Everything that the kernels say of the sequences."""
    n_steps, n_states, n_sequences = offsets[-1], len(startprob), len(offsets) - 1
    with np.errstate(divide="ignore"):
        logs = np.log(startprob), np.log(transmat)
    out = SimpleNamespace(
        filtered=np.empty((n_steps, n_states)), increments=np.empty(n_steps),
        posteriors=np.empty((n_steps, n_states)), counts=np.zeros((n_states, n_states)),
        smoothed=np.empty(n_sequences), scored=np.empty(n_sequences),
        final=np.empty((n_sequences, n_states)), path=np.empty(n_steps, dtype=np.intp),
        best=np.empty(n_sequences),
    )  # fmt: skip
    chain = startprob, transmat, evidence, offsets
    kernels.forward(*chain, out.filtered, out.increments)
    kernels.forward_backward(*chain, out.posteriors, out.counts, out.smoothed)
    kernels.log_likelihood(*chain, out.scored, out.final)
    kernels.viterbi(*logs, evidence, offsets, out.path, out.best)
    return out


def place(path, n_states):
    """Of a path in the order of the enumeration."""
    return int(np.asarray(path) @ n_states ** np.arange(len(path))[::-1])


def check_against(exact, out, n_states):
    """`out` of one sequence; it may have more states than the enumeration, all unreachable."""
    size = max(1.0, np.abs(exact.log_likelihoods).max(), abs(exact.best))
    allowed = 1e-13 * size + 1e-12
    assert_allclose(out.filtered[:, :n_states], exact.filtered, atol=1e-10)
    assert_allclose(out.posteriors[:, :n_states], exact.posteriors, atol=1e-10)
    assert_allclose(out.counts[:n_states, :n_states], exact.transition_counts, atol=1e-10)
    assert_allclose(out.final[0, :n_states], exact.filtered[-1], atol=1e-10)
    assert_allclose(np.cumsum(out.increments), exact.log_likelihoods, rtol=0, atol=allowed)
    assert_allclose([out.smoothed[0], out.scored[0]], exact.log_likelihoods[-1], atol=allowed)
    assert_allclose(out.best[0], exact.best, atol=allowed)
    assert exact.behind[place(out.path, n_states)] > -1e-9
    for array in (out.filtered, out.posteriors, out.counts):
        assert not array[..., n_states:].any()


@pytest.mark.parametrize("block", range(10))
def test_chain_against_exact_enumeration(block):
    for seed in range(block * 80, block * 80 + 80):
        case = random_case(seed)
        n_steps, n_states = case.log_obs.shape
        if case.rng.random() < 0.2:
            case.log_obs[case.rng.random(case.log_obs.shape) < 0.2] = -np.inf
        exact = enumerate_exactly(case.startprob, case.transmat, case.log_obs)
        offsets = np.array([0, n_steps])
        out = run_kernels(case.startprob, case.transmat, case.log_obs, offsets)
        if exact is None:
            assert np.isneginf([out.smoothed[0], out.scored[0], out.best[0]]).all(), seed
            continue
        check_against(exact, out, n_states)
        check_list(case, exact)
        check_among_unreachable(case, exact)


def check_list(case, exact):
    n_steps, n_states = case.log_obs.shape
    states, totals = np.empty((n_steps, N_PATHS), dtype=np.intp), np.empty((1, N_PATHS))
    with np.errstate(divide="ignore"):
        logs = np.log(case.startprob), np.log(case.transmat)
    list_viterbi(*logs, case.log_obs, np.array([0, n_steps]), states, totals)
    ranked = np.sort(exact.behind)[::-1]
    for rank, behind in enumerate(ranked[:N_PATHS]):
        if behind == -np.inf:
            assert np.isneginf(totals[0, rank])
            continue
        assert_allclose(
            exact.behind[place(states[:, rank], n_states)], behind, rtol=1e-9, atol=1e-9
        )


def check_among_unreachable(case, exact, n_all=19):
    """The kernels for many states, some of which fit far better and cannot be reached."""
    n_steps, n_states = case.log_obs.shape
    startprob, transmat = np.zeros(n_all), np.zeros((n_all, n_all))
    startprob[:n_states], transmat[:n_states, :n_states] = case.startprob, case.transmat
    transmat[n_states:] = 1 / n_all
    log_obs = case.rng.normal(size=(n_steps, n_all)) * 10 ** case.rng.uniform(0, 5)
    log_obs[:, :n_states] = case.log_obs
    out = run_kernels(startprob, transmat, log_obs, np.array([0, n_steps]))
    check_against(exact, out, n_states)


@pytest.mark.parametrize("block", range(4))
def test_model_against_exact_enumeration(block):
    """The public methods, whose densities are worked out on the way to the recursion."""
    for seed in range(10_000 + block * 40, 10_000 + block * 40 + 40):
        case = random_case(seed)
        model, n_states = case.model, case.log_obs.shape[1]
        exact = enumerate_exactly(case.startprob, case.transmat, case.log_obs)
        size = max(1.0, np.abs(exact.log_likelihoods).max(), abs(exact.best))
        allowed = {"rtol": 0, "atol": 1e-13 * size + 1e-12}
        X = [case.x, case.x[::-1], case.x]
        assert_allclose(model.predict_proba(X)[2], exact.posteriors, atol=1e-10)
        assert_allclose(model.filter(X)[2], exact.filtered, atol=1e-10)
        assert_allclose(model.score_sequences(X)[2], exact.log_likelihoods[-1], **allowed)
        total, path = model.decode(case.x)
        assert_allclose(total, exact.best, **allowed)
        assert exact.behind[place(path, n_states)] > -1e-9
        assert_array_equal(model.predict(X)[2], path)
        draws = model.sample_posterior(case.x, n_draws=400, random_state=seed)
        frequencies = (draws[:, :, None] == np.arange(n_states)).mean(axis=0)
        assert_allclose(frequencies, exact.posteriors, atol=0.11)  # 4.4 standard deviations
        assert min(exact.behind[place(draw, n_states)] for draw in draws) > -40, seed


@pytest.mark.parametrize("n_states", [4, 18])
def test_longer_chains_with_zeros_against_log_space(n_states):
    """States fall below what a double holds at most steps; some of them matter again later."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kind = ["left-right", "zeros", "tiny"][seed % 3]
        startprob = random_rows(rng, 1, n_states, "zeros")[0]
        transmat = random_rows(rng, n_states, n_states, kind)
        lengths = rng.integers(20, 50, 3)
        log_obs = rng.normal(size=(lengths.sum(), n_states)) * 10 ** rng.uniform(0.5, 3)
        if seed % 2:  # a pull to one state after the other
            at = np.arange(len(log_obs)) * n_states // len(log_obs)
            log_obs -= 10 ** rng.uniform(1, 3) * np.abs(at[:, None] - np.arange(n_states))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        out = run_kernels(startprob, transmat, log_obs, offsets)
        counts = np.zeros_like(transmat)
        for s, rows in enumerate(map(slice, offsets[:-1], offsets[1:])):
            filtered, increments, posteriors, moves = log_space_passes(
                startprob, transmat, log_obs[rows]
            )
            counts += moves
            assert_allclose(out.filtered[rows], filtered, atol=1e-10)
            assert_allclose(out.posteriors[rows], posteriors, atol=1e-10)
            assert_allclose(out.increments[rows], increments, rtol=1e-12, atol=1e-10)
            assert_allclose(out.scored[s], increments.sum(), rtol=1e-12)
            assert_allclose(out.smoothed[s], increments.sum(), rtol=1e-12)
            assert_allclose(out.final[s], filtered[-1], atol=1e-10)
        assert_allclose(out.counts, counts, atol=1e-8)


@pytest.mark.parametrize("n_states", [8, 40])
def test_zeros_cost_little(n_states):
    """A left-right model was 5 to 14 times as slow as one whose zeros are 1e-12; now below 2."""
    models, X = zip(*(left_right(n_states, zero) for zero in (0.0, 1e-12)))
    for method in ("score", "score_samples", "predict_proba"):
        times = np.full((5, 2), np.inf)
        for row in times:
            for i, model in enumerate(models):
                start = time.thread_time()
                getattr(model, method)(X[0])
                row[i] = time.thread_time() - start
        zeros, tiny = times.min(axis=0)
        assert zeros < 3.5 * tiny, (method, times)
    assert_allclose(models[0].predict_proba(X[0]), models[1].predict_proba(X[0]), atol=1e-9)


def left_right(n_states, zero, n_steps=4000, n_features=24):
    rng = np.random.default_rng(0)
    transmat = np.eye(n_states) * 0.95 + np.eye(n_states, k=1) * 0.05
    transmat = np.where(transmat == 0, zero, transmat)
    startprob = np.where(np.arange(n_states) == 0, 1, zero)
    means = 3 * rng.normal(size=(n_states, n_features))
    model = GaussianHMM.from_parameters(
        startprob=startprob / startprob.sum(), transmat=transmat / transmat.sum(axis=1)[:, None],
        means=means, covars=np.ones_like(means),
    )  # fmt: skip
    states = np.arange(n_steps) * n_states // n_steps
    return model, means[states] + rng.normal(size=(n_steps, n_features))


def test_the_oracle_agrees_with_the_other_one():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        chain = random_rows(rng, 1, 3, "zeros")[0], random_rows(rng, 3, 3, "zeros")
        log_obs = rng.normal(size=(4, 3)) * 3
        exact, other = enumerate_exactly(*chain, log_obs), enumerate_paths(*chain, log_obs)
        assert_allclose(exact.posteriors, other.posteriors, atol=1e-13)
        assert_allclose(exact.filtered, other.filtered, atol=1e-13)
        assert_allclose(exact.transition_counts, other.transition_counts, atol=1e-13)
        assert_allclose(exact.log_likelihoods[-1], other.log_likelihood, atol=1e-12)
