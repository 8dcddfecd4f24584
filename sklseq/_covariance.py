"""Covariance types of Gaussian components: full, tied, diag, spherical.

The only place that branches on ``covariance_type``: a type is one class and one entry of
``COVARIANCES``.  Densities are taken in the centred form ``(x - mean)' precision (x - mean)``, and
second moments around each component's *current* mean, so that an offset of 1e8 or an outlier at 1e8
standard deviations costs no digits.  NaN entries are missing: they are integrated out of densities,
and enter moments by their conditional expectations where columns are correlated.

Shapes: K components, D features, N rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from sklseq._gaussian_density import log_density_diag, log_density_full
from sklseq._gaussian_moments import moments_diag, moments_full
from sklseq._validation import check_parameter_array

STARVED = 1e-8  # expected rows below which a component says nothing about its parameters


class Floor(NamedTuple):
    """Floor under covariances: in columns divided by `scale`, eigenvalues >= `reg_covar`."""

    scale: np.ndarray
    reg_covar: float

    @property
    def variances(self) -> np.ndarray:
        return self.reg_covar * self.scale**2


class GaussianMoments(NamedTuple):
    """Weighted sums around the current means; they add."""

    weights: np.ndarray  # (K, D) expected number of observed entries
    first: np.ndarray  # (K, D) sum of gamma (x - mean)
    second: np.ndarray  # sum of gamma (x - mean)(x - mean)', in the shape of the type


def column_mean(X: np.ndarray) -> np.ndarray:
    """Mean of each column over its observed entries; 0 for a column without any."""
    return _column_moments(X, np.zeros(X.shape[1]))[0]


def _column_moments(X, centre) -> tuple[np.ndarray, np.ndarray]:
    """Means of x - centre and of its square, over the observed entries of each column."""
    sums = [np.zeros((1, X.shape[1])) for _ in range(3)]
    moments_diag(np.ascontiguousarray(X, dtype=float), np.ones((len(X), 1)), centre[None], *sums)
    n_observed = np.maximum(sums[0][0], 1)
    return sums[1][0] / n_observed, sums[2][0] / n_observed


def column_scale(X: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over its observed entries; 1 for a constant column."""
    mean = column_mean(X)
    shift, square = _column_moments(X, mean)
    scale = np.sqrt(np.maximum(square - shift**2, 0.0))  # shift: what rounding left in the mean
    # a constant column at a large offset has a scale of pure rounding
    rounding = 4 * np.finfo(float).eps * np.abs(mean)
    return np.where(scale > rounding, scale, 1.0)


def clip_covariance(covariance: np.ndarray, floor: Floor) -> np.ndarray:
    """Raise the eigenvalues of (a stack of) covariances to the floor, in scaled columns.

    This maximises ``-log|C| - tr(C^-1 S)`` under the constraint, so EM stays monotone; adding a
    ridge would not.  A covariance above the floor comes back untouched.
    """
    scale = np.outer(floor.scale, floor.scale)
    covariance = (covariance + np.swapaxes(covariance, -1, -2)) / 2
    values, vectors = np.linalg.eigh(covariance / scale)
    low = values[..., 0] < floor.reg_covar
    if not np.any(low):
        return covariance
    values = np.maximum(values, floor.reg_covar)
    roots = vectors * np.sqrt(values)[..., None, :]
    clipped = roots @ np.swapaxes(roots, -1, -2) * scale
    clipped = (clipped + np.swapaxes(clipped, -1, -2)) / 2
    return np.where(low[..., None, None], clipped, covariance)


class CovarianceType(ABC):
    """What one value of ``covariance_type`` means."""

    is_matrix = True  # False: variances only

    @abstractmethod
    def shape(self, n_components: int, n_features: int) -> tuple: ...

    @abstractmethod
    def log_density(self, X, means, covars, out) -> None:
        """OUT out (N, K): log N(x_n | mean_k, C_k) over the observed entries; 0: missing row."""

    @abstractmethod
    def moments(self, X, posteriors, means, covars) -> GaussianMoments:
        """Expected sums under `posteriors` (N, K)."""

    @abstractmethod
    def estimate(self, moments: GaussianMoments, shift, covars, floor: Floor) -> np.ndarray:
        """Covariances of largest likelihood when the means move by `shift` (K, D).

        A component with (almost) no rows keeps its `covars`.
        """

    @abstractmethod
    def to_full(self, covars, n_features: int, n_components: int) -> np.ndarray:
        """The same covariances as (K, D, D)."""

    @abstractmethod
    def from_full(self, covariance, n_components: int) -> np.ndarray:
        """One full covariance (D, D) for all components, in this type's shape."""

    @abstractmethod
    def n_parameters(self, n_components: int, n_features: int) -> int: ...

    def check(self, value, name: str, n_components: int, n_features: int) -> np.ndarray:
        """Validate covariances given by the user."""
        covars = check_parameter_array(value, name, self.shape(n_components, n_features))
        if not self.is_matrix:
            if np.any(covars <= 0):
                raise ValueError(f"{name} must be positive, got {covars.min()}.")
            return covars
        if not np.allclose(covars, np.swapaxes(covars, -1, -2), rtol=1e-8, atol=0):
            raise ValueError(f"{name} must be symmetric, got\n{covars}.")
        smallest = np.linalg.eigvalsh(covars).min()
        if smallest <= 0:
            raise ValueError(
                f"{name} must be positive definite, its least eigenvalue is {smallest}."
            )
        return covars


class Diag(CovarianceType):
    """Each component its own variances, (K, D)."""

    is_matrix = False

    def shape(self, n_components, n_features):
        return (n_components, n_features)

    def log_density(self, X, means, covars, out):
        log_density_diag(X, means, 1.0 / covars, out)

    def moments(self, X, posteriors, means, covars):
        return _moments_diag(X, posteriors, means)

    def estimate(self, moments, shift, covars, floor):
        weights = np.maximum(moments.weights, STARVED)
        variances = (moments.second - 2 * shift * moments.first) / weights + shift**2
        variances = np.maximum(variances, floor.variances)
        return np.where(moments.weights < STARVED, covars, variances)

    def to_full(self, covars, n_features, n_components):
        return covars[:, :, None] * np.eye(n_features)

    def from_full(self, covariance, n_components):
        return np.repeat(np.diag(covariance)[None], n_components, axis=0)

    def n_parameters(self, n_components, n_features):
        return n_components * n_features


class Spherical(CovarianceType):
    """Each component one variance, (K,)."""

    is_matrix = False

    def shape(self, n_components, n_features):
        return (n_components,)

    def log_density(self, X, means, covars, out):
        log_density_diag(X, means, np.repeat(1.0 / covars[:, None], X.shape[1], axis=1), out)

    def moments(self, X, posteriors, means, covars):
        weights, first, second = _moments_diag(X, posteriors, means)
        return GaussianMoments(weights, first, second.sum(axis=1))

    def estimate(self, moments, shift, covars, floor):
        weights = moments.weights.sum(axis=1)
        second = moments.second + (
            shift * (moments.weights * shift - 2 * moments.first)
        ).sum(axis=1)  # fmt: skip
        variances = np.maximum(second / np.maximum(weights, STARVED), floor.variances.max())
        return np.where(weights < STARVED, covars, variances)

    def to_full(self, covars, n_features, n_components):
        return covars[:, None, None] * np.eye(n_features)

    def from_full(self, covariance, n_components):
        return np.full(n_components, np.diag(covariance).mean())

    def n_parameters(self, n_components, n_features):
        return n_components


class Full(CovarianceType):
    """Each component its own covariance matrix, (K, D, D)."""

    def shape(self, n_components, n_features):
        return (n_components, n_features, n_features)

    def log_density(self, X, means, covars, out):
        _log_density_full(X, means, covars, out)

    def moments(self, X, posteriors, means, covars):
        return _moments_full(X, posteriors, means, covars)

    def estimate(self, moments, shift, covars, floor):
        occupancy = moments.weights[:, 0]
        weights = np.maximum(occupancy, STARVED)[:, None, None]
        cross = moments.first[:, :, None] * shift[:, None, :]
        second = moments.second - cross - np.swapaxes(cross, 1, 2)
        covariances = second / weights + shift[:, :, None] * shift[:, None, :]
        starved = occupancy < STARVED
        covariances[starved] = covars[starved]  # eigh must not see 0/0
        covariances = clip_covariance(covariances, floor)
        return np.where(starved[:, None, None], covars, covariances)

    def to_full(self, covars, n_features, n_components):
        return covars

    def from_full(self, covariance, n_components):
        return np.repeat(covariance[None], n_components, axis=0)

    def n_parameters(self, n_components, n_features):
        return n_components * n_features * (n_features + 1) // 2


class Tied(CovarianceType):
    """One covariance matrix for all components, (D, D)."""

    def shape(self, n_components, n_features):
        return (n_features, n_features)

    def log_density(self, X, means, covars, out):
        _log_density_full(X, means, self.to_full(covars, len(covars), len(means)), out)

    def moments(self, X, posteriors, means, covars):
        full = self.to_full(covars, len(covars), len(means))
        weights, first, second = _moments_full(X, posteriors, means, full)
        return GaussianMoments(weights, first, second.sum(axis=0))

    def estimate(self, moments, shift, covars, floor):
        occupancy = moments.weights[:, 0]
        if occupancy.sum() < STARVED:
            return covars
        cross = moments.first.T @ shift
        second = moments.second - cross - cross.T + (shift.T * occupancy) @ shift
        return clip_covariance(second / occupancy.sum(), floor)

    def to_full(self, covars, n_features, n_components):
        return np.repeat(covars[None], n_components, axis=0)

    def from_full(self, covariance, n_components):
        return covariance

    def n_parameters(self, n_components, n_features):
        return n_features * (n_features + 1) // 2


COVARIANCES: dict[str, CovarianceType] = {
    "full": Full(),
    "tied": Tied(),
    "diag": Diag(),
    "spherical": Spherical(),
}


# ---------------------------------------------------------------------------------------------
# Uncorrelated columns


def _moments_diag(X, posteriors, means):
    result = GaussianMoments(*(np.zeros(means.shape) for _ in range(3)))
    moments_diag(X, posteriors, means, *result)
    return result


# ---------------------------------------------------------------------------------------------
# Correlated columns


def _patterns(X):
    """(observed columns, rows) of each pattern of missing entries, all-missing rows left out."""
    if not np.isnan(np.min(X)):  # NaN passes through min
        return [(np.ones(X.shape[1], dtype=bool), slice(None))]
    missing = np.isnan(X)
    masks, which = np.unique(missing, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [
        (~mask, np.flatnonzero(which == i)) for i, mask in enumerate(masks) if not mask.all()
    ]


def _log_density_full(X, means, covars, out):
    patterns = _patterns(X)
    if patterns and patterns[0][0].all() and isinstance(patterns[0][1], slice):
        log_density_full(X, means, np.linalg.inv(np.linalg.cholesky(covars)), out)
        return
    out[:] = 0
    for observed, rows in patterns:
        block = np.ascontiguousarray(X[rows][:, observed])
        sub_means = np.ascontiguousarray(means[:, observed])
        factors = np.linalg.cholesky(covars[:, observed][:, :, observed])
        part = np.empty((len(block), len(means)))
        log_density_full(block, sub_means, np.linalg.inv(factors), part)
        out[rows] = part


def _moments_full(X, posteriors, means, covars):
    n_components, n_features = means.shape
    occupancy = np.zeros(n_components)
    first = np.zeros((n_components, n_features))
    second = np.zeros((n_components, n_features, n_features))
    for observed, rows in _patterns(X):
        block, gamma = X[rows], posteriors[rows]
        occupancy += gamma.sum(axis=0)
        if observed.all():
            moments_full(block, gamma, means, first, second)
            continue
        for k in range(n_components):
            deviation, conditional = _fill_missing(block - means[k], observed, covars[k])
            weighted = deviation * gamma[:, k, None]
            first[k] += weighted.sum(axis=0)
            second[k] += weighted.T @ deviation + gamma[:, k].sum() * conditional
    second = np.tril(second) + np.swapaxes(np.tril(second, -1), 1, 2)
    return GaussianMoments(np.repeat(occupancy[:, None], n_features, axis=1), first, second)


def _fill_missing(deviation, observed, covariance):
    """Deviations with conditional expectations for the missing columns, and their covariance."""
    missing = ~observed
    gain = np.linalg.solve(
        covariance[np.ix_(observed, observed)], covariance[np.ix_(observed, missing)]
    )
    deviation[:, missing] = deviation[:, observed] @ gain
    conditional = np.zeros_like(covariance)
    conditional[np.ix_(missing, missing)] = (
        covariance[np.ix_(missing, missing)] - covariance[np.ix_(missing, observed)] @ gain
    )
    return deviation, conditional
