"""Standard errors of a KalmanSmoother: the observed information by differences of the likelihood.

The exact log-likelihood has derivatives also where some equation has no noise and EM's expected
density has none.  Differences are taken in the parameters themselves, each in steps that cost about
1e-3 nats: an error of 1e-12 in the likelihood is then one of 1e-9 in the information.

Shapes: K free directions.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.linalg import null_space
from sklearn.exceptions import ConvergenceWarning

from sklseq._sequences import Sequences, map_rows
from sklseq.state_space._estimate import is_covariance
from sklseq.state_space._linear_gaussian import LinearGaussianModel

COST = 1e-3  # nats that a step costs at the maximum
LEAST_COST = 1e-4
SEARCHES = 60  # for such a step
SINGULAR = 1e-8  # eigenvalue of the scaled information: a direction without a maximum
LARGEST_GAIN = 0.05  # nats; what one Newton step may promise at a maximum


def standard_errors(
    model: LinearGaussianModel, sequences: Sequences, n_jobs: int | None, *, gauge: bool
) -> StandardErrors:
    """Of all parameters.

    `gauge`: nothing settles the state's coordinates, which stay as they are: Gamma = I and
    B' Sigma^-1 B diagonal.
    """
    likelihood = _Likelihood(model, sequences, n_jobs)
    directions = [
        (name, move)
        for name, value in model.parameters().items()
        for move in _directions(model, name, value)
        if not (gauge and name == "transition_covariance")
    ]
    found = np.array([likelihood.step(*direction) for direction in directions]).reshape(-1, 3)
    barred = found[:, 0] == 0
    edge = [direction for direction, bar in zip(directions, barred) if bar]
    inside = [direction for direction, bar in zip(directions, barred) if not bar]
    steps, *ends = found[~barred].T
    factor = np.zeros((len(inside), 0))
    if inside:
        information, slope = likelihood.information(inside, steps, *ends)
        kept = _within_gauge(likelihood, inside, steps) if gauge else None
        factor = _factor(information, kept)
        _warn_elsewhere(slope, factor)
    if edge:
        warnings.warn(
            f"{len(edge)} variances or covariances are at the edge of what is possible, where "
            "there is no standard error: they get NaN, and count as known for the others.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return _by_name(likelihood, inside, steps, factor, edge)


def _directions(model, name: str, value):
    """Ways in which a parameter may move, each an array of its shape without a time axis."""
    shape = value.shape[-2:] if value.ndim > 1 else value.shape
    free = ~np.broadcast_to(model.held_entries(name), shape)
    if not free.any():
        return
    if name in model.tied:
        yield from model.tied[name]
        return
    if not name.endswith("covariance"):
        for entry in np.flatnonzero(free):
            move = np.zeros(shape)
            move.flat[entry] = 1.0
            yield move
        return
    covariance_type = {
        "transition_covariance": model.chain.covariance_type,
        "observation_covariance": model.observation.covariance_type,
    }.get(name, "full")
    if covariance_type == "spherical":
        yield np.eye(len(value))
        return
    for i, j in zip(*np.tril_indices(len(value))):
        if free[i, j] and free[j, i] and (i == j or covariance_type == "full"):
            move = np.zeros(shape)
            move[i, j] = move[j, i] = 1.0
            yield move


class StandardErrors(NamedTuple):
    """An array for each fitted parameter, in its shape (without a time axis) and under its name.

    0 for what is fixed, NaN at the edge of what is possible; `input_matrix` is None without inputs.
    """

    transition_matrix: np.ndarray
    transition_covariance: np.ndarray
    observation_matrix: np.ndarray
    observation_covariance: np.ndarray
    observation_offset: np.ndarray
    initial_state_mean: np.ndarray
    initial_state_covariance: np.ndarray
    input_matrix: np.ndarray | None = None


class _Likelihood:
    """The log-likelihood around a model."""

    def __init__(self, model: LinearGaussianModel, sequences: Sequences, n_jobs):
        self.model, self.sequences, self.n_jobs = model, sequences, n_jobs
        self.here = self._value(model)

    def _value(self, model) -> float:
        return float(map_rows(model.sequence_scores, self.sequences, self.n_jobs)[0].sum())

    def moved(self, *moves) -> LinearGaussianModel | None:
        """The model after moves (name, array); None where there is none."""
        values = dict(self.model.parameters())
        for name, move in moves:
            values[name] = values[name] + move
        for name, _ in moves:
            if name.endswith("covariance") and not is_covariance(values[name]):
                return None
        return self.model.with_parameters(values, clip=False)

    def at(self, *moves) -> float:
        model = self.moved(*moves)
        value = -np.inf if model is None else self._value(model)
        return value if np.isfinite(value) else -np.inf

    def step(self, name: str, move) -> tuple[float, float, float]:
        """A length that costs about COST, 0 where the way there is barred, and the log-likelihoods
        ahead and behind."""
        value = self.model.parameters()[name]
        length, most = 1e-3 * max(np.abs(value[..., move != 0]).max(), 1e-8), np.inf
        for _ in range(SEARCHES):
            ends = self.at((name, length * move)), self.at((name, -length * move))
            cost = self.here - (ends[0] + ends[1]) / 2
            if LEAST_COST <= abs(cost) <= 10 * COST:
                break
            if not np.isfinite(cost):
                most, length = length, length / 3
            elif 1.5 * length >= most:
                return 0.0, np.nan, np.nan
            else:
                growth = np.sqrt(COST / max(abs(cost), 1e-12))
                length *= min(max(growth, 1e-2), 30.0)
                length = min(length, 0.9 * most)
        if not np.isfinite(cost):
            return 0.0, np.nan, np.nan
        return length, *ends

    def information(self, directions, steps, ahead, behind):
        """Minus the second derivatives, (K, K), and the first ones, (K,)."""
        ahead, behind = ahead - self.here, behind - self.here
        information = np.diag(-(ahead + behind) / steps**2)
        moves = [(name, step * move) for (name, move), step in zip(directions, steps)]
        for i in range(len(moves)):
            for j in range(i):
                information[i, j] = information[j, i] = -self._mixed(
                    moves[i], moves[j], (ahead + behind)[[i, j]].sum()
                ) / (steps[i] * steps[j])
        return information, (ahead - behind) / (2 * steps)

    def _mixed(self, one, other, alone) -> float:
        """Second difference along two moves, from both ends of their sum (or difference)."""
        for sign in (1.0, -1.0):
            far = (other[0], sign * other[1])
            both = self.at(one, far) + self.at((one[0], -one[1]), (far[0], -far[1]))
            if np.isfinite(both):
                return sign * (both - 2 * self.here - alone) / 2
        return 0.0


def _within_gauge(likelihood, directions, steps):
    """Orthonormal combinations of the directions that keep B' Sigma^-1 B diagonal, (K, k)."""

    def off_diagonal(model):
        B = model.observation.matrix
        product = B.T @ np.linalg.pinv(model.observation.covariance, hermitian=True) @ B
        return product[np.tril_indices(len(product), -1)]

    slopes = []
    for (name, move), step in zip(directions, steps):
        ahead, behind = (
            off_diagonal(likelihood.moved((name, sign * step * move))) for sign in (1.0, -1.0)
        )
        slopes.append((ahead - behind) / 2)  # in units of the steps
    slopes = np.array(slopes)
    return None if slopes.shape[1] == 0 else null_space(slopes.T) * steps[:, None]


def _factor(information, kept) -> np.ndarray:
    """(K, k) whose product with its transpose is the covariance of the estimates."""
    if kept is None:
        kept = np.eye(len(information))
    inner = kept.T @ information @ kept
    scale = np.sqrt(np.abs(np.diag(inner)))
    scale[scale == 0] = 1.0
    values, vectors = np.linalg.eigh(inner / np.outer(scale, scale))
    if values[0] <= SINGULAR:
        raise ValueError(
            "The observed information is not positive definite (least eigenvalue, scaled: "
            f"{values[0]:.3g}): the parameters are not at a maximum of the likelihood of X, or X "
            "does not identify them all.  Fit with a smaller tol, or hold more by fixed: at least "
            "what gives the state its coordinates (a matrix, and a covariance or a scale)."
        )
    return kept @ (vectors / np.sqrt(values) / scale[:, None])


def _warn_elsewhere(slope, factor) -> None:
    gain = np.square(slope @ factor).sum() / 2
    if gain > LARGEST_GAIN:
        warnings.warn(
            f"The likelihood of X is not at its maximum: a Newton step would gain {gain:.3g} nats. "
            "Standard errors are for the training data, of a fit with a small tol.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _by_name(likelihood, directions, steps, factor, edge) -> StandardErrors:
    model = likelihood.model
    names = dict.fromkeys(model.parameters(), None)
    variances = {name: np.zeros(_shape(model.parameters()[name])) for name in names}
    for (name, move), row in zip(directions, factor):
        variances[name] += move**2 * np.square(row).sum()
    for name, move in edge:
        variances[name][move != 0] = np.nan
    errors = {name: np.sqrt(value) for name, value in variances.items()}
    errors.setdefault("initial_state_mean", np.zeros_like(model.chain.initial_mean))
    if "initial_state_covariance" not in errors:  # it moves with (A, Gamma): the delta method
        moved = np.zeros((len(directions), *model.chain.initial_covariance.shape))
        for i, ((name, move), step) in enumerate(zip(directions, steps)):
            ahead, behind = (likelihood.moved((name, sign * step * move)) for sign in (1.0, -1.0))
            change = ahead.chain.initial_covariance - behind.chain.initial_covariance
            moved[i] = change / (2 * step)
        along = np.tensordot(factor, moved, axes=(0, 0))
        errors["initial_state_covariance"] = np.sqrt(np.square(along).sum(axis=0))
    inputs = errors.pop("input_matrix", None), errors.pop("observation_input_matrix", None)
    inputs = [part for part in inputs if part is not None]
    return StandardErrors(**errors, input_matrix=np.concatenate(inputs) if inputs else None)


def _shape(value) -> tuple:
    return value.shape[1:] if value.ndim == 3 else value.shape
