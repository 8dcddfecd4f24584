"""Chains started in their stationary distribution: its covariance, and the M-step it asks for.

P = A P A' + Gamma ties the start to A and Gamma, so that no M-step in closed form maximises the
expected density of the first states and of the transitions together.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from sklseq.state_space._ties import AlongDirections, CovarianceAlong
from sklseq.state_space._timed_chain import semidefinite_inverse

STATIONARY_RADIUS = 1 - 1e-6  # above it a chain has no stationary covariance worth the name
ITERATIONS = 15  # of L-BFGS, from near the maximum; the next M-step makes up what is missing
GAIN = 1e-11  # relative
INFEASIBLE = 1e6  # how far below its start the density is called outside the stationary chains


def spectral_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def stationary_covariance(A: np.ndarray, Gamma: np.ndarray) -> np.ndarray | None:
    """P with P = A P A' + Gamma, or None where the chain has (almost) a unit root."""
    if not spectral_radius(A) < STATIONARY_RADIUS:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # powers of an A that is far from normal
        P = lyapunov_by_doubling(A, Gamma)
    return P if np.all(np.isfinite(P)) else None


def maximise_stationary(
    A, Gamma, sums, held, covariance_type: str, penalty=None, tied=(None, None)
):
    """Movement of (A, B_u) and the new Gamma that raise the expected density, start included.

    Raises -(n log|P| + tr(P^-1 F) + m log|Gamma| + tr(Gamma^-1 M) + tr(penalty Gamma)) / 2 from the
    values given, by L-BFGS, with the derivative of P from the adjoint equation
    L = A' L A + dP: d/dGamma = L, d/dA = 2 L A P.

    Parameters
    ----------
    A, Gamma : ndarray of shape (d, d)
        Where the search sets out: a stationary chain.
    sums : tuple (n, F, m, gram, cross, second)
        Number of first states, sum of E[S_1 S_1'] (d, d), number of transitions; sums of E[z z']
        (r, r), E[w z'] (d, r) and E[w w'] (d, d) of z = (S_{t-1}, u_t) and the deviations w from
        the values given.
    held : tuple of ndarray of bool of shapes (d, r) and (d, d)
        Entries of (A, B_u) and of Gamma that do not move.
    covariance_type : {"full", "diag", "spherical"}
    penalty : ndarray of shape (d, d), or None
    tied : tuple of ndarray, or None
        Directions (k, d, r) and (k, d, d) along which alone (A, B_u) and Gamma move.

    Returns
    -------
    tuple (shift of shape (d, r), Gamma), or None
        None where nothing better was found, or a covariance is singular otherwise than by states
        without noise.
    """
    n, F, m, gram, cross, second = sums
    d = len(A)
    alive = np.diag(Gamma) > 0  # a state without noise follows its row of A, which is then held
    block = np.ix_(alive, alive)
    try:
        if tied[0] is None:
            scale = _Scale(gram, F, Gamma, alive, held[0])
        else:
            scale = AlongDirections(gram, F, semidefinite_inverse(Gamma), tied[0])
        if tied[1] is None:
            covariance = covariance_coordinates(Gamma, alive, held[1], covariance_type)
        else:
            covariance = CovarianceAlong(Gamma, tied[1])
    except LinAlgError:
        return None
    size = scale.size
    unit = 1 / np.sqrt(max(m, 1.0))  # of relative changes of Gamma: its curvature is m

    def loss(vector):
        """Minus twice the density, and its derivative."""
        shift, new = scale.to_shift(vector[:size]), covariance.to_matrix(unit * vector[size:])
        moved = A + shift[:, :d]
        if not np.all(np.isfinite(moved)) or not np.all(np.isfinite(new)):
            return outside, np.zeros_like(vector)
        if not spectral_radius(moved) < STATIONARY_RADIUS:
            return outside, np.zeros_like(vector)
        P = lyapunov_by_doubling(moved, new)
        try:
            log_start, start = _log_and_inverse(P)
            log_noise, precision = _log_and_inverse(new[block])
        except (LinAlgError, ValueError):  # not a covariance, or infinite
            return outside, np.zeros_like(vector)
        noise = np.zeros((d, d))
        noise[block] = precision
        residual = cross - shift @ gram
        crossed = shift @ cross.T
        M = second - crossed - crossed.T + shift @ gram @ shift.T
        value = n * log_start + np.sum(start * F) + m * log_noise + np.sum(noise * M)
        adjoint = lyapunov_by_doubling(moved.T, n * start - start @ F @ start)
        by_covariance = m * noise - noise @ M @ noise + adjoint
        if penalty is not None:
            value += np.sum(penalty * new)
            by_covariance = by_covariance + penalty
        by_shift = -2 * noise @ residual
        by_shift[:, :d] += 2 * adjoint @ moved @ P
        return value, np.concatenate([
            scale.to_slope(by_shift),
            unit * covariance.to_slope(unit * vector[size:], by_covariance),
        ])  # fmt: skip

    origin = np.concatenate([np.zeros(size), covariance.origin])
    if not len(origin):
        return None
    outside = np.inf
    before, _ = loss(origin)
    if not np.isfinite(before):
        return None
    outside = before + INFEASIBLE * (1 + abs(before))
    found = minimize(
        loss, origin, jac=True, method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": GAIN, "gtol": 1e-9, "maxcor": 10},
    )  # fmt: skip
    if not found.fun < before:
        return None
    return scale.to_shift(found.x[:size]), covariance.to_matrix(unit * found.x[size:])


def lyapunov_by_doubling(A, Q):
    """P = A P A' + Q of a stable A, by doubling: the sum of A^k Q A'^k in blocks of 1, 2, 4, ...

    Positive semi-definite as a sum of such; SciPy's direct solution is not where A is far from
    normal, says so by a warning of its own, and takes most of its time in Python.
    """
    P = Q.copy()
    for _ in range(40):  # 2^40 terms
        step = A @ P @ A.T
        P += step
        if np.abs(step).max() <= 1e-17 * np.abs(P).max():
            break
        A = A @ A
    return (P + P.T) / 2


def _log_and_inverse(matrix):
    """log|C| and C^-1 of a positive definite matrix."""
    factor, _ = cho_factor(matrix, lower=True)
    inverse, failed = dpotri(factor, lower=True)
    if failed:
        raise LinAlgError("singular")
    inverse = np.tril(inverse)
    return 2 * np.log(np.diag(factor)).sum(), inverse + np.tril(inverse, -1).T


class _Scale:
    """Movements of (A, B_u) in units of the curvature, Gamma^-1 times the gram."""

    def __init__(self, gram, F, Gamma, alive, held):
        d, r = held.shape
        total = gram.copy()
        total[:d, :d] += F
        total += 1e-10 * np.diag(np.diag(total)) + np.diag(np.where(np.diag(total) > 0, 0.0, 1.0))
        free = ~held & alive[:, None]
        self.shape, self.free = (d, r), free
        if free.all():
            self.left = np.linalg.cholesky(Gamma)
            self.right = np.linalg.inv(np.linalg.cholesky(total))
        else:
            self.left = np.diag(np.sqrt(np.diag(Gamma)))
            self.right = np.diag(1.0 / np.sqrt(np.diag(total)))
        self.size = int(free.sum())

    def to_shift(self, vector):
        whole = np.zeros(self.shape)
        whole[self.free] = vector
        return self.left @ whole @ self.right

    def to_slope(self, slope):
        return (self.left.T @ slope @ self.right.T)[self.free]


def covariance_coordinates(Gamma, alive, held, covariance_type):
    """The free entries of a covariance as a vector without constraints, 0 at `Gamma`.

    `alive` are the variances above 0, `held` the entries that do not move.  An object with
    ``origin``, ``to_matrix(vector)`` and ``to_slope(vector, G)``, for d(value) = tr(G d(matrix)).
    """
    if held.all():
        return _Logs(Gamma, np.zeros((0, len(Gamma)), dtype=bool))
    if covariance_type == "spherical":
        return _Logs(Gamma, alive[None])
    if covariance_type == "diag":
        return _Logs(Gamma, np.diag(alive & ~np.diag(held))[alive & ~np.diag(held)])
    if alive.all() and not held.any():
        return _Cholesky(Gamma)
    return _Entries(Gamma, alive, held | held.T)


class _Logs:
    """A diagonal covariance: the logarithm of the factor on each group of variances."""

    def __init__(self, Gamma, groups):
        self.Gamma, self.groups = Gamma, groups.astype(float)
        self.origin = np.zeros(len(groups))

    def to_matrix(self, vector):
        return self.Gamma * np.exp(np.minimum(vector @ self.groups, 700.0))[:, None] if (
            len(vector)) else self.Gamma  # fmt: skip

    def to_slope(self, vector, slope):
        return self.groups @ np.diag(slope * self.to_matrix(vector))


class _Cholesky:
    """Gamma = L K K' L' with L that of the start; K with a logarithmic diagonal."""

    def __init__(self, Gamma):
        d = len(Gamma)
        self.root = np.linalg.cholesky(Gamma)
        self.lower = np.tril_indices(d)
        self.origin = np.zeros(len(self.lower[0]))

    def _factor(self, vector):
        K = np.zeros_like(self.root)
        K[self.lower] = vector
        np.fill_diagonal(K, np.exp(np.minimum(np.diag(K), 350.0)))
        return K

    def to_matrix(self, vector):
        root = self.root @ self._factor(vector)
        return root @ root.T

    def to_slope(self, vector, slope):
        K = self._factor(vector)
        slope = 2 * self.root.T @ slope @ self.root @ K
        np.fill_diagonal(slope, np.diag(slope) * np.diag(K))
        return slope[self.lower]


class _Entries:
    """Single free entries, in units of the standard deviations."""

    def __init__(self, Gamma, alive, held):
        free = np.tril(~held & alive[:, None] & alive)
        self.Gamma, self.entries = Gamma, np.nonzero(free)
        deviations = np.sqrt(np.diag(Gamma))
        self.unit = deviations[self.entries[0]] * deviations[self.entries[1]]
        self.origin = np.zeros(len(self.unit))

    def to_matrix(self, vector):
        rows, columns = self.entries
        moved = self.Gamma.copy()
        moved[rows, columns] = self.Gamma[rows, columns] + self.unit * vector
        moved[columns, rows] = moved[rows, columns]
        return moved

    def to_slope(self, vector, slope):
        rows, columns = self.entries
        return self.unit * slope[rows, columns] * np.where(rows == columns, 1.0, 2.0)
