"""One-step prediction errors of a linear-Gaussian model, raw and standardised."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sklseq.state_space._linear_gaussian import LinearGaussianModel, step_numbers

CERTAIN = 1e-13  # variance, of the terms it is made of, that is zero but for rounding


class Innovations(NamedTuple):
    """What each step brought that those before did not say.

    Attributes
    ----------
    raw : ndarray of shape (n_steps, n_features)
        x_t - E[x_t | x_1..x_{t-1}]; NaN where x is missing.
    covariances : ndarray of shape (n_steps, n_features, n_features)
        Cov(x_t | x_1..x_{t-1}), also where x is missing; its diagonal has the variances of `raw`.
    standardised : ndarray of shape (n_steps, n_features)
        Independent and standard normal if the model is right: each feature given the earlier steps
        and the features before it in its row, divided by its standard deviation.  NaN where x is
        missing, 0 where it was certain.
    """

    raw: np.ndarray
    covariances: np.ndarray
    standardised: np.ndarray


def innovations(model: LinearGaussianModel, means, covariances, X, offsets, *aligned):
    """(raw, covariances, standardised), from filtered moments (N, d) and (N, d, d)."""
    chain, observation = model.chain, model.observation
    to_state, to_observation = model.inputs_of(aligned)
    times = step_numbers(offsets)
    A, Gamma, B, Sigma = (
        matrix[times] if matrix.ndim == 3 else matrix
        for matrix in (
            chain.transition_matrix, chain.transition_covariance, observation.matrix,
            observation.covariance,
        )
    )  # fmt: skip
    before = np.roll(means, 1, axis=0)
    spread = np.roll(covariances, 1, axis=0)
    mean = (A @ before[:, :, None])[:, :, 0]
    if to_state is not None:
        mean += to_state @ chain.input_matrix.T
    P = A @ spread @ np.swapaxes(A, -1, -2) + Gamma
    firsts = offsets[:-1]
    mean[firsts], P[firsts] = chain.initial_mean, chain.initial_covariance
    F = B @ P @ np.swapaxes(B, -1, -2) + Sigma
    F = (F + np.swapaxes(F, 1, 2)) / 2
    raw = X - observation.expect(mean, to_observation, times)
    # rounding in F is that of the terms which A and B add up
    size = np.sqrt(np.diagonal(spread, axis1=1, axis2=2))[:, :, None]
    terms = (np.abs(B) @ (np.abs(A) @ size))[:, :, 0] ** 2
    terms[firsts] = 0.0
    return raw, F, _standardised(raw, F, CERTAIN * (terms + np.diagonal(F, axis1=1, axis2=2)))


def _standardised(raw, F, certain):
    """L^-1 v with L L' = F over the entries that are there, feature by feature."""
    seen = ~np.isnan(raw)
    C = np.where(seen[:, :, None] & seen[:, None, :], F, 0.0)
    p = raw.shape[1]
    z, L = np.zeros(raw.shape), np.zeros(C.shape)
    for j in range(p):
        left = L[:, j, :j]
        variance = C[:, j, j] - np.einsum("ni,ni->n", left, left)
        known = ~(variance > certain[:, j]) | ~seen[:, j]
        root = np.sqrt(np.where(known, 1.0, variance))
        rest = np.where(seen[:, j], raw[:, j], 0.0) - np.einsum("ni,ni->n", left, z[:, :j])
        z[:, j] = np.where(known, 0.0, rest / root)
        column = (C[:, j:, j] - np.einsum("nki,ni->nk", L[:, j:, :j], left)) / root[:, None]
        L[:, j:, j] = np.where(known[:, None], 0.0, column)
    return np.where(seen, z, np.nan)
