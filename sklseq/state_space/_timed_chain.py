"""The E-step of a chain whose A or Gamma is known for each step, from its smoothed moments.

Memory is that of the moments, N x d x d.
"""

from __future__ import annotations

import numpy as np

MATRIX_ELEMENTS = 1 << 22  # doubles of step by step matrices that exist at a time


def timed_sums(chain, posterior, offsets, inputs):
    """Sums over transitions of z z', w z' and w w', w_t = S_t - A_t S_{t-1} - B_u u_t and
    z_t = (S_{t-1}, u_t), means and covariances together.

    Where Gamma has a time axis they are weighted by its inverse: gram (d, r, d, r) is then the
    matrix of the normal equations of (A, B_u), cross their right side, and w w' is not wanted.
    """
    d = chain.n_components
    rows = np.delete(np.arange(offsets[-1]), offsets[:-1])  # that a transition leads into
    times = rows - np.repeat(offsets[:-1], np.diff(offsets) - 1)
    r = d if inputs is None else d + inputs.shape[1]
    weighted = chain.transition_covariance.ndim == 3
    gram = np.zeros((d, r, d, r) if weighted else (r, r))
    cross, second = np.zeros((d, r)), np.zeros((d, d))
    size = max(1, MATRIX_ELEMENTS // r**2)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        moments = _moments(chain, posterior, rows[part], times[part], inputs)
        if weighted:
            sums = _weighted(chain.transition_covariance, times[part], moments)
        else:
            sums = (values.sum(axis=0) for values in moments)
        for total, value in zip((gram, cross, second), sums):
            total += value
    return gram, cross, (second + second.T) / 2


def _moments(chain, posterior, rows, times, inputs):
    """E[z z'], E[w z'], E[w w'] of some transitions."""
    d = chain.n_components
    means, covariances, lag_one = posterior
    A = chain.transition_matrix
    A = A[times] if A.ndim == 3 else np.broadcast_to(A, (len(rows), d, d))
    before, after, lag = covariances[rows - 1], covariances[rows], lag_one[rows]
    z = means[rows - 1]
    w = means[rows] - np.einsum("nij,nj->ni", A, z)
    if inputs is not None:
        w -= inputs[rows] @ chain.input_matrix.T
        z = np.hstack([z, inputs[rows]])
    zz = z[:, :, None] * z[:, None, :]
    zz[:, :d, :d] += before
    w_before = lag - A @ before
    wz = w[:, :, None] * z[:, None, :]
    wz[:, :, :d] += w_before
    transposed = np.swapaxes(A, 1, 2)
    spread = after - A @ np.swapaxes(lag, 1, 2) - w_before @ transposed
    return zz, wz, w[:, :, None] * w[:, None, :] + spread


def _weighted(Gamma, times, moments):
    zz, wz, _ = moments
    d, r = wz.shape[1:]
    every, which = np.unique(times, return_inverse=True)
    precision = semidefinite_inverse(Gamma[every])[which.reshape(-1)]
    gram = precision.reshape(len(times), -1).T @ zz.reshape(len(times), -1)
    gram = gram.reshape(d, d, r, r).transpose(0, 2, 1, 3)
    return gram, np.einsum("nij,njk->ik", precision, wz), 0.0


def semidefinite_inverse(covariances) -> np.ndarray:
    """Inverses of (a stack of) covariances, on their ranges; scaled to unit variances before."""
    variances = np.diagonal(covariances, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(variances > 0.0, variances, 1.0))
    outer = scale[..., :, None] * scale[..., None, :]
    return np.linalg.pinv(covariances / outer, rcond=1e-13, hermitian=True) / outer
