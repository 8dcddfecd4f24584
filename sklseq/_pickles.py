"""Pickles say which version of sklseq made them, and hold plain arrays.

The values that an estimator keeps in private (what a stream has added up, the weights of a
network) are objects of private classes, which tools such as skops would ask the user to trust one
by one.  In a pickle they are dicts of their fields.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from dataclasses import fields, is_dataclass

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

KEY = "_sklseq_version"
CLASS = "__sklseq_class__"  # the key of a class's name among its fields
FIRST = "0.1.0"  # wrote no version


class FromAnotherVersion(InconsistentVersionWarning):
    """scikit-learn's warning about its own estimators, of ours."""

    def __init__(self, name: str, before: str, now: str):
        super().__init__(
            estimator_name=name, current_sklearn_version=now, original_sklearn_version=before
        )

    def __str__(self) -> str:
        return (
            f"{self.estimator_name} was pickled by sklseq {self.original_sklearn_version}, this is "
            f"{self.current_sklearn_version}: its results may differ or it may fail. Fit it again, "
            "or load it with the version that it was pickled by."
        )


class VersionedPickle:
    """Mixin for estimators, before scikit-learn's BaseEstimator."""

    def __getstate__(self) -> dict:
        state = {**super().__getstate__(), KEY: _version()}
        return {key: _plain(value) if _is_private(key) else value for key, value in state.items()}

    def __setstate__(self, state: dict) -> None:
        state = dict(state)
        before, now = state.pop(KEY, FIRST), _version()
        if before != now:
            warnings.warn(FromAnotherVersion(type(self).__name__, before, now), stacklevel=2)
        state = {key: _built(value) if _is_private(key) else value for key, value in state.items()}
        super().__setstate__(state)


def _version() -> str:
    return sys.modules["sklseq"].__version__  # the roof, which the ground must not import


def _is_private(key: str) -> bool:
    return key.startswith("_")


def _plain(value):
    """Tuples, lists, dicts and arrays instead of the package's own values."""
    kind = type(value)
    if kind in (tuple, list):
        return kind(map(_plain, value))
    if kind is dict:
        return {key: _plain(one) for key, one in value.items()}
    if not kind.__module__.startswith("sklseq.") or isinstance(value, BaseEstimator):
        return value
    if getattr(sys.modules[kind.__module__], kind.__qualname__, None) is not kind:
        return value  # made on the fly: it has a pickle of its own
    if isinstance(value, tuple):
        parts = value._asdict()
    elif is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        parts = vars(value)
    return {CLASS: f"{kind.__module__}:{kind.__qualname__}", **_plain(dict(parts))}


def _built(value):
    """The way back; what another version pickled in another way stays as it is."""
    kind = type(value)
    if kind in (tuple, list):
        return kind(map(_built, value))
    if kind is not dict:
        return value
    parts = {key: _built(one) for key, one in value.items()}
    name = parts.pop(CLASS, None)
    if name is None:
        return parts
    kind = _class_of(name)
    if issubclass(kind, tuple):
        return kind(**parts)
    built = object.__new__(kind)
    vars(built).update(parts)
    return built


def _class_of(name: str) -> type:
    module, _, qualname = name.partition(":")
    kind = None
    if module.startswith("sklseq."):
        kind = getattr(importlib.import_module(module), qualname, None)
    if not isinstance(kind, type) or kind.__module__ != module:
        raise ValueError(f"This pickle holds {name}, which this version of sklseq does not have.")
    return kind
