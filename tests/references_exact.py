"""Enumeration of hidden paths whose sums lose no digit: the oracle beside outliers.

A log-density of 1e17 leaves a double no room for a probability, so that the logarithms of two paths
must not be rounded before they are compared: each path is a list of terms, and what is taken is the
correctly rounded difference of two such lists (``math.fsum``).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np


class Exact(NamedTuple):
    paths: np.ndarray  # (K ** n, n)
    behind: np.ndarray  # (K ** n,): log p(x, path) less that of the best path
    best: float  # log p(x, best path)
    log_likelihoods: np.ndarray  # (n,): log p(x_1..x_t)
    filtered: np.ndarray  # (n, K)
    posteriors: np.ndarray  # (n, K)
    transition_counts: np.ndarray  # (K, K)


def _prefixes(log_start, log_trans, log_obs):
    """(paths, log p(x, path) behind the best one's, the terms of that), or None if impossible."""
    n_steps, n_states = log_obs.shape
    paths = list(itertools.product(range(n_states), repeat=n_steps))
    terms = [
        [log_start[path[0]], *(log_trans[move] for move in itertools.pairwise(path)),
         *(log_obs[t, state] for t, state in enumerate(path))]
        for path in paths
    ]  # fmt: skip
    possible = [i for i, term in enumerate(terms) if min(term) > -np.inf]
    if not possible:
        return None
    behind = np.full(len(paths), -np.inf)
    best = max(possible, key=lambda i: math.fsum(terms[i]))
    for _ in range(2):  # the first guess is rounded
        lead = [-term for term in terms[best]]
        behind[possible] = [math.fsum(terms[i] + lead) for i in possible]
        best = int(np.argmax(behind))
    return np.array(paths), behind, terms[best]


def enumerate_exactly(startprob, transmat, log_obs) -> Exact | None:
    """None where every path is impossible."""
    n_steps, n_states = log_obs.shape
    with np.errstate(divide="ignore"):
        log_start, log_trans = np.log(startprob), np.log(transmat)
    filtered, log_likelihoods = np.zeros(log_obs.shape), np.empty(n_steps)
    for t in range(n_steps):
        found = _prefixes(log_start, log_trans, log_obs[: t + 1])
        if found is None:
            return None
        paths, behind, best = found
        weights = np.exp(behind)
        log_likelihoods[t] = math.fsum([*best, math.log(weights.sum())])
        weights /= weights.sum()
        np.add.at(filtered[t], paths[:, -1], weights)
    posteriors, counts = np.zeros(log_obs.shape), np.zeros((n_states, n_states))
    for t in range(n_steps):
        np.add.at(posteriors[t], paths[:, t], weights)
        if t > 0:
            np.add.at(counts, (paths[:, t - 1], paths[:, t]), weights)
    return Exact(paths, behind, math.fsum(best), log_likelihoods, filtered, posteriors, counts)
