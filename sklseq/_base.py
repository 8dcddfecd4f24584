"""The scikit-learn face that every step-level model shares: HMMs and state-space models.

What only concerns how data comes in and results go out is here; what a method computes is in the
wings.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import wraps

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from sklseq._documentation import DocumentationLink
from sklseq._notices import warn
from sklseq._pickles import VersionedPickle
from sklseq._sequences import Sequences, check_sequences, limit_threads
from sklseq._validation import as_array, check_sample_weight


class UndefinedError(ValueError, AttributeError):
    """A fitted attribute that this fit does not have.

    An AttributeError, so that ``hasattr`` and ``inspect.getmembers`` (scikit-learn's display in
    notebooks) pass over it; a ValueError as NotFittedError is, for those who catch that.
    """


def is_estimator(value) -> bool:
    """Whether it is an instance with scikit-learn's tags, and not a class, a string or None."""
    return hasattr(value, "__sklearn_tags__") and not isinstance(value, type)


@contextmanager
def unchanged_on_error(estimator):
    """A fit that fails leaves a fitted estimator as it was."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _checks_names(from_parameters):
    """The constructor for known parameters, with an error for names that it does not have."""

    @wraps(from_parameters)
    def checked(cls, *args, **params):
        own = {name: one for name, one in inspect.signature(from_parameters).parameters.items()
               if one.kind is inspect.Parameter.KEYWORD_ONLY}  # fmt: skip
        others = set(inspect.signature(cls).parameters) - set(own) - {"n_components"}
        what = f"{cls.__name__}.from_parameters"
        if "n_components" in params and "n_components" not in own:
            raise TypeError(f"{what} reads n_components off the parameters: leave it out.")
        for name in params:
            if name not in others and name not in own:
                raise TypeError(
                    f"{what} has no parameter {name!r}. It takes {', '.join(own)}, and the "
                    f"parameters of {cls.__name__}: {', '.join(sorted(others))}."
                )
        for name, one in own.items():
            if one.default is inspect.Parameter.empty and name not in params:
                raise TypeError(f"{what} needs {name}. It takes {', '.join(own)}.")
        return from_parameters(cls, *args, **params)

    return checked


class BaseSequenceModel(
    DocumentationLink,
    VersionedPickle,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    DensityMixin,
    BaseEstimator,
    ABC,
):
    """A probability model of sequences, fitted and asked step by step.

    Subclasses have ``fit``, ``predict``, ``transform``, ``score_samples``, ``score_sequences`` and
    ``_n_free_parameters``.
    """

    # Requested by default, so that users never call set_fit_request and its like.
    __metadata_request__fit = {"groups": True}
    __metadata_request__score = {"groups": True}
    __metadata_request__predict = {"groups": True}
    __metadata_request__transform = {"groups": True}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "from_parameters" in vars(cls):
            cls.from_parameters = classmethod(_checks_names(vars(cls)["from_parameters"].__func__))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        """Parameters that were only assigned, as hmmlearn allows, have no number of columns."""
        return hasattr(self, "n_features_in_")

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _check_X(self, X, groups=None, lengths=None, *, y=None, reset=False) -> Sequences:
        """The door; a family that codes its data differently inside overrides `_encode`."""
        if not reset:
            check_is_fitted(self)
        sequences = check_sequences(self, X, y=y, groups=groups, lengths=lengths, reset=reset)
        return self._encode(sequences, reset)

    def _warn_forgotten(self) -> None:
        """Parameters that were given, and not learned, would be lost in silence."""
        given = hasattr(self, "n_features_in_") and not hasattr(self, "n_iter_")
        if given and not self.warm_start:
            warn(
                "fit sets out from the data and forgets the parameters that from_parameters was "
                "given: warm_start=True goes on from them.",
                UserWarning,
                stacklevel=3,
            )

    def _check_row(self, x) -> Sequences:
        """The row of an update; a row of a frame has the names of its columns as its index.

        No warning that an array has no names: there would be one for each row.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        if names is None or hasattr(x, "columns"):
            x = x if hasattr(x, "columns") else as_array(x, "x")
            sequences = self._check_X(x if len(x.shape) == 2 else x.reshape(1, -1))
            if sequences.n_steps != 1:
                raise ValueError(f"x must be one row, got {sequences.n_steps} rows.")
            return sequences
        own = list(x.index) if hasattr(x, "iloc") else []
        if own != list(names) and all(isinstance(name, str) for name in own) and own:
            raise ValueError(f"x must have the names of the fit, {list(names)}, got {own}.")
        nameless = object.__new__(type(self))
        vars(nameless).update(vars(self))
        del nameless.feature_names_in_
        return nameless._check_row(x)

    def _encode(self, sequences: Sequences, reset: bool) -> Sequences:
        return sequences

    @abstractmethod
    def _n_free_parameters(self) -> int: ...

    def fit_transform(self, X, y=None, *, groups=None, lengths=None, **fit_params):
        """Fit, then transform the same data.

        Parameters
        ----------
        X, y, groups, lengths
            As in ``fit``.
        **fit_params
            What else ``fit`` takes beside the rows.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
            As of ``transform``.
        """
        # TransformerMixin's own drops groups and lengths on the way to transform
        fitted = self.fit(X, y, groups=groups, lengths=lengths, **fit_params)
        return fitted._anew().transform(X, groups=groups, lengths=lengths)

    def fit_predict(self, X, y=None, *, groups=None, lengths=None, **fit_params):
        """Fit, then predict the same data.

        Parameters
        ----------
        X, y, groups, lengths
            As in ``fit``.
        **fit_params
            What else ``fit`` takes beside the rows.

        Returns
        -------
        ndarray of shape (n_steps, ...), stacked or object array as X was
            As of ``predict``.
        """
        fitted = self.fit(X, y, groups=groups, lengths=lengths, **fit_params)
        return fitted._anew().predict(X, groups=groups, lengths=lengths)

    def _anew(self):
        """This model for its training data, which begin where they began."""
        if not getattr(self, "continues", False):
            return self
        model = copy.copy(self)
        model.continues = False
        return model

    def score(self, X, y=None, sample_weight=None, *, groups=None, lengths=None) -> float:
        """Mean log-likelihood per step, in nats.

        Comparable between folds of different length, unlike the total, which is
        ``score_sequences(X).sum()``.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        y : ignored
            For the scikit-learn interface.
        sample_weight : array-like of shape (n_samples,), default=None
            One weight per step (flat X) or per sequence (collection):
            the score is then sum(w * l) / sum(w * n).
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        float
            -inf if a sequence is impossible under the model.
        """
        return self._mean_score(self._check_X(X, groups, lengths, y=y), sample_weight)

    def _limit_threads(self, sequences: Sequences):
        """For scores; a model that does without BLAS spares itself the 0.2 ms."""
        return limit_threads(sequences.n_steps)

    def _mean_score(self, sequences: Sequences, sample_weight=None) -> float:
        with self._limit_threads(sequences):
            if sample_weight is None:
                return float(self._sequence_scores(sequences).sum() / sequences.n_steps)
            unit = "step" if sequences.form == "flat" else "sequence"
            weights = check_sample_weight(sample_weight, sequences.n_samples, unit)
            if sequences.form == "flat":
                scores, counts = self._step_scores(sequences), np.ones(sequences.n_steps)
            else:
                scores, counts = self._sequence_scores(sequences), np.diff(sequences.offsets)
            used = weights > 0  # 0 * -inf is nobody's score
            return float(weights[used] @ scores[used] / (weights @ counts))

    def score_samples(self, X, *, groups=None, lengths=None):
        """Log-likelihood of each step given the steps before it, log p(x_t | x_1..x_{t-1}), nats.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``score``.

        Returns
        -------
        ndarray of shape (n_steps,), stacked or object array as X was
            Its sum is the log-likelihood.  From the first impossible step of a sequence on: -inf.
        """
        sequences = self._check_X(X, groups, lengths)
        with self._limit_threads(sequences):
            return sequences.like_input(self._step_scores(sequences))

    def score_sequences(self, X, *, groups=None, lengths=None) -> np.ndarray:
        """Log-likelihood of each sequence, in nats.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``score``.

        Returns
        -------
        ndarray of shape (n_sequences,)
        """
        sequences = self._check_X(X, groups, lengths)
        with self._limit_threads(sequences):
            return self._sequence_scores(sequences)

    @abstractmethod
    def _step_scores(self, sequences: Sequences) -> np.ndarray:
        """log p(x_t | x_<t), (n_steps,)."""

    @abstractmethod
    def _sequence_scores(self, sequences: Sequences) -> np.ndarray:
        """log p(x_1..x_n) of each sequence, (n_sequences,)."""

    def aic(self, X, *, groups=None, lengths=None) -> float:
        """Akaike's information criterion on X (lower is better).

        -2 log-likelihood + 2 x number of free parameters; structural zeros, fixed parameters and
        gauge freedom are not counted (Akaike 1974).  A probability is 0 by structure where the fit
        started from 0 (or the model was given with 0); one that was estimated to be 0 counts.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``score``.

        Returns
        -------
        float
            In nats, times two.
        """
        return self._criterion(self._check_X(X, groups, lengths), 2.0)

    def _criterion(self, sequences: Sequences, penalty: float) -> float:
        """-2 log-likelihood + penalty x number of free parameters."""
        with self._limit_threads(sequences):
            total = self._sequence_scores(sequences).sum()
        return float(penalty * self._n_free_parameters() - 2 * total)

    def bic(self, X, *, groups=None, lengths=None) -> float:
        """Bayesian information criterion on X (lower is better).

        -2 log-likelihood + log(n_steps) x number of free parameters (Schwarz 1978).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``score``.

        Returns
        -------
        float
            In nats, times two.
        """
        sequences = self._check_X(X, groups, lengths)
        return self._criterion(sequences, np.log(sequences.n_steps))
