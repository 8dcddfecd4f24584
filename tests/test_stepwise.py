"""Stepwise: every container, every kind of output, and sequences that stay apart."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
from scipy import sparse
from sklearn import clone, config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.utils import get_tags

from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    KalmanSmoother,
    SequenceClassifier,
    SoftmaxStateSpace,
    Stepwise,
    concat_sequences,
)
from sklseq.preprocessing import ROW_WISE, _is_row_wise


def object_array(items):
    result = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        result[i] = item
    return result


LENGTHS = (4, 1, 6)
RNG = np.random.default_rng(0)
RAGGED = [RNG.normal(size=(n, 2)) for n in LENGTHS]
CUBE = RNG.normal(size=(3, 4, 2))


def named(items):
    pandas = pytest.importorskip("pandas")
    return pandas.Series(object_array(items), index=list("abc"), name="walks")


CONTAINERS = {
    "list": lambda: RAGGED,
    "tuple": lambda: tuple(RAGGED),
    "object": lambda: object_array(RAGGED),
    "cube": lambda: CUBE,
    "dict": lambda: dict(zip("abc", RAGGED)),
    "Series": lambda: named(RAGGED),
}


class Doubling(TransformerMixin, BaseEstimator):
    """Somebody else's row-wise transformer, of which nothing is known."""

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return 2.0 * np.asarray(X)

    def get_feature_names_out(self, input_features=None):
        return np.array([f"twice{i}" for i in range(self.n_features_in_)], dtype=object)


MAKERS = {
    "known": StandardScaler,
    "unknown": Doubling,
    "csr": lambda: OneHotEncoder(handle_unknown="ignore"),
}


def values_of(part):
    return part.toarray() if sparse.issparse(part) else np.asarray(part)


# --- every container x every output x every place to ask for it -----------------------------------


@pytest.mark.parametrize(
    "container, maker, output, where",
    [
        case
        for case in itertools.product(
            CONTAINERS, MAKERS, ["default", "pandas", "polars"], ["inner", "Stepwise", "config"]
        )
        if not (case[1] == "csr" and case[2] != "default")  # scikit-learn refuses it
    ],
)
def test_containers_and_outputs(container, maker, output, where):
    library = None if output == "default" else pytest.importorskip(output)
    X = CONTAINERS[container]()
    inner, context = MAKERS[maker](), nullcontext()
    plain = clone(inner).fit(concat_sequences(X)[0])
    if where == "inner":
        inner.set_output(transform=output)
    stepwise = Stepwise(inner)
    if where == "Stepwise":
        stepwise = clone(stepwise.set_output(transform=output))  # clones keep it
    if where == "config":
        context = config_context(transform_output=output)
    with context:
        result = stepwise.fit_transform(X)
        again = stepwise.transform(X)
    sequences = list(X.values()) if isinstance(X, dict) else list(X)
    if container == "cube" and maker != "csr" and output == "default":
        assert result.shape[:2] == CUBE.shape[:2]
    else:
        assert type(result) is (list if container == "cube" else type(X))
    parts, others = (
        list(one.values()) if isinstance(one, dict) else list(one) for one in (result, again)
    )
    for part, other, sequence in zip(parts, others, sequences, strict=True):
        np.testing.assert_allclose(
            values_of(part), values_of(plain.transform(sequence)), atol=1e-14
        )
        np.testing.assert_array_equal(values_of(part), values_of(other))
        if library is not None:
            assert isinstance(part, library.DataFrame)
            assert list(part.columns) == list(stepwise.get_feature_names_out())
        elif maker == "csr":
            assert sparse.issparse(part)
        else:
            assert type(part) is np.ndarray
    if container in ("dict", "Series"):
        assert list(result.keys()) == list("abc")


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_what_comes_out_goes_into_a_model(output):
    if output != "default":
        pytest.importorskip(output)
    for X in (RAGGED, CUBE):
        expected = make_pipeline(Stepwise(StandardScaler()), GaussianHMM(2, random_state=0))
        expected = expected.fit(X).score(X)
        model = make_pipeline(Stepwise(StandardScaler()), GaussianHMM(2, random_state=0))
        with config_context(transform_output=output):
            assert model.fit(X).score(X) == expected
        assert hasattr(model[-1], "feature_names_in_") == (output != "default")
        assert model.set_output(transform="default").fit(X).transform(X)[0].shape == (4, 2)


def test_counts_as_sparse_matrices_reach_a_model():
    codes = [RNG.integers(0, 3, size=(n, 1)) for n in (9, 5)]
    model = make_pipeline(
        Stepwise(OneHotEncoder()), SoftmaxStateSpace(1, max_iter=1, n_particles=10, random_state=0)
    )
    dense = make_pipeline(
        Stepwise(OneHotEncoder(sparse_output=False)),
        SoftmaxStateSpace(1, max_iter=1, n_particles=10, random_state=0),
    )
    with pytest.warns(Warning, match="did not converge"):
        expected = dense.fit(codes).score(codes)
        assert model.fit(codes).score(codes) == expected
    cube = np.stack([codes[0][:5], codes[1]])
    assert model.score(cube) == model.score(list(cube))


def test_frames_keep_their_index():
    pandas = pytest.importorskip("pandas")
    frames = [
        pandas.DataFrame(X, columns=["x", "y"], index=np.arange(len(X)) + 100.0) for X in RAGGED
    ]
    for inner in (StandardScaler(), Doubling()):
        for part, frame in zip(
            Stepwise(inner.set_output(transform="pandas")).fit_transform(frames), frames
        ):
            pandas.testing.assert_index_equal(part.index, frame.index)
    back = Stepwise(StandardScaler().set_output(transform="pandas")).fit(frames)
    for part, frame in zip(back.inverse_transform(back.transform(frames)), frames):
        np.testing.assert_allclose(np.asarray(part), frame.to_numpy(), atol=1e-14)


def test_a_flat_X_has_the_output_of_the_transformer():
    pandas = pytest.importorskip("pandas")
    flat = Stepwise(StandardScaler()).set_output(transform="pandas").fit_transform(RAGGED[0])
    assert isinstance(flat, pandas.DataFrame)
    assert not hasattr(Stepwise(object()), "set_output")


# --- sequences stay apart -------------------------------------------------------------------------


def lag(X):
    """The row before; NaN in front of the first."""
    return np.vstack([np.full((1, X.shape[1]), np.nan), np.asarray(X)[:-1]])


def rolling(X):
    return np.cumsum(X, axis=0) / np.arange(1, len(X) + 1)[:, None]


def centred(X):
    return X - X.mean(axis=0)


@pytest.mark.parametrize("function", [lag, rolling, centred])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("around", ["bare", "Pipeline", "ColumnTransformer", "FeatureUnion"])
def test_values_do_not_leak_between_sequences(function, container, around):
    X = CONTAINERS[container]()
    inner = FunctionTransformer(function)
    inner = {
        "bare": lambda: inner,
        "Pipeline": lambda: make_pipeline(StandardScaler(with_mean=False, with_std=False), inner),
        "ColumnTransformer": lambda: make_column_transformer((inner, [0, 1])),
        "FeatureUnion": lambda: make_union(inner, FunctionTransformer(function)),
    }[around]()
    result = Stepwise(inner).fit_transform(X)
    parts = result.values() if isinstance(result, dict) else result
    sequences = X.values() if isinstance(X, dict) else X
    for part, sequence in zip(parts, sequences, strict=True):
        np.testing.assert_allclose(np.asarray(part)[:, :2], function(sequence), atol=1e-14)


ROW_WISE_EXAMPLES = [
    StandardScaler(),
    QuantileTransformer(n_quantiles=5),
    PolynomialFeatures(2),
    KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
    PCA(1),
    SimpleImputer(),
    make_pipeline(StandardScaler(), PCA(2)),
    make_union(StandardScaler(), PCA(1)),
    ColumnTransformer([("a", StandardScaler(), [0])], remainder="passthrough"),
]


@pytest.mark.parametrize("inner", ROW_WISE_EXAMPLES, ids=lambda one: type(one).__name__)
def test_row_wise_transformers_are_as_sequence_by_sequence(inner):
    """What is taken for row-wise is: joined, and each sequence by itself."""
    assert _is_row_wise(inner)
    stepwise = Stepwise(inner).fit(RAGGED)
    for part, sequence in zip(stepwise.transform(RAGGED), RAGGED):
        np.testing.assert_allclose(part, stepwise.transformer_.transform(sequence), atol=1e-13)


def test_only_what_is_known_is_taken_for_row_wise():
    class Mine(StandardScaler):
        pass

    for inner in (
        FunctionTransformer(), Doubling(), Mine(), make_pipeline(Doubling()),
        make_pipeline(StandardScaler(), FunctionTransformer(lag)),
        ColumnTransformer([("a", StandardScaler(), [0])], remainder=FunctionTransformer(lag)),
    ):  # fmt: skip
        assert not _is_row_wise(inner)


def test_names_of_row_wise_transformers_exist():
    import importlib

    for module, names in ROW_WISE.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name)


def test_the_sequence_of_an_error_is_named():
    def refuse(X):
        if len(X) == 1:
            raise ValueError("one row only")
        return X

    stepwise = Stepwise(FunctionTransformer(refuse)).fit(RAGGED)
    with pytest.raises(ValueError, match="one row only") as caught:
        stepwise.transform(RAGGED)
    assert caught.value.__notes__ == ["This was sequence 1 of X."]


# --- what is put inside ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        GaussianHMM(), KalmanSmoother(1), CategoricalHMM(),
        make_pipeline(StandardScaler(), GaussianHMM()),
        make_union(StandardScaler(), KalmanSmoother(1)),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_models_of_sequences_are_refused(inner):
    with pytest.raises(TypeError, match=r"(HMM|Smoother) reads whole sequences.*without Stepwise"):
        Stepwise(inner).fit(RAGGED)


@pytest.mark.parametrize(
    "inner", ["passthrough", None, LogisticRegression(), StandardScaler, SequenceClassifier(None)]
)
def test_what_is_no_transformer_is_refused(inner):
    stepwise = Stepwise(inner)
    repr(stepwise), get_tags(stepwise), clone(stepwise)  # it can be looked at before
    with pytest.raises(TypeError, match=r"Stepwise needs a transformer.*got"):
        stepwise.fit(RAGGED)


def test_no_step_at_all_in_a_search_is_passthrough_for_the_whole():
    with pytest.raises(TypeError, match="'passthrough' in the place of the whole Stepwise"):
        Stepwise("passthrough").fit(RAGGED)
    model = make_pipeline(Stepwise(StandardScaler()), GaussianHMM(random_state=0))
    model.set_params(stepwise="passthrough").fit(RAGGED)


def test_tags_of_the_transformer_are_handed_on():
    for inner in (FunctionTransformer(), FunctionTransformer(validate=True), SimpleImputer()):
        ours, theirs = get_tags(Stepwise(inner)), get_tags(inner)
        assert ours.no_validation == theirs.no_validation
        assert ours.input_tags == theirs.input_tags
        assert ours.transformer_tags == theirs.transformer_tags


def test_strings_reach_a_transformer_that_validates_nothing():
    words = [np.array([["a"], ["b"]]), np.array([["b"]])]
    upper = Stepwise(FunctionTransformer(lambda X: np.char.upper(X.astype(str))))
    assert [part.tolist() for part in upper.fit_transform(words)] == [[["A"], ["B"]], [["B"]]]


@pytest.mark.parametrize("kind", ["lists", "mixed"])
def test_frames_out_of_sequences_without_an_index(kind):
    """A list has a method called index, and not every item is what the first is."""
    first = [[1.0, 2.0], [3.0, 4.0]]
    pd = pytest.importorskip("pandas")
    X = [first, [[5.0, 6.0]]]
    if kind == "mixed":
        X = [pd.DataFrame(first, columns=["a", "b"], index=[7, 9]), np.array(X[1])]
    frames = Stepwise(StandardScaler()).set_output(transform="pandas").fit_transform(X)
    assert [list(frame.index) for frame in frames] == [[7, 9] if kind == "mixed" else [0, 1], [0]]
