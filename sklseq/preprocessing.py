"""From rows to sequences and back: Stepwise, concat_sequences, split_sequences."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklseq._base import BaseSequenceModel, is_estimator
from sklseq._documentation import DocumentationLink
from sklseq._pickles import VersionedPickle
from sklseq._sequences import (
    as_list,
    check_items,
    concatenate,
    fill_masked,
    group_offsets,
    is_collection,
    is_named,
    length_offsets,
    offsets_of,
)
from sklseq._validation import as_array, n_entries

__all__ = ["Stepwise", "concat_sequences", "split_sequences"]


def concat_sequences(sequences) -> tuple[np.ndarray, np.ndarray]:
    """Join a collection of sequences into one 2-D array and say which rows belong together.

    Parameters
    ----------
    sequences : list of array-like of shape (n_steps_i, n_features), or 3-D array
        Sparse matrices and frames are let through; a pandas Series and a dict of sequences as well.

    Returns
    -------
    X : ndarray or CSR array of shape (n_steps, n_features)
        The rows of all sequences, in order.
    groups : ndarray of int of shape (n_steps,)
        The number of the sequence of each row, to be passed as ``groups=``.

    Raises
    ------
    ValueError
        Names the sequence that is empty, not 2-D, or has another number of features.

    See Also
    --------
    split_sequences : The way back.

    Examples
    --------
    >>> from sklseq import concat_sequences
    >>> X, groups = concat_sequences([[[1.0], [2.0]], [[3.0]]])
    >>> X.ravel(), groups
    (array([1., 2., 3.]), array([0, 0, 1]))
    """
    sequences = as_list(sequences)
    if not is_collection(sequences):
        raise ValueError(
            "concat_sequences needs a collection: a list of 2-D arrays or a 3-D array."
        )
    check_items(sequences)
    lengths = _lengths(sequences)
    return concatenate(sequences), np.repeat(np.arange(len(lengths)), lengths)


def split_sequences(X, groups=None, *, lengths=None) -> list:
    """Cut the rows of X into a list of sequences.

    Parameters
    ----------
    X : array-like, frame or sparse matrix of shape (n_steps, n_features)
    groups : array-like of shape (n_steps,), default=None
        A new sequence starts where it changes; a label that comes back is an error.
    lengths : array-like of int, default=None
        The number of steps of each sequence; one of `groups` and `lengths` is needed.

    Returns
    -------
    list of array, each (n_steps_i, n_features)
        Views of X where X is an array.

    Raises
    ------
    ValueError
        For both or none of `groups` and `lengths`, and for wrong ones.

    See Also
    --------
    concat_sequences : The way back.

    Examples
    --------
    >>> from sklseq import split_sequences
    >>> [part.ravel().tolist() for part in split_sequences([[1], [2], [3]], groups=["a", "a", "b"])]
    [[1, 2], [3]]
    """
    if (groups is None) == (lengths is None):
        raise ValueError("split_sequences needs one of groups and lengths.")
    if not hasattr(X, "shape"):
        X = as_array(X, "X")
    n_steps = n_entries(X, "X")
    offsets = length_offsets(lengths, n_steps) if groups is None else group_offsets(groups, n_steps)
    rows = getattr(X, "iloc", X)
    return [rows[start:stop] for start, stop in pairwise(offsets)]


def _lengths(collection) -> np.ndarray:
    return np.array([item.shape[0] if hasattr(item, "shape") else len(item) for item in collection])


def _rows(collection):
    """The rows of all sequences; of frames a frame, so that the names of its columns arrive."""
    if not all(hasattr(item, "columns") for item in collection):
        return concat_sequences(collection)[0]
    check_items(collection)
    kinds = type(collection[0]).__mro__
    homes = [sys.modules.get(kind.__module__.partition(".")[0]) for kind in kinds]
    library = next((home for home in homes if hasattr(home, "concat")), None)  # pandas, polars
    if library is None:
        return concat_sequences(collection)[0]
    relaxed = {"how": "vertical_relaxed"} if library.__name__ == "polars" else {}
    rows = library.concat(list(collection), **relaxed)
    return rows.reset_index(drop=True) if hasattr(rows, "reset_index") else rows


def _cut(rows, sequences: list) -> list:
    """The rows of each sequence; in pandas frames with the index that the sequence had, if any."""
    bounds = offsets_of(_lengths(sequences))
    at = getattr(rows, "iloc", rows)
    parts = [at[start:stop] for start, stop in pairwise(bounds)]
    if hasattr(rows, "set_axis"):
        parts = [
            part.set_axis(item.index) if hasattr(item, "iloc") else part.reset_index(drop=True)
            for part, item in zip(parts, sequences)
        ]
    return parts


def _like(X, parts: list):
    """A collection of the kind of X; what NumPy cannot stack stays a list."""
    if isinstance(X, np.ndarray) and X.ndim == 3:
        stacks = all(isinstance(part, np.ndarray) for part in parts)
        return np.stack(parts) if stacks else parts
    if is_named(X):
        return dict(zip(X, parts))
    if isinstance(X, tuple):
        return tuple(parts)
    if isinstance(X, list):
        return parts
    result = np.empty(len(parts), dtype=object)
    for i, part in enumerate(parts):  # result[:] = parts fails where all are of one length
        result[i] = part
    return type(X)(result, index=X.index, name=X.name) if hasattr(X, "index") else result


# scikit-learn's transformers of which each row is transformed by itself, whatever the others are:
# rows of all sequences may go through them in one call
ROW_WISE = {
    "sklearn.preprocessing": {
        "Binarizer", "KBinsDiscretizer", "MaxAbsScaler", "MinMaxScaler", "Normalizer",
        "OneHotEncoder", "OrdinalEncoder", "PolynomialFeatures", "PowerTransformer",
        "QuantileTransformer", "RobustScaler", "SplineTransformer", "StandardScaler",
    },
    "sklearn.decomposition": {"FactorAnalysis", "FastICA", "IncrementalPCA", "PCA", "TruncatedSVD"},
    "sklearn.impute": {"SimpleImputer"},
}  # fmt: skip
# and those that are where all their parts are: the attribute with tuples (name, part, ...)
COMPOSED = {
    "sklearn.pipeline": {"FeatureUnion": "transformer_list", "Pipeline": "steps"},
    "sklearn.compose": {"ColumnTransformer": "transformers"},
}


def _is_row_wise(transformer) -> bool:
    """Whether it is known to be; a subclass of somebody else's is not."""
    if transformer is None or isinstance(transformer, str):  # "drop", "passthrough"
        return True
    kind = type(transformer)
    module = ".".join(kind.__module__.split(".")[:2])
    attribute = COMPOSED.get(module, {}).get(kind.__name__)
    if attribute is None:
        return kind.__name__ in ROW_WISE.get(module, ())
    parts = [part for _, part, *_ in getattr(transformer, attribute)]
    return all(map(_is_row_wise, [*parts, getattr(transformer, "remainder", None)]))


def _check_transformer(transformer) -> None:
    """It must be one, of rows."""
    is_one = hasattr(transformer, "fit") and hasattr(transformer, "transform")
    if isinstance(transformer, type) or not is_one:
        raise TypeError(
            "Stepwise needs a transformer, an object with fit and transform such as "
            f"StandardScaler(), got {transformer!r}."
            + (" For no transformer put 'passthrough' in the place of the whole Stepwise."
               if transformer is None or isinstance(transformer, str) else "")
        )  # fmt: skip
    parts = transformer.get_params().values() if hasattr(transformer, "get_params") else ()
    for part in (transformer, *parts):
        if isinstance(part, BaseSequenceModel):
            name = type(part).__name__
            raise TypeError(
                f"Stepwise is for transformers of single rows. {name} reads whole sequences, which "
                "joined rows would lose: it takes a collection itself, without Stepwise."
            )


def _inner_has(method: str):
    return available_if(lambda self: hasattr(self.transformer, method))


class Stepwise(
    DocumentationLink, VersionedPickle, MetaEstimatorMixin, TransformerMixin, BaseEstimator,
    auto_wrap_output_keys=None,  # frames are what `transformer` makes, one for each sequence
):  # fmt: skip
    """Run a transformer of rows on a collection of sequences.

    It lets ``StandardScaler``, ``PCA`` and their like stand before a sequence model in a Pipeline.
    The transformer is fitted on the rows of all sequences, joined, and transforms each sequence by
    itself: what looks at neighbouring rows (lags, differences, rolling means) sees those of its own
    sequence only.  A flat 2-D X passes through.

    Frames stay frames: names of columns are checked, and a ``ColumnTransformer`` may use them.
    ``set_output`` and ``set_config(transform_output=...)`` say what the transformer makes of each
    sequence.

    Parameters
    ----------
    transformer : transformer
        Gives one row for each row; it is cloned in ``fit``.

    Attributes
    ----------
    transformer_ : transformer
        The fitted clone.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    concat_sequences : Joins sequences by hand.

    Notes
    -----
    Most transformers of ``sklearn.preprocessing`` (with ``PCA`` and its like, ``SimpleImputer``,
    and Pipelines, ``FeatureUnion`` and ``ColumnTransformer`` of such) treat each row by itself;
    they transform all rows in one call, which is faster for many short sequences.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklseq import GaussianHMM, Stepwise
    >>> rng = np.random.default_rng(0)
    >>> sequences = [rng.normal(size=(n, 2)) for n in (20, 30)]
    >>> model = make_pipeline(Stepwise(StandardScaler()), GaussianHMM(random_state=0))
    >>> [len(states) for states in model.fit(sequences).predict(sequences)]
    [20, 30]
    """

    def __init__(self, transformer):
        self.transformer = transformer

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if not is_estimator(self.transformer):  # nothing that fit would take
            return tags
        inner = get_tags(self.transformer)
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        tags.transformer_tags = inner.transformer_tags
        tags.non_deterministic = inner.non_deterministic
        tags.no_validation = inner.no_validation
        return tags

    @_inner_has("set_output")
    def set_output(self, *, transform=None):
        """What the transformer makes of each sequence: arrays or frames.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            None leaves it as it is.

        Returns
        -------
        self
        """
        for one in (self.transformer, getattr(self, "transformer_", self.transformer)):
            one.set_output(transform=transform)
        return self

    def fit(self, X, y=None):
        """Fit the transformer on the rows of all sequences.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        y : array-like, default=None
            Handed to the transformer for a flat X; labels of whole sequences are not.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            For a `transformer` that is none, or a model of sequences.
        """
        _check_transformer(self.transformer)
        X = fill_masked(as_list(X))
        rows, y = (_rows(X), None) if is_collection(X) else (X, y)
        self.transformer_ = clone(self.transformer).fit(rows, y)
        self._copy_names()
        return self

    def _copy_names(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)  # of a fit before
            if hasattr(self.transformer_, name):
                setattr(self, name, getattr(self.transformer_, name))

    def transform(self, X):
        """Transform each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such

        Returns
        -------
        array or frame, or the same kind of collection as X
            A 3-D array for a 3-D array; a list where the transformer makes frames or sparse
            matrices, which cannot be stacked.

        Raises
        ------
        ValueError
            If the transformer does not give one row for each step.
        """
        check_is_fitted(self, "transformer_")
        return self._apply(self.transformer_.transform, X)

    @_inner_has("inverse_transform")
    def inverse_transform(self, X):
        """Undo the transformation of each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such

        Returns
        -------
        array or frame, or the same kind of collection as X
        """
        check_is_fitted(self, "transformer_")
        return self._apply(self.transformer_.inverse_transform, X)

    def _apply(self, function, X):
        sequences = fill_masked(as_list(X))
        if not is_collection(sequences):
            return self._transform_rows(function, sequences)
        if _is_row_wise(self.transformer_):
            parts = _cut(self._transform_rows(function, _rows(sequences)), sequences)
        else:
            check_items(sequences)
            parts = [self._transform_one(function, i, item) for i, item in enumerate(sequences)]
        return _like(X, parts)

    def _transform_one(self, function, i: int, sequence):
        try:
            return self._transform_rows(function, sequence)
        except Exception as error:
            error.add_note(f"This was sequence {i} of X.")
            raise

    def _transform_rows(self, function, rows):
        result = function(rows)
        before, after = (
            (one if hasattr(one, "shape") else np.asarray(one)).shape[0] for one in (rows, result)
        )
        if before != after:
            raise ValueError(
                "Stepwise needs a transformer that gives one row for each step: "
                f"{type(self.transformer_).__name__} made {after} rows of {before}."
            )
        return result

    @_inner_has("get_feature_names_out")
    def get_feature_names_out(self, input_features=None):
        """Names of the columns that the transformer makes.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self, "transformer_")
        return self.transformer_.get_feature_names_out(input_features)
