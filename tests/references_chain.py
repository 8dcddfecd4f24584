"""Slow, obvious oracles for the chain kernels: all paths, and passes in log space.

`enumerate_paths` lists every hidden path, so each quantity below is its definition and nothing
else.  The log-space passes serve where K^T is too many; they are checked against enumeration.
"""

import itertools

import numpy as np


def log(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def logsumexp(x, axis=None):
    """scipy's, without its cost per call."""
    largest = x.max(axis=axis, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0)
    return log(np.exp(x - shift).sum(axis=axis)) + shift.squeeze(axis)


def enumerate_paths(startprob, transmat, log_obs):
    """All paths (K^T, T), in lexicographic order, and their log joint density with the data."""
    n_steps, n_states = log_obs.shape
    paths = np.array(list(itertools.product(range(n_states), repeat=n_steps)), dtype=np.intp)
    joint = log(startprob)[paths[:, 0]] + log_obs[0, paths[:, 0]]
    for t in range(1, n_steps):
        joint = joint + log(transmat)[paths[:, t - 1], paths[:, t]] + log_obs[t, paths[:, t]]
    return paths, joint


def path_log_likelihood(startprob, transmat, log_obs):
    return logsumexp(enumerate_paths(startprob, transmat, log_obs)[1])


def path_posteriors(startprob, transmat, log_obs):
    """P(s_t = k | X) (T, K) and expected transition counts (K, K), by summing paths."""
    n_steps, n_states = log_obs.shape
    paths, joint = enumerate_paths(startprob, transmat, log_obs)
    weights = np.exp(joint - logsumexp(joint))
    posteriors = np.zeros((n_steps, n_states))
    counts = np.zeros((n_states, n_states))
    for t in range(n_steps):
        np.add.at(posteriors[t], paths[:, t], weights)
        if t > 0:
            np.add.at(counts, (paths[:, t - 1], paths[:, t]), weights)
    return posteriors, counts


def path_filtered(startprob, transmat, log_obs):
    """P(s_t | x_1..x_t): the last posterior of every prefix; and log p(x_t | x_<t)."""
    filtered, totals = [], [0.0]
    for t in range(1, len(log_obs) + 1):
        filtered.append(path_posteriors(startprob, transmat, log_obs[:t])[0][-1])
        totals.append(path_log_likelihood(startprob, transmat, log_obs[:t]))
    return np.array(filtered), np.diff(totals)


def path_log_backward(transmat, log_obs):
    """log p(x_{t+1}..x_T | s_t = k), by starting a chain at each state."""
    n_steps, n_states = log_obs.shape
    result = np.zeros((n_steps, n_states))
    for t in range(n_steps - 1):
        for k in range(n_states):
            result[t, k] = path_log_likelihood(transmat[k], transmat, log_obs[t + 1 :])
    return result


def path_viterbi(startprob, transmat, log_obs):
    """The best path; among equals the one with the lowest last state, then the last but one."""
    paths, joint = enumerate_paths(startprob, transmat, log_obs)
    best = paths[joint == joint.max()]
    return best[np.lexsort(best.T)[0]], joint.max()


def log_space_passes(startprob, transmat, log_obs):
    """Forward-backward in log space, normalised per step, for sequences of any length.

    Densities are measured from that of the state that wins the step: a sum of one of 1e18 with a
    logarithm of a probability would forget the latter (rows of posteriors then sum to 3).
    Returns filtered (T, K), log_increments (T,), posteriors (T, K), counts (K, K).
    An impossible step gives -inf from there on, and zero posteriors and counts.
    """
    n_steps, n_states = log_obs.shape
    log_transmat = log(transmat)
    filtered = np.full((n_steps, n_states), -np.inf)
    increments = np.full(n_steps, -np.inf)
    relative, behind = np.empty(n_steps), np.empty_like(log_obs)
    predicted = log(startprob)
    for t in range(n_steps):
        winner = np.argmax(predicted + log_obs[t])
        if predicted[winner] + log_obs[t, winner] == -np.inf:
            zero = np.zeros((n_states, n_states))
            return np.exp(filtered), increments, np.zeros_like(filtered), zero
        behind[t] = log_obs[t] - log_obs[t, winner]
        relative[t] = logsumexp(predicted + behind[t])
        increments[t] = log_obs[t, winner] + relative[t]
        filtered[t] = predicted + behind[t] - relative[t]
        predicted = logsumexp(filtered[t][:, None] + log_transmat, axis=0)
    backward = np.zeros(n_states)
    posteriors = np.exp(filtered)
    counts = np.zeros((n_states, n_states))
    for t in range(n_steps - 1, 0, -1):
        ahead = log_transmat + (behind[t] - relative[t] + backward)
        counts += np.exp(filtered[t - 1][:, None] + ahead)
        backward = logsumexp(ahead, axis=1)
        with np.errstate(invalid="ignore"):
            row = np.exp(filtered[t - 1] + backward)
        posteriors[t - 1] = np.where(filtered[t - 1] == -np.inf, 0, row)
    return np.exp(filtered), increments, posteriors, counts


def log_space_viterbi(log_startprob, log_transmat, log_obs):
    """Viterbi, normalised at each step by its maximum; np.argmax takes the lowest of equals."""
    n_steps, n_states = log_obs.shape
    pointers = np.zeros((n_steps, n_states), dtype=np.intp)
    score = log_startprob + log_obs[0]
    total = 0.0
    for t in range(n_steps):
        if t > 0:
            candidates = score[:, None] + log_transmat
            pointers[t] = candidates.argmax(axis=0)
            score = candidates.max(axis=0) + log_obs[t]
        total += score.max()
        if score.max() > -np.inf:
            score = score - score.max()
    states = np.empty(n_steps, dtype=np.intp)
    states[-1] = score.argmax()
    for t in range(n_steps - 1, 0, -1):
        states[t - 1] = pointers[t, states[t]]
    return states, total


def path_log_probability(startprob, transmat, log_obs, states):
    """log p(X, path) of one given path."""
    arcs = log(transmat)[states[:-1], states[1:]].sum()
    return log(startprob)[states[0]] + arcs + log_obs[np.arange(len(states)), states].sum()
