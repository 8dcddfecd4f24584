"""Hostile input to every public class and method.

    python tests/house/fuzz.py --seconds 60 --seed 0    # exit 1 and a list if something is wrong
    ... --cases 4000                                    # no more: the same on every fast machine
    python tests/house/fuzz.py --repro 17 --seed 0      # one case again, here, every call told

A case depends on the seed and its number alone.  Cases run in a process of their own, so that a
crash or a hang is a finding like others, and the next case goes on behind it.

The rule: a call ends in a result that is finite (or -inf where that is documented), or in a
ValueError, TypeError or NotFittedError that was raised on purpose, by sklseq or by scikit-learn's
checks.  It warns of no arithmetic.  After an error the estimator is as it was; a method that does
not learn never changes it; what was given is never written to.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import hashlib
import inspect
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import redirect_stdout
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.exceptions import NotFittedError

import sklseq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry import ENTRIES

HANG = 20.0  # seconds of CPU without a new case
MEMORY = 6 << 30  # address space of the process that runs the cases


# -------------------------------------------------------------------------------------------------
# What is given


class Unreadable:
    """An array-like that cannot be read."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array here")

    def __len__(self):
        return 3


ODD = [
    None, -1, 0, 1, 2, 1.5, -0.5, 1e-300, 1e300, np.nan, np.inf, -np.inf, "abc", "", b"x", [], [1],
    (), {}, {"a": 1}, set(), np.array([1, 2]), np.array([]), np.array(2), np.float32(0.5),
    np.int8(3), np.uint64(2**63), True, np.bool_(False), -(10**30), 1j, object(), len, int,
    np.array([np.nan]), np.array(["a"]), np.array([None]), Decimal("1.5"), range(3), np.ma.masked,
    Ellipsis, "auto", "full", [[1.0]], np.eye(2), np.eye(3) * np.nan, [["a"]], [1, [2]], pd.NA,
    pd.NaT, pd.Series([1.0, 2.0]), Unreadable(),
]  # fmt: skip
GOOD = {  # legal arguments and constructor parameters, by name
    "n_paths": [1, 3], "n_steps": [1, 4], "quantiles": [None, 0.5, [0.1, 0.9]], "n_draws": [1, 2],
    "kind": ["forecast", "ordinary"], "n_samples": [1, 5], "n_sequences": [None, 1, 3],
    "by": ["mean", "occupancy", [0, 1, 2], [0, 0], [[0, 1]]], "n_words": [1, 30],
    "return_std": [True, False], "max_length": [0, 5], "temperature": [0, 0.5, 1e-5, 1e5],
    "top_k": [None, 1], "top_p": [None, 0.5], "prefix": ["", "a", ["a", "b"]], "max_tries": [1, 2],
    "random_state": [0, 1], "label": [None, "odd"], "input_features": [None], "classes": [None],
    "joiner": [None, "", "-"], "state_probabilities": [None, np.full(3, 1 / 3), np.zeros(3)],
    "mean": [None, np.zeros(2), np.full(2, 1e300)], "covariance": [None, np.eye(2), -np.eye(2)],
    "covariance_type": ["full", "tied", "diag", "spherical"], "n_components": [1, 2, 3],
    "n_mix": [1, 2], "initial_state": ["learn", "stationary", "diffuse"], "continues": [True],
    "warm_start": [True], "algorithm": ["map"], "stickiness": [0.0, 10.0], "alpha": [0.0, 1.0],
    "reg_covar": [0.0, 1e-12, 10.0], "max_iter": [0, 1, 3], "n_init": [1, 2], "tol": [0.0, 1.0],
    "inputs_to": ["observation"], "observation_covariance_type": ["full", "spherical"],
    "transition_covariance_type": ["diag", "spherical"], "acceleration": [None],
    "means_weight": [1.0, 1e6], "covars_weight": [1.0], "rates_weight": [1.0], "n_jobs": [1, 2],
    "transmat_prior": [2.0], "startprob_prior": [2.0], "fit_intercept": [False],
    "n_particles": [0, 1, 5], "doc_topic_prior": [1e-3, 0.5], "topic_word_prior": [0.5],
    "cell": ["rnn", "gru", "lstm"], "hidden_size": [1, 5], "n_layers": [1, 2],
    "dropout": [0.0, 0.9],
    "solver": ["adam", "sgd"], "learning_rate_init": [1e-10, 1e3, 1e30], "batch_size": [1, 8],
    "early_stopping": [True], "pooling": ["all", "mean"], "analyzer": ["char", "word"],
    "handle_unknown": ["error", "ignore"], "class_weight": ["balanced"], "n_trials": [0, 5],
    "n_categories": [3, 9], "next_char_weight": [0.0, 1.0], "reset_after": [True],
}  # fmt: skip
ENDLESS = {  # legal, but large values of them only take long
    "max_iter", "n_init", "n_particles", "hidden_size", "n_layers", "n_components", "n_mix",
    "bptt_steps", "n_samples", "n_steps", "n_draws", "n_paths", "n_sequences", "n_words",
    "max_length", "max_tries", "n_jobs", "n_categories", "n_trials", "n_iter_no_change", "top_k",
    "max_symbols", "verbose", "batch_size",
}  # fmt: skip


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def odd(rng, name):
    value = pick(rng, ODD)
    try:
        if name in ENDLESS and float(value) > 100:
            return -3
    except (TypeError, ValueError, RuntimeError):
        pass
    return value


def table(rng, A):
    """Other numbers, another shape, or another kind of object of a table."""
    A = np.array(A, dtype=float)
    d = A.shape[1]
    change = pick(rng, ["one", "one", "all", "shape", "kind", "kind", "same"])
    if change == "one" and A.size:
        A.flat[int(rng.integers(A.size))] = pick(
            rng, [np.nan, np.inf, -np.inf, 1e300, 1e-300, 5e-324, -1.0, 0.5, 1e9, 1e15, 2.0**31,
                  np.finfo(float).max, -0.0],
        )  # fmt: skip
    elif change == "all":
        power = 10.0 ** rng.integers(-300, 300)
        with np.errstate(over="ignore"):
            return pick(rng, [A * power, A * np.nan, A * 0, np.full_like(A, 1e308), A + 1e12,
                              A * 10.0 ** rng.integers(-12, 13, size=d), A[:, :1] + 0 * A,
                              np.where(rng.random(A.shape) < 0.4, np.nan, A)])  # fmt: skip
    elif change == "shape":
        return pick(rng, [A[:0], A[:, :0], A[:1], A[:, :1], np.hstack([A, A]), A[None], A[0],
                          A[None, None], A.T, 3.0])  # fmt: skip
    elif change == "kind":
        return clothed(rng, A)
    return A


def clothed(rng, A):
    """Of the same numbers another object."""
    whole = np.clip(np.nan_to_num(A), -100, 100)
    bad = sparse.csr_array(A)
    if bad.nnz:
        bad.indices[0] = A.shape[1] + 5
    strided = np.zeros((2 * len(A), 3 * A.shape[1]))
    strided[::2, ::3] = A
    frame = pd.DataFrame(A, columns=[f"c{j}" for j in range(A.shape[1])])
    makers = [
        lambda: A.astype(np.float32), lambda: A.astype(np.float16), lambda: whole.astype(np.int8),
        lambda: whole > 0, lambda: A.astype(">f8"), lambda: A.astype(np.longdouble),
        lambda: A + 1j, lambda: A.astype(object), lambda: A.astype(str), lambda: A.astype("S8"),
        lambda: whole.astype("m8[s]"), lambda: whole.astype(int).astype("M8[s]"),
        lambda: np.asfortranarray(A), lambda: A[::-1, ::-1], lambda: strided[::2, ::3],
        lambda: np.ma.masked_array(A, mask=A > 1), lambda: np.asmatrix(A), lambda: A.tolist(),
        lambda: list(A), lambda: (row for row in A), lambda: {0: A}, lambda: set(A.flat),
        Unreadable, lambda: [A.tolist(), [[1.0]], 3], lambda: memoryview(A), lambda: bad,
        lambda: sparse.csr_array(A), lambda: sparse.csc_matrix(A), lambda: sparse.coo_array(A),
        lambda: sparse.dok_array(A), lambda: frame, lambda: frame["c0"],
        lambda: frame.astype("Float64"), lambda: frame.astype(str), lambda: frame > 0,
        lambda: frame.astype("category"), lambda: frame.rename(columns=lambda _: "c"),
        lambda: np.rec.fromarrays(list(A.T)), lambda: odd(rng, "X"), lambda: "hello",
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return pick(rng, makers)()


def collection(rng, parts):
    """A collection of sequences, damaged."""
    A = parts[0]
    return pick(rng, [
        list(parts), tuple(parts), [table(rng, part) for part in parts], [table(rng, A), A],
        np.stack([A, A]), [], [[]], [None], [A, None], [A, A[:0]], [A, A[:, :-1]], [A, A[0]],
        [A, "abc"], [A, sparse.csr_array(A)], [A, A.astype(str)], [A, Unreadable()], iter(parts),
        {"a": A}, pd.Series(list(parts)), np.empty(0, dtype=object), [[A]], [A, 3], [1, 2, 3],
        [A, A.astype("m8[s]")], [[1.0], [1.0, 2.0]], np.full((2, 3), None), np.stack([A, A])[:, :0],
        [A.tolist(), A], [pd.DataFrame(A), pd.DataFrame(A)], [A, A * np.inf], [A, A + 1j],
    ])  # fmt: skip


def texts(rng, X):
    words = ["anna", "", "a b", "\n", "\x00", "\ud800", "a" * 400, "日本", "\u0301"]
    return pick(rng, [
        X, [*X, pick(rng, words)], words, np.array(X), pd.Series(X), [list(text) for text in X],
        [], [None], [*X, None], [*X, np.nan], [1, 2], "abc", b"abc", [b"abc"], [[]], [["ab", 1]],
        np.array([]), np.array([["a", "b"]]), {"a"}, iter(X), ["a", ["b"]], [X], np.array("abc"),
        [1.5, "a"], [object()], Unreadable(), sparse.csr_array(np.eye(3)), np.eye(3), [""],
        np.full((2, 2), np.nan), np.zeros((0, 3)), [[1.0, 2.0], [3.0]], range(3), [1j],
        np.eye(3) * 1e300, np.array([b"ab"]), pd.DataFrame({"t": X}), [np.str_("ab")],
        pd.Series([*X, pd.NA], dtype="string"), odd(rng, "X"),
    ])  # fmt: skip


def beside(rng, good):
    """What has an entry for each row, sequence or sample."""
    good = np.asarray(good, dtype=float if rng.random() < 0.3 else None)
    return pick(rng, [
        good, good.tolist(), good[:-1], np.r_[good, good], [good], None, [], "abc", 3, [None],
        good.astype(object), good[None], good.astype(str), [[good]], {1: 2}, -good - 2,
        good * np.nan, good * np.inf, good + 0.5, good + 10**6, good.astype(complex), Unreadable(),
        np.ma.masked_array(good, mask=True), [{}] * len(good), [pd.NA] * len(good),
        pd.Series(good), good.astype("M8[s]"), np.full(len(good), 1e300), good * 0,
        [2**63 - 1, 2**63 - 1, len(good) + 2], np.array([1, 2**64 - 1], dtype=np.uint64),
        good.reshape(-1, 1), np.stack([good, good], 1), odd(rng, "y"),
    ])  # fmt: skip


# -------------------------------------------------------------------------------------------------
# What comes back


def digest(thing, h=None):
    """A hash of what an object holds; caches of dataclasses and states of generators left out."""
    top, h = h is None, h or hashlib.blake2b(digest_size=16)
    if sparse.issparse(thing):
        parts = ("data", "indices", "indptr", "row", "col")
        digest([getattr(thing, part, None) for part in parts], h)
    elif isinstance(thing, np.ndarray) and thing.dtype != object:
        h.update(f"{thing.dtype}{thing.shape}".encode())
        h.update(np.ascontiguousarray(np.asarray(thing)).tobytes())
    elif isinstance(thing, dict):
        for key in sorted(thing, key=repr):
            h.update(repr(key).encode("utf-8", "replace"))
            digest(thing[key], h)
    elif isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.ndim):
        h.update(f"{type(thing)}{len(thing)}".encode())
        for one in thing:
            digest(one, h)
    elif isinstance(thing, np.random.RandomState):
        pass
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for one in dataclasses.fields(thing):
            digest(getattr(thing, one.name), h)
    elif isinstance(thing, pd.DataFrame | pd.Series):
        h.update(repr(thing).encode("utf-8", "replace"))
    elif hasattr(thing, "__dict__") and not callable(thing):
        digest(vars(thing), h)
    elif not isinstance(thing, object.__class__) and not hasattr(thing, "__next__"):
        h.update(repr(thing).encode("utf-8", "replace"))
    return h.digest() if top else None


def leaves(thing, path=""):
    """(path, array) of all real numbers in a result."""
    if isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        items = thing.ravel() if isinstance(thing, np.ndarray) else thing
        names = getattr(thing, "_fields", range(len(items)))
        for name, one in zip(names, items):
            yield from leaves(one, f"{path}.{name}")
    elif isinstance(thing, dict):
        for key, one in thing.items():
            yield from leaves(one, f"{path}[{key!r}]")
    elif isinstance(thing, np.ndarray | np.generic | float) and np.asarray(thing).dtype.kind == "f":
        yield path, np.asarray(thing)


NAN_MEANS = {"pseudo_residuals", "standard_errors", "innovations"}  # "not to be told", documented
MINUS_INFINITY = {"score", "score_samples", "score_sequences", "decode", "predict_log_proba",
                  "char_log_proba", "forward_backward", "pseudo_residuals"}  # fmt: skip
INFINITY = {"aic", "bic", "perplexity", "bits_per_char", "expected_dwell_times_", "score_samples",
            "pseudo_residuals", "standard_errors"}  # fmt: skip
PROBABILITIES = {"predict_proba", "stationary_distribution_"}
TOLD_OF_A_FIT = {"loss_", "loss_curve_", "validation_scores_", "best_validation_score_"}


def trouble_of(result, method):
    """What is wrong with a result, or None."""
    for path, array in leaves(result):
        if np.isnan(array).any() and method not in NAN_MEANS:
            return f"NaN in {method}{path}"
        if np.isneginf(array).any() and method not in MINUS_INFINITY:
            return f"-inf in {method}{path}"
        if np.isposinf(array).any() and method not in INFINITY:
            return f"+inf in {method}{path}"
        distribution = method in PROBABILITIES or path.endswith((".startprob_", ".transmat_"))
        if distribution and array.size and (
            array.min() < 0 or np.abs(array.sum(axis=-1) - 1).max() > 1e-6
        ):
            return f"no distribution in {method}{path}"
        if path.endswith((".covariances", "covariance_")) and array.ndim > 1 and array.size:
            variances = np.diagonal(array, axis1=-2, axis2=-1)
            if variances.min() < 0:
                return f"a negative variance in {method}{path}"
            if np.abs(array - np.swapaxes(array, -1, -2)).max() > 1e-8 * variances.max():
                return f"no symmetric covariance in {method}{path}"
    return None


def fitted_attributes(estimator):
    return {
        f".{name}": value for name, value in vars(estimator).items()
        if name[-1] == "_" != name[0] and name not in TOLD_OF_A_FIT
    }  # fmt: skip


def frames_of(error):
    return [
        (frame.filename, frame.lineno, frame.line or "")
        for frame in traceback.extract_tb(error.__traceback__)
    ]


PACKAGE = str(Path(sklseq.__file__).parent)


def place_of(error):
    """file:line of the innermost frame of sklseq, and whether the error was raised on purpose."""
    frames = frames_of(error)
    ours = [i for i, frame in enumerate(frames) if frame[0].startswith(PACKAGE)]
    if not ours:
        return "outside sklseq", True  # a wrong number of arguments
    name, line, text = frames[ours[-1]]
    beyond = frames[ours[-1] + 1 :]
    meant = any("sklearn" in frame[0] for frame in beyond) or (
        not beyond and text.lstrip().startswith("raise")
    )
    return f"{Path(name).relative_to(PACKAGE)}:{line}", meant


# -------------------------------------------------------------------------------------------------
# Cases


class Case:
    """Some calls of one class."""

    def __init__(self, seed, number, verbose=False):
        self.rng = np.random.default_rng([seed, number])
        self.number, self.verbose = number, verbose
        self.findings, self.n_calls = [], 0

    def run(self):
        rng = self.rng
        self.entry = pick(rng, ENTRIES)
        self.X, self.y = self.entry.data()
        estimator = pickle.loads(fitted(self.entry))
        what = rng.random()
        if what < 0.3:
            estimator = self.other_parameters(estimator)
            self.call(estimator, "fit")
        elif what < 0.4:
            self.from_parameters(estimator)
            return
        elif what < 0.45:
            self.functions()
            return
        for _ in range(int(rng.integers(2, 7))):
            self.call(estimator, pick(rng, methods_of(type(estimator))))

    def other_parameters(self, estimator):
        """Not fitted, some parameters legal, odd, or near what a fit has found."""
        rng, cls = self.rng, type(estimator)
        params = self.entry.make().get_params(deep=False)
        for name in rng.choice(list(params), size=min(3, len(params)), replace=False):
            found = getattr(estimator, f"{name.removesuffix('_init')}_", None)
            if name in ("estimator", "transformer"):
                continue
            if rng.random() < 0.3:
                params[name] = odd(rng, name)
            elif name.endswith("_init") and found is not None:
                params[name] = self.near(found)
            elif name in GOOD:
                params[name] = pick(rng, GOOD[name])
        if self.verbose:
            print(cls.__name__, params)
        return cls(**params)

    def near(self, value):
        """A parameter, or something like it."""
        rng = self.rng
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or rng.random() < 0.4:
            return value
        with np.errstate(over="ignore"):
            return pick(rng, [value[None], value[..., :-1], value * np.nan, -value, value * 1e300,
                              value * 1e-300, value.tolist(), value.astype(str), value * 0,
                              np.asfortranarray(value), value.astype(np.float32),
                              odd(rng, "value")])  # fmt: skip

    def from_parameters(self, estimator):
        cls = type(estimator)
        if not hasattr(cls, "from_parameters"):
            return
        names = list(inspect.signature(cls.from_parameters).parameters)
        found = {name: getattr(estimator, f"{name}_", None) for name in names}
        given = {name: self.near(value) for name, value in found.items() if value is not None}
        for name in ("covariance_type", "observation_covariance_type"):
            if hasattr(estimator, name):
                given[name] = getattr(estimator, name)
        made = self.watch(None, "from_parameters", lambda: cls.from_parameters(**given), given)
        for _ in range(3):
            if made is not None:
                self.call(made, pick(self.rng, methods_of(cls)))

    def functions(self):
        rng = self.rng
        parts = self.X if not isinstance(self.X[0], str) else [np.eye(3), np.eye(3)]
        A = np.atleast_2d(parts[0])
        X = pick(rng, [collection(rng, [A, A]), table(rng, A)])
        groups, lengths = (pick(rng, [None, beside(rng, np.arange(len(A)))]) for _ in range(2))
        self.watch(None, "concat_sequences", lambda: sklseq.concat_sequences(X), [X])
        self.watch(None, "split_sequences",
                   lambda: sklseq.split_sequences(X, groups, lengths=lengths), [X, groups, lengths],
                   )  # fmt: skip

    def argument(self, name, estimator, X):
        rng = self.rng
        if isinstance(X, Unreadable):
            X = []
        n = len(X) if isinstance(X, list | tuple) else (*np.shape(X), 3)[0]
        if name == "y" and self.y is not None:
            return self.y if rng.random() < 0.5 else beside(rng, np.arange(n) % 2)
        if name in ("groups", "lengths", "y", "states", "inputs", "sample_weight", "future_inputs"):
            return beside(rng, np.arange(n) % 2 if name in ("y", "states") else np.arange(n))
        if name == "other":
            return pick(rng, [pickle.loads(fitted(self.entry)), odd(rng, name)])
        return odd(rng, name) if rng.random() < 0.3 or name not in GOOD else pick(rng, GOOD[name])

    def data(self):
        rng, X = self.rng, self.X
        if isinstance(X[0], str):
            return texts(rng, X)
        if isinstance(X, np.ndarray) and X.ndim == 2:
            return table(rng, X)
        kind = rng.random()
        if kind < 0.2:
            return X
        return collection(rng, X) if kind < 0.5 else table(rng, pick(rng, X))

    def call(self, estimator, method):
        """A method with arguments by the names of its parameters."""
        if method.endswith("_"):
            self.watch(estimator, method, lambda: getattr(estimator, method, None), [])
            return
        with np.errstate(all="ignore"):
            given, X = {}, self.data()
            for name, one in inspect.signature(getattr(estimator, method)).parameters.items():
                needed = one.default is inspect.Parameter.empty
                if one.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                    continue
                if name in ("X", "x"):
                    given[name] = X
                elif needed or (name == "y" and self.y is not None) or self.rng.random() < 0.2:
                    given[name] = self.argument(name, estimator, X)
        learns = method.startswith(("fit", "partial_fit", "sort_", "align_"))
        self.watch(estimator, method, lambda: getattr(estimator, method)(**given), given, learns)

    def watch(self, estimator, method, function, given, learns=False):
        """Call, and hold the outcome against the rule; the result, None after an error."""
        self.n_calls += 1
        what = f"{type(estimator).__name__ if estimator is not None else self.entry.name}.{method}"
        if self.verbose:
            print(what, str(given)[:1500], flush=True)
        before = digest(estimator), digest(given)
        result = error = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with redirect_stdout(io.StringIO()):
                    result = function()
            except Exception as exception:
                error = exception
        after = digest(estimator), digest(given)
        if after[1] != before[1]:
            self.note("input changed", what, what)
        if after[0] != before[0] and (error is not None or not learns):
            self.note("estimator changed", what, f"{what}: {error!r}")
        for one in caught:
            own = "sklearn" not in one.filename and not what.startswith("Stepwise")
            arithmetic = own and issubclass(one.category, RuntimeWarning)
            if arithmetic or "report this as a bug" in str(one.message):
                place = f"{Path(one.filename).name}:{one.lineno}"
                self.note("warning", place, f"{what}: {one.message}")
        if error is not None:
            self.judge(what, error)
        else:
            trouble = trouble_of(result, method)
            if learns and estimator is not None:
                trouble = trouble or trouble_of(fitted_attributes(estimator), "")
            if trouble and not what.startswith("Stepwise") and estimator is not None:
                self.note("bad result", f"{what}: {trouble}", trouble)
        if self.verbose:
            print("   ", repr(error or result)[:400], flush=True)
        return result

    def judge(self, what, error):
        if str(error) == "no array here" or isinstance(error, NotFittedError | MemoryError):
            return
        place, meant = place_of(error)
        right = isinstance(error, ValueError | TypeError) and not isinstance(
            error, np.linalg.LinAlgError | UnicodeError
        )
        if not (right and meant):
            text = "".join(traceback.format_exception(error))[-1500:]
            self.note("raw error", place, f"{what}: {type(error).__name__}: {error}", text)

    def note(self, kind, where, detail, trace=""):
        self.findings.append({"case": self.number, "kind": kind, "where": where,
                              "detail": str(detail)[:300], "trace": trace})  # fmt: skip


def methods_of(cls):
    """Public methods and properties that scikit-learn's own machinery does not have."""
    out = {"from_parameters", "get_params", "get_metadata_routing"}
    return [
        name for name in dir(cls)
        if name[0] != "_" and name not in out and not name.startswith("set_")
        and (callable(getattr(cls, name)) or name[-1] == "_")
    ]  # fmt: skip


_fitted: dict = {}


def fitted(entry) -> bytes:
    if entry.name not in _fitted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            X, y = entry.data()
            model = entry.make().fit(X, *(() if y is None else (y,)))
        _fitted[entry.name] = pickle.dumps(model)
    return _fitted[entry.name]


# -------------------------------------------------------------------------------------------------
# Processes


def work(args):
    """Cases from `args.first` on; says before each which one it is."""
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of making the data; those of calls are recorded
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    end, number, n_calls = time.monotonic() + args.seconds, args.first, 0
    with open(args.journal, "w", buffering=1) as journal, open(args.found, "a") as found:
        while time.monotonic() < end and number < args.cases:
            journal.write(f"{number} {n_calls}\n")
            case = Case(args.seed, number)
            try:
                case.run()
            except Exception as error:
                case.note("fuzzer", "fuzz.py", repr(error), traceback.format_exc()[-1500:])
            found.writelines(json.dumps(one) + "\n" for one in case.findings)
            found.flush()
            number, n_calls = number + 1, n_calls + case.n_calls
        journal.write(f"{number} {n_calls}\n")


def supervise(args) -> int:
    end, first, n_calls = time.monotonic() + args.seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        journal, found, said = (Path(folder, name) for name in ("journal", "found", "said"))
        found.touch()
        while (left := end - time.monotonic()) > 0 and first < args.cases:
            journal.write_text("")
            command = [sys.executable, __file__, "--seed", args.seed, "--seconds", left,
                       "--cases", args.cases, "--first", first, "--journal", journal,
                       "--found", found]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            with open(said, "w") as stderr:  # a pipe that nobody reads would stop it when full
                process = subprocess.Popen(
                    list(map(str, command)), stderr=stderr, env=environment
                )
                hung = wait_for(process, journal)
            trace = said.read_text()
            lines = journal.read_text().splitlines() or [f"{first} 0"]
            first, calls = map(int, lines[-1].split())
            n_calls += calls
            if hung or process.returncode:
                kind = "hang" if hung else f"crash (exit {process.returncode})"
                one = {"case": first, "kind": kind, "where": "the process", "detail": "",
                       "trace": trace[-3000:]}  # fmt: skip
                with open(found, "a") as file:
                    file.write(json.dumps(one) + "\n")
                first += 1
        return report(map(json.loads, found.read_text().splitlines()), first, n_calls)


def wait_for(process, journal) -> bool:
    """Whether it had to be ended: no new case in HANG seconds of its CPU."""
    seen, since = None, 0.0
    while process.poll() is None:
        time.sleep(0.25)
        size, now = journal.stat().st_size, cpu_seconds(process.pid)
        if size != seen:
            seen, since = size, now
        elif now - since > HANG:
            process.send_signal(signal.SIGABRT)
            process.wait()
            return True
    return False


def cpu_seconds(pid) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:  # it has ended, or this system has no /proc
        return time.monotonic()


def report(findings, n_cases, n_calls) -> int:
    kinds: dict = {}
    for one in findings:
        kinds.setdefault((one["kind"], one["where"]), []).append(one)
    print(f"{n_cases} cases, {n_calls} calls, {len(kinds)} kinds of findings")
    for (kind, where), members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        cases, first = sorted({one["case"] for one in members}), members[0]
        print(f"{kind} | {where} | {len(members)} times, cases {cases[:4]}\n    {first['detail']}")
        if where == "the process":
            print(first["trace"])
    return int(bool(kinds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**9, help="the most, however fast they are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repro", type=int, help="the number of a case")
    for name in ("--journal", "--found"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.repro is not None:
        case = Case(args.seed, args.repro, verbose=True)
        case.run()
        print(*(f"{one['kind']} | {one['where']} | {one['detail']}\n{one['trace']}"
                for one in case.findings), sep="\n")  # fmt: skip
        return int(bool(case.findings))
    if args.journal:
        work(args)
        return 0
    return supervise(args)


if __name__ == "__main__":
    sys.exit(main())
