"""The input door: every form of X becomes ``Sequences``, and every output goes back the same way.

A *step* is one row of features, a *sequence* a 2-D array ``(n_steps, n_features)``.  Inside the
package data is always a concatenation of sequences and the offsets of their first rows, as CSR has
data and indptr.  The wording of every error about input is in this file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import joblib
import numpy as np
from joblib.parallel import SequentialBackend, ThreadingBackend, get_active_backend
from scipy import sparse
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import validate_data
from threadpoolctl import ThreadpoolController

from sklseq._notices import warn
from sklseq._validation import as_array, check_n_jobs, n_entries

SHARD_STEPS = 16_384  # by default; fixed: results may not depend on the number of workers
MOST_PIECES = 1024  # that one E-step is sent out in
BLAS_LIMIT_STEPS = 4_096  # below this BLAS stays on one thread by itself


class Sequences(NamedTuple):
    """Several sequences as one array.

    Attributes
    ----------
    X : ndarray of shape (n_steps, n_features), C-contiguous, or CSR array
        The rows of all sequences, one sequence after the other.
    offsets : ndarray of shape (n_sequences + 1,), dtype intp
        Sequence i is ``X[offsets[i]:offsets[i + 1]]``.
    form : {"flat", "stacked", "list"}
        What the caller gave: a 2-D X, a 3-D array, or a list of sequences.
    aligned : tuple of ndarray, each of shape (n_steps, ...)
        What else belongs to the rows (inputs, known states); shards cut it as they cut X.
    labels : list, default=None
        The names of the sequences, where X was a dict or a Series of them.
    """

    X: Any
    offsets: np.ndarray
    form: str = "flat"
    aligned: tuple = ()
    labels: list | None = None

    @property
    def n_steps(self) -> int:
        return self.X.shape[0]

    @property
    def n_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_samples(self) -> int:
        """What scikit-learn counts: rows of a flat X, sequences of a collection."""
        return self.n_steps if self.form == "flat" else self.n_sequences

    def place(self, row: int) -> str:
        """Where a row is, for messages."""
        if self.n_sequences == 1:
            return f"row {row}"
        i = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"row {row - self.offsets[i]} of sequence {i}"

    def like_input(self, values: np.ndarray, axis: int = 0) -> np.ndarray:
        """Give row-aligned values the form of the input.

        Flat in, array out; 3-D in, stacked out; a list in, a 1-D object array of arrays out (a
        ragged list would break ``cross_val_predict``).  `axis` is the axis of the rows.
        """
        if self.form == "flat":
            return values
        if self.form == "stacked":
            before, after = values.shape[:axis], values.shape[axis + 1 :]
            stacked = values.reshape(*before, self.n_sequences, -1, *after)
            return np.moveaxis(stacked, axis, 0)
        parts = np.split(values, self.offsets[1:-1], axis=axis)
        result = np.empty(len(parts), dtype=object)
        for i, part in enumerate(parts):
            result[i] = part
        return result


def check_sequences(
    estimator, X, *, y=None, groups=None, lengths=None, reset: bool = False
) -> Sequences:
    """Validate X in any of its forms; what it may hold is read off the estimator's tags.

    Parameters
    ----------
    estimator : estimator
        Gets ``n_features_in_`` and ``feature_names_in_`` when `reset` is True, else is checked
        against them.
    X : array-like (n_steps, n_features), or a collection of such
        See "Sequences and cross-validation" in the user guide.
    y : object, default=None
        Ignored, unless it looks like lengths.
    groups : array-like of shape (n_steps,), default=None
        A new sequence starts where it changes.  With a collection: of length n_sequences, ignored.
    lengths : array-like of positive int, default=None
        The number of steps of each sequence.
    reset : bool, default=False
        True in ``fit``.

    Returns
    -------
    Sequences

    Raises
    ------
    ValueError
        Names the argument or the sequence, the rule and the value got.
    """
    if groups is not None and lengths is not None:
        raise ValueError("groups and lengths both say where sequences start: pass one of them.")
    labels = labels_of(X)
    X = fill_masked(as_list(X))
    check_sparse(X)
    valid = False
    if is_collection(X):
        sequences = _from_collection(estimator, X, groups, lengths, reset)._replace(labels=labels)
    else:
        if reset:
            _warn_rows_or_sequences(X)
        _refuse_dates(X)
        rules = _array_rules(estimator)
        valid = _is_valid_already(estimator, X, rules, reset)
        if reset or not valid:
            rules = {"skip_check_array": True} if valid else rules
            with _located(estimator, X), np.errstate(invalid="ignore"):  # signalling NaNs
                X = validate_data(estimator, X, reset=reset, **rules)
        offsets = flat_offsets(X.shape[0], groups, lengths)
        sequences = Sequences(X if valid else _canonical(X), offsets)
    if not valid:
        _refuse_negative(estimator, sequences)
    if reset:
        _warn_unobserved(sequences.X)
    _refuse_lengths(y, sequences)
    return sequences


def align_rows(sequences: Sequences, values, name: str, *, dtype, n_columns=None) -> np.ndarray:
    """Validate what comes beside X, one row a step, in the form that X has.

    `n_columns=None` asks for one value a step; the result is then ``(n_steps,)``, else
    ``(n_steps, n_columns)``.  NaN is let through.
    """
    values = fill_masked(in_order_of(sequences.labels, values, name))
    if sequences.form != "flat":
        if n_entries(values, name) != sequences.n_sequences:
            raise ValueError(
                f"{name} must hold one array for each sequence of X: got {len(values)} for "
                f"{sequences.n_sequences} sequences."
            )
        parts = [as_array(part, f"{name} of sequence {i}") for i, part in _enumerated(values, name)]
        for i, (part, steps) in enumerate(zip(parts, np.diff(sequences.offsets))):
            if n_entries(part, f"{name} of sequence {i}") != steps:
                raise ValueError(
                    f"{name} must have one row for each step: sequence {i} has {steps} steps, "
                    f"its {name} {len(part)} rows."
                )
        values = _joined(parts, name)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = check_array(
            values, ensure_2d=False, allow_nd=False, dtype=dtype, order="C", input_name=name,
            ensure_all_finite="allow-nan" if np.issubdtype(dtype, np.floating) else True,
        )  # fmt: skip
    values = _quiet(values)
    if n_columns is not None and values.ndim == 1:
        values = values[:, None]
    expected = (sequences.n_steps,) if n_columns is None else (sequences.n_steps, n_columns)
    if values.shape != expected:
        raise ValueError(
            f"{name} must have one row for each step of X: expected shape {expected}, "
            f"got {values.shape}."
        )
    return values


# ---------------------------------------------------------------------------------------------
# The forms


def _array_rules(estimator) -> dict:
    tags = get_tags(estimator).input_tags
    return {
        "dtype": np.float64,
        "order": "C",
        "accept_sparse": "csr" if tags.sparse else False,
        "ensure_all_finite": "allow-nan" if tags.allow_nan else True,
        "ensure_non_negative": tags.positive_only,
    }


def _is_valid_already(estimator, X, rules, reset) -> bool:
    """Whether `validate_data` would give X back as it is, found in a tenth of its time.

    Whole numbers count as valid where the estimator takes them for categories.
    """
    if type(X) is not np.ndarray or X.ndim != 2 or not X.size or not X.flags.c_contiguous:
        return False
    same_columns = X.shape[1] == getattr(estimator, "n_features_in_", 0)
    if not reset and (not same_columns or hasattr(estimator, "feature_names_in_")):
        return False
    if X.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(X.sum())  # or too large to tell: then the long way
        return bool(finite and not (rules["ensure_non_negative"] and X.min() < 0))
    return X.dtype == np.int64 and get_tags(estimator).input_tags.categorical and X.min() >= 0


@contextmanager
def _located(estimator, X, offsets=None) -> Iterator[None]:
    """scikit-learn's error about a value, with the place of that value."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        if not text.startswith(("Input X contains", "Negative values in data")):
            _name_column(X, "", error)
            raise
        text = text.partition("\n")[0] + _first_bad(estimator, X, offsets)
        if "contains NaN" in text and get_tags(estimator).input_tags.positive_only:
            text += f" For {type(estimator).__name__} a row of zeros is a missing step."
        raise ValueError(text) from None


def _refuse_negative(estimator, sequences: Sequences) -> None:
    """scikit-learn compares the minimum with 0, behind which a NaN hides negative values."""
    X = sequences.X
    if sparse.issparse(X) or not get_tags(estimator).input_tags.positive_only:
        return
    if np.fmin.reduce(X, axis=None) < 0:
        with _located(estimator, X, sequences.offsets):
            raise ValueError(f"Negative values in data passed to X in {type(estimator).__name__}.")


def _first_bad(estimator, X, offsets) -> str:
    rules = _array_rules(estimator)
    try:
        values = check_array(X, dtype=np.float64, ensure_all_finite=False)
    except (TypeError, ValueError):  # sparse, or nothing that has rows
        return ""
    bad = np.isinf(values)
    if rules["ensure_all_finite"] is True:
        bad |= np.isnan(values)
    if rules["ensure_non_negative"] and not bad.any():
        bad = values < 0
    if not bad.any():
        return ""
    row, column = np.argwhere(bad)[0]
    offsets = np.array([0, len(values)]) if offsets is None else offsets
    place = f"{Sequences(values, offsets).place(row)}, column {column}"
    return f" The first: {values[row, column]} at {place}."


def refuse_overflow(sequences: Sequences, values=None, name: str = "X") -> None:
    """For models with squares of X in their equations: those must be numbers.

    `values` is what else has a row for each step, by its `name`.  One product tells; only where it
    does not (NaN, or too large) the entries are looked at.
    """
    rows = sequences.X if values is None else values
    X = rows.data if sparse.issparse(rows) else rows
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.vdot(X, X)):
            return
        sizes = np.where(np.isnan(X), 0.0, np.abs(X))
        if np.isfinite(np.vdot(sizes, sizes)):
            return
    largest = int(np.argmax(sizes))
    if sparse.issparse(rows):
        row, column = np.searchsorted(rows.indptr, largest, "right") - 1, rows.indices[largest]
    else:
        row, column = np.unravel_index(largest, sizes.shape)
    raise ValueError(
        f"{name} is too large to be squared: {X.flat[largest]:g} at {sequences.place(int(row))}, "
        f"column {column}; the sum of the squares of {name} must stay below "
        f"{np.finfo(float).max:.2g}. Divide the column by its size (or take its logarithm) first."
    )


def _warn_unobserved(X) -> None:
    """A fit to nothing ends like any other; it must not do so in silence."""
    if sparse.issparse(X) or not np.isnan(X[0]).any():
        return
    with np.errstate(invalid="ignore"):
        unobserved = np.isnan(np.fmax.reduce(X, axis=0))
    if unobserved.any():
        columns = ", ".join(map(str, np.flatnonzero(unobserved)))
        warn(
            f"X has no observed value in column {columns}: what is fitted to it says nothing.",
            ConvergenceWarning,
            stacklevel=5,
        )


def check_sparse(X, what: str = "X") -> None:
    """A sparse matrix whose indices lie inside its shape; the kernels take them as they are."""
    if not sparse.issparse(X):
        return
    try:
        if X.format in ("csr", "csc", "bsr"):
            # another object over the same arrays: the check may trim those it is called on
            parts = X.data, X.indices, X.indptr
            type(X)(parts, shape=X.shape, copy=False).check_format(full_check=True)
        elif X.format == "coo" and X.nnz:
            for indices, size in zip((X.row, X.col), X.shape):
                if indices.min() < 0 or indices.max() >= size:
                    raise ValueError(f"indices must lie from 0 to {size - 1}")
    except ValueError as error:
        raise ValueError(f"{what} is a damaged sparse matrix: {error}.") from None


def _warn_rows_or_sequences(X) -> None:
    """A list of arrays of one length may be rows, or sequences of scalars."""
    if not isinstance(X, list | tuple) or not all(hasattr(item, "shape") for item in X):
        return
    if len(X) and _n_dims(X[0]) == 1 and X[0].shape[0] > 1:
        n = X[0].shape[0]
        warn(
            f"X is a list of {len(X)} 1-D arrays of length {n}: they are read as the "
            f"{len(X)} rows of one sequence of {n} features. If each is a sequence of "
            "scalars, make it 2-D with item.reshape(-1, 1); np.asarray(X) says that they are rows.",
            stacklevel=6,
        )


def is_named(X) -> bool:
    """Whether X is a dict; SciPy's DOK matrices are dicts as well."""
    return isinstance(X, Mapping) and not sparse.issparse(X)


def as_list(X):
    """The sequences of a dict, or of a pandas Series of them (groupby makes such), in order."""
    if is_named(X):
        items = list(X.values())
        if items and _n_dims(items[0]) != 2:
            raise ValueError(
                "A dict must hold sequences by name, 2-D arrays (n_steps, n_features): its first "
                f"value is {_n_dims(items[0])}-D. (Of columns by name make a frame.)"
            )
        return items
    if _is_series(X) and X.dtype == object and len(X) and _n_dims(X.iloc[0]) == 2:
        return list(X)
    return X


def _is_series(X) -> bool:
    return hasattr(X, "iloc") and getattr(X, "ndim", 0) == 1


def labels_of(X) -> list | None:
    """The names of sequences that have names."""
    return list(X) if is_named(X) else list(X.index) if _is_series(X) else None


def in_order_of(labels: list | None, values, name: str):
    """What comes beside X as a dict or a Series, in the order of the sequences of X."""
    own = labels_of(values)
    items = list(values.values()) if is_named(values) else values
    if own is None or labels is None or own == labels:
        return items
    by_label = dict(zip(own, items))
    if len(own) != len(labels) or by_label.keys() != set(labels):
        raise ValueError(
            f"{name} must have the same names of sequences as X: X has {labels}, {name} has {own}."
        )
    return [by_label[label] for label in labels]


def fill_masked(X):
    """NaN for the masked entries of a masked array, or of those in a collection.

    ``np.asarray`` would give what lies under the mask.
    """
    if isinstance(X, np.ma.MaskedArray):
        return X.astype(np.float64).filled(np.nan) if np.ma.is_masked(X) else X.data
    is_objects = isinstance(X, np.ndarray) and X.ndim > 0 and X.dtype == object
    has_items = isinstance(X, list | tuple) or is_objects
    if has_items and any(isinstance(item, np.ma.MaskedArray) for item in X):
        return [fill_masked(item) for item in X]
    return X


def _canonical(X):
    """CSR with summed, sorted entries; a dense array with quiet NaNs.  The caller's is left alone.
    """
    if sparse.issparse(X):
        X = sparse.csr_array(X)
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        return X
    return _quiet(X)


def _quiet(X: np.ndarray) -> np.ndarray:
    """X without signalling NaNs (R writes its NA so), with which all arithmetic warns."""
    if X.dtype != np.float64:
        return X
    missing = np.isnan(X)
    if not missing.any():
        return X
    quiet_bit = np.uint64(1 << 51)
    if np.all(X[missing].view(np.uint64) & quiet_bit):
        return X
    return np.where(missing, np.nan, X)


def _n_dims(item) -> int:
    shape = getattr(item, "shape", None)
    if shape is not None:
        return len(shape)
    if isinstance(item, list | tuple):
        return 1 + (_n_dims(item[0]) if len(item) else 0)
    return 0


def is_collection(X) -> bool:
    """Whether X is several sequences (a list of 2-D items, a 3-D array) and not one array."""
    if isinstance(X, np.ndarray):
        if X.ndim == 3:
            return True
        candidate = X.ndim == 1 and X.dtype == object
    else:
        candidate = isinstance(X, list | tuple)
    if not candidate:
        return False
    if len(X) == 0:
        raise ValueError("X is an empty collection: at least one sequence is required.")
    dims = _n_dims(X[0])
    if dims == 1 and any(
        _n_dims(item) != 1 or n_entries(item, "X") != n_entries(X[0], "X") for item in X
    ):
        raise ValueError(
            "X is a list of 1-D items of different lengths, which is neither a 2-D array nor a "
            "list of sequences. If each item is a sequence of scalars, make it 2-D with "
            "item.reshape(-1, 1)."
        )
    return dims == 2


def _from_collection(estimator, X, groups, lengths, reset) -> Sequences:
    if lengths is not None:
        raise ValueError(
            "lengths goes with a flat 2-D X; X is a collection, whose items are the sequences."
        )
    if groups is not None and n_entries(groups, "groups") != len(X):
        raise ValueError(
            f"With a collection, groups must have one label for each sequence: got {len(groups)} "
            f"labels for {len(X)} sequences."
        )
    form = "stacked" if isinstance(X, np.ndarray) and X.ndim == 3 else "list"
    if form == "stacked":
        shape = X.shape
        if min(shape) == 0:
            raise ValueError(
                "A 3-D X must have at least one sequence, one step and one feature: "
                f"got shape {shape}."
            )
        _look_at_axes(estimator, shape, reset)
        flat = X.reshape(-1, shape[2])
        offsets = np.arange(shape[0] + 1, dtype=np.intp) * shape[1]
    else:
        check_items(X)
        flat = concatenate(X)
        offsets = offsets_of(np.fromiter((_shape(item)[0] for item in X), np.intp, len(X)))
    rules = _array_rules(estimator)
    if hasattr(X[0], "columns"):  # a frame: its names, then the numbers
        validate_data(estimator, X[0], reset=reset, skip_check_array=True)
        with _located(estimator, flat, offsets), np.errstate(invalid="ignore"):
            flat = check_array(flat, estimator=estimator, input_name="X", **rules)
    else:
        with _located(estimator, flat, offsets), np.errstate(invalid="ignore"):
            flat = validate_data(estimator, flat, reset=reset, **rules)
    return Sequences(_canonical(flat), offsets, form)


def _look_at_axes(estimator, shape: tuple, reset: bool) -> None:
    """aeon and sktime have the channels of a case before its time, we have the steps before."""
    advice = (
        "The axes are (sequence, step, feature); arrays of aeon and sktime are (case, channel, "
        "time): np.swapaxes(X, 1, 2) turns them."
    )
    n_features = getattr(estimator, "n_features_in_", None)
    if not reset and shape[2] != n_features == shape[1]:
        raise ValueError(
            f"X has {shape[2]} features, but {type(estimator).__name__} is expecting "
            f"{n_features} features as input. {advice}"
        )
    if reset and shape[2] > 2 * shape[1] and not get_tags(estimator).input_tags.positive_only:
        warn(
            f"X has sequences of {shape[1]} steps with {shape[2]} features each. {advice}",
            stacklevel=6,
        )


def _shape(item) -> tuple:
    shape = getattr(item, "shape", None)
    return as_array(item, "A sequence of X").shape if shape is None else shape


def check_items(items) -> int:
    """Every item of a collection: 2-D, not empty, as many (and the same) columns as the first.

    Their number is returned.
    """
    if n_entries(items, "X") == 0:
        raise ValueError("X is an empty collection: at least one sequence is required.")
    first = _shape(items[0])
    columns = list(items[0].columns) if hasattr(items[0], "columns") else None
    for i, item in enumerate(items):
        shape = _shape(item)
        if len(shape) != 2:
            raise ValueError(
                f"Sequence {i} of X must be 2-D (n_steps, n_features), got {len(shape)}-D."
            )
        if shape[0] == 0:
            raise ValueError(f"Sequence {i} of X is empty: at least one step is required.")
        if shape[1] != first[1]:
            raise ValueError(
                f"All sequences must have the same number of features: sequence {i} has "
                f"{shape[1]}, sequence 0 has {first[1]}."
            )
        if columns is not None and list(getattr(item, "columns", columns)) != columns:
            raise ValueError(
                f"All sequences must have the same columns in the same order: sequence {i} has "
                f"{list(item.columns)}, sequence 0 has {columns}."
            )
    return first[1]


def concatenate(items):
    """The rows of all sequences, one after the other."""
    items = fill_masked(items)
    if isinstance(items, np.ndarray) and items.ndim == 3:
        return items.reshape(items.shape[0] * items.shape[1], items.shape[2])  # also of none
    if any(sparse.issparse(item) for item in items):
        for i, item in enumerate(items):
            check_sparse(item, f"Sequence {i} of X")
        try:
            return sparse.vstack([sparse.csr_array(item) for item in items], format="csr")
        except (TypeError, ValueError):  # dates, text
            raise ValueError("Sparse and dense sequences of X must all hold numbers.") from None
    if hasattr(items[0], "columns"):
        # check_array turns a frame's own missing values into NaN
        items = [_numbers(item, i) for i, item in enumerate(items)]
    return _joined(
        [as_array(item, f"Sequence {i} of X") for i, item in enumerate(items)], "Sequences of X"
    )


def _enumerated(values, name: str) -> list:
    try:
        return list(enumerate(values))
    except TypeError:
        raise ValueError(f"{name} must be an array or a list, got {values!r:.200}.") from None


def _joined(parts: list[np.ndarray], name: str) -> np.ndarray:
    try:
        return np.concatenate(parts)
    except (TypeError, ValueError):  # numbers and dates, one dimension and two
        kinds = ", ".join(sorted({f"{part.dtype} ({part.ndim}-D)" for part in parts}))
        raise ValueError(f"{name} must be of one kind, got {kinds}.") from None


def _numbers(frame, i: int) -> np.ndarray:
    _refuse_dates(frame, f" in sequence {i} of X")
    try:
        values = check_array(frame, dtype="numeric", ensure_all_finite=False, input_name="X")
        return values if values.dtype.kind in "biuf" else values.astype(np.float64)
    except (TypeError, ValueError) as error:
        _name_column(frame, f" in sequence {i} of X", error)
        raise


def _refuse_dates(frame, where: str = "") -> None:
    """Polars would make numbers of them in silence, pandas an error that names nothing."""
    names = getattr(frame, "columns", None)
    for name, dtype in () if names is None else zip(names, frame.dtypes):
        is_temporal = getattr(dtype, "is_temporal", None)
        if getattr(dtype, "kind", "") in ("m", "M") or (is_temporal is not None and is_temporal()):
            raise ValueError(
                f"X must be numbers: column {name!r}{where} holds {dtype}. Leave it out, or make "
                "numbers of it (such as the hours since the start)."
            )


def _name_column(frame, where: str, error) -> None:
    """The error about a frame's text or dates, with the name of their column."""
    for name in getattr(frame, "columns", ()):
        try:
            # of objects, whose error has the value alone
            np.asarray(frame[name]).astype(object).astype(np.float64)
        except (TypeError, ValueError) as wrong:
            reason = wrong if isinstance(wrong, ValueError) else error
            raise ValueError(f"{reason}, in column {name!r}{where}") from None


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """First row of each sequence, and the number of rows at the end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.intp)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def flat_offsets(n_steps: int, groups, lengths) -> np.ndarray:
    if groups is not None:
        return group_offsets(groups, n_steps)
    if lengths is not None:
        return length_offsets(lengths, n_steps)
    return np.array([0, n_steps], dtype=np.intp)


def length_offsets(lengths, n_steps: int) -> np.ndarray:
    """Offsets of sequences of given lengths, which must be positive and sum to n_steps."""
    lengths = as_array(lengths, "lengths")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or np.any(lengths < 1):
        raise ValueError(f"lengths must be a 1-D array of positive integers, got {lengths!r}.")
    # each is bounded before they are added: a sum of large ones wraps around
    if len(lengths) > n_steps or np.any(lengths > n_steps) or lengths.sum() != n_steps:
        raise ValueError(
            "lengths must sum to the number of rows of X: they sum to "
            f"{sum(lengths.tolist())}, X has {n_steps} rows. (Cross-validation cannot slice "
            "lengths: give it a list of sequences, or groups with a group-aware splitter.)"
        )
    return offsets_of(lengths)


def group_offsets(groups, n_steps: int) -> np.ndarray:
    """Offsets of the runs of equal labels; a label that comes back later is an error."""
    groups = as_array(groups, "groups")
    if groups.ndim == 2 and groups.shape[1] == 1:  # a one-column frame
        groups = groups[:, 0]
    if groups.shape != (n_steps,):
        raise ValueError(
            f"groups must have one label for each row of X: expected shape ({n_steps},), "
            f"got {groups.shape}."
        )
    if not n_steps:
        raise ValueError("X has no rows: at least one sequence is required.")
    missing = _missing(groups)
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(
            f"groups must have a label for each row of X, got {groups[row]} at row {row}: a "
            "missing label does not say to which sequence the row belongs."
        )
    starts = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    seen = set()
    for row in [0, *starts.tolist()]:
        label = groups[row]
        if not isinstance(label, Hashable):
            raise ValueError(f"groups must hold names or numbers, got {label!r} at row {row}.")
        if label in seen:
            raise ValueError(
                f"groups must keep the rows of a sequence together: label {label} comes back at "
                f"row {row}. Sort the rows by group, keeping their order in time."
            )
        seen.add(label)
    return np.concatenate([[0], starts, [n_steps]]).astype(np.intp)


def _missing(labels: np.ndarray) -> np.ndarray:
    """Where labels are NaN, NaT, None or pandas' NA."""
    if labels.dtype.kind != "O":
        return labels != labels
    return np.fromiter((_is_missing(label) for label in labels), bool, len(labels))


def _is_missing(label) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas' NA compares to NA, which is neither true nor false
        return True


def _refuse_lengths(y, sequences: Sequences) -> None:
    """y is ignored, whatever others hand through, but not hmmlearn's positional lengths."""
    values = _one_dimensional(y)
    if values is None or values.dtype.kind not in "iu" or len(values) == sequences.n_samples:
        return
    if len(values) < sequences.n_samples and sum(values.tolist()) == sequences.n_steps:
        raise ValueError(
            "y is ignored, but it looks like hmmlearn's positional lengths: got "
            f"{len(values)} integers that sum to the number of rows of X. Pass them as lengths=."
        )


def warn_labels(y, sequences: Sequences, name: str, advice: str = "") -> None:
    """Labels of the steps that are given as y would be ignored in silence."""
    labels = _one_dimensional(y)
    if labels is not None and labels.dtype.kind in "biuSUOT":
        of_steps = len(labels) == sequences.n_steps
    else:
        of_steps = (
            isinstance(y, list | tuple | np.ndarray)
            and all(np.ndim(item) == 1 for item in y)
            and [len(item) for item in y] == np.diff(sequences.offsets).tolist()
        )
    if of_steps:
        warn(
            f"{name} learns from X alone: y, which looks like one label for each step, is ignored."
            + advice,
            stacklevel=4,
        )


def _one_dimensional(y) -> np.ndarray | None:
    """y as an array of one value for each entry, or None where it is no such thing."""
    if y is None or isinstance(y, str | bytes):
        return None
    try:
        values = np.asarray(y)
    except (TypeError, ValueError):  # ragged
        return None
    is_nested = values.dtype == object and values.ndim and any(np.ndim(one) for one in values)
    return values if values.ndim == 1 and not is_nested else None


def refuse_frame_output(estimator) -> None:
    """A collection has no frame: scikit-learn would build a nonsense one out of an object array."""
    # the configuration that set_output leaves on the estimator has no public reader
    config = getattr(estimator, "_sklearn_output_config", {})
    container = config.get("transform", get_config()["transform_output"])
    if container != "default":
        raise ValueError(
            f"set_output(transform={container!r}) needs a flat 2-D X (with groups= or lengths= for "
            "several sequences); X is a collection. sklseq.concat_sequences(X) gives the flat X "
            f"and its groups; {type(estimator).__name__}.set_output(transform='default') takes "
            "collections, also where set_config asks for frames."
        )


# ---------------------------------------------------------------------------------------------
# Shards: fixed pieces of whole sequences, for cores and machines


def iterate_shards(
    sequences: Sequences, shard_steps: int | None = None
) -> Iterator[Sequences]:
    """Cut into pieces of whole sequences, of about `shard_steps`; depends on the data only."""
    X, offsets, aligned = sequences.X, sequences.offsets, sequences.aligned
    window = offsets[:-1] // (shard_steps or SHARD_STEPS)
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(window)) + 1, [len(window)]])
    for first, last in pairwise(firsts):
        rows = slice(offsets[first], offsets[last])
        yield Sequences(
            X[rows],
            offsets[first : last + 1] - offsets[first],
            "list",
            tuple(array[rows] for array in aligned),
        )


def iterate_pieces(
    sequences: Sequences, shard_steps: int | None = None
) -> Iterator[Sequences]:
    """At most about MOST_PIECES pieces of one or several shards each: what a worker gets at once.

    A task costs an engine about a millisecond, so that more data makes larger tasks, not more.
    """
    shard_steps = shard_steps or SHARD_STEPS
    if sequences.n_steps <= shard_steps or sequences.n_sequences == 1:
        yield sequences
        return
    shards = -(-sequences.n_steps // (shard_steps * MOST_PIECES))
    yield from iterate_shards(sequences, shards * shard_steps)


def map_shards(
    function: Callable[..., Any],
    sequences: Sequences,
    n_jobs: int | None = None,
    shard_steps: int | None = None,
) -> list:
    """``function(X, offsets, *aligned)`` of each shard, in order.

    Threads by default, in a ThreadPoolExecutor over kernels that release the GIL (0.05 ms a call;
    joblib's threading backend costs 10 ms).  Where the user has chosen a joblib backend
    (``joblib.parallel_config("dask")``, "ray", "loky"), the shards go there.
    """
    shard_steps = shard_steps or SHARD_STEPS
    if sequences.n_steps <= shard_steps or sequences.n_sequences == 1:
        return [function(sequences.X, sequences.offsets, *sequences.aligned)]
    shards = iterate_shards(sequences, shard_steps)
    calls = [(shard.X, shard.offsets, *shard.aligned) for shard in shards]
    return run_calls(function, calls, n_jobs)


def remote_backend():
    """The joblib backend that the user has chosen for work elsewhere, or None: threads of ours."""
    backend, _ = get_active_backend(prefer="threads")
    return None if isinstance(backend, ThreadingBackend | SequentialBackend) else backend


def n_workers(n_jobs) -> int:
    """Workers of the backend in force; joblib itself would wait for NaN of them for ever."""
    return joblib.effective_n_jobs(check_n_jobs(n_jobs))


def run_calls(function: Callable[..., Any], calls: list[tuple], n_jobs: int | None) -> list:
    """``function(*call)`` of each call, in order, where `map_shards` says."""
    if remote_backend() is not None:
        work = joblib.delayed(_on_one_thread)
        return joblib.Parallel(n_jobs=check_n_jobs(n_jobs))(work(function, *call) for call in calls)
    return run_threads(function, calls, n_jobs)


def run_threads(function: Callable[..., Any], calls: list[tuple], n_jobs: int | None) -> list:
    """``function(*call)`` of each call, in order, by threads of this process."""
    n_threads = min(n_workers(n_jobs), len(calls))
    if n_threads <= 1:
        return [function(*call) for call in calls]
    with ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C, or a call that failed: the others need not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_one_thread(function, *call):
    with limit_threads():
        return function(*call)


def map_rows(
    function, sequences: Sequences, n_jobs: int | None = None, shard_steps: int | None = None
) -> list[np.ndarray]:
    """As `map_shards` for a function that returns a tuple of arrays: each is joined."""
    parts = map_shards(function, sequences, n_jobs, shard_steps)
    if len(parts) == 1:
        return list(parts[0])
    return [np.concatenate(column) for column in zip(*parts)]


class _OneThread(AbstractContextManager):
    """One BLAS and OpenMP thread while anyone is inside: the first sets it, the last takes it back.

    Several at a time, as threads of one process are, would else end at each other's limit.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.inside: dict[int, int] = {}  # how often each thread is
        self.pools = self.limiter = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_other_threads)

    def __enter__(self):
        me = threading.get_ident()
        with self.lock:
            if not self.inside:
                self.pools = self.pools or ThreadpoolController()
                self.limiter = self.pools.limit(limits=1)
                self.limiter.__enter__()
            self.inside[me] = self.inside.get(me, 0) + 1

    def __exit__(self, *error):
        me = threading.get_ident()
        with self.lock:
            self.inside[me] -= 1
            if not self.inside[me]:
                del self.inside[me]
                self._release_if_empty()

    def _release_if_empty(self):
        if self.limiter is not None and not self.inside:
            self.limiter.__exit__(None, None, None)
            self.limiter = None

    def _forget_other_threads(self):
        """In a forked child, where only the thread that forked is left; the lock may be held."""
        me = threading.get_ident()
        self.lock = threading.Lock()
        self.inside = {me: self.inside[me]} if me in self.inside else {}
        self._release_if_empty()


_one_thread = _OneThread()


def limit_threads(n_steps: int | None = None) -> AbstractContextManager:
    """One BLAS and OpenMP thread while shards are at work: once per fit or call, never per shard.

    BLAS threads inside a loop over time are up to 77 times slower on a busy machine, and the number
    of threads would change the last bits of the result.  Calls of few steps (`n_steps`) stay on one
    thread by themselves and are spared the 0.1 ms.
    """
    if n_steps is not None and n_steps < BLAS_LIMIT_STEPS:
        return nullcontext()
    return _one_thread
