"""scikit-learn's tools around the estimators: whole sequences in every fold, or an error."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from conftest import estimator_class
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from sklseq import GaussianHMM, PoissonHMM, Stepwise, concat_sequences
from sklseq.datasets import load_earthquakes, load_seizures

QUICK = {"max_iter": 10, "tol": 1e-3, "n_init": 1, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    truth = GaussianHMM.from_parameters(
        startprob=[1.0, 0.0],
        transmat=[[0.8, 0.2], [0.1, 0.9]],
        means=[[0.0, 5.0], [4.0, -3.0]],
        covars=[[1.0, 2.0], [3.0, 1.0]],
    )
    return [truth.sample(n, random_state=i)[0] for i, n in enumerate(rng.integers(3, 25, 20))]


def fold_by_hand(parameters, sequences, train, test):
    scaler = StandardScaler().fit(np.vstack([sequences[i] for i in train]))
    model = GaussianHMM(**QUICK, **parameters)
    model.fit([scaler.transform(sequences[i]) for i in train])
    return model.score([scaler.transform(sequences[i]) for i in test])


def test_grid_search_on_a_list_of_sequences(sequences):
    grid = {"gaussianhmm__n_components": [1, 2], "gaussianhmm__covariance_type": ["diag", "full"]}
    search = GridSearchCV(
        make_pipeline(Stepwise(StandardScaler()), GaussianHMM(**QUICK)), grid, cv=5
    ).fit(sequences)
    assert search.best_params_["gaussianhmm__n_components"] == 2
    for place, parameters in enumerate(search.cv_results_["params"]):
        bare = {name.split("__")[1]: value for name, value in parameters.items()}
        for fold, (train, test) in enumerate(KFold(5).split(sequences)):
            expected = fold_by_hand(bare, sequences, train, test)
            got = search.cv_results_[f"split{fold}_test_score"][place]
            assert got == pytest.approx(expected, rel=1e-9)
    paths = search.predict(sequences)
    assert [len(path) for path in paths] == [len(X) for X in sequences]


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="before 1.8, scikit-learn does not route groups to a Pipeline's score in a search",
)
def test_grid_search_with_groups_and_routing_equals_each_fold_by_hand(sequences):
    X, groups = concat_sequences(sequences)
    grid = {"gaussianhmm__n_components": [1, 2, 3]}
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), GaussianHMM(**QUICK)), grid, cv=GroupKFold(5)
        ).fit(X, groups=groups)
    for place, n_components in enumerate([1, 2, 3]):
        for fold, (train, test) in enumerate(GroupKFold(5).split(X, groups=groups)):
            expected = fold_by_hand(
                {"n_components": n_components},
                sequences,
                np.unique(groups[train]),
                np.unique(groups[test]),
            )
            got = search.cv_results_[f"split{fold}_test_score"][place]
            assert got == pytest.approx(expected, rel=1e-9)


def test_routing_in_other_tools(sequences):
    X, groups = concat_sequences(sequences)
    model = GaussianHMM(2, **QUICK)
    with config_context(enable_metadata_routing=True):
        flat = cross_val_score(model, X, cv=GroupKFold(4), params={"groups": groups})
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(X, groups=groups)
        states = pipeline.predict(X, groups=groups)
        score = pipeline.score(X, groups=groups)
        cross_validate(pipeline, X, cv=GroupKFold(4), params={"groups": groups})
        learning_curve(
            pipeline, X, None, cv=GroupKFold(4), params={"groups": groups}, train_sizes=[1.0]
        )
    by_hand = []
    for train, test in GroupKFold(4).split(X, groups=groups):
        fitted = clone(model).fit(X[train], groups=groups[train])
        by_hand.append(fitted.score(X[test], groups=groups[test]))
    np.testing.assert_allclose(flat, by_hand, rtol=1e-10)
    scaled = StandardScaler().fit_transform(X)
    again = clone(model).fit(scaled, groups=groups)
    np.testing.assert_array_equal(states, again.predict(scaled, groups=groups))
    assert score == pytest.approx(again.score(scaled, groups=groups))


def test_routing_with_a_list_hands_the_groups_of_sequences_to_fit(sequences):
    patients = np.arange(20) // 2
    model = GaussianHMM(2, **QUICK)
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=GroupKFold(5))
        search.fit(sequences, groups=patients)
    for fold, (train, test) in enumerate(GroupKFold(5).split(sequences, groups=patients)):
        fitted = GaussianHMM(2, **QUICK).fit([sequences[i] for i in train])
        expected = fitted.score([sequences[i] for i in test])
        assert search.cv_results_[f"split{fold}_test_score"][1] == pytest.approx(expected)
    # routing off: the splitter alone has the groups, and a list needs no more
    off = GridSearchCV(model, {"n_components": [1, 2]}, cv=GroupKFold(5))
    off.fit(sequences, groups=patients)
    np.testing.assert_array_equal(
        off.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize("routing", [False, True])
def test_lengths_inside_cross_validation_raise(sequences, routing):
    X, lengths = np.vstack(sequences), [len(s) for s in sequences]
    model = GaussianHMM(2, **QUICK)
    with config_context(enable_metadata_routing=routing):
        if routing:
            model.set_fit_request(lengths=True)
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=3, error_score="raise")
        with pytest.raises(ValueError, match="lengths"):
            search.fit(X, lengths=lengths)


def test_a_ragged_list_in_cross_val_predict(sequences):
    model = GaussianHMM(2, **QUICK)
    states = cross_val_predict(model, sequences, cv=4)
    assert [len(path) for path in states] == [len(X) for X in sequences]
    for train, test in KFold(4).split(sequences):
        fitted = clone(model).fit([sequences[i] for i in train])
        for i, path in zip(test, fitted.predict([sequences[i] for i in test])):
            np.testing.assert_array_equal(states[i], path)
    posteriors = cross_val_predict(model, sequences, cv=4, method="predict_proba")
    assert [p.shape for p in posteriors] == [(len(X), 2) for X in sequences]


def test_other_splitters_and_searches_on_a_list(sequences):
    model = GaussianHMM(**QUICK)
    train, test = train_test_split(sequences, random_state=0, test_size=0.25)
    assert (len(train), len(test)) == (15, 5)
    assert np.isfinite(clone(model).fit(train).score(test))
    search = RandomizedSearchCV(
        model, {"n_components": [1, 2]}, n_iter=2, cv=3, random_state=0, n_jobs=2
    ).fit(sequences)
    assert search.best_params_ == {"n_components": 2}
    scores = cross_val_score(model, np.array(sequences, dtype=object), cv=4)
    np.testing.assert_array_equal(scores, cross_val_score(model, sequences, cv=4))


def test_time_series_split_continues_where_training_ended():
    """One long series: each block starts from the state filtered at the end of its past."""
    X = load_earthquakes().data
    model = PoissonHMM(2, continues=True, max_iter=30, n_init=2, random_state=0)
    scores = cross_val_score(model, X, cv=TimeSeriesSplit(4))
    by_hand = []
    for train, test in TimeSeriesSplit(4).split(X):
        fitted = clone(model).fit(X[train]).set_params(continues=False)
        by_hand.append(fitted.score_samples(X[: test[-1] + 1])[test].mean())
    np.testing.assert_allclose(scores, by_hand, rtol=1e-9)
    restarted = cross_val_score(clone(model).set_params(continues=False), X, cv=TimeSeriesSplit(4))
    assert not np.allclose(scores, restarted, rtol=1e-6)


def test_a_bad_grid_point_is_reported_not_swallowed(sequences):
    search = GridSearchCV(GaussianHMM(**QUICK), {"tol": [-1.0]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="tol"):
        search.fit(sequences)


# --- Estimator manners --------------------------------------------------------------------------


def test_clone_pickle_and_set_params(family, rng):
    parameters = family.random_parameters(rng, 2, 2)
    sequences = [family.sample(rng, n, parameters) for n in (20, 30)]
    model = estimator_class(family)(2, **QUICK, **family.estimator_parameters).fit(sequences)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.score_sequences(sequences), model.score_sequences(sequences))
    np.testing.assert_array_equal(copy.transmat_, model.transmat_)
    again = clone(model)
    assert not hasattr(again, "transmat_")
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.fit(sequences).transmat_, model.transmat_)
    changed = model.set_params(max_iter=1, n_components=3).fit(sequences)
    assert changed.n_iter_ == 1
    assert changed.transmat_.shape == (3, 3)


def test_from_parameters_is_a_fitted_estimator_that_clones(family, rng, known):
    parameters = family.random_parameters(rng, 2, 2)
    model = known(parameters)
    assert model.n_components == 2
    assert model.n_features_in_ == 2
    X = family.sample(rng, 5, parameters)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.score(X) == model.score(X)
    assert not hasattr(clone(model), "transmat_")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"startprob": [0.5, 0.6]}, "startprob"),
        ({"startprob": [1.5, -0.5]}, "startprob"),
        ({"startprob": [0.5, 0.2, 0.3]}, "startprob|transmat"),
        ({"transmat": [[0.5, 0.4], [0.5, 0.5]]}, "transmat"),
        ({"transmat": [[0.5, 0.5]]}, "transmat"),
        ({"transmat": [[np.nan, 0.5], [0.5, 0.5]]}, "transmat"),
        ({"means": [[0.0]]}, "means"),
        ({"means": [[0.0], [np.inf]]}, "means"),
        ({"covars": [[1.0], [0.0]]}, "covars"),
        ({"covars": [[1.0], [-1.0]]}, "covars"),
        ({"covars": [1.0, 1.0]}, "covars"),
    ],
)
def test_from_parameters_checks_what_it_gets(change, word):
    good = {
        "startprob": [0.5, 0.5],
        "transmat": [[0.5, 0.5], [0.5, 0.5]],
        "means": [[0.0], [1.0]],
        "covars": [[1.0], [1.0]],
    }
    GaussianHMM.from_parameters(**good)
    with pytest.raises(ValueError, match=word):
        GaussianHMM.from_parameters(**{**good, **change})
    starts = {f"{name}_init": value for name, value in {**good, **change}.items()}
    with pytest.raises(ValueError, match=word):
        GaussianHMM(2, **starts).fit(np.zeros((5, 1)) + np.arange(5)[:, None])


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 1.5}, "n_components"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"tol": -1.0}, "tol"),
        ({"tol": "small"}, "tol"),
        ({"max_iter": -1}, "max_iter"),
        ({"n_init": 0}, "n_init"),
        ({"reg_covar": -1.0}, "reg_covar"),
        ({"algorithm": "greedy"}, "algorithm"),
        ({"initial_state": "random"}, "initial_state"),
        ({"fixed": ("letters",)}, "fixed"),
        ({"n_jobs": 1.5}, "n_jobs"),
    ],
)
def test_bad_parameters_are_named_with_the_value_got(parameters, word):
    (value,) = parameters.values()
    with pytest.raises((ValueError, TypeError), match=word) as error:
        GaussianHMM(**parameters).fit(np.random.default_rng(0).normal(size=(20, 1)))
    shown = value[0] if isinstance(value, tuple) else value
    assert str(shown) in str(error.value)


def test_the_states_are_a_feature_step(sequences):
    """An HMM is a transformer: its smoothed state probabilities feed the next step."""
    X, groups = concat_sequences(sequences)
    union = FeatureUnion([("scaled", StandardScaler()), ("states", GaussianHMM(2, **QUICK))])
    features = union.fit_transform(X)
    assert features.shape == (len(X), 4)
    fitted = GaussianHMM(2, **QUICK).set_output(transform="pandas").fit(X, groups=groups)
    frame = fitted.transform(X, groups=groups)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == list(fitted.get_feature_names_out())
    assert frame.shape == (len(X), 2)


def test_seizures_the_readme_search():
    seizures = load_seizures()
    search = GridSearchCV(PoissonHMM(**QUICK), {"n_components": [1, 2, 3]}, cv=5)
    search.fit(seizures.sequences)
    # one rate for all patients is far off
    assert search.best_params_["n_components"] > 1
    flat = cross_val_score(
        PoissonHMM(2, **QUICK), seizures.sequences, groups=range(59), cv=GroupKFold(5)
    )
    assert np.isfinite(flat).all()
