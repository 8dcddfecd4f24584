"""Starting values of a softmax state-space model, from the counts.

Subspace identification (Ho and Kalman 1966) on the covariances of whitened word frequencies between
steps; lag zero, which the multinomial noise fills, is left out.  To first order the standardised
frequencies are sqrt(p) B S, so B comes out too small where the signal is strong; EM mends the scale
in a few iterations.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sklseq.state_space._start import lagged_pairs

RADIUS = 0.98  # of the transition matrix of a start, at most
LEAST_SIGNAL = 0.3  # size of a column of B that the data said nothing about
DEPTH = 4  # block rows and columns of the Hankel matrix
WIDTH = 4  # directions of the words kept for each state, and
EXTRA = 12  # some more


def spectral_start(X, offsets, d: int, random_state=None):
    """(A, B) in coordinates where Gamma = I; with a `random_state`, at random."""
    V = X.shape[1]
    if random_state is not None:
        turn = np.linalg.qr(random_state.standard_normal((d, d)))[0]
        A = turn * random_state.uniform(0.3, 0.95, size=d)
        return A, random_state.standard_normal((V, d)) * 0.5
    random_state = np.random.RandomState(0)
    weak = random_state.standard_normal((V, d)) * LEAST_SIGNAL
    weak -= weak.mean(axis=0)
    Z, p = _whitened(X)
    depth = min(DEPTH, max(2, int(np.diff(offsets).max()) // 2))
    if len(lagged_pairs(X.shape[0], offsets, 1)) < 4 * d or V < 2:
        return 0.5 * np.eye(d), weak
    basis = _predictable_directions(Z, offsets, min(V, WIDTH * d + EXTRA), random_state)
    found = _identify(Z.times(basis), offsets, d, depth)
    if found is None:
        return 0.5 * np.eye(d), weak
    A, C = found
    B = basis @ C / np.sqrt(p)[:, None]
    B -= p @ B  # the linearisation is about the mean frequencies
    size = np.sqrt(np.square(B).mean(axis=0))
    B = np.where(size < 1e-3, weak, B)
    # no state may start so strong that its words are certain
    return A, B * np.minimum(1.0, 3.0 / np.sqrt(np.square(B).mean(axis=0)).clip(1e-12))


class _Whitened:
    """Rows (y_t / n_t - p) / sqrt(p), zero where n_t is; never formed."""

    def __init__(self, X, totals, p):
        self.p, self.scale = p, 1.0 / np.sqrt(p)
        there = totals >= np.finfo(float).tiny  # its reciprocal is a number
        self.there = there.astype(float)
        weights = np.where(there, 1.0 / np.where(there, totals, 1.0), 0.0)
        self.rows = sparse.diags_array(weights) @ X if sparse.issparse(X) else X * weights[:, None]

    def times(self, M):
        scaled = self.scale[:, None] * M
        return self.rows @ scaled - np.outer(self.there, self.p @ scaled)

    def transposed_times(self, M):
        return self.scale[:, None] * (self.rows.T @ M - np.outer(self.p, self.there @ M))


def _whitened(X):
    totals = np.asarray(X.sum(axis=1)).reshape(-1)
    counts = np.asarray(X.sum(axis=0)).reshape(-1) + 0.5
    p = counts / counts.sum()
    return _Whitened(X, totals, p), p


def _predictable_directions(Z, offsets, k: int, random_state) -> np.ndarray:
    """Orthonormal (V, k) that holds the range of the covariances between neighbouring steps."""
    V = len(Z.p)
    if k == V:
        return np.eye(V)
    first = lagged_pairs(len(Z.there), offsets, 1)
    basis = np.linalg.qr(random_state.standard_normal((V, k)))[0]
    for _ in range(4):  # subspace iteration on C_1 + C_1'
        values = Z.times(basis)
        moved = np.zeros_like(values)
        np.add.at(moved, first + 1, values[first])
        np.add.at(moved, first, values[first + 1])
        basis = np.linalg.qr(Z.transposed_times(moved))[0]
    return basis


def _identify(W, offsets, d: int, depth: int):
    """(A, C), Gamma = I, of rows W (n, k) = C S + white noise; None where nothing persists."""
    k = W.shape[1]
    lags = []
    for lag in range(1, 2 * depth):
        first = lagged_pairs(len(W), offsets, lag)
        lags.append(W[first + lag].T @ W[first] / max(len(first), 1))
    hankel = np.block([[lags[i + j] for j in range(depth)] for i in range(depth)])
    left, values, right = np.linalg.svd(hankel)
    if len(values) < d or not values[0] > 0:
        return None
    root = np.sqrt(np.maximum(values[:d], 1e-3 * values[0]))
    observability, reach = left[:, :d] * root, root[:, None] * right[:d]
    A = np.linalg.lstsq(observability[:-k], observability[k:], rcond=1e-4)[0]
    C, G = observability[:k], reach[:, :k]  # C_1 = C A P C' = C G
    radius = np.abs(np.linalg.eigvals(A)).max()
    if not np.isfinite(radius) or radius < 1e-3:
        return None
    A = A * min(1.0, RADIUS / radius)
    # P from G = A P C', in whose coordinates the states are white
    P = np.linalg.lstsq(A, G, rcond=1e-3)[0] @ np.linalg.pinv(C.T, rcond=1e-3)
    values, vectors = np.linalg.eigh((P + P.T) / 2)
    if not values[-1] > 0:
        return None
    root = vectors * np.sqrt(np.maximum(values, 0.02 * values[-1]))
    A, C = np.linalg.solve(root, A @ root), C @ root
    values, vectors = np.linalg.eigh(np.eye(d) - A @ A.T)
    root = vectors * np.sqrt(np.maximum(values, 1 - RADIUS**2))
    return np.linalg.solve(root, A @ root), C @ root
