"""SequenceClassifier: one generative model for each class, and Bayes' rule."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import (
    assert_all_finite,
    check_consistent_length,
    check_random_state,
    column_or_1d,
    get_tags,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sklseq._base import BaseSequenceModel, is_estimator, unchanged_on_error
from sklseq._documentation import DocumentationLink
from sklseq._notices import part_of_a_fit
from sklseq._pickles import VersionedPickle
from sklseq._sequences import as_list, check_items, concatenate, fill_masked, is_collection
from sklseq._validation import as_fitted, check_entries, check_probabilities
from sklseq.preprocessing import Stepwise
from sklseq.rnn._vocabulary import check_texts

__all__ = ["SequenceClassifier"]


class SequenceClassifier(
    DocumentationLink, VersionedPickle, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    r"""Classify whole sequences by a generative model of each class and Bayes' rule.

    .. math::
        P(y = c | x_1..x_n) \propto \pi_c\, p_c(x_1..x_n)

    A sample is always a sequence.  **A row of a 2-D X is one sequence of scalar steps**, not one
    step.

    Parameters
    ----------
    estimator : estimator
        A step-level model of this package, such as ``GaussianHMM``, a search over one (such as
        ``GridSearchCV``; each class has its own best), or a Pipeline that ends in one of these; it
        is cloned for each class.  The transformers of a Pipeline are fitted once, on the sequences
        of all classes: likelihoods compare only where all classes see the same data.  They get
        collections: a transformer of rows stands in a ``Stepwise``.
        Or a ``CharRNNLanguageModel``: X is then texts (strings or lists of tokens), all classes
        know the symbols of all, and a symbol that none knows has a learned probability.
    priors : array-like of shape (n_classes,), default=None
        Prior probabilities of the classes, in the order of `classes_`.  Default: their frequencies
        in ``fit``.
    random_state : int, RandomState instance or None, default=None
        Seeds every ``random_state`` inside `estimator`; None leaves them as they are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    class_prior_ : ndarray of shape (n_classes,)
        :math:`\pi_c`.
    estimators_ : list of estimator
        The fitted model of each class, in the order of `classes_`.
    transformers_ : list of transformer
        The fitted transformers of a Pipeline, in order; empty otherwise.
    n_features_in_ : int
        Number of columns of X: of a sequence in a collection, of the array for a 2-D X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of a 2-D X, where it had them.

    See Also
    --------
    GaussianHMM : A model of sequences of vectors.
    CategoricalHMM : A model of sequences of symbols.
    CharRNNLanguageModel : A model of texts.

    Notes
    -----
    A sequence that is impossible under the model of every class gets the classes' priors, and a
    UserWarning that says how to keep probabilities above zero.

    References
    ----------
    L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
    recognition", Proc. IEEE 77(2), sec. VI (isolated words).

    Examples
    --------
    >>> import numpy as np
    >>> from sklseq import GaussianHMM, SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> slow = [np.cumsum(rng.normal(0, 0.1, (n, 1)), axis=0) for n in (20, 25, 30)]
    >>> fast = [rng.normal(0, 1.0, (n, 1)) for n in (20, 25, 30)]
    >>> classifier = SequenceClassifier(GaussianHMM(random_state=0))
    >>> classifier.fit(slow + fast, ["slow"] * 3 + ["fast"] * 3).predict([slow[0], fast[0]])
    array(['slow', 'fast'], dtype='<U4')
    """

    def __init__(self, estimator, *, priors=None, random_state=None):
        self.estimator = estimator
        self.priors = priors
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        estimator = _searched(self.estimator)
        if is_estimator(estimator) and is_estimator(_split_pipeline(estimator)[1]):
            tags.input_tags = get_tags(estimator).input_tags
            tags.input_tags.sparse = False  # a row of a 2-D X is a sequence of scalars
        return tags

    def fit(self, X, y):
        """Fit a model to the sequences of each class.

        Parameters
        ----------
        X : list of array-like of shape (n_steps_i, n_features), 3-D array, or 2-D array
            The sequences; each row of a 2-D array is one of scalar steps.  For a model of texts, a
            list, array or Series of str, or lists of tokens.
        y : array-like of shape (n_sequences,)
            Their labels.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            For an `estimator` that is no model of sequences.
        ValueError
            For invalid input, and what the estimator itself refuses.
        KeyboardInterrupt
            After Ctrl-C, which ends the fits of all classes; the classifier is as it was.
        """
        _check_estimator(self.estimator)
        with unchanged_on_error(self):
            self._fit(*self._check_training(X, y))
        return self

    def _fit(self, sequences, y) -> None:
        classes, codes = np.unique(y, return_inverse=True)
        prior = self._check_priors(codes, len(classes))
        random_state = check_random_state(self.random_state)
        seeds = None if self.random_state is None else random_state
        transformers, model = _split_pipeline(self.estimator)
        fitted = []
        for transformer in transformers:
            transformer = _seeded(transformer, seeds)
            sequences = _fit_transform(transformer, sequences, y)
            fitted.append(transformer)
        estimators = []
        for code in range(len(classes)):
            estimator = _seeded(model, seeds)
            if _is_text_model(_searched(model)):
                estimator = _with_all_symbols(estimator, sequences)
            else:
                estimator = _with_all_categories(estimator, sequences)
            with part_of_a_fit(f"Class {classes[code]}"):
                estimators.append(estimator.fit(_take(sequences, codes == code)))
        self.classes_, self.class_prior_ = classes, prior
        self.transformers_, self.estimators_ = fitted, estimators

    def predict(self, X) -> np.ndarray:
        """The most probable class of each sequence.

        Parameters
        ----------
        X : list of array-like of shape (n_steps_i, n_features), 3-D array, or 2-D array
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_sequences,)
        """
        joint = self._joint_log_likelihood(X)
        return np.asarray(self.classes_)[joint.argmax(axis=1)]

    def predict_proba(self, X) -> np.ndarray:
        """Posterior probabilities of the classes.

        Parameters
        ----------
        X : list of array-like of shape (n_steps_i, n_features), 3-D array, or 2-D array
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_sequences, n_classes)
            Columns in the order of `classes_`.
        """
        return np.exp(_log_posterior(self._joint_log_likelihood(X)))

    def predict_log_proba(self, X) -> np.ndarray:
        """Log posterior probabilities of the classes, in nats.

        Parameters
        ----------
        X : list of array-like of shape (n_steps_i, n_features), 3-D array, or 2-D array
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_sequences, n_classes)
            Columns in the order of `classes_`.
        """
        return _log_posterior(self._joint_log_likelihood(X))

    def _joint_log_likelihood(self, X) -> np.ndarray:
        """log pi_c + log p_c(x) of each sequence and class, (n_sequences, n_classes)."""
        check_is_fitted(self)
        n_classes = len(self.estimators_)
        check_entries(self, "classes_", n_classes)
        prior = as_fitted(self, "class_prior_", (n_classes,), "probabilities")
        sequences = self._check_X(X)
        for transformer in self.transformers_:
            sequences = transformer.transform(sequences)
        models = [_best(estimator) for estimator in self.estimators_]
        score = "score_samples" if _is_text_model(models[0]) else "score_sequences"
        with np.errstate(divide="ignore"):
            log_prior = np.log(prior)
            joint = log_prior + np.stack(
                [getattr(model, score)(sequences) for model in models], axis=1
            )
        impossible = np.isneginf(joint).all(axis=1)
        if impossible.any():
            joint[impossible] = log_prior  # they tell nothing about the class
            warnings.warn(
                f"{impossible.sum()} of {len(joint)} sequences (the first: "
                f"{np.argmax(impossible)}) have probability zero under the model of every class, "
                "so that no class can be told from another: they get the classes' priors. "
                f"{_way_out(models[0])}",
                UserWarning,
                stacklevel=3,
            )
        return joint

    # ---- what comes in

    def _check_training(self, X, y):
        if y is None:
            raise ValueError(
                f"requires y to be passed, but the target y is None: {type(self).__name__} needs a "
                "label for each sequence."
            )
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)  # of a fit before
        X = fill_masked(as_list(X))
        text = _is_text_model(_searched(_split_pipeline(self.estimator)[1]))
        self._rows_are_sequences = not text and not is_collection(X)
        if text:
            X = check_texts(X)
        elif self._rows_are_sequences:
            X = validate_data(self, X, **self._array_rules())[:, :, None]
        else:
            self.n_features_in_ = check_items(X)
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        return X, y

    def _check_X(self, X):
        if _is_text_model(_best(self.estimators_[0])):
            return check_texts(X)
        X = fill_masked(as_list(X))
        if is_collection(X):
            check_items(X)
            return X
        if not self._rows_are_sequences:
            raise ValueError(
                "X is 2-D, but fit saw a collection of sequences: a list or a 3-D array is needed. "
                "If each row is a sequence of scalar steps, pass X[:, :, None]; if X is one "
                "sequence, pass [X]."
            )
        return validate_data(self, X, reset=False, **self._array_rules())[:, :, None]

    def _array_rules(self) -> dict:
        tags = get_tags(self).input_tags
        return {
            "dtype": np.float64,
            "ensure_all_finite": "allow-nan" if tags.allow_nan else True,
            "ensure_non_negative": tags.positive_only,
        }

    def _check_priors(self, codes, n_classes: int) -> np.ndarray:
        if self.priors is None:
            return np.bincount(codes) / len(codes)
        return check_probabilities(self.priors, "priors", (n_classes,))


def _split_pipeline(estimator) -> tuple[list, object]:
    """(the transformers of a Pipeline, its last step); no transformers for a model alone."""
    if not isinstance(estimator, Pipeline):
        return [], estimator
    steps = [step for _, step in estimator.steps]
    return [step for step in steps[:-1] if step is not None and step != "passthrough"], steps[-1]


def _log_posterior(joint: np.ndarray) -> np.ndarray:
    return joint - logsumexp(joint, axis=1, keepdims=True)


def _is_text_model(estimator) -> bool:
    """Whether samples are texts: strings, or lists of tokens."""
    return get_tags(estimator).input_tags.string


def _way_out(estimator) -> str:
    """What keeps probabilities above zero."""
    if _is_text_model(estimator):
        return "handle_unknown='ignore' gives a symbol that no class has a probability."
    if "alpha" in estimator.get_params():
        return f"alpha above 0 (it is {estimator.alpha!r}) adds to the count of every category."
    return ""


def _searched(estimator):
    """What a search varies; anything else as it is."""
    is_search = hasattr(estimator, "refit") and hasattr(estimator, "estimator")
    return estimator.estimator if is_search else estimator


def _best(fitted):
    """What a search has found; anything else as it is."""
    return getattr(fitted, "best_estimator_", fitted)


def _check_estimator(estimator) -> None:
    """Before anything is fitted: what this would end in must be a model of sequences."""
    last = _split_pipeline(estimator)[1]
    model = _searched(last)
    if isinstance(model, Pipeline):
        raise TypeError(
            "A search over a Pipeline would transform the sequences of each class in another way, "
            "and their likelihoods would not compare. Search in the Pipeline instead: "
            "make_pipeline(Stepwise(...), GridSearchCV(GaussianHMM(), ...))."
        )
    if isinstance(model, FrozenEstimator):
        raise TypeError("A FrozenEstimator does not learn: all classes would have one model.")
    is_one = is_estimator(model) and (hasattr(model, "score_sequences") or _is_text_model(model))
    if not (is_one and hasattr(model, "score_samples")):
        raise TypeError(
            "SequenceClassifier needs a model of sequences, an estimator with score_sequences such "
            f"as GaussianHMM(), or a search or a Pipeline that ends in one, got {model!r}."
        )
    if model is not last and not last.refit:
        raise TypeError(f"{type(last).__name__} needs refit=True, got {last.refit!r}.")


def _fit_transform(transformer, sequences, y):
    """In a Pipeline, where scikit-learn's text of a collection would be of no help."""
    try:
        return transformer.fit_transform(sequences, y)
    except (TypeError, ValueError) as error:
        if isinstance(transformer, Stepwise | BaseSequenceModel):
            raise
        name = type(transformer).__name__
        raise ValueError(
            f"{name} failed on a collection of sequences: {error} If it is a transformer of rows, "
            f"write Stepwise({name}(...))."
        ) from error


def _seeded(estimator, random_state):
    """A clone, each of its ``random_state`` drawn from `random_state` unless that is None."""
    estimator = clone(estimator)
    if random_state is not None:
        names = [name for name in sorted(estimator.get_params(deep=True))
                 if name == "random_state" or name.endswith("__random_state")]  # fmt: skip
        seeds = {name: int(random_state.randint(np.iinfo(np.int32).max)) for name in names}
        estimator.set_params(**seeds)
    return estimator


def _with_all_categories(estimator, sequences):
    """A model of codes must know those of all classes, not of its own only."""
    model = _searched(estimator)
    params = model.get_params()
    if "n_categories" in params and params["n_categories"] is params["emissionprob_init"] is None:
        codes = np.nan_to_num(concatenate(sequences).astype(float))
        largest = np.maximum(codes.max(axis=0), 0)
        model._check_codes(largest)
        model.set_params(n_categories=largest.astype(int) + 1)
    return estimator


def _with_all_symbols(estimator, texts):
    """The same for a model of texts."""
    model = _searched(estimator)._with_symbols_of(texts)
    return model if _searched(estimator) is estimator else estimator.set_params(estimator=model)


def _take(sequences, chosen):
    """The chosen sequences of a collection, as a collection of the same kind."""
    if isinstance(sequences, np.ndarray):
        return sequences[chosen]
    return [sequence for sequence, is_chosen in zip(sequences, chosen) if is_chosen]
