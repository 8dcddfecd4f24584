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
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sklseq._gaussian_density import log_density_diag, log_density_full
from sklseq._gaussian_moments import moments as add_sums
from sklseq._validation import check_broadcast, check_parameter_array, check_real

STARVED = 1e-8  # expected rows below which a component says nothing about its parameters
FLOOR_ROUNDING = 1e-3  # relative; eigenvalues of 1e-10 beside 1 have six digits
SINGULAR = 1e-14  # an eigenvalue of a correlation matrix that is zero but for rounding
LAST_DIGITS = 1e3 * np.finfo(float).eps
ROUNDED = 1e-6  # what rounding may have taken from a covariance, in units of its rows


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


class GaussianPrior(NamedTuple):
    """A normal-Wishart prior on the mean and precision of each component; weights count as rows.

        p(mean, P) ~ |P|^(w/2) exp(-tr P (w C0 + k (mean - m0)(mean - m0)') / 2)

    with w = `covars_weight`, C0 = `covars`, k = `means_weight`, m0 = `means`: w + D degrees of
    freedom (DeGroot 1970, sec. 9.10), proper where both weights are positive.  Uncorrelated columns
    have a normal-gamma each, a covariance that components share has the Wishart factor once.
    """

    means: np.ndarray  # (K, D)
    means_weight: float
    covars: np.ndarray  # in the shape of the type
    covars_weight: float


def add_moments(left: GaussianMoments, right: GaussianMoments) -> GaussianMoments:
    return GaussianMoments(*(a + b for a, b in zip(left, right)))


def check_gaussian_prior(
    estimator, covariance: CovarianceType, X, n_components: int
) -> GaussianPrior | None:
    """The prior that ``means_prior``, ``means_weight``, ``covars_prior``, ``covars_weight`` say.

    What is not given is taken from the columns of X: their means and their variances.
    """
    means_weight = check_real(estimator, "means_weight", 0.0)
    covars_weight = check_real(estimator, "covars_weight", 0.0)
    for name, weight in (("means", means_weight), ("covars", covars_weight)):
        if getattr(estimator, f"{name}_prior") is not None and weight == 0.0:
            raise ValueError(
                f"{name}_prior needs a positive {name}_weight, the number of rows that it counts "
                f"as: got {weight}."
            )
    if not means_weight and not covars_weight:
        return None
    n_features = X.shape[1]
    means, covars = estimator.means_prior, estimator.covars_prior
    if means is None:
        means = column_mean(X)
    if covars is None:
        covars = covariance.from_variances(column_scale(X) ** 2, n_components)
    elif np.ndim(covars) == 0:
        covars = covariance.from_variances(np.full(n_features, float(covars)), n_components)
    shape = covariance.shape(n_components, n_features)
    covars = check_broadcast(covars, "covars_prior", shape)
    return GaussianPrior(
        check_broadcast(means, "means_prior", (n_components, n_features)),
        means_weight,
        covariance.check(covars, "covars_prior", n_components, n_features),
        covars_weight,
    )


def column_mean(X: np.ndarray) -> np.ndarray:
    """Mean of each column over its observed entries; 0 for a column without any."""
    return _column_moments(X, np.zeros(X.shape[1]))[0]


def _column_moments(X, centre) -> tuple[np.ndarray, np.ndarray]:
    """Means of x - centre and of its square, over the observed entries of each column."""
    sums = np.zeros((3, X.shape[1]))
    rows = np.ascontiguousarray(X, dtype=float)
    add_sums(rows, np.ones((len(X), 1)), centre[None], False, sums.reshape(-1))
    n_observed = np.maximum(sums[0], 1)
    return sums[1] / n_observed, sums[2] / n_observed


def column_scale(X: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over its observed entries; 1 for a constant column."""
    mean = column_mean(X)
    shift, square = _column_moments(X, mean)
    scale = np.sqrt(np.maximum(square - shift**2, 0.0))  # shift: what rounding left in the mean
    # a constant column at a large offset has a scale of pure rounding
    rounding = 4 * np.finfo(float).eps * np.abs(mean)
    return np.where(scale > rounding, scale, 1.0)


def mend_covariance(covariance: np.ndarray, name: str) -> np.ndarray:
    """A covariance that somebody computed (or a stack of them), without what rounding did to it.

    Asymmetry and negative eigenvalues are measured in units of the standard deviations, of which
    none counts as less than a thousandth of the largest: rounding follows the largest entries.  Up
    to ROUNDED they are taken out, beyond it they are an error, which calls the matrix `name`; so is
    a negative variance of more than the last digits of the largest entry.
    """
    units = _units(covariance)
    scaled = covariance / units
    if np.any(np.abs(scaled - np.swapaxes(scaled, -1, -2)) > ROUNDED):
        raise ValueError(f"{name} must be symmetric, got\n{covariance}.")
    covariance = (covariance + np.swapaxes(covariance, -1, -2)) / 2
    smallest = np.linalg.eigvalsh(covariance / units)[..., 0]
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    last_digits = LAST_DIGITS * np.abs(covariance).max(axis=(-1, -2), initial=0.0)[..., None]
    if np.any(smallest < -ROUNDED) or np.any(variances < -last_digits):
        raise ValueError(
            f"{name} must be positive semi-definite, its least eigenvalue is "
            f"{np.linalg.eigvalsh(covariance).min()}."
        )
    return without_negative(covariance)


def without_negative(covariance: np.ndarray) -> np.ndarray:
    """A symmetric matrix (or a stack) with its negative eigenvalues at 0, in the units of its rows.

    One that has none but of the last digits comes back untouched.
    """
    units = _units(covariance)
    values, vectors = np.linalg.eigh(covariance / units)
    negative = values[..., 0] < -4 * units.shape[-1] * np.finfo(float).eps
    negative |= np.any(np.diagonal(covariance, axis1=-2, axis2=-1) < 0, axis=-1)
    if not np.any(negative):
        return covariance
    roots = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    clipped = roots @ np.swapaxes(roots, -1, -2) * units
    clipped = (clipped + np.swapaxes(clipped, -1, -2)) / 2
    return np.where(negative[..., None, None], clipped, covariance)


def _units(covariance: np.ndarray) -> np.ndarray:
    """Products of the standard deviations, of which none is less than 1e-3 of the largest."""
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    largest = np.abs(covariance).max(axis=(-1, -2), initial=0.0)[..., None]
    largest = np.where(largest > 0, largest, 1.0)
    deviations = np.sqrt(np.maximum(variances, 1e-6 * largest))
    return deviations[..., :, None] * deviations[..., None, :]


def reshaped_covariance(covariance: np.ndarray, covariance_type: str, name: str) -> np.ndarray:
    """A covariance in the form of its type, from which it may differ by rounding."""
    shaped = covariance
    if covariance_type != "full":
        shaped = np.diag(np.diag(covariance))
    if covariance_type == "spherical":
        shaped = np.eye(len(covariance)) * np.diag(covariance).mean()
    if np.any(np.abs(shaped - covariance) > 1e-9 * _units(covariance)):
        raise ValueError(
            f"{name}_init is not {covariance_type}, as {name}_type asks: got\n{covariance}."
        )
    return shaped


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


def raise_to_floor(covariance: np.ndarray, covariance_type: str, floor: Floor) -> np.ndarray:
    """One square covariance, no lower than the floor and of its type still."""
    if covariance_type == "spherical":
        return np.eye(len(covariance)) * max(covariance[0, 0], floor.variances.max())
    return clip_covariance(covariance, floor)


class CovarianceType(ABC):
    """What one value of ``covariance_type`` means."""

    is_matrix = True  # False: variances only

    @abstractmethod
    def shape(self, n_components: int, n_features: int) -> tuple: ...

    @abstractmethod
    def spread(self, covars, n_components: int, n_features: int) -> np.ndarray:
        """The covariances as the kernels take them: precisions (K, D), or for matrices the
        triangles L (K, D, D) with L' L = C^-1."""

    @abstractmethod
    def log_density(self, X, means, covars, out) -> None:
        """OUT out (N, K): log N(x_n | mean_k, C_k) over the observed entries; 0: missing row."""

    @abstractmethod
    def moments(self, X, posteriors, means, covars) -> GaussianMoments:
        """Expected sums under `posteriors` (N, K)."""

    @abstractmethod
    def from_sums(self, sums, n_components: int, n_features: int) -> GaussianMoments:
        """Moments from what the kernels add up (see `_gaussian_moments.pyx`)."""

    @abstractmethod
    def shifted(self, moments: GaussianMoments, shift) -> GaussianMoments:
        """The same sums around means that have moved by `shift` (K, D)."""

    @abstractmethod
    def estimate(self, moments: GaussianMoments, covars, floor: Floor) -> np.ndarray:
        """Covariances of largest likelihood around the means of `moments`.

        A component with (almost) no rows keeps its `covars`.
        """

    @abstractmethod
    def raised(self, covars, floor: Floor) -> np.ndarray:
        """The same covariances where they are above the floor, else the nearest that are."""

    def on_floor(self, covars, floor: Floor) -> np.ndarray:
        """Variances, or whole matrices, that the floor holds up: a mask of the entries."""
        above = Floor(floor.scale, floor.reg_covar * (1.0 + FLOOR_ROUNDING))
        raised = self.raised(covars, above) != covars
        if self.is_matrix:
            raised = np.broadcast_to(raised.any(axis=(-2, -1), keepdims=True), raised.shape)
        return raised

    def rounding(self, covars) -> float:
        """Nats by which rounding of the entries of a matrix may change a log-density.

        The least eigenvalue of a correlation matrix has the absolute error of its entries, and a
        log-density has its relative one.
        """
        if not self.is_matrix:
            return 0.0
        deviations = np.sqrt(np.diagonal(covars, axis1=-2, axis2=-1))
        least = np.linalg.eigvalsh(covars / (deviations[..., None] * deviations[..., None, :]))
        eps = np.finfo(float).eps
        return float(covars.shape[-1] ** 2 * eps / max(least.min(), eps))

    def columns_of(self, mask, n_components: int, n_features: int) -> np.ndarray:
        """The columns (K, D) that belong to a mask of variances or of whole matrices."""
        if self.is_matrix:
            mask = mask[..., 0]
        elif mask.ndim == 1:
            mask = mask[:, None]
        return np.broadcast_to(mask, (n_components, n_features))

    @abstractmethod
    def prior_moments(self, prior: GaussianPrior, means) -> GaussianMoments:
        """The prior as sums around `means` that are added to those of the data."""

    @abstractmethod
    def expected_log_density(self, moments: GaussianMoments, covars) -> float:
        """The sum whose sums `moments` are, of log N(x | mean, C) without its 2 pi."""

    @abstractmethod
    def gradient(self, moments: GaussianMoments, covars) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of `expected_log_density` by the means and by each entry of `covars`."""

    def check_regular(self, means, covars, floor: Floor) -> None:
        """A covariance that has collapsed, for want of a floor, is an error."""
        if floor.reg_covar > SINGULAR:
            return
        with np.errstate(invalid="ignore"):
            deviations = np.nan_to_num(self.deviations(covars, *means.shape))
        regular = (deviations > 4 * np.finfo(float).eps * np.abs(means)).all(axis=1)
        if self.is_matrix and regular.all():
            full = self.to_full(covars, means.shape[1], len(means))
            correlations = full / (deviations[:, :, None] * deviations[:, None, :])
            regular = np.linalg.eigvalsh(correlations)[:, 0] > SINGULAR
        if not regular.all():
            raise ValueError(
                f"The covariance of component {np.argmin(regular)} is singular, and "
                f"reg_covar={floor.reg_covar:g} puts no floor under it: the likelihood has no "
                "maximum. Give a positive reg_covar, fewer components or fewer columns."
            )

    @abstractmethod
    def to_full(self, covars, n_features: int, n_components: int) -> np.ndarray:
        """The same covariances as (K, D, D)."""

    @abstractmethod
    def from_full(self, covariance, n_components: int) -> np.ndarray:
        """One full covariance (D, D) for all components, in this type's shape."""

    @abstractmethod
    def from_variances(self, variances, n_components: int) -> np.ndarray:
        """The diagonal covariance with `variances` (D,) for all components, likewise."""

    @abstractmethod
    def deviations(self, covars, n_components: int, n_features: int) -> np.ndarray:
        """Standard deviation of each column in each component, (K, D)."""

    @abstractmethod
    def correlate(self, noise, covars, components, n_components: int) -> np.ndarray:
        """Standard normal rows (n, D) with the covariance of their component (n,)."""

    @abstractmethod
    def add_average(self, weights, covars, out) -> None:
        """INOUT out (n, D, D): += the mean of the covariances under each row of weights (n, K)."""

    @abstractmethod
    def n_parameters(self, n_components: int, n_features: int) -> int: ...

    def m_step(
        self, moments: GaussianMoments, means, covars, floor: Floor, *,
        held: Mapping[str, np.ndarray], prior: GaussianPrior | None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Means and covariances of largest expected log-likelihood plus log prior.

        Where some means of a component are held and its columns are correlated, the others are
        their best at the current covariance, which raises the objective as well (ECM: Meng & Rubin
        1993).
        """
        if prior is None:
            weights, first = moments.weights, moments.first
        else:
            weights = moments.weights + prior.means_weight
            first = moments.first + prior.means_weight * (prior.means - means)
        shift = np.where(weights < STARVED, 0.0, first / np.maximum(weights, STARVED))
        if "means" in held:
            shift = self._shift_of_free(shift, np.broadcast_to(held["means"], shift.shape), covars)
        means = means + shift
        if "covars" in held and np.all(held["covars"]):
            return means, covars
        moments = self.shifted(moments, shift)
        if prior is not None:
            moments = add_moments(moments, self.prior_moments(prior, means))
        estimated = self.estimate(moments, covars, floor)
        if "covars" in held:
            estimated = np.where(held["covars"], covars, estimated)
        return means, estimated

    def _shift_of_free(self, shift, held, covars) -> np.ndarray:
        """The shift with held means at 0; correlated columns follow the held ones."""
        result = np.where(held, 0.0, shift)
        if not self.is_matrix:
            return result
        full = self.to_full(covars, shift.shape[1], len(shift))
        for k in np.flatnonzero(held.any(axis=1) & ~held.all(axis=1)):
            a, b = held[k], ~held[k]
            result[k, b] -= full[k][np.ix_(b, a)] @ np.linalg.solve(
                full[k][np.ix_(a, a)], shift[k, a]
            )
        return result

    def log_prior(self, prior: GaussianPrior | None, means, covars) -> float:
        if prior is None:
            return 0.0
        return self.expected_log_density(self.prior_moments(prior, means), covars)

    def check_held(self, held: Mapping[str, np.ndarray]) -> None:
        """A mask holds all or none of the entries of a covariance matrix."""
        if not self.is_matrix or "covars" not in held:
            return
        whole = held["covars"].reshape(*held["covars"].shape[:-2], -1)
        if np.any(whole.any(axis=-1) & ~whole.all(axis=-1)):
            raise ValueError(
                "fixed['covars'] must hold all or none of the entries of a covariance matrix, "
                f"got\n{held['covars']}."
            )

    def n_free_parameters(self, means, held: Mapping[str, np.ndarray]) -> int:
        """Of means and covariances; a symmetric pair of entries is one."""
        n_free = means.size - int(np.sum(held.get("means", 0)))
        held_share = np.mean(held.get("covars", 0.0))
        return n_free + round(self.n_parameters(*means.shape) * (1.0 - held_share))

    def check(self, value, name: str, n_components: int, n_features: int) -> np.ndarray:
        """Validate covariances given by the user."""
        covars = check_parameter_array(value, name, self.shape(n_components, n_features))
        if not self.is_matrix:
            if np.any(covars <= 0):
                raise ValueError(f"{name} must be positive, got {covars.min()}.")
            return covars
        covars = mend_covariance(covars, name)
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

    def spread(self, covars, n_components, n_features):
        return 1.0 / covars

    def log_density(self, X, means, covars, out):
        log_density_diag(X, means, self.spread(covars, *means.shape), out)

    def moments(self, X, posteriors, means, covars):
        return self.from_sums(_diagonal_sums(X, posteriors, means), *means.shape)

    def from_sums(self, sums, n_components, n_features):
        return GaussianMoments(*sums.reshape(3, n_components, n_features))

    def shifted(self, moments, shift):
        weights, first, second = moments
        second = second + shift * (weights * shift - 2 * first)
        return GaussianMoments(weights, first - weights * shift, second)

    def estimate(self, moments, covars, floor):
        variances = moments.second / np.maximum(moments.weights, STARVED)
        return np.where(moments.weights < STARVED, covars, self.raised(variances, floor))

    def raised(self, covars, floor):
        return np.maximum(covars, floor.variances)

    def prior_moments(self, prior, means):
        deviation = prior.means - means
        return GaussianMoments(
            np.full(means.shape, prior.covars_weight),
            prior.means_weight * deviation,
            prior.covars_weight * prior.covars + prior.means_weight * deviation**2,
        )

    def expected_log_density(self, moments, covars):
        return float(-np.sum(moments.weights * np.log(covars) + moments.second / covars) / 2)

    def gradient(self, moments, covars):
        by_covars = (moments.second / covars - moments.weights) / covars / 2
        return moments.first / covars, by_covars

    def to_full(self, covars, n_features, n_components):
        return covars[:, :, None] * np.eye(n_features)

    def from_full(self, covariance, n_components):
        return self.from_variances(np.diag(covariance), n_components)

    def from_variances(self, variances, n_components):
        return np.repeat(variances[None], n_components, axis=0)

    def deviations(self, covars, n_components, n_features):
        return np.sqrt(covars)

    def correlate(self, noise, covars, components, n_components):
        return noise * np.sqrt(covars)[components]

    def add_average(self, weights, covars, out):
        np.einsum("ndd->nd", out)[...] += weights @ covars

    def n_parameters(self, n_components, n_features):
        return n_components * n_features


class Spherical(CovarianceType):
    """Each component one variance, (K,)."""

    is_matrix = False

    def shape(self, n_components, n_features):
        return (n_components,)

    def spread(self, covars, n_components, n_features):
        return np.repeat(1.0 / covars[:, None], n_features, axis=1)

    def log_density(self, X, means, covars, out):
        log_density_diag(X, means, self.spread(covars, *means.shape), out)

    def moments(self, X, posteriors, means, covars):
        return self.from_sums(_diagonal_sums(X, posteriors, means), *means.shape)

    def from_sums(self, sums, n_components, n_features):
        weights, first, second = sums.reshape(3, n_components, n_features)
        return GaussianMoments(weights, first, second.sum(axis=1))

    def shifted(self, moments, shift):
        weights, first, second = moments
        second = second + (shift * (weights * shift - 2 * first)).sum(axis=1)
        return GaussianMoments(weights, first - weights * shift, second)

    def estimate(self, moments, covars, floor):
        weights = moments.weights.sum(axis=1)
        variances = moments.second / np.maximum(weights, STARVED)
        return np.where(weights < STARVED, covars, self.raised(variances, floor))

    def raised(self, covars, floor):
        return np.maximum(covars, floor.variances.max())

    def prior_moments(self, prior, means):
        deviation = prior.means - means
        return GaussianMoments(
            np.full(means.shape, prior.covars_weight),
            prior.means_weight * deviation,
            prior.covars_weight * prior.covars * means.shape[1]
            + prior.means_weight * (deviation**2).sum(axis=1),
        )

    def expected_log_density(self, moments, covars):
        weights = moments.weights.sum(axis=1)
        return float(-np.sum(weights * np.log(covars) + moments.second / covars) / 2)

    def gradient(self, moments, covars):
        by_covars = (moments.second / covars - moments.weights.sum(axis=1)) / covars / 2
        return moments.first / covars[:, None], by_covars

    def to_full(self, covars, n_features, n_components):
        return covars[:, None, None] * np.eye(n_features)

    def from_full(self, covariance, n_components):
        return self.from_variances(np.diag(covariance), n_components)

    def from_variances(self, variances, n_components):
        return np.full(n_components, variances.mean())

    def deviations(self, covars, n_components, n_features):
        return np.repeat(np.sqrt(covars)[:, None], n_features, axis=1)

    def correlate(self, noise, covars, components, n_components):
        return noise * np.sqrt(covars)[components, None]

    def add_average(self, weights, covars, out):
        np.einsum("ndd->nd", out)[...] += (weights @ covars)[:, None]

    def n_parameters(self, n_components, n_features):
        return n_components


class Full(CovarianceType):
    """Each component its own covariance matrix, (K, D, D)."""

    def shape(self, n_components, n_features):
        return (n_components, n_features, n_features)

    def spread(self, covars, n_components, n_features):
        return np.linalg.inv(_factors(covars))

    def log_density(self, X, means, covars, out):
        _log_density_full(X, means, covars, out)

    def moments(self, X, posteriors, means, covars):
        return self.from_sums(_full_sums(X, posteriors, means, covars), *means.shape)

    def from_sums(self, sums, n_components, n_features):
        occupancy = sums[:n_components]
        first, second = np.split(sums[n_components:], [n_components * n_features])
        lower = np.tril(second.reshape(n_components, n_features, n_features))
        return GaussianMoments(
            np.repeat(occupancy[:, None], n_features, axis=1),
            first.reshape(n_components, n_features),
            lower + np.swapaxes(np.tril(lower, -1), 1, 2),
        )

    def shifted(self, moments, shift):
        weights, first, second = moments
        cross = first[:, :, None] * shift[:, None, :]
        second = second - cross - np.swapaxes(cross, 1, 2)
        second = second + weights[:, :1, None] * shift[:, :, None] * shift[:, None, :]
        return GaussianMoments(weights, first - weights * shift, second)

    def estimate(self, moments, covars, floor):
        occupancy = moments.weights[:, 0]
        covariances = moments.second / np.maximum(occupancy, STARVED)[:, None, None]
        starved = occupancy < STARVED
        covariances[starved] = covars[starved]  # eigh must not see 0/0
        covariances = self.raised(covariances, floor)
        return np.where(starved[:, None, None], covars, covariances)

    def raised(self, covars, floor):
        return clip_covariance(covars, floor)

    def prior_moments(self, prior, means):
        deviation = prior.means - means
        return GaussianMoments(
            np.full(means.shape, prior.covars_weight),
            prior.means_weight * deviation,
            prior.covars_weight * prior.covars
            + prior.means_weight * deviation[:, :, None] * deviation[:, None, :],
        )

    def expected_log_density(self, moments, covars):
        _, log_determinants = np.linalg.slogdet(covars)
        distances = np.trace(np.linalg.solve(covars, moments.second), axis1=1, axis2=2)
        return float(-np.sum(moments.weights[:, 0] * log_determinants + distances) / 2)

    def gradient(self, moments, covars):
        precisions = np.linalg.inv(covars)
        occupancy = moments.weights[:, 0, None, None]
        by_covars = (precisions @ moments.second @ precisions - occupancy * precisions) / 2
        return np.einsum("kde,ke->kd", precisions, moments.first), by_covars

    def to_full(self, covars, n_features, n_components):
        return covars

    def from_full(self, covariance, n_components):
        return np.repeat(covariance[None], n_components, axis=0)

    def from_variances(self, variances, n_components):
        return self.from_full(np.diag(variances), n_components)

    def deviations(self, covars, n_components, n_features):
        return np.sqrt(np.diagonal(covars, axis1=1, axis2=2))

    def correlate(self, noise, covars, components, n_components):
        return np.einsum("nde,ne->nd", _factors(covars)[components], noise)

    def add_average(self, weights, covars, out):
        out += np.einsum("nk,kde->nde", weights, covars)

    def n_parameters(self, n_components, n_features):
        return n_components * n_features * (n_features + 1) // 2


class Tied(CovarianceType):
    """One covariance matrix for all components, (D, D)."""

    def shape(self, n_components, n_features):
        return (n_features, n_features)

    def spread(self, covars, n_components, n_features):
        triangle = np.linalg.inv(_factors(covars))
        return np.repeat(triangle[None], n_components, axis=0)

    def log_density(self, X, means, covars, out):
        _log_density_full(X, means, self.to_full(covars, len(covars), len(means)), out)

    def moments(self, X, posteriors, means, covars):
        full = self.to_full(covars, len(covars), len(means))
        return self.from_sums(_full_sums(X, posteriors, means, full), *means.shape)

    def from_sums(self, sums, n_components, n_features):
        weights, first, second = COVARIANCES["full"].from_sums(sums, n_components, n_features)
        return GaussianMoments(weights, first, second.sum(axis=0))

    def shifted(self, moments, shift):
        weights, first, second = moments
        cross = first.T @ shift
        second = second - cross - cross.T + (shift.T * weights[:, 0]) @ shift
        return GaussianMoments(weights, first - weights * shift, second)

    def estimate(self, moments, covars, floor):
        total = moments.weights[:, 0].sum()
        return covars if total < STARVED else self.raised(moments.second / total, floor)

    def raised(self, covars, floor):
        return clip_covariance(covars, floor)

    def prior_moments(self, prior, means):
        deviation = prior.means - means
        return GaussianMoments(
            np.full(means.shape, prior.covars_weight / len(means)),
            prior.means_weight * deviation,
            prior.covars_weight * prior.covars + prior.means_weight * deviation.T @ deviation,
        )

    def expected_log_density(self, moments, covars):
        total = moments.weights[:, 0].sum()
        distances = np.trace(np.linalg.solve(covars, moments.second))
        return float(-(total * np.linalg.slogdet(covars)[1] + distances) / 2)

    def gradient(self, moments, covars):
        precision = np.linalg.inv(covars)
        total = moments.weights[:, 0].sum()
        by_covars = (precision @ moments.second @ precision - total * precision) / 2
        return moments.first @ precision, by_covars

    def to_full(self, covars, n_features, n_components):
        return np.repeat(covars[None], n_components, axis=0)

    def from_full(self, covariance, n_components):
        return covariance

    def from_variances(self, variances, n_components):
        return np.diag(variances)

    def deviations(self, covars, n_components, n_features):
        return np.repeat(np.sqrt(np.diag(covars))[None], n_components, axis=0)

    def correlate(self, noise, covars, components, n_components):
        return np.einsum("de,ne->nd", _factors(covars), noise)

    def add_average(self, weights, covars, out):
        out += weights.sum(axis=1)[:, None, None] * covars

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


def _diagonal_sums(X, posteriors, means):
    sums = np.zeros(3 * means.size)
    add_sums(X, posteriors, means, False, sums)
    return sums


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


def _factors(covars) -> np.ndarray:
    """Lower Cholesky factors."""
    try:
        return np.linalg.cholesky(covars)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covars must be positive definite in floating point: columns of X depend on each "
            "other, or lie far from zero for their spread. Subtract means, or raise reg_covar."
        ) from None


def _log_density_full(X, means, covars, out):
    patterns = _patterns(X)
    if patterns and patterns[0][0].all() and isinstance(patterns[0][1], slice):
        log_density_full(X, means, np.linalg.inv(_factors(covars)), out)
        return
    out[:] = 0
    for observed, rows in patterns:
        block = np.ascontiguousarray(X[rows][:, observed])
        sub_means = np.ascontiguousarray(means[:, observed])
        factors = _factors(covars[:, observed][:, :, observed])
        part = np.empty((len(block), len(means)))
        log_density_full(block, sub_means, np.linalg.inv(factors), part)
        out[rows] = part


def _full_sums(X, posteriors, means, covars):
    n_components, n_features = means.shape
    sums = np.zeros(n_components * (1 + n_features + n_features**2))
    for observed, rows in _patterns(X):
        block, gamma = X[rows], posteriors[rows]
        if observed.all():
            add_sums(block, gamma, means, True, sums)
            continue
        occupancy, first, second = np.split(sums, np.cumsum([n_components, means.size]))
        first, second = first.reshape(means.shape), second.reshape(covars.shape)
        occupancy += gamma.sum(axis=0)
        for k in range(n_components):
            deviation, conditional = _fill_missing(block - means[k], observed, covars[k])
            weighted = deviation * gamma[:, k, None]
            first[k] += weighted.sum(axis=0)
            second[k] += weighted.T @ deviation + gamma[:, k].sum() * conditional
    return sums


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


# ---------------------------------------------------------------------------------------------
# As real numbers without constraints, for optimisers and extrapolation


def covariance_to_vector(covariance) -> np.ndarray:
    """Logarithms of the variances of a diagonal matrix; else the Cholesky factor, by logarithms of
    its squared diagonal and its lower entries in units of their row's diagonal."""
    if _is_diagonal(covariance):
        return np.log(np.diag(covariance))
    factor = np.linalg.cholesky(covariance)
    diagonal = np.diag(factor)
    lower = (factor / diagonal[:, None])[np.tril_indices(len(factor), -1)]
    return np.concatenate([2 * np.log(diagonal), lower])


def covariance_from_vector(vector, like) -> np.ndarray:
    """What `covariance_to_vector` made a vector of, in the form of `like`; infinite where it
    overflows."""
    n = len(like)
    with np.errstate(over="ignore", invalid="ignore"):
        if _is_diagonal(like):
            return np.diag(np.exp(vector))
        factor = np.eye(n)
        factor[np.tril_indices(n, -1)] = vector[n:]
        factor *= np.exp(vector[:n] / 2)[:, None]
        return factor @ factor.T


def _is_diagonal(matrix) -> bool:
    return not np.any(matrix[~np.eye(len(matrix), dtype=bool)])
