"""SoftmaxStateSpace: few sequences must not send the learned start to infinity."""

import numpy as np
import pytest

from sklseq import SoftmaxStateSpace


def sequences(rng, B, n):
    """Words of sequences of twelve steps that start anywhere in the stationary distribution."""
    d, result = B.shape[1], []
    for _ in range(n):
        s, words = rng.normal(size=d) / 0.6, []
        for _ in range(12):
            p = np.exp(B @ s)
            words.append(rng.choice(len(B), p=p / p.sum()))
            s = 0.8 * s + rng.normal(size=d)
        result.append(np.eye(len(B))[words])
    return result


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("d", [1, 2])
def test_few_sequences(n, d):
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        B = 1.2 * rng.normal(size=(4, d))
        X, others = sequences(rng, B, n), sequences(rng, B, 40)
        fitted = SoftmaxStateSpace(d, n_particles=0, max_iter=60, tol=1e-5).fit(X)
        assert np.abs(fitted.initial_state_mean_).max() < 3
        if n > d:
            assert np.linalg.eigvalsh(fitted.initial_state_covariance_)[0] > 0.2
            assert np.linalg.eigvalsh(fitted.initial_state_covariance_)[-1] < 10
        assert np.all(np.diff(fitted.objectives_) > -1e-9)
        counts = np.vstack(X).sum(axis=0) + 0.5
        unigram = np.mean(np.log(np.vstack(others) @ (counts / counts.sum())))
        gains.append(fitted.score(others) - unigram)
    assert min(gains) > -0.25 and np.mean(gains) > (0.0 if n > 3 else -0.2)


@pytest.mark.parametrize("alpha", [0.3, 3.0])
@pytest.mark.parametrize("held", [(), ("initial_state_mean",), ("transition_covariance",)])
@pytest.mark.parametrize("gamma", ["full", "diag", "spherical"])
def test_m_step_of_the_chain_with_a_start_prior_is_a_maximum(alpha, held, gamma, rng):
    """Against differences: nothing nearby is better, covariances and mean together."""
    from dataclasses import replace

    from sklseq.state_space._chain import ChainStatistics, LinearGaussianChain

    d = 2
    chain = LinearGaussianChain(
        0.5 * np.eye(d), np.diag([1.0, 1.0]) * 0.8, np.array([0.5, -0.2]), 2.0 * np.eye(d),
        covariance_type=gamma, held={name: np.array(True) for name in held},
    )  # fmt: skip
    first = rng.normal(size=(4, d)) + 3
    before, noise = rng.normal(size=(30, d)), rng.normal(size=(30, d))
    statistics = ChainStatistics(
        4.0, first.sum(axis=0), first.T @ first, 30.0,
        before.T @ before, noise.T @ before, noise.T @ noise,
    )  # fmt: skip

    def value(other):
        moved = chain.moved(statistics, other)
        total = other.start_log_prior(alpha)
        for covariance, second, count in (
            (other.transition_covariance, moved.second, 30.0),
            (other.initial_covariance, moved.first_second, 4.0),
        ):
            total -= 0.5 * count * np.linalg.slogdet(covariance)[1]
            total -= 0.5 * np.trace(np.linalg.solve(covariance, second))
        return total

    best = chain
    for _ in range(300):  # parts in turn, each given the others: to their common maximum
        target = best.m_step(chain.moved(statistics, best), None, alpha)
        assert value(target) >= value(best) - 1e-10
        best = target
    steps = {
        "transition_covariance": np.eye(d), "initial_mean": np.array([1.0, -0.5]),
        "initial_covariance": np.eye(d),
    }  # fmt: skip
    names = {"initial_mean": "initial_state_mean", "initial_covariance": "initial_state_covariance"}
    for name, direction in steps.items():
        if names.get(name, name) in held:
            continue
        for sign in (1e-3, -1e-3):
            other = replace(best, **{name: getattr(best, name) + sign * direction})
            assert value(other) <= value(best) + 1e-9
