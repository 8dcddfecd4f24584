"""Entries of a parameter that are learned together: ``fixed`` gives them one name.

Entries of one name keep their ratios at the start, so that they may be equal, opposite or multiples
of each other; where all start at 0 they stay equal.  The empty name holds an entry.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MAY_BE_TIED = (
    "transition_matrix", "transition_covariance", "observation_matrix", "observation_covariance",
    "observation_offset",
)  # fmt: skip


def split_ties(fixed) -> tuple:
    """`fixed` with masks in place of names (True where the name is empty), and the names."""
    if not isinstance(fixed, Mapping):
        return fixed, {}
    arrays = {name: np.asarray(value) for name, value in fixed.items()}
    names = {name: array.astype(str) for name, array in arrays.items() if _are_names(array)}
    for name in names:
        if name not in MAY_BE_TIED:
            raise ValueError(
                f"fixed may tie entries of {', '.join(MAY_BE_TIED)} by names; got names for "
                f"{name!r}."
            )
    return {**fixed, **{name: array == "" for name, array in names.items()}}, names


def _are_names(array: np.ndarray) -> bool:
    words = array.dtype.kind == "O" and all(isinstance(one, str) for one in array.flat)
    return array.dtype.kind == "U" or (words and array.size > 0)


def tied_directions(name: str, names, start, covariance_type: str) -> np.ndarray:
    """The ways in which a parameter may move, one for each name, (k, *shape)."""
    if start.shape != names.shape:
        raise ValueError(
            f"fixed[{name!r}] must have a name for each entry of {name}_init, shape {start.shape} "
            f"(and no time axis), got shape {names.shape}."
        )
    if name.endswith("covariance"):
        if np.any(names != names.T):
            raise ValueError(f"fixed[{name!r}] must be symmetric, got\n{names}.")
        if covariance_type == "spherical":
            raise ValueError(
                f"fixed[{name!r}] has names, but {name}_type='spherical' is one variance already."
            )
        if covariance_type == "diag" and np.any(names[~np.eye(len(names), dtype=bool)] != ""):
            raise ValueError(
                f"fixed[{name!r}] has names off the diagonal, where {name}_type='diag' has zeros."
            )
    directions = []
    for one in np.unique(names[names != ""]):
        together = names == one
        values = start[together]
        if np.any(values == 0) and np.any(values != 0):
            raise ValueError(
                f"Entries that fixed[{name!r}] calls {one!r} keep their ratios in {name}_init, so "
                f"that all or none must start at 0, got {values}."
            )
        directions.append(np.where(together, start if np.any(values) else 1.0, 0.0))
    return np.array(directions).reshape(-1, *start.shape)


def check_on_ties(parameters: Mapping, tied: Mapping) -> None:
    """Refuse a warm start whose entries are not in the ratios that are to be kept."""
    for name, directions in tied.items():
        for move in directions:
            group = move != 0
            factors = parameters[name][group] / move[group]
            if np.ptp(factors) > 1e-8 * np.abs(factors).max():
                raise ValueError(
                    f"warm_start: the entries {parameters[name][group]} of {name}_, which fixed "
                    f"ties, are not in the ratios {move[group]} of {name}_init. Fit without "
                    "warm_start, or assign values in these ratios."
                )


def columns_along(tied: Mapping, held, parts) -> np.ndarray | None:
    """Directions of coefficients side by side, of which `parts` (name, columns) may be tied; None
    where none is."""
    if not any(name in tied for name, _ in parts):
        return None
    single = np.ones(held.shape, dtype=bool)
    directions = []
    for name, columns in parts:
        if name not in tied:
            continue
        single[:, columns] = False
        for move in tied[name]:
            whole = np.zeros(held.shape)
            whole[:, columns] = move.reshape(len(held), -1)
            directions.append(whole)
    for i, j in np.argwhere(single & ~held):
        whole = np.zeros(held.shape)
        whole[i, j] = 1.0
        directions.append(whole)
    return np.array(directions).reshape(-1, *held.shape)


def tied_variances(moment, counts, variances, directions, floor) -> np.ndarray:
    """Diagonal covariance whose groups of variances move by a factor each, from sums of squares."""
    result = variances.copy()
    for move in np.diagonal(directions, axis1=1, axis2=2):
        group = move != 0
        factor = np.sum(moment[group] / move[group]) / max(counts[group].sum(), 1.0)
        result[group] = move[group] * max(factor, np.max(floor[group] / move[group]))
    return np.diag(result)


def coordinates(directions, value) -> np.ndarray:
    """How far `value` has gone along the directions, which share no entry."""
    flat = directions.reshape(len(directions), -1)
    return flat @ value.ravel() / np.square(flat).sum(axis=1)


class AlongDirections:
    """Movements of (A, B_u) along directions, in units of the curvature."""

    def __init__(self, gram, F, Gamma_inverse, directions):
        d = len(F)
        total = gram.copy()
        total[:d, :d] += F
        curvature = np.einsum("kij,jl,kil,i->k", directions, total, directions,
                              np.diag(Gamma_inverse))  # fmt: skip
        unit = 1.0 / np.sqrt(np.where(curvature > 0, curvature, 1.0))
        self.directions = directions * unit[:, None, None]
        self.size = len(directions)

    def to_shift(self, vector):
        return np.tensordot(vector, self.directions, axes=1)

    def to_slope(self, slope):
        return np.tensordot(self.directions, slope, axes=2)


class CovarianceAlong:
    """A covariance along directions, in units of its own size."""

    def __init__(self, covariance, directions):
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        size = np.abs(directions / np.outer(scale, scale)).max(axis=(1, 2))
        self.covariance, self.directions = covariance, directions / size[:, None, None]
        self.origin = np.zeros(len(directions))

    def to_matrix(self, vector):
        return self.covariance + np.tensordot(vector, self.directions, axes=1)

    def to_slope(self, vector, slope):
        return np.tensordot(self.directions, slope, axes=2)
