"""Starting values of a linear-Gaussian model, from the data; the identity would keep EM for ever.

As many states as features at most: factor analysis of the standardised rows, and a regression of
the factors on those one step before.  More states than features: subspace identification from the
covariances between steps.  Known parameters (``*_init``) keep their values, and the scale of the
noise follows them.
"""

from __future__ import annotations

import numpy as np
from sklearn.utils.extmath import randomized_svd

from sklseq._covariance import column_mean, column_scale
from sklseq.state_space._stationary import spectral_radius, stationary_covariance

LARGEST_RADIUS = 0.99  # of a transition matrix estimated for a start
SIGNAL_SHARE = 0.7  # of the variance, credited to the state where nothing better is known
LEAST_NOISE = 0.05  # of the variance
FACTOR_ITERATIONS, FACTOR_TOL, LEAST_FACTOR_NOISE = 50, 1e-2, 1e-12
MAX_ROWS = 20_000  # enough to start from


def standardise(X):
    """Rows with zero mean and unit variance, missing entries at 0; the means and scales."""
    centre, scale = column_mean(X), column_scale(X)
    return np.nan_to_num((X - centre) / scale, nan=0.0), centre, scale


def data_driven(X, offsets, n_components: int, random_state=None) -> dict[str, np.ndarray]:
    """All parameters of a start; `random_state` perturbs it."""
    Z, centre, scale = standardise(X)
    p = Z.shape[1]
    if n_components <= p and len(Z) > n_components:
        A, B, noise = _by_factors(Z, offsets, n_components)
    else:
        A, B, noise = _by_subspace(Z, offsets, n_components)
    if random_state is not None:
        A, B = _perturbed(A, B, random_state)
    Gamma = _state_noise(A, B, noise)
    return {
        "transition_matrix": A,
        "transition_covariance": Gamma,
        "observation_matrix": scale[:, None] * B,
        "observation_covariance": np.diag(noise * scale**2),
        "observation_offset": centre,
    }


def lagged_pairs(n_rows: int, offsets, lag: int) -> np.ndarray:
    """First rows of all pairs of rows `lag` apart within one sequence."""
    ends = np.repeat(offsets[1:], np.diff(offsets))
    rows = np.arange(n_rows)
    return rows[rows + lag < ends]


def _lag_covariance(Z, offsets, lag: int) -> np.ndarray:
    """Mean of z_{t+lag} z_t'."""
    rows = lagged_pairs(len(Z), offsets, lag)
    return Z[rows + lag].T @ Z[rows] / max(len(rows), 1)


def _by_factors(Z, offsets, d):
    rows = Z if len(Z) <= MAX_ROWS else Z[:: len(Z) // MAX_ROWS]
    B, noise = _factor_analysis(rows, d)
    noise = np.clip(noise, LEAST_NOISE, 1.0)
    weak = np.linalg.norm(B, axis=0) < 1e-3  # factors that found nothing
    B = np.where(weak, np.eye(len(B), d) * np.sqrt(SIGNAL_SHARE), B)
    states = Z @ np.linalg.pinv(B).T
    before, after = _lag_covariance(states, offsets, 1), _lag_covariance(states, offsets, 2)
    # two lags apart over one lag apart: unlike one lag over none, not pulled to zero by noise
    A = after @ np.linalg.pinv(before, rcond=0.1)
    if not spectral_radius(A) > 0.05:
        A = before @ np.linalg.pinv(_lag_covariance(states, offsets, 0), rcond=1e-6)
    return _stabilised(A, d), B, noise


def _factor_analysis(X, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (p, d) and variances of the noise (p,), by maximum likelihood as well as 50
    iterations find it (Barber 2012, algorithm 21.1).

    scikit-learn's FactorAnalysis to the bit, but for its warnings: a start need not have converged.
    """
    X = X - X.mean(axis=0)
    variances, root_n = X.var(axis=0), np.sqrt(len(X))
    noise, random_state, before = np.ones(X.shape[1]), np.random.RandomState(0), -np.inf
    for _ in range(FACTOR_ITERATIONS):
        scale = np.sqrt(noise) + LEAST_FACTOR_NOISE
        Z = X / (scale * root_n)
        _, singular, right = randomized_svd(Z, d, random_state=random_state, n_iter=3)
        loadings = np.sqrt(np.maximum(singular**2 - 1.0, 0.0))[:, None] * right * scale
        rest = np.vdot(Z, Z) - np.vdot(singular, singular)
        with np.errstate(divide="ignore", invalid="ignore"):  # infinite for constant columns
            explained = np.log(singular**2).sum()
            log_likelihood = -len(X) / 2.0 * (explained + rest + np.log(noise).sum())
            gain = log_likelihood - before
        if gain < FACTOR_TOL:
            break
        before = log_likelihood
        noise = np.maximum(variances - (loadings**2).sum(axis=0), LEAST_FACTOR_NOISE)
    return loadings.T, noise


def _by_subspace(Z, offsets, d):
    """Ho and Kalman (1966): the Hankel matrix of lag covariances factors into observability."""
    p = Z.shape[1]
    depth = max(2, -(-d // p) + 2)
    lags = [_lag_covariance(Z, offsets, lag) for lag in range(1, 2 * depth)]
    hankel = np.block([[lags[i + j] for j in range(depth)] for i in range(depth)])
    left, values, _ = np.linalg.svd(hankel)
    observability = left[:, :d] * np.sqrt(np.maximum(values[:d], 1e-3 * max(values[0], 1e-3)))
    A = np.linalg.lstsq(observability[:-p], observability[p:], rcond=1e-6)[0]
    return _stabilised(A, d), observability[:p], np.full(p, 1.0 - SIGNAL_SHARE)


def _stabilised(A, d):
    if not np.all(np.isfinite(A)):
        return 0.5 * np.eye(d)
    radius = spectral_radius(A)
    A = A * (LARGEST_RADIUS / radius) if radius > LARGEST_RADIUS else A
    return A if radius > 0.05 else A + 0.1 * np.eye(d)


def _perturbed(A, B, random_state):
    d = len(A)
    turn = np.linalg.qr(random_state.standard_normal((d, d)))[0]
    A = turn * random_state.uniform(0.5, LARGEST_RADIUS, size=d)
    size = max(np.linalg.norm(B) / np.sqrt(B.size), 1e-3)
    return A, B + 0.5 * size * random_state.standard_normal(B.shape)


def _state_noise(A, B, noise):
    """Gamma = g I with g such that B S has the variance that the noise leaves."""
    P = stationary_covariance(A, np.eye(len(A)))
    P = np.eye(len(A)) if P is None else P
    unit = np.einsum("pi,ij,pj->p", B, P, B).mean()
    return np.eye(len(A)) * max((1.0 - noise).mean(), LEAST_NOISE) / max(unit, 1e-12)


def noise_for(X, offsets, A, B):
    """(Gamma, Sigma) where the matrices are given: the one-step changes of the data, shared out.

    The variance of x_t - B A B^+ x_{t-1}, the part that the state does not predict, is split in
    halves between the noises.
    """
    if A.ndim == 3:
        A = A.mean(axis=0)
    if B.ndim == 3:
        B = np.sqrt(np.mean(B**2, axis=0))  # their size is what matters here
    centre, scale = column_mean(X), column_scale(X)
    Z = np.nan_to_num(X - centre, nan=0.0)
    rows = lagged_pairs(len(Z), offsets, 1)
    inverse = np.linalg.pinv(B)
    change = Z[rows + 1] - Z[rows] @ (B @ A @ inverse).T
    seen = ~(np.isnan(X[rows + 1]) | np.isnan(X[rows]))
    if not seen.any(axis=0).all():  # no neighbours
        change, seen = np.vstack([change, Z]), np.vstack([seen, ~np.isnan(X)])
        rows = np.arange(len(change))
    variance = np.where(seen, change, 0.0).var(axis=0) * len(rows) / np.maximum(seen.sum(axis=0), 1)
    variance = np.clip(np.minimum(variance, scale**2), 1e-4 * scale**2, None)
    state = np.diag(inverse @ np.diag(variance / 2) @ inverse.T)
    # a state that no feature shows directly gets the mean of the others
    state = np.where(state > 1e-12 * state.max(), state, state.mean()) if state.max() > 0 else (
        np.ones(len(A)))  # fmt: skip
    return np.diag(state), np.diag(variance / 2)


def from_known_states(X, offsets, states) -> dict[str, np.ndarray] | None:
    """Regressions on the steps whose states are all known; None where there are too few."""
    d = states.shape[1]
    known = ~np.isnan(states).any(axis=1)
    Z, centre, scale = standardise(X)
    rows = lagged_pairs(len(X), offsets, 1)
    rows = rows[known[rows] & known[rows + 1]]
    if known.sum() < d + 2 or len(rows) < d + 1:
        return None
    A = np.linalg.lstsq(states[rows], states[rows + 1], rcond=1e-10)[0].T
    w = states[rows + 1] - states[rows] @ A.T
    h = np.hstack([states[known], np.ones((known.sum(), 1))])
    coefficients = np.linalg.lstsq(h, Z[known], rcond=1e-10)[0].T
    noise = (Z[known] - h @ coefficients.T).var(axis=0)
    return {
        "transition_matrix": A,
        "transition_covariance": np.diag(np.maximum(w.var(axis=0), 1e-8 * states[known].var(axis=0)
                                                    + 1e-12)),
        "observation_matrix": scale[:, None] * coefficients[:, :d],
        "observation_covariance": np.diag(np.maximum(noise, 1e-6) * scale**2),
        "observation_offset": centre + scale * coefficients[:, d],
    }  # fmt: skip


def state_variances(chain_A, Gamma, B, X) -> np.ndarray:
    """How large each state is: its stationary variance, or what the data says through B."""
    if chain_A.ndim == Gamma.ndim == 2:
        stationary = stationary_covariance(chain_A, Gamma)
        if stationary is not None:
            return np.diag(stationary)
    total = (column_scale(X) ** 2).sum()
    columns = np.einsum("...pi,...pi->...i", B, B).reshape(-1, B.shape[-1]).mean(axis=0)
    return np.where(columns > 0, total / np.where(columns > 0, columns, 1.0), 1.0)
