"""The two M-steps that every linear-Gaussian part shares: coefficients, and a covariance.

Both take expected sums of deviations from the current parameters and let single entries be held.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import dposv

from sklseq._covariance import without_negative
from sklseq.state_space._timed_chain import semidefinite_inverse

SCORING_STEPS = 50
SINGULAR = 1e-13  # eigenvalue of a correlation matrix that is zero but for rounding


def solve_gram(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """gram^-1 right for a positive semi-definite gram, scaled to unit diagonal; minimum norm
    where the regressors are collinear."""
    scale = np.sqrt(gram.diagonal())
    scale[~(scale > 0)] = 1.0
    scaled = gram / scale / scale[:, None]
    right = (right.T / scale).T
    factor, solution, failed = dposv(scaled, right, lower=1)
    if failed or factor.diagonal().min() < 1e-7:
        solution = np.linalg.lstsq(scaled, right, rcond=1e-13)[0]
    return (solution.T / scale).T


def estimate_coefficients(cross, gram, held, covariance) -> np.ndarray:
    """Movement D (m, r) that maximises -tr(C^-1 (-2 D cross' + D gram D')) / 2.

    Parameters
    ----------
    cross : ndarray of shape (m, r)
        Sum of E[residual regressor'], at the current coefficients.
    gram : ndarray of shape (r, r), or (m, r, r) for each row its own
        Sum of E[regressor regressor'].
    held : ndarray of bool of shape (m, r), or None
        Entries that do not move.
    covariance : ndarray of shape (m, m) or (m,)
        Of the residual; without held entries it cancels.
    """
    own = gram.ndim == 3
    if held is None and not own:
        return solve_gram(gram, cross.T).T
    if held is None:
        held = np.zeros(cross.shape, dtype=bool)
    shift = np.zeros_like(cross)
    if held.all():
        return shift
    coupled = covariance.ndim == 2 and np.any(covariance != np.diag(np.diag(covariance)))
    if own or not coupled:
        for i in np.flatnonzero(~held.all(axis=1)):
            free = np.flatnonzero(~held[i])
            row_gram = gram[i] if own else gram
            shift[i, free] = solve_gram(row_gram[np.ix_(free, free)], cross[i, free])
        return shift
    rows, columns = np.nonzero(~held)
    precision = np.linalg.pinv(covariance, hermitian=True)
    system = precision[np.ix_(rows, rows)] * gram[np.ix_(columns, columns)]
    shift[rows, columns] = solve_gram(system, (precision @ cross)[rows, columns])
    return shift


def estimate_along(directions, cross, gram, covariance=None) -> np.ndarray:
    """As ``estimate_coefficients``, of D a combination of `directions` (k, m, r).

    A `gram` (m, r, m, r), with its `cross`, has the inverse covariances in it already.
    """
    if not len(directions):
        return np.zeros_like(cross)
    flat = directions.reshape(len(directions), cross.size)
    if gram.ndim == 4:
        image, slope = flat @ gram.reshape(cross.size, cross.size), cross
    else:
        if covariance.ndim == 1:
            covariance = np.diag(covariance)
        precision = semidefinite_inverse(covariance)
        image = directions @ gram if gram.ndim == 2 else np.einsum(
            "kij,ijl->kil", directions, gram)  # fmt: skip
        image, slope = (precision @ image).reshape(flat.shape), precision @ cross
    amounts = solve_gram(image @ flat.T, flat @ slope.ravel())
    return np.tensordot(amounts, directions, axes=1)


def free_directions(held) -> np.ndarray:
    """One direction for each entry that is not held, (k, *held.shape)."""
    entries = np.flatnonzero(~held)
    directions = np.zeros((len(entries), held.size))
    directions[np.arange(len(entries)), entries] = 1.0
    return directions.reshape(-1, *held.shape)


def moved_sums(cross, gram, second, shift):
    """Sums (cross, second) of E[r z'] and E[r r'] after r - shift z has taken the place of r.

    With a `gram` for each row of its own, or of uncorrelated rows, `second` has the variances only;
    with a `gram` (m, r, m, r) it is left as it is.
    """
    if gram.ndim == 4:
        return cross - np.tensordot(gram, shift, axes=2), second
    moved = shift @ gram if gram.ndim == 2 else np.einsum("pi,pij->pj", shift, gram)
    if second.ndim == 1:
        return cross - moved, second + ((moved - 2 * cross) * shift).sum(axis=1)
    crossed = shift @ cross.T
    return cross - moved, second - crossed - crossed.T + moved @ shift.T


def estimate_covariance(
    current, second, covariance_type: str, held, penalty=None, tied=None
) -> np.ndarray:
    """The covariance of largest -log|C| - tr(C^-1 second) - tr(penalty C).

    Entries may be held at `current`, without a penalty, or move along directions `tied`
    (k, m, m) only.  `second` is the mean of
    E[residual residual'], (m, m); all are square matrices.
    """
    second = without_negative((second + second.T) / 2)  # a difference, for deviations are small
    if held is False and covariance_type == "full" and penalty is None:
        return second
    held = np.broadcast_to(held, current.shape)
    if held.all():
        return current
    if tied is not None:
        return _constrained(current, second, held, tied)
    if penalty is not None:
        return _penalised(second, penalty, covariance_type)
    if covariance_type == "spherical":
        return np.eye(len(current)) * max(np.trace(second) / len(current), 0.0)
    if covariance_type == "diag":
        variances = np.where(np.diag(held), np.diag(current), np.maximum(np.diag(second), 0.0))
        return np.diag(variances)
    if not held.any():
        return second
    return _constrained(current, second, held | held.T)


def _penalised(second, penalty, covariance_type):
    """C M C + C = S in closed form: C = R Z R, R = S^(1/2), Z = 2 (I + (I + 4 R M R)^(1/2))^-1."""
    n = len(second)
    if covariance_type == "full":
        values, vectors = np.linalg.eigh(second)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        values, vectors = np.linalg.eigh(root @ penalty @ root)
        shrink = 2.0 / (1.0 + np.sqrt(1.0 + 4.0 * np.maximum(values, 0.0)))
        half = root @ vectors * np.sqrt(shrink)
        return half @ half.T
    variances, weights = np.diag(second), np.diag(penalty)
    if covariance_type == "spherical":
        variances, weights = np.full(n, variances.mean()), np.full(n, weights.mean())
    return np.diag(2.0 * variances / (1.0 + np.sqrt(1.0 + 4.0 * weights * variances)))


def _constrained(current, second, held, tied=None):
    """Fisher scoring on the free entries, where the variance is not held at zero."""
    alive = np.flatnonzero(~(np.diag(held) & (np.diag(current) == 0.0)))
    block = np.ix_(alive, alive)
    if not (~held[block]).any():
        return current
    C, M, frozen = current[block].copy(), second[block], held[block]
    rows, columns = np.nonzero(np.tril(~frozen))
    basis = np.zeros((len(rows), *C.shape))
    basis[np.arange(len(rows)), rows, columns] = basis[np.arange(len(rows)), columns, rows] = 1.0
    if tied is not None:
        basis = tied[:, alive][:, :, alive]

    def objective(matrix):
        try:
            factor = cho_factor(matrix, lower=True)
        except LinAlgError:
            return -np.inf
        return -2 * np.log(np.diag(factor[0])).sum() - np.trace(cho_solve(factor, M))

    best = objective(C)
    for _ in range(SCORING_STEPS):
        inverse = np.linalg.inv(C)
        slope = inverse @ (M - C) @ inverse
        gradient = np.einsum("aij,ij->a", basis, slope)
        weighted = inverse @ basis @ inverse
        step = np.linalg.solve(np.einsum("aij,bij->ab", weighted, basis), gradient)
        move, gain = np.tensordot(step, basis, axes=1), 0.0
        for _ in range(SCORING_STEPS):
            value = objective(C + move)
            if value >= best:
                gain = value - best
                C, best = C + move, value
                break
            move = move / 2
        if gain <= 1e-13 * max(1.0, abs(best)):
            break
    result = current.copy()
    result[block] = C
    return result


def free_covariances(covariance_type: str, n: int, held) -> int:
    """Number of free entries of a covariance."""
    held = np.broadcast_to(held, (n, n))
    if covariance_type == "spherical":
        return int(not held.all())
    if covariance_type == "diag":
        return int(np.sum(~np.diag(held)))
    return int(np.sum(np.tril(~(held | held.T))))


def spectrum(covariance):
    """(eigenvalues, eigenvectors) of the correlation matrix, and the standard deviations (1 where
    there is none)."""
    variances = np.diag(covariance)
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return values, vectors, scale


def is_covariance(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix is positive semi-definite, but for rounding."""
    if np.any(np.diag(matrix) < 0):
        return False
    return bool(spectrum(matrix)[0][0] > -1e-13)


def noiseless_rows(covariance: np.ndarray) -> np.ndarray:
    """Residuals (m,) that have a part in a combination without variance."""
    values, vectors, _ = spectrum(covariance)
    return np.square(vectors[:, values <= SINGULAR]).sum(axis=1) > 1e-9


def free_without_noise(value, noise, held) -> np.ndarray:
    """Mask of the free coefficients of equations (rows) without noise: none moves in an M-step."""
    blind = noiseless_rows(noise).reshape(-1, *[1] * (value.ndim - 1))
    return blind & ~np.broadcast_to(held, value.shape)


def tell_blind(masks: dict, noise_of) -> str | None:
    """What an M-step cannot learn for want of noise, naming both parameters; None: nothing."""
    for name, mask in masks.items():
        if np.any(mask):
            where = ", ".join(map(str, np.argwhere(mask)[0]))
            return (
                f"{name}[{where}] cannot be learned where {noise_of(name)} leaves its equation "
                "without noise: it would stay at its start."
            )
    return None
