"""Standard errors of an HMM: the observed information from exact scores.

The score is the derivative of the E-step's expected log-likelihood at the parameters themselves
(Fisher's identity); its central differences are the information (Louis 1982).  All of it in the
public parameters: within a row of probabilities the largest entry is what the others leave.

Shapes: M numbers in all parameters, P of them free; a free one is a direction in which the M move.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklseq._em import expect
from sklseq._sequences import Sequences
from sklseq.hmm._chain import HMM, Parameter, stationary_distribution, stationary_gradient

EDGE = 1e-6  # a probability below is at the edge, where no error is defined
STEP = 1e-4  # of a central difference, in units of the parameter
LARGEST_GAIN = 0.05  # nats; what one Newton step may promise at a maximum


def standard_errors(model: HMM, sequences: Sequences, n_jobs: int | None) -> dict:
    """Name -> array of errors in the parameter's shape (a list of arrays where it has several)."""
    parameters = _parameters(model)
    directions, steps, edge = _directions(parameters)
    factor = np.zeros((len(steps), len(steps)))
    if len(steps):
        factor = np.linalg.cholesky(
            _covariance(model, parameters, directions, steps, sequences, n_jobs)
        )
    flat = np.linalg.norm(directions.T @ factor, axis=1)
    flat[edge] = np.nan
    if edge.any():
        warnings.warn(
            f"{edge.sum()} entries are probabilities below {EDGE} or left without another, or "
            "covariances on the floor: at the edge of what is possible there is no standard error, "
            "they get NaN.",
            ConvergenceWarning,
            stacklevel=3,
        )
    named = [(one.name, part) for one, part in zip(parameters, _split(flat, parameters))]
    if model.stationary:
        named.insert(0, ("startprob", _stationary_errors(model, parameters, directions, factor)))
    errors = {}
    for name, part in named:
        errors.setdefault(name, []).append(part)
    return {name: parts[0] if len(parts) == 1 else parts for name, parts in errors.items()}


def _parameters(model: HMM) -> list[Parameter]:
    names = ("transmat",) if model.stationary else ("startprob", "transmat")
    chain = [Parameter(name, getattr(model, name), "rows", held=model.held.get(name))
             for name in names]  # fmt: skip
    return chain + model.emission.parameters()


def _split(flat, parameters) -> list[np.ndarray]:
    ends = np.cumsum([one.values.size for one in parameters])
    return [part.reshape(one.values.shape)
            for part, one in zip(np.split(flat, ends[:-1]), parameters)]  # fmt: skip


def _flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


# ---------------------------------------------------------------------------------------------
# What is free


def _directions(parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(directions (P, M), steps (P,), edge (M,): probabilities that have no error)."""
    size = sum(one.values.size for one in parameters)
    moves, steps, edge = [], [], np.zeros(size, dtype=bool)
    first = 0
    for one in parameters:
        for entries, signs, step in _FREE[one.kind](one, edge[first : first + one.values.size]):
            move = np.zeros(size)
            move[first + np.asarray(entries)] = signs
            moves.append(move)
            steps.append(STEP * step)
        first += one.values.size
    return np.array(moves).reshape(-1, size), np.array(steps), edge


def _is_free(one: Parameter) -> np.ndarray:
    held = np.broadcast_to(False if one.held is None else one.held, one.values.shape)
    return ~(held | _at_edge(one))


def _at_edge(one: Parameter) -> np.ndarray:
    return np.zeros(one.values.shape, dtype=bool) if one.edge is None else one.edge


def _free_in_rows(one: Parameter, edge):
    """All but the largest of a row; it goes down as another goes up."""
    values = one.values.reshape(-1, one.values.shape[-1])
    estimated = _is_free(one).reshape(values.shape) & (values > 0)
    edge = edge.reshape(values.shape)
    edge[:] = estimated & (values <= EDGE)
    for i, row in enumerate(values):
        free = np.flatnonzero(estimated[i] & ~edge[i])
        if len(free) == 1 and edge[i].any():
            edge[i, free] = True
            continue
        largest = free[np.argmax(row[free])] if len(free) else 0
        for j in free:
            if j != largest:
                entries = i * len(row) + np.array([j, largest])
                yield entries, (1.0, -1.0), row[j]


def _free_entries(one: Parameter, edge):
    edge[:] = _at_edge(one).ravel()
    for j in np.flatnonzero(_is_free(one)):
        yield [j], 1.0, one.scale.flat[j]


def _free_pairs(one: Parameter, edge):
    """An entry and its mirror image."""
    n_columns = one.values.shape[-1]
    positions = np.arange(one.values.size).reshape(-1, n_columns, n_columns)
    edge[:] = _at_edge(one).ravel()
    free = _is_free(one).reshape(positions.shape)
    for matrix, is_free in zip(positions, free):
        for d, e in zip(*np.tril_indices(n_columns)):
            if is_free[d, e]:
                yield [matrix[d, e], matrix[e, d]], 1.0, one.scale.flat[matrix[d, e]]


_FREE = {"rows": _free_in_rows, "free": _free_entries, "symmetric": _free_pairs}


# ---------------------------------------------------------------------------------------------
# Score and information


def _at(model: HMM, parameters, flat) -> HMM:
    """The model at other values of its parameters."""
    values = _split(flat, parameters)
    n_chain = 1 if model.stationary else 2
    chain = {one.name: part for one, part in zip(parameters[:n_chain], values)}
    if model.stationary:
        chain["startprob"] = stationary_distribution(chain["transmat"])
    return replace(model, emission=model.emission.with_values(values[n_chain:]), **chain)


def _gradient(model: HMM, sequences, n_jobs) -> np.ndarray:
    """Derivatives of the log-likelihood by the M numbers, each as if it were free."""
    statistics, _ = expect(model, sequences, n_jobs)
    by_start = _ratio(statistics.starts, model.startprob)
    by_transmat = _ratio(statistics.transitions, model.transmat)
    emission = model.emission.gradient(statistics.emission)
    if model.stationary:
        through = stationary_gradient(model.transmat, model.startprob, by_start)
        return _flat([by_transmat + through, *emission])
    return _flat([by_start, by_transmat, *emission])


def _ratio(counts, probabilities) -> np.ndarray:
    return np.divide(counts, probabilities, out=np.zeros_like(counts), where=probabilities > 0)


def _covariance(model, parameters, directions, steps, sequences, n_jobs) -> np.ndarray:
    """Inverse of the observed information of the free parameters, (P, P)."""
    flat = _flat([one.values for one in parameters])

    def score(flat):
        return directions @ _gradient(_at(model, parameters, flat), sequences, n_jobs)

    information = np.empty((len(steps), len(steps)))
    for i, (direction, step) in enumerate(zip(directions, steps)):
        ahead, behind = (score(flat + sign * step * direction) for sign in (1.0, -1.0))
        information[i] = (behind - ahead) / (2.0 * step)
    information = (information + information.T) / 2
    scale = np.sqrt(np.abs(np.diag(information)))
    scale[scale == 0] = 1.0
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if values[0] <= STEP**2:
        raise ValueError(
            "The observed information is not positive definite (least eigenvalue, scaled: "
            f"{values[0]:.3g}): the parameters are not at a maximum of the likelihood of X, or X "
            "does not identify them all. Fit with a smaller tol, fewer states or fixed parameters."
        )
    covariance = (vectors / values) @ vectors.T / np.outer(scale, scale)
    _warn_elsewhere(score(flat), covariance)
    return covariance


def _warn_elsewhere(score, covariance) -> None:
    gain = score @ covariance @ score / 2
    if gain > LARGEST_GAIN:
        warnings.warn(
            f"The likelihood of X is not at its maximum: a Newton step would gain {gain:.3g} nats. "
            "Standard errors are for the training data of a fit without prior, run with a small "
            "tol.",
            ConvergenceWarning,
            stacklevel=5,
        )


def _stationary_errors(model: HMM, parameters, directions, factor) -> np.ndarray:
    """Of the stationary distribution, by the delta method."""
    n_states = model.n_components
    moves = directions[:, : n_states**2].reshape(-1, n_states, n_states)  # transmat comes first
    fundamental = np.eye(n_states) - model.transmat + model.startprob
    by_direction = np.linalg.solve(fundamental.T, (model.startprob @ moves).T)  # (K, P)
    return np.linalg.norm(by_direction @ factor, axis=1)
