"""What SequenceClassifier takes as its estimator, and what a refit leaves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse
from sklearn import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_html_repr, get_tags

from sklseq import (
    CategoricalHMM,
    CharRNNLanguageModel,
    GaussianHMM,
    KalmanSmoother,
    PoissonHMM,
    SequenceClassifier,
    SoftmaxStateSpace,
    Stepwise,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
QUICK = {"max_iter": 3, "n_init": 1, "random_state": 0}
RNG = np.random.default_rng(0)
Y = np.array(["calm", "lively"] * 4)
X = [RNG.normal(0, 1 + 2 * (label == "lively"), size=(n, 2)) for label, n in zip(Y, range(5, 13))]


# --- searches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("refit", [True, "mine"])
def test_a_search_is_scored_by_its_best(refit):
    scoring = {"mine": lambda model, X, y=None: model.score(X)} if refit == "mine" else None
    search = GridSearchCV(
        GaussianHMM(**QUICK), {"n_components": [1, 2]}, cv=2, refit=refit, scoring=scoring
    )
    classifier = SequenceClassifier(search).fit(X, Y)
    best = [one.best_params_["n_components"] for one in classifier.estimators_]
    for label, n_components, one in zip(classifier.classes_, best, classifier.estimators_):
        own = [x for x, y in zip(X, Y) if y == label]
        alone = GaussianHMM(n_components, **QUICK).fit(own)
        assert alone.score(own) == one.best_estimator_.score(own)
    joint = np.stack(
        [one.best_estimator_.score_sequences(X) for one in classifier.estimators_], axis=1
    ) + np.log(0.5)
    expected = joint - np.logaddexp(joint[:, :1], joint[:, 1:])
    np.testing.assert_allclose(classifier.predict_log_proba(X), expected, rtol=1e-12)
    assert classifier.score(X, Y) > 0.8


def test_a_search_in_a_pipeline_of_steps():
    search = RandomizedSearchCV(GaussianHMM(**QUICK), {"n_components": [1, 2]}, n_iter=1, cv=2)
    classifier = SequenceClassifier(
        make_pipeline(Stepwise(StandardScaler()), search), random_state=0
    ).fit(X, Y)
    assert len(classifier.transformers_) == 1
    assert classifier.predict(X).shape == (8,)


def test_a_search_over_codes_knows_those_of_all_classes():
    codes = [RNG.integers(0, 2 + 2 * (label == "lively"), size=(9, 1)) for label in Y]
    search = GridSearchCV(CategoricalHMM(alpha=2.0, **QUICK), {"n_components": [1, 2]}, cv=2)
    assert np.isfinite(SequenceClassifier(search).fit(codes, Y).predict_log_proba(codes)).all()


def test_a_search_over_models_of_texts():
    words = ["abab", "ba", "abba", "b"] * 2 + ["cccd", "dc", "cd", "dd"] * 2
    y = np.repeat(["ab", "cd"], 8)
    model = CharRNNLanguageModel(hidden_size=4, max_iter=2, random_state=0)
    search = GridSearchCV(model, {"hidden_size": [4]}, cv=2)
    one, two = (SequenceClassifier(each).fit(words, y) for each in (search, model))
    np.testing.assert_array_equal(one.predict_proba(words), two.predict_proba(words))


@pytest.mark.parametrize(
    "estimator, message",
    [
        (LogisticRegression(), r"needs a model of sequences.*got LogisticRegression\(\)"),
        (None, "needs a model of sequences.*got None"),
        ("passthrough", "needs a model of sequences.*got 'passthrough'"),
        (GaussianHMM, "needs a model of sequences.*got <class"),
        (Stepwise(StandardScaler()), "needs a model of sequences.*got Stepwise"),
        (GridSearchCV(LogisticRegression(), {}), r"needs a model.*got LogisticRegression\(\)"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "needs a model of sequences"),
        (GridSearchCV(GaussianHMM(), {}, refit=False), "GridSearchCV needs refit=True, got False"),
        (GridSearchCV(make_pipeline(GaussianHMM()), {}), "Search in the Pipeline instead"),
        (FrozenEstimator(GaussianHMM()), "does not learn"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_what_is_no_model_is_refused_before_anything_is_fitted(estimator, message):
    classifier = SequenceClassifier(estimator)
    get_tags(classifier), repr(classifier), estimator_html_repr(classifier), clone(classifier)
    with pytest.raises(TypeError, match=message):
        classifier.fit(X, Y)
    assert not hasattr(classifier, "estimators_")


@pytest.mark.parametrize("cube", [False, True])
def test_a_pipeline_without_stepwise_is_told_of_it(cube):
    data = np.stack([x[:5] for x in X]) if cube else X
    classifier = SequenceClassifier(make_pipeline(StandardScaler(), GaussianHMM(**QUICK)))
    with pytest.raises(ValueError, match=r"collection of sequences.*Stepwise\(StandardScaler"):
        classifier.fit(data, Y)


def test_the_models_own_errors_stay_their_own():
    broken = [np.array([[0.0], [np.inf]])] * 4
    classifier = SequenceClassifier(make_pipeline(Stepwise(StandardScaler()), GaussianHMM()))
    with pytest.raises(ValueError, match=r"^(?!.*on a collection)"):
        classifier.fit(broken, Y[:4])
    # what takes collections as they are may stand in the Pipeline
    anything = make_pipeline(FunctionTransformer(), GaussianHMM(**QUICK))
    assert SequenceClassifier(anything).fit(X, Y).score(X, Y) > 0.8


# --- tags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [GaussianHMM(), PoissonHMM(), SoftmaxStateSpace()])
def test_tags_say_what_is_taken(model):
    for estimator in (model, GridSearchCV(model, {})):
        tags = get_tags(SequenceClassifier(estimator)).input_tags
        own = get_tags(model).input_tags
        assert not tags.sparse  # a row would be a sequence of scalars
        assert (tags.allow_nan, tags.positive_only) == (own.allow_nan, own.positive_only)


def test_sparse_matrices_are_sequences_in_a_list():
    counts = [RNG.poisson(1 + 2 * (label == "lively"), size=(6, 3)) + 1 for label in Y]
    classifier = SequenceClassifier(
        SoftmaxStateSpace(1, max_iter=1, n_particles=10, random_state=0)
    )
    expected = clone(classifier).fit(counts, Y).predict_proba(counts)
    rows = [sparse.csr_array(x) for x in counts]
    np.testing.assert_allclose(classifier.fit(rows, Y).predict_proba(rows), expected, rtol=1e-9)
    assert classifier.n_features_in_ == 3
    with pytest.raises(TypeError, match="dense data is required"):
        classifier.fit(sparse.csr_array(np.ones((8, 3))), Y)


# --- fit(A).fit(B) is fit(B) ----------------------------------------------------------------------


def forms():
    """Names and columns differ, so that what is left of a fit before shows."""
    pandas = pytest.importorskip("pandas")
    cube = np.stack([x[:5] for x in X])
    frames = [pandas.DataFrame(x, columns=["x", "y"]) for x in X]
    return {
        "list": X,
        "one column": [x[:, :1] for x in X],
        "cube": cube,
        "frames": frames,
        "other frames": [frame.rename(columns={"x": "u"}) for frame in frames],
        "array": cube[:, :, 0],
        "frame": pandas.DataFrame(cube[:, :, 0], columns=list("abcde")),
        "dict": dict(zip("abcdefgh", X)),
    }


def attributes(estimator):
    found = {}
    for name, value in vars(estimator).items():
        if name.endswith("_") and not name.startswith("_"):
            found[name] = np.asarray(value).tolist() if name.endswith("_in_") else None
    return found


@pytest.mark.parametrize(
    "estimator",
    [
        Stepwise(StandardScaler()), GaussianHMM(1, **QUICK), KalmanSmoother(1, **QUICK),
        SequenceClassifier(GaussianHMM(1, **QUICK)),
        SequenceClassifier(make_pipeline(Stepwise(StandardScaler()), GaussianHMM(1, **QUICK))),
    ],
    ids=["Stepwise", "GaussianHMM", "KalmanSmoother", "classifier", "classifier of a pipeline"],
)  # fmt: skip
def test_a_refit_leaves_nothing_of_the_fit_before(estimator):
    every = forms()
    if not isinstance(estimator, SequenceClassifier):  # y of a flat X would be of steps
        every["frame"], every["array"] = every["frames"][5], X[5]
    labels = Y if isinstance(estimator, SequenceClassifier) else None
    fresh = {name: attributes(clone(estimator).fit(one, labels)) for name, one in every.items()}
    for first, second in itertools.permutations(every, 2):
        both = clone(estimator).fit(every[first], labels).fit(every[second], labels)
        assert attributes(both) == fresh[second], (first, second)
