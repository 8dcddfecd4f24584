"""Slow, obvious oracles: every kernel and M-step of the HMM wing is judged against these.

Nothing here is shared with the package.  Three independent routes lead to the same numbers:
all paths written out one by one, passes in log space, and M-steps written as sums over rows.

Symbols: ``startprob`` (K,), ``transmat`` (K, K) with rows that sum to 1, ``log_obs`` (n, K) =
log p(x_t given s_t = k), all logarithms natural.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats
from scipy.special import logsumexp

# --- All paths, one by one --------------------------------------------------------------------


class Enumeration(NamedTuple):
    """What follows from the K ** n paths of one sequence."""

    paths: np.ndarray  # (K ** n, n)
    log_joint: np.ndarray  # (K ** n,): log p(x, path)
    log_likelihood: float
    filtered: np.ndarray  # (n, K): P(s_t given x_1..x_t)
    log_backward: np.ndarray  # (n, K): log p(x_t+1..x_n given s_t)
    posteriors: np.ndarray  # (n, K)
    transition_counts: np.ndarray  # (K, K): expected number of steps from i to j


def safe_log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values)


def all_paths(startprob, transmat, log_obs) -> tuple[np.ndarray, np.ndarray]:
    """Every path and its log p(x, path)."""
    n_steps, n_states = log_obs.shape
    paths = np.array(list(itertools.product(range(n_states), repeat=n_steps)))
    log_start, log_trans = safe_log(startprob), safe_log(transmat)
    log_joint = np.array([
        log_start[path[0]]
        + sum(log_trans[i, j] for i, j in itertools.pairwise(path))
        + sum(log_obs[t, state] for t, state in enumerate(path))
        for path in paths
    ])
    return paths, log_joint


def enumerate_paths(startprob, transmat, log_obs) -> Enumeration:
    n_steps, n_states = log_obs.shape
    paths, log_joint = all_paths(startprob, transmat, log_obs)
    log_likelihood = logsumexp(log_joint)
    weights = np.exp(log_joint - log_likelihood)
    posteriors = np.zeros((n_steps, n_states))
    counts = np.zeros((n_states, n_states))
    for path, weight in zip(paths, weights):
        posteriors[np.arange(n_steps), path] += weight
        for i, j in itertools.pairwise(path):
            counts[i, j] += weight

    filtered = np.zeros((n_steps, n_states))
    for t in range(n_steps):
        prefixes, log_prefix = all_paths(startprob, transmat, log_obs[: t + 1])
        probability = np.exp(log_prefix - logsumexp(log_prefix))
        for k in range(n_states):
            filtered[t, k] = probability[prefixes[:, -1] == k].sum()

    log_backward = np.zeros((n_steps, n_states))
    for t in range(n_steps - 1):
        for k in range(n_states):
            log_backward[t, k] = logsumexp(all_paths(transmat[k], transmat, log_obs[t + 1 :])[1])
    return Enumeration(
        paths, log_joint, float(log_likelihood), filtered, log_backward, posteriors, counts
    )


def best_paths(startprob, transmat, log_obs, n_paths) -> tuple[np.ndarray, np.ndarray]:
    """The ``n_paths`` most probable paths, best first: log p(x, path) (k,), states (k, n)."""
    paths, log_joint = all_paths(startprob, transmat, log_obs)
    order = np.argsort(-log_joint, kind="stable")[:n_paths]
    return log_joint[order], paths[order]


def forecast_states(startprob, transmat, log_obs, n_steps) -> np.ndarray:
    """P(s_n+h given x_1..x_n), h = 1..n_steps: posteriors of steps without an observation."""
    missing = np.zeros((n_steps, log_obs.shape[1]))
    return enumerate_paths(startprob, transmat, np.vstack([log_obs, missing])).posteriors[-n_steps:]


# --- Passes in log space ----------------------------------------------------------------------


def log_forward(startprob, transmat, log_obs) -> np.ndarray:
    """log p(x_1..x_t, s_t), (n, K)."""
    log_trans = safe_log(transmat)
    alpha = np.empty_like(log_obs)
    alpha[0] = safe_log(startprob) + log_obs[0]
    for t in range(1, len(log_obs)):
        with np.errstate(invalid="ignore"):
            alpha[t] = logsumexp(alpha[t - 1][:, None] + log_trans, axis=0) + log_obs[t]
    return alpha


def log_backward(transmat, log_obs) -> np.ndarray:
    """log p(x_t+1..x_n given s_t), (n, K)."""
    log_trans = safe_log(transmat)
    beta = np.zeros_like(log_obs)
    for t in range(len(log_obs) - 2, -1, -1):
        beta[t] = logsumexp(log_trans + (log_obs[t + 1] + beta[t + 1])[None, :], axis=1)
    return beta


class Smoothed(NamedTuple):
    """Posteriors (n, K), expected transition counts (K, K), log-likelihood of one sequence."""

    posteriors: np.ndarray
    transition_counts: np.ndarray
    log_likelihood: float


def log_filter(startprob, transmat, log_obs) -> tuple[np.ndarray, np.ndarray]:
    """log P(s_t given x_1..x_t) (n, K) and log p(x_t given x_1..x_t-1) (n,).

    Normalised at each step, so that an outlier of 1e16 nats does not swallow the digits of the
    steps after it.
    """
    log_trans = safe_log(transmat)
    filtered, conditionals = np.empty_like(log_obs), np.empty(len(log_obs))
    predicted = safe_log(startprob)
    for t, row in enumerate(log_obs):
        conditionals[t] = logsumexp(predicted + row)
        filtered[t] = predicted + row - conditionals[t]
        predicted = logsumexp(filtered[t][:, None] + log_trans, axis=0)
    return filtered, conditionals


def log_conditionals(startprob, transmat, log_obs) -> np.ndarray:
    """log p(x_t given x_1..x_t-1), (n,)."""
    return log_filter(startprob, transmat, log_obs)[1]


def log_smooth(startprob, transmat, log_obs) -> Smoothed:
    """Backward from the filter: P(s_t, s_t+1 given x_1..x_n), one step at a time."""
    filtered, conditionals = log_filter(startprob, transmat, log_obs)
    log_trans = safe_log(transmat)
    posteriors, counts = filtered.copy(), np.zeros_like(transmat)
    for t in range(len(log_obs) - 2, -1, -1):
        pair = filtered[t][:, None] + log_trans
        predicted = logsumexp(pair, axis=0)
        reached = np.isfinite(predicted) & np.isfinite(posteriors[t + 1])
        joint = np.full_like(pair, -np.inf)
        joint[:, reached] = pair[:, reached] - predicted[reached] + posteriors[t + 1][reached]
        counts += np.exp(joint)
        posteriors[t] = logsumexp(joint, axis=1)
    return Smoothed(np.exp(posteriors), counts, float(conditionals.sum()))


def log_viterbi(startprob, transmat, log_obs) -> tuple[float, np.ndarray]:
    log_trans = safe_log(transmat)
    best = safe_log(startprob) + log_obs[0]
    pointers = []
    for row in log_obs[1:]:
        candidates = best[:, None] + log_trans
        pointers.append(candidates.argmax(axis=0))
        best = candidates.max(axis=0) + row
    path = [int(best.argmax())]
    for pointer in reversed(pointers):
        path.append(int(pointer[path[-1]]))
    return float(best.max()), np.array(path[::-1])


def stationary_distribution(transmat) -> np.ndarray:
    """The solution of delta A = delta, sum(delta) = 1, by least squares."""
    n_states = len(transmat)
    system = np.vstack([transmat.T - np.eye(n_states), np.ones(n_states)])
    right = np.zeros(n_states + 1)
    right[-1] = 1.0
    return np.linalg.lstsq(system, right, rcond=None)[0]


# --- Densities of one step, row by row --------------------------------------------------------


def full_covariances(covars, covariance_type, n_states, n_features) -> np.ndarray:
    """(K, D, D) from the compact shape of each type."""
    covars = np.asarray(covars, dtype=float)
    if covariance_type == "full":
        return covars
    if covariance_type == "tied":
        return np.repeat(covars[None], n_states, axis=0)
    if covariance_type == "diag":
        return np.array([np.diag(row) for row in covars])
    return np.array([value * np.eye(n_features) for value in covars])


def gaussian_log_obs(X, means, covars, covariance_type) -> np.ndarray:
    """Log density of the observed part of every row, (n, K); nothing observed: 0."""
    n_states, n_features = np.shape(means)
    covariances = full_covariances(covars, covariance_type, n_states, n_features)
    log_obs = np.zeros((len(X), n_states))
    for t, row in enumerate(X):
        seen = ~np.isnan(row)
        if not seen.any():
            continue
        for k in range(n_states):
            log_obs[t, k] = stats.multivariate_normal.logpdf(
                row[seen], means[k][seen], covariances[k][np.ix_(seen, seen)], allow_singular=False
            )
    return log_obs


def columns_of(emissionprob) -> list[np.ndarray]:
    """Emission tables as a list with one (K, V) array a column."""
    return list(emissionprob) if isinstance(emissionprob, list | tuple) else [emissionprob]


def categorical_log_obs(X, emissionprob) -> np.ndarray:
    tables = columns_of(emissionprob)
    log_obs = np.zeros((len(X), len(tables[0])))
    for t, row in enumerate(X):
        for value, table in zip(row, tables):
            if not np.isnan(value):
                log_obs[t] += safe_log(table[:, int(value)])
    return log_obs


def poisson_log_obs(X, rates) -> np.ndarray:
    log_obs = np.zeros((len(X), len(rates)))
    for t, row in enumerate(X):
        for d, value in enumerate(row):
            if not np.isnan(value):
                log_obs[t] += stats.poisson.logpmf(value, rates[:, d])
    return log_obs


# --- M-steps, as sums over rows ---------------------------------------------------------------


def chain_m_step(smoothed: list[Smoothed]) -> tuple[np.ndarray, np.ndarray]:
    """New startprob and transmat from the posteriors of every sequence."""
    start = sum(s.posteriors[0] for s in smoothed)
    counts = sum(s.transition_counts for s in smoothed)
    return start / start.sum(), counts / counts.sum(axis=1, keepdims=True)


def stationary_m_step(smoothed: list[Smoothed], transmat) -> np.ndarray:
    """The transmat that maximises sum_k u_k log delta_k(A) + sum_ij C_ij log A_ij, numerically."""
    start = sum(s.posteriors[0] for s in smoothed)
    counts = sum(s.transition_counts for s in smoothed)
    n_states = len(transmat)

    def unpack(free):
        logits = np.concatenate([free.reshape(n_states, n_states - 1), np.zeros((n_states, 1))], 1)
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))

    def negative(free):
        matrix = unpack(free)
        delta = np.clip(stationary_distribution(matrix), 1e-300, None)
        return -(start @ np.log(delta) + (counts * np.log(matrix)).sum())

    logs = np.log(transmat)
    found = optimize.minimize(
        negative, (logs[:, :-1] - logs[:, -1:]).ravel(), method="BFGS", options={"gtol": 1e-9}
    )
    return unpack(found.x)


def column_scale(X) -> np.ndarray:
    """Standard deviation of what is observed in each column; 1 for a constant one."""
    scale = np.nanstd(X, axis=0)
    return np.where(scale > 0, scale, 1.0)


def floored(covariance, scale, reg_covar) -> np.ndarray:
    """Eigenvalues of the covariance of X / scale, clipped from below at reg_covar."""
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return (vectors * np.maximum(values, reg_covar)) @ vectors.T * np.outer(scale, scale)


def _completed(row, mean, covariance) -> tuple[np.ndarray, np.ndarray]:
    """E[x] and Cov[x] given the observed part of the row."""
    seen = ~np.isnan(row)
    filled, spread = row.copy(), np.zeros_like(covariance)
    if not seen.all():
        unseen = ~seen
        gain = covariance[np.ix_(unseen, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        filled[unseen] = mean[unseen] + gain @ (row[seen] - mean[seen])
        spread[np.ix_(unseen, unseen)] = (
            covariance[np.ix_(unseen, unseen)] - gain @ covariance[np.ix_(seen, unseen)]
        )
    return filled, spread


def gaussian_m_step(X, posteriors, means, covars, covariance_type, reg_covar=1e-6):
    """New means and compact covars; rows with nothing observed count for nothing.

    "full" and "tied" take a partly missing row through its conditional expectations; "diag" and
    "spherical" have independent columns, where an entry that is missing has no term at all.
    """
    n_states, n_features = np.shape(means)
    scale = column_scale(X)
    seen = ~np.isnan(X)
    if covariance_type in ("full", "tied"):
        old = full_covariances(covars, covariance_type, n_states, n_features)
        rows = np.flatnonzero(seen.any(axis=1))
        new_means, scatter, mass = np.zeros((n_states, n_features)), [], []
        for k in range(n_states):
            done = [_completed(X[t], means[k], old[k]) for t in rows]
            weight = posteriors[rows, k]
            new_means[k] = sum(w * x for w, (x, _) in zip(weight, done)) / weight.sum()
            scatter.append(sum(
                w * (np.outer(x - new_means[k], x - new_means[k]) + spread)
                for w, (x, spread) in zip(weight, done)
            ))
            mass.append(weight.sum())
        if covariance_type == "tied":
            return new_means, floored(sum(scatter) / sum(mass), scale, reg_covar)
        covars = [floored(s / m, scale, reg_covar) for s, m in zip(scatter, mass)]
        return new_means, np.array(covars)

    weights = posteriors[:, :, None] * seen[:, None, :]  # (n, K, D)
    filled = np.where(seen, X, 0.0)
    new_means = (weights * filled[:, None, :]).sum(0) / weights.sum(0)
    squares = (weights * (filled[:, None, :] - new_means[None]) ** 2).sum(0)
    if covariance_type == "diag":
        return new_means, np.maximum(squares / weights.sum(0), reg_covar * scale**2)
    return new_means, squares.sum(1) / weights.sum((0, 2))


def categorical_m_step(X, posteriors, n_categories, alpha=0.0):
    """New emission tables, a list with one (K, V) array a column."""
    tables = []
    for column, size in enumerate(n_categories):
        table = np.full((posteriors.shape[1], size), float(alpha))
        for t, value in enumerate(X[:, column]):
            if not np.isnan(value):
                table[:, int(value)] += posteriors[t]
        tables.append(table / table.sum(axis=1, keepdims=True))
    return tables


def poisson_m_step(X, posteriors):
    seen = ~np.isnan(X)
    return (posteriors.T @ np.where(seen, X, 0.0)) / (posteriors.T @ seen)


# --- The three families behind one face, for tests that run over all of them ------------------


@dataclass(frozen=True)
class Family:
    """One emission family as the oracles see it."""

    name: str
    log_obs: Callable[[np.ndarray, dict], np.ndarray]
    m_step: Callable[[np.ndarray, np.ndarray, dict], dict]
    random_parameters: Callable[[np.random.Generator, int, int], dict]
    draw: Callable[[np.random.Generator, np.ndarray, dict], np.ndarray]
    estimator_parameters: dict[str, Any]

    def smooth(self, X, parameters) -> Smoothed:
        log_obs = self.log_obs(X, parameters)
        return log_smooth(parameters["startprob"], parameters["transmat"], log_obs)

    def sample(self, rng, n_steps, parameters) -> np.ndarray:
        """One sequence drawn from the model."""
        n_states = len(parameters["startprob"])
        states = [rng.choice(n_states, p=parameters["startprob"])]
        for _ in range(n_steps - 1):
            states.append(rng.choice(n_states, p=parameters["transmat"][states[-1]]))
        return self.draw(rng, np.array(states), parameters)

    def em_step(self, sequences, parameters) -> tuple[dict, float]:
        """Parameters after one iteration and the log-likelihood before it."""
        smoothed = [self.smooth(X, parameters) for X in sequences]
        startprob, transmat = chain_m_step(smoothed)
        emission = self.m_step(
            np.concatenate(sequences), np.concatenate([s.posteriors for s in smoothed]), parameters
        )
        log_likelihood = sum(s.log_likelihood for s in smoothed)
        return {"startprob": startprob, "transmat": transmat, **emission}, log_likelihood

    def log_likelihood(self, sequences, parameters) -> float:
        return sum(self.smooth(X, parameters).log_likelihood for X in sequences)


def random_chain(rng, n_states) -> dict:
    return {
        "startprob": rng.dirichlet(np.full(n_states, 2.0)),
        "transmat": rng.dirichlet(np.full(n_states, 2.0), n_states),
    }


def _gaussian_family(covariance_type) -> Family:
    def log_obs(X, p):
        return gaussian_log_obs(X, p["means"], p["covars"], covariance_type)

    def m_step(X, posteriors, p):
        means, covars = gaussian_m_step(X, posteriors, p["means"], p["covars"], covariance_type)
        return {"means": means, "covars": covars}

    def random_parameters(rng, n_states, n_features):
        roots = rng.normal(size=(n_states, n_features, n_features))
        full = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(n_features)
        covars = {
            "full": full,
            "tied": full[0],
            "diag": np.einsum("kii->ki", full),
            "spherical": full[:, 0, 0],
        }[covariance_type]
        return {
            **random_chain(rng, n_states),
            "means": rng.normal(scale=2.0, size=(n_states, n_features)),
            "covars": covars.copy(),
        }

    def draw(rng, states, p):
        n_states, n_features = p["means"].shape
        full = full_covariances(p["covars"], covariance_type, n_states, n_features)
        return np.array([rng.multivariate_normal(p["means"][s], full[s]) for s in states])

    return Family(
        f"gaussian-{covariance_type}",
        log_obs,
        m_step,
        random_parameters,
        draw,
        {"covariance_type": covariance_type},
    )


def _categorical_family() -> Family:
    def log_obs(X, p):
        return categorical_log_obs(X, p["emissionprob"])

    def m_step(X, posteriors, p):
        tables = columns_of(p["emissionprob"])
        new = categorical_m_step(X, posteriors, [table.shape[1] for table in tables])
        return {"emissionprob": new if isinstance(p["emissionprob"], list) else new[0]}

    def random_parameters(rng, n_states, n_features):
        tables = [rng.dirichlet(np.ones(3 + d), n_states) for d in range(n_features)]
        return {
            **random_chain(rng, n_states),
            "emissionprob": tables if n_features > 1 else tables[0],
        }

    def draw(rng, states, p):
        tables = columns_of(p["emissionprob"])
        return np.array([
            [rng.choice(table.shape[1], p=table[s]) for table in tables] for s in states
        ]).astype(float)

    return Family("categorical", log_obs, m_step, random_parameters, draw, {})


def _poisson_family() -> Family:
    def log_obs(X, p):
        return poisson_log_obs(X, p["rates"])

    def m_step(X, posteriors, p):
        return {"rates": poisson_m_step(X, posteriors)}

    def random_parameters(rng, n_states, n_features):
        return {
            **random_chain(rng, n_states),
            "rates": rng.uniform(0.5, 12.0, size=(n_states, n_features)),
        }

    def draw(rng, states, p):
        return rng.poisson(p["rates"][states]).astype(float)

    return Family("poisson", log_obs, m_step, random_parameters, draw, {})


FAMILIES = [
    *(_gaussian_family(kind) for kind in ("full", "tied", "diag", "spherical")),
    _categorical_family(),
    _poisson_family(),
]
