"""Rules for expectations under N(0, I_d): nodes (k, d) and weights (k,)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

# Sobol points of the small rule from four to eight dimensions; then at least 8 d
N_SMALL = 64
N_SOBOL = 512  # points of the fine rule above three dimensions, half of them mirrored


class Rule(NamedTuple):
    """E[f(z)] = sum_k weights_k f(nodes_k), z ~ N(0, I)."""

    nodes: np.ndarray
    weights: np.ndarray


@lru_cache
def sigma_rule(d: int) -> Rule:
    """The small rule of the smoother and of learning.

    Gauss-Hermite products up to three dimensions, then mirrored Sobol points.  The 2 d points of a
    spherical-radial cubature would be cheaper, but EM learns to exploit their error: what they say
    is a bound rose above the likelihood (by 0.025 nats a word in four dimensions).
    """
    if d <= 3:
        return gauss_hermite(d, {1: 9, 2: 4, 3: 3}[d])
    return _sobol(d, max(N_SMALL, 1 << int(8 * d - 1).bit_length()) if d > 8 else N_SMALL)


@lru_cache
def fine_rule(d: int) -> Rule:
    """The rule of integrals that are centred where the integrand is: moments of the filter, local
    corrections."""
    if d <= 3:
        return gauss_hermite(d, {1: 21, 2: 9, 3: 7}[d])
    return _sobol(d, N_SOBOL)


@lru_cache
def wide_rule(d: int) -> Rule:
    """The rule of forecasts, where a softmax may be steep against the width of the state."""
    if d <= 3:
        return gauss_hermite(d, {1: 61, 2: 25, 3: 13}[d])
    return _sobol(d, 4 * N_SOBOL)


def gauss_hermite(d: int, n_points: int) -> Rule:
    """Products of the Gauss-Hermite rule."""
    x, w = np.polynomial.hermite_e.hermegauss(n_points)
    nodes = np.stack(np.meshgrid(*[x] * d, indexing="ij"), axis=-1).reshape(-1, d)
    weights = np.array(1.0)
    for _ in range(d):
        weights = np.multiply.outer(weights, w / w.sum())
    return Rule(np.ascontiguousarray(nodes), weights.ravel())


def _sobol(d: int, n_points: int) -> Rule:
    """Mirrored Sobol points, whitened so that mean and covariance are exact."""
    # SciPy 1.15 calls the argument rng, and takes a generator by the old name too
    points = qmc.Sobol(d, scramble=True, seed=np.random.default_rng(0)).random(n_points // 2)
    half = ndtri(np.clip(points, 1e-9, 1 - 1e-9))
    root = np.linalg.cholesky(half.T @ half / len(half))
    half = np.linalg.solve(root, half.T).T
    nodes = np.ascontiguousarray(np.vstack([half, -half]))
    return Rule(nodes, np.full(len(nodes), 1.0 / len(nodes)))
