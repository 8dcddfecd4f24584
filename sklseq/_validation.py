"""Checks of constructor parameters and of probabilities given by the user: the error texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_scalar

PROBABILITY_TOLERANCE = 1e-6  # of the sum of a row: float32 has seven digits


def as_array(value, name: str, dtype=None) -> np.ndarray:
    """``np.asarray``, whose errors name nothing."""
    try:
        array = np.asarray(value)
        if dtype is not None and np.iscomplexobj(array):
            raise TypeError
        return array.astype(dtype or array.dtype, copy=False)
    except (TypeError, ValueError):
        what = "an array" if dtype is None else "an array of numbers"
        raise ValueError(f"{name} must be {what}, got {value!r:.200}.") from None


def n_entries(value, name: str) -> int:
    """``len``, likewise."""
    shape = getattr(value, "shape", None)
    try:
        return shape[0] if shape else len(value)
    except TypeError:
        raise ValueError(f"{name} must be an array or a list, got {value!r:.200}.") from None


def check_em_parameters(estimator) -> None:
    """The constructor parameters that every estimator fitted by EM has."""
    check_count(estimator, "n_components", 1)
    check_count(estimator, "max_iter", 0)
    check_real(estimator, "tol", 0.0)
    check_count(estimator, "n_init", 1)
    check_count(estimator, "verbose", 0)
    check_n_jobs(estimator.n_jobs)
    for name in ("continues", "warm_start"):
        if hasattr(estimator, name):
            check_flag(estimator, name)
    if hasattr(estimator, "learning_decay"):
        check_real(estimator, "learning_decay", 0.5, boundaries="neither")
        if estimator.learning_decay > 1.0:
            raise ValueError(
                "learning_decay must be above 0.5 and at most 1, got "
                f"{estimator.learning_decay!r}."
            )
    if hasattr(estimator, "reg_covar"):
        check_real(estimator, "reg_covar", 0.0)


def check_n_jobs(n_jobs) -> int | None:
    if n_jobs is None:
        return None
    if not isinstance(n_jobs, Integral):
        raise TypeError(f"n_jobs must be None or an integer, got {n_jobs!r}.")
    if n_jobs == 0:
        raise ValueError(
            "n_jobs must not be 0: it is a number of threads, or -1 for one for each processor."
        )
    return int(n_jobs)


def check_count(estimator, name: str, minimum: int) -> int:
    """An integer parameter with a lower end."""
    value = getattr(estimator, name)
    if not isinstance(value, Integral):  # check_scalar would not say which value it got
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    return check_scalar(value, name, Integral, min_val=minimum)


def check_flag(estimator, name: str) -> None:
    value = getattr(estimator, name)
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_positive(value, name: str) -> int:
    """A positive integer argument of a method."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return int(value)


def check_real(estimator, name: str, minimum: float, *, boundaries: str = "left") -> float:
    """A finite real parameter with a lower end (`boundaries="neither"` leaves the end out)."""
    value = getattr(estimator, name)
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    value = float(value)  # isfinite knows no fractions
    check_scalar(value, name, Real, min_val=minimum, include_boundaries=boundaries)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}.")
    return value


def check_choice(estimator, name: str, choices: Collection[str]) -> str:
    """A parameter that is one of some words."""
    value = getattr(estimator, name)
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {words}, got {value!r}.")
    return value


def check_parameter_array(value, name: str, shape: tuple) -> np.ndarray:
    """A finite float64 array of a given shape, copied; None in `shape` lets any size through."""
    array = np.array(as_array(value, name, np.float64), order="C")
    matches = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape)
    )
    if not matches:
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}.")
    return array


def check_squares(array: np.ndarray, name: str) -> np.ndarray:
    """A parameter that enters by its products with others."""
    if not np.vdot(array, array) < np.inf:
        raise ValueError(f"{name} must have entries with finite squares, got {array.max()}.")
    return array


def check_broadcast(value, name: str, shape: tuple) -> np.ndarray:
    """As `check_parameter_array` for a number or an array that NumPy broadcasts to `shape`."""
    value = as_array(value, name)
    array = check_parameter_array(value, name, (None,) * value.ndim)
    try:
        return np.broadcast_to(array, shape).copy()
    except ValueError:
        raise ValueError(
            f"{name} must be a number or an array that broadcasts to shape {shape}, got shape "
            f"{array.shape}."
        ) from None


def check_concentration(value, name: str, shape: tuple) -> np.ndarray:
    """Dirichlet concentrations, all at least 1 so that the density has a mode; None is 1."""
    array = check_broadcast(1.0 if value is None else value, name, shape)
    if np.any(array < 1.0):
        raise ValueError(
            f"{name} must be at least 1 (1 is no prior; below 1 the density has no mode), got "
            f"{array.min()}."
        )
    return array


def check_sample_weight(value, n_samples: int, unit: str = "sample") -> np.ndarray:
    """One weight for each `unit`: finite, non-negative, not all zero; None is 1, a number is all.

    Weights so large or small that sums of them were not exact are multiplied by a power of two:
    only their ratios matter.
    """
    weights = as_array(1.0 if value is None else value, "sample_weight", np.float64)
    if weights.ndim == 0:
        weights = np.full(n_samples, float(weights))
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must be {n_samples} numbers, one for each {unit} of X, got shape "
            f"{weights.shape}."
        )
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        first = np.argmax(wrong)
        raise ValueError(
            f"sample_weight must be finite and not negative, got {weights[first]} at {first}."
        )
    if not weights.any():
        raise ValueError("sample_weight must not be zero everywhere.")
    exponent = np.frexp(weights.max())[1]
    return np.ldexp(weights, -exponent) if abs(exponent) > 500 else weights


def check_quantiles(value) -> np.ndarray:
    """Probabilities of quantiles, each inside (0, 1)."""
    array = check_parameter_array(np.atleast_1d(value), "quantiles", (None,))
    if not len(array) or np.any((array <= 0) | (array >= 1)):
        raise ValueError(f"quantiles must be between 0 and 1, ends left out, got {value!r}.")
    return array


def check_probabilities(value, name: str, shape: tuple) -> np.ndarray:
    """Non-negative, each row (last axis) sums to 1; the result sums to 1 to rounding."""
    array = check_parameter_array(value, name, shape)
    if np.any(array < 0):
        raise ValueError(f"{name} must be non-negative, got {array.min()}.")
    totals = array.sum(axis=-1)
    worst = np.argmax(np.abs(totals - 1.0))
    if abs(np.ravel(totals)[worst] - 1.0) > PROBABILITY_TOLERANCE:
        where = name if array.ndim == 1 else f"Row {worst} of {name}"
        raise ValueError(f"{where} must sum to 1, got {np.ravel(totals)[worst]}.")
    return array / totals[..., None]


def as_fitted(
    estimator, name: str, shape: tuple, rule: str = "finite", *, value=None, times: bool = False
) -> np.ndarray:
    """A fitted attribute as the kernels need it, looked at each time it becomes part of a model.

    Somebody may have assigned it, or a pickle of another version brought it, and kernels check
    nothing.  `rule`: "finite", "positive", "not negative", "probabilities" (rows sum to 1) or
    "covariance" (symmetric).  `value` is a part of the attribute, where the whole is no array.
    With `times` a leading time axis is let through.
    """
    value = getattr(estimator, name) if value is None else value
    try:
        if np.iscomplexobj(value):
            raise TypeError
        array = np.asarray(value, dtype=np.float64, order="C")
        fits = array.shape == shape or (times and array.shape[1:] == shape)
    except (TypeError, ValueError):  # no numbers, or a parameter that is no size
        raise _not_fitted_so(estimator, name, f"an array of shape {shape}", value) from None
    if not fits:
        raise _not_fitted_so(estimator, name, f"of shape {shape}", array.shape)
    if not np.vdot(array, array) < np.inf:
        if not np.isfinite(array).all():
            raise _not_fitted_so(estimator, name, "finite", array[~np.isfinite(array)][0])
        if rule == "finite":  # others are not squared
            largest = np.abs(array).max()
            raise _not_fitted_so(estimator, name, "of entries with finite squares", largest)
    if rule != "finite":
        wrong = RULES_OF_FITTED[rule](array)
        if wrong is not None:
            words = "rows that sum to 1, none negative" if rule == "probabilities" else rule
            raise _not_fitted_so(estimator, name, words, wrong)
    return array


def check_entries(estimator, name: str, n_entries: int, value=None) -> None:
    """A fitted attribute that has an entry for each class, or symbol, or column."""
    value = getattr(estimator, name) if value is None else value
    got = len(value) if hasattr(value, "__len__") and np.ndim(value) < 2 else np.shape(value)
    if got != n_entries:
        raise _not_fitted_so(estimator, name, f"{n_entries} entries", got)


def _below(least: float, closed: bool):
    def wrong(array):
        smallest = np.minimum.reduce(array, axis=None, initial=np.inf)
        return smallest if smallest < least or (smallest == least and not closed) else None

    return wrong


def _wrong_probability(array):
    smallest = np.minimum.reduce(array, axis=None, initial=np.inf)
    if smallest < 0:
        return smallest
    totals = np.add.reduce(array, axis=-1)
    off = np.abs(totals - 1.0)
    if np.maximum.reduce(off, axis=None, initial=0.0) <= PROBABILITY_TOLERANCE:
        return None
    return f"the sum {np.ravel(totals)[np.argmax(off)]}"


def _wrong_covariance(array):
    """Whether eigenvalues are positive is found where the matrix is factored."""
    variances = array.diagonal(axis1=-2, axis2=-1)
    if np.minimum.reduce(variances, axis=None, initial=np.inf) < 0:
        return f"the variance {variances.min()}"
    difference = np.maximum.reduce(np.abs(array - array.swapaxes(-1, -2)), axis=None, initial=0.0)
    largest = np.maximum.reduce(variances, axis=None, initial=0.0)
    return f"a difference of {difference}" if difference > ASYMMETRY * largest else None


ASYMMETRY = 1e-6  # of the largest variance
RULES_OF_FITTED = {
    "positive": _below(0.0, False),
    "not negative": _below(0.0, True),
    "probabilities": _wrong_probability,
    "covariance": _wrong_covariance,
}


def _not_fitted_so(estimator, name: str, wanted: str, got) -> ValueError:
    return ValueError(
        f"{name} must be {wanted}, got {got}: it does not go with the other fitted attributes and "
        f"parameters of this {type(estimator).__name__}. If it was assigned, or parameters were "
        "changed since the fit, or another version made it: fit again, or use from_parameters."
    )


def check_fixed(estimator, shapes: Mapping[str, tuple], fixed=None) -> dict[str, np.ndarray]:
    """The `fixed` parameter as a mask for each name it holds; other names are left out.

    `shapes` has the names that may be fixed and the shape of each (None: only as a whole).
    `fixed` is a name, a collection of names, or a dict of name -> boolean mask (True: held at its
    ``*_init``).
    """
    fixed = estimator.fixed if fixed is None else fixed
    if isinstance(fixed, str):
        fixed = (fixed,)
    if not isinstance(fixed, Collection):
        raise TypeError(
            "fixed must be a name, a tuple of names (empty: nothing is fixed) or a dict of name -> "
            f"boolean mask, got {fixed!r}."
        )
    if not isinstance(fixed, Mapping):
        fixed = dict.fromkeys(fixed, True) if _hashable(fixed) else {repr(fixed): True}
    masks = {}
    for name, mask in fixed.items():
        if name not in shapes:
            known = ", ".join(repr(choice) for choice in shapes)
            raise ValueError(f"fixed may hold {known}; got {name!r}.")
        mask = as_array(mask, f"fixed[{name!r}]")
        shape = shapes[name]
        if mask.dtype != bool or (mask.ndim and mask.shape != shape):
            wanted = "True" if shape is None else f"a boolean mask of shape {shape}"
            raise ValueError(
                f"fixed[{name!r}] must be {wanted}, got dtype {mask.dtype} and shape {mask.shape}."
            )
        if getattr(estimator, f"{name}_init") is None:
            raise ValueError(
                f"fixed holds {name!r} at its starting value, so {name}_init must be given."
            )
        masks[name] = np.broadcast_to(mask, () if shape is None else shape)
    return masks


def _hashable(items) -> bool:
    try:
        set(items)
    except TypeError:
        return False
    return True
