"""Pickles say which version of sklseq made them."""

from __future__ import annotations

import sys
import warnings

from sklearn.exceptions import InconsistentVersionWarning

KEY = "_sklseq_version"
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
        return {**super().__getstate__(), KEY: _version()}

    def __setstate__(self, state: dict) -> None:
        state = dict(state)
        before, now = state.pop(KEY, FIRST), _version()
        if before != now:
            warnings.warn(FromAnotherVersion(type(self).__name__, before, now), stacklevel=2)
        super().__setstate__(state)


def _version() -> str:
    return sys.modules["sklseq"].__version__  # the roof, which the ground must not import
