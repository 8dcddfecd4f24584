"""What scikit-learn and its neighbours expect of an estimator beyond its battery.

Notebooks look at every attribute, searches clone, frames have names and missing values: what they
do to an estimator is done here to every class of the registry.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from registry import ENTRIES, counts, labels, public_estimators, texts, vectors
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils import estimator_html_repr, get_tags

import sklseq
from sklseq import (
    CategoricalHMM,
    CharRNNClassifier,
    CharRNNLanguageModel,
    GaussianHMM,
    GaussianMixtureHMM,
    KalmanSmoother,
    MultinomialHMM,
    PoissonHMM,
    TopicMixture,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def ways(entry):
    """The ways to come to a fitted estimator that it has."""
    return [
        "unfitted",
        "fit",
        *(["flat"] if entry.flat else []),
        *(["partial_fit"] if hasattr(entry.make(), "partial_fit") else []),
    ]


EVERY_WAY = [
    pytest.param(entry, how, id=f"{entry.name}-{how}") for entry in ENTRIES for how in ways(entry)
]


def prepared(entry, how):
    estimator = entry.make()
    X, y = entry.data()
    if how == "unfitted":
        return estimator
    if how == "flat":
        return estimator.fit(entry.flat())
    if how == "fit":
        return estimator.fit(X, y)
    return estimator.partial_fit(X, *(() if y is None else (y, np.unique(y))))


# --- what a notebook looks at ---------------------------------------------------------------------


def show(estimator):
    """As scikit-learn's display does; a property that raises another error fails it."""
    inspect.getmembers(estimator)
    assert type(estimator).__name__ in estimator_html_repr(estimator)
    for name in dir(estimator):
        hasattr(estimator, name)


@pytest.mark.parametrize("entry, how", EVERY_WAY)
def test_every_estimator_can_be_shown(entry, how):
    show(prepared(entry, how))


REDUCIBLE = {"startprob": [0.5, 0.5], "transmat": np.eye(2)}


@pytest.mark.parametrize(
    "model",
    [
        GaussianHMM.from_parameters(**REDUCIBLE, means=[[0.0], [1.0]], covars=[[1.0], [1.0]]),
        CategoricalHMM.from_parameters(**REDUCIBLE, emissionprob=[[0.5, 0.5], [0.1, 0.9]]),
        PoissonHMM.from_parameters(**REDUCIBLE, rates=[[1.0], [2.0]]),
        MultinomialHMM.from_parameters(**REDUCIBLE, emissionprob=[[0.5, 0.5], [0.1, 0.9]]),
        GaussianMixtureHMM.from_parameters(
            **REDUCIBLE, means=[[[0.0]], [[1.0]]], covars=[[[1.0]], [[1.0]]],
            weights=[[1.0], [1.0]],
        ),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_a_chain_without_a_stationary_distribution_can_be_shown(model):
    show(model)
    assert not hasattr(model, "stationary_distribution_")
    with pytest.raises(ValueError, match="stationary_distribution_ is not defined"):
        _ = model.stationary_distribution_


def test_a_classifier_of_numbers_has_no_vocabulary():
    model = CharRNNClassifier(hidden_size=4, max_iter=1, random_state=0)
    model.fit(np.random.default_rng(0).normal(size=(12, 5)), labels(12))
    show(model)
    assert not hasattr(model, "vocabulary_")


# --- a method, and the mixin it comes with --------------------------------------------------------

MIXINS = {
    TransformerMixin: {"transform", "fit_transform", "set_output"},
    ClassNamePrefixFeaturesOutMixin: {"get_feature_names_out"},
    ClassifierMixin: {"predict_log_proba"},
    DensityMixin: {"score_samples"},
}


@pytest.mark.parametrize("name", public_estimators())
def test_methods_and_mixins_go_together(name):
    item = public_estimators()[name]
    for mixin, methods in MIXINS.items():
        if name == "Stepwise" and mixin is ClassNamePrefixFeaturesOutMixin:
            continue  # its names are those of what it wraps
        assert {hasattr(item, method) for method in methods} == {issubclass(item, mixin)}, mixin


def test_states_of_a_language_model_as_a_frame():
    pandas = pytest.importorskip("pandas")
    model = CharRNNLanguageModel(hidden_size=4, max_iter=1, random_state=0)
    states = model.fit_transform(texts())
    frame = model.set_output(transform="pandas").transform(texts())
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(model.get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), states)
    assert get_tags(model).estimator_type == "density_estimator"


# --- groups with missing labels -------------------------------------------------------------------


def missing_labels():
    pandas = pytest.importorskip("pandas")
    times = np.array(["2024-01-01", "2024-01-01", "NaT", "2024-01-02"], dtype="datetime64[ns]")
    yield [1.0, 1.0, np.nan, 2.0]
    yield np.array(["a", "a", np.nan, "b"], dtype=object)
    yield ["a", "a", None, "b"]
    yield times
    yield pandas.Series(times)
    yield times - times[0]
    yield pandas.Series([1, 1, None, 2], dtype="Int64")
    yield pandas.Series(["a", "a", None, "b"], dtype="string")
    yield pandas.Series(["a", "a", None, "b"], dtype="category")
    polars = pytest.importorskip("polars")
    yield polars.Series([1, 1, None, 2])
    yield polars.Series(["a", "a", None, "b"])


def test_a_missing_label_of_a_group_is_an_error():
    X = np.arange(4.0)[:, None]
    model = GaussianHMM(1).fit(X)
    for groups in missing_labels():
        for call in (model.score, model.predict, GaussianHMM(1).fit):
            with pytest.raises(ValueError, match=r"groups must have a label.*at row 2"):
                call(X, groups=groups)
        with pytest.raises(ValueError, match=r"groups must have a label.*at row 2"):
            sklseq.split_sequences(X, groups)


def test_whole_labels_of_any_kind_are_groups():
    pandas = pytest.importorskip("pandas")
    X = np.arange(4.0)[:, None]
    for groups in (
        [1.5, 1.5, 2.5, 2.5],
        np.array(["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02"], dtype="datetime64[ns]"),
        pandas.Series([1, 1, 2, 2], dtype="Int64"),
        pandas.Series(["a", "a", "b", "b"], dtype="category"),
        np.array(["a", "a", 3, 3], dtype=object),
    ):
        assert [len(part) for part in sklseq.split_sequences(X, groups)] == [2, 2]


# --- weights of samples ---------------------------------------------------------------------------

WEIGHED = [
    (GaussianHMM(2, max_iter=2, random_state=0), vectors()),
    (GaussianHMM(2, max_iter=2, random_state=0), vectors()[0]),
    (KalmanSmoother(1, max_iter=2, random_state=0), vectors()),
    (TopicMixture(2, max_iter=2, random_state=0), counts(5)[0] + 1),
    (CharRNNLanguageModel(hidden_size=4, max_iter=1, random_state=0), texts()),
]


@pytest.mark.parametrize(
    "model, X", WEIGHED, ids=lambda value: type(value).__name__ if hasattr(value, "fit") else ""
)
def test_weights_are_finite_or_refused(model, X):
    model.fit(X)
    weights = np.random.default_rng(0).uniform(0.5, 1.0, size=len(X))
    expected = model.score(X, sample_weight=weights)
    for scale in (1e308, 2.0**1000, 1e-300):
        assert model.score(X, sample_weight=weights * scale) == pytest.approx(expected, rel=1e-12)
    uniform = np.full(len(X), np.finfo(float).max)
    assert model.score(X, sample_weight=uniform) == pytest.approx(model.score(X), rel=1e-12)
    for wrong, text in (
        (np.inf, "finite and not negative, got inf at 0"),
        (np.nan, "finite and not negative, got nan at 0"),
        (-1.0, "finite and not negative, got -1.0 at 0"),
    ):
        with pytest.raises(ValueError, match=f"sample_weight must be {text}"):
            model.score(X, sample_weight=[wrong, *weights[1:]])
    for wrong in (np.zeros(len(X)), weights[1:], ["a"] * len(X), [[1.0]]):
        with pytest.raises(ValueError, match="sample_weight must"):
            model.score(X, sample_weight=wrong)


def test_huge_weights_train_as_their_ratios():
    X, y = texts(), labels(24)
    weights = np.random.default_rng(0).uniform(0.5, 1.0, size=24)
    for make in (CharRNNClassifier, CharRNNLanguageModel):
        one, two = (
            make(hidden_size=4, max_iter=1, random_state=0).fit(X, y, sample_weight=w)
            for w in (weights, weights * 2.0**1023)
        )
        np.testing.assert_allclose(one.output_bias_, two.output_bias_, rtol=1e-5)


# --- the part of scikit-learn's battery that needs no data ----------------------------------------

WITHOUT_DATA = [
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("check", WITHOUT_DATA)
@pytest.mark.parametrize("make", [CharRNNLanguageModel, CharRNNClassifier])
def test_models_of_texts_pass_what_needs_no_data(make, check):
    """scikit-learn's own data are numbers, so that ``check_estimator`` runs little else of them."""
    from sklearn.utils import estimator_checks

    getattr(estimator_checks, check)(make.__name__, make())
