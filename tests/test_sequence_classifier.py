"""SequenceClassifier: one generative model for each class and Bayes' rule."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklseq import (
    CategoricalHMM,
    GaussianHMM,
    GaussianMixtureHMM,
    MultinomialHMM,
    PoissonHMM,
    SequenceClassifier,
    Stepwise,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def two_dynamics(rng, n_sequences=40, n_features=1):
    """Both classes have the same marginal distribution; only the order of steps differs."""
    sequences, labels = [], []
    for i in range(n_sequences):
        stay = 0.95 if i % 2 else 0.5
        states = [rng.integers(2)]
        for _ in range(rng.integers(25, 50)):
            states.append(states[-1] if rng.random() < stay else 1 - states[-1])
        noise = rng.normal(size=(len(states), n_features))
        sequences.append(4.0 * np.array(states)[:, None] + noise)
        labels.append("slow" if i % 2 else "fast")
    return sequences, np.array(labels)


# --- Bayes' rule ----------------------------------------------------------------------------------


def test_by_hand(rng):
    sequences, y = two_dynamics(rng)
    classifier = SequenceClassifier(GaussianHMM(random_state=0)).fit(sequences, y)
    assert classifier.classes_.tolist() == ["fast", "slow"]
    np.testing.assert_allclose(classifier.class_prior_, [0.5, 0.5])
    joint = np.stack([
        np.log(0.5)
        + GaussianHMM(random_state=0).fit(
            [s for s, label in zip(sequences, y) if label == name]
        ).score_sequences(sequences)
        for name in classifier.classes_
    ], axis=1)  # fmt: skip
    np.testing.assert_allclose(classifier.predict_proba(sequences), softmax(joint, axis=1))
    np.testing.assert_array_equal(
        classifier.predict(sequences), classifier.classes_[joint.argmax(axis=1)]
    )
    np.testing.assert_allclose(
        np.exp(classifier.predict_log_proba(sequences)).sum(axis=1), 1.0
    )
    new, labels = two_dynamics(rng)
    assert classifier.score(new, labels) > 0.95


def test_order_is_what_tells_the_classes(rng):
    """One state cannot tell them; two can."""
    sequences, y = two_dynamics(rng, 80)
    scores = {
        n: cross_val_score(
            SequenceClassifier(GaussianHMM(n, random_state=0)), sequences, y, cv=4
        ).mean()
        for n in (1, 2)
    }
    assert scores[1] < 0.75
    assert scores[2] > 0.95


def test_priors(rng):
    sequences, y = two_dynamics(rng, 30)
    y[:6] = "slow"
    counted = SequenceClassifier(GaussianHMM(random_state=0)).fit(sequences, y)
    np.testing.assert_allclose(counted.class_prior_, [12 / 30, 18 / 30])
    given = SequenceClassifier(GaussianHMM(random_state=0), priors=[0.9, 0.1]).fit(sequences, y)
    shift = np.log([0.9, 0.1]) - np.log(counted.class_prior_)
    odds, counted_odds = (
        np.diff(one.predict_log_proba(sequences)).ravel() for one in (given, counted)
    )
    np.testing.assert_allclose(odds - counted_odds, np.diff(shift)[0], atol=1e-8)
    certain = SequenceClassifier(GaussianHMM(random_state=0), priors=[1.0, 0.0]).fit(sequences, y)
    assert set(certain.predict(sequences)) == {"fast"}


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [1.0], [1.5, -0.5]])
def test_what_priors_may_be(rng, wrong):
    sequences, y = two_dynamics(rng, 6)
    with pytest.raises(ValueError, match="priors"):
        SequenceClassifier(GaussianHMM(), priors=wrong).fit(sequences, y)


def test_three_classes_and_integer_labels(rng):
    means = [0.0, 3.0, 6.0]
    sequences = [rng.normal(means[i % 3], 1.0, (10, 2)) for i in range(30)]
    y = np.arange(30) % 3 * 10
    classifier = SequenceClassifier(GaussianHMM(1)).fit(sequences, y)
    assert classifier.classes_.tolist() == [0, 10, 20]
    assert classifier.score(sequences, y) == 1.0
    assert classifier.predict_proba(sequences).shape == (30, 3)


def test_one_class():
    X = [[[0.0], [1.0]], [[1.0], [2.0]]]
    classifier = SequenceClassifier(GaussianHMM(1)).fit(X, ["a", "a"])
    assert classifier.predict([[[5.0]]]).tolist() == ["a"]
    assert classifier.predict_proba([[[5.0]]]).tolist() == [[1.0]]


# --- Forms of X -----------------------------------------------------------------------------------


def as_object(parts):
    result = np.empty(len(parts), dtype=object)
    result[:] = parts
    return result


def test_every_form_gives_the_same(rng):
    rows = np.concatenate([rng.normal(0, 1, (20, 9)), np.cumsum(rng.normal(0, 1, (20, 9)), axis=1)])
    y = np.repeat([0, 1], 20)
    forms = {
        "rows": rows,
        "stacked": rows[:, :, None],
        "list": [row[:, None] for row in rows],
        "object": as_object([row[:, None] for row in rows]),
    }
    results = {}
    for name, X in forms.items():
        classifier = SequenceClassifier(GaussianHMM(2, random_state=0)).fit(X, y)
        results[name] = classifier.predict_proba(X)
        # another form at predict gives the same as well
        if name != "rows":
            np.testing.assert_array_equal(classifier.predict_proba(forms["list"]), results[name])
    for name, result in results.items():
        np.testing.assert_array_equal(result, results["list"], err_msg=name)
    on_rows = SequenceClassifier(GaussianHMM(2, random_state=0)).fit(rows, y)
    np.testing.assert_array_equal(on_rows.predict_proba(forms["list"]), results["rows"])
    assert on_rows.n_features_in_ == 9
    ragged = [row[:5, None] for row in rows]
    assert on_rows.predict(ragged).shape == (40,)


def test_frames(rng):
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame(rng.normal(size=(12, 4)), columns=list("abcd"))
    y = np.arange(12) % 2
    on_rows = SequenceClassifier(GaussianHMM(1)).fit(rows, y)
    assert on_rows.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        on_rows.predict(rows[list("abdc")])
    sequences = [pandas.DataFrame(rng.normal(size=(5, 2)), columns=["u", "v"]) for _ in range(8)]
    of_frames = SequenceClassifier(GaussianHMM(1)).fit(sequences, y[:8])
    assert of_frames.estimators_[0].feature_names_in_.tolist() == ["u", "v"]
    with pytest.raises(ValueError, match="feature names"):
        of_frames.predict([frame[["v", "u"]] for frame in sequences])


def test_missing_values(rng):
    sequences, y = two_dynamics(rng)
    holes = [np.where(rng.random(s.shape) < 0.2, np.nan, s) for s in sequences]
    classifier = SequenceClassifier(GaussianHMM(random_state=0)).fit(holes, y)
    assert classifier.score(holes, y) > 0.9
    rows = rng.normal(size=(20, 6))
    rows[3, 4:] = np.nan  # rows of different lengths
    SequenceClassifier(GaussianHMM(1)).fit(rows, np.arange(20) % 2).predict(rows)


def test_a_row_alone_is_its_row_of_all(rng):
    sequences, y = two_dynamics(rng)
    classifier = SequenceClassifier(GaussianHMM(random_state=0)).fit(sequences, y)
    together = classifier.predict_proba(sequences)
    for i in (0, 7):
        np.testing.assert_array_equal(classifier.predict_proba(sequences[i : i + 1]), together[[i]])
    np.testing.assert_array_equal(classifier.predict_proba(sequences[::-1]), together[::-1])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[[0.0], [1.0]], [[1.0]]], ["a"], "inconsistent numbers of samples"),
        ([[[0.0], [1.0]], np.zeros((0, 1))], ["a", "b"], "Sequence 1 of X is empty"),
        ([[[0.0], [1.0]], [[1.0, 2.0]]], ["a", "b"], "sequence 1 has 2, sequence 0 has 1"),
        ([np.zeros(3), np.zeros(4)], ["a", "b"], "reshape"),
        ([[[0.0], [1.0]], [[1.0]]], None, "requires y to be passed"),
        ([[[0.0], [1.0]], [[1.0]]], [0.5, 1.7], "continuous"),
        ([[[0.0], [1.0]], [[1.0]]], [0.0, np.nan], "NaN"),
    ],
)
def test_errors(X, y, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(GaussianHMM(1)).fit(X, y)


def test_2d_after_a_collection(rng):
    classifier = SequenceClassifier(GaussianHMM(1)).fit(rng.normal(size=(6, 4, 1)), [0, 1] * 3)
    with pytest.raises(ValueError, match=r"fit saw a collection .* X\[:, :, None\]"):
        classifier.predict(rng.normal(size=(6, 4)))
    with pytest.raises(NotFittedError):
        SequenceClassifier(GaussianHMM()).predict([[[0.0]]])


def test_a_fit_that_fails_changes_nothing(rng):
    sequences, y = two_dynamics(rng, 10)
    classifier = SequenceClassifier(GaussianHMM(1)).fit(sequences, y)
    before = classifier.predict_proba(sequences)
    with pytest.raises(ValueError, match="inconsistent"):
        classifier.fit(rng.normal(size=(5, 3)), y)
    with pytest.raises(ValueError, match="infinity"):
        classifier.fit([np.full((3, 1), np.inf)] * 2, ["p", "q"])
    np.testing.assert_array_equal(classifier.predict_proba(sequences), before)


def test_impossible_sequences():
    codes = [[[0], [0]], [[0], [1]], [[1], [1]]]
    classifier = SequenceClassifier(CategoricalHMM(1, n_categories=3)).fit(codes, ["a", "a", "b"])
    proba = classifier.predict_proba([[[0]], [[1]]])
    np.testing.assert_allclose(proba[0], [1.0, 0.0])  # b never says 0
    assert not np.isnan(proba).any()
    message = r"1 of 2 sequences \(the first: 1\) have probability zero .* alpha above 0 \(it is 0"
    with pytest.warns(UserWarning, match=message) as told:
        proba = classifier.predict_proba([[[0]], [[2]]])
    assert told[0].filename == __file__
    np.testing.assert_allclose(proba, [[1.0, 0.0], [2 / 3, 1 / 3]])
    with pytest.warns(UserWarning, match="probability zero") as told:
        assert classifier.predict([[[2]]]).tolist() == ["a"]
    assert told[0].filename == __file__
    smoothed = SequenceClassifier(CategoricalHMM(1, n_categories=3, alpha=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smoothed.fit(codes, ["a", "a", "b"]).predict_proba([[[2]]])


# --- Models and pipelines inside ------------------------------------------------------------------


def test_every_family(rng):
    counts = [rng.poisson([2.0, 5.0] if i % 2 else [4.0, 3.0], (12, 2)) for i in range(20)]
    y = np.arange(20) % 2
    for model in (
        PoissonHMM(2, random_state=0),
        MultinomialHMM(2, random_state=0),
        CategoricalHMM(2, alpha=1.0, random_state=0),
        GaussianHMM(2, covariance_type="tied", random_state=0),
        GaussianMixtureHMM(1, random_state=0),
    ):
        assert SequenceClassifier(model).fit(counts, y).score(counts, y) > 0.8, model


def test_kalman_smoother_inside(rng):
    import sklseq

    if not hasattr(sklseq, "KalmanSmoother"):
        pytest.skip("the state-space wing is not in this checkout")
    slow = [np.cumsum(rng.normal(size=(30, 1)), axis=0) for _ in range(8)]
    fast = [rng.normal(size=(30, 1)) for _ in range(8)]
    classifier = SequenceClassifier(sklseq.KalmanSmoother(max_iter=20))
    y = np.repeat([0, 1], 8)
    assert classifier.fit(slow + fast, y).score(slow + fast, y) > 0.9


def test_codes_of_other_classes_are_known(rng):
    """Class a never says 2, class b never 0; both models know all three."""
    codes = [[[0], [1], [0]], [[1], [0]], [[2], [1]], [[1], [2], [2]]]
    classifier = SequenceClassifier(CategoricalHMM(1, alpha=1.0)).fit(codes, list("aabb"))
    assert [m.n_categories_.tolist() for m in classifier.estimators_] == [[3], [3]]
    assert classifier.predict([[[0]], [[2]]]).tolist() == ["a", "b"]
    assert classifier.estimator.n_categories is None


def test_pipeline_inside_is_fitted_on_all_classes(rng):
    """Scaled class by class, the likelihoods would be of different data."""
    sequences = [rng.normal(0, 1 if i % 2 else 5, (20, 2)) for i in range(30)]
    y = np.arange(30) % 2
    inside = SequenceClassifier(
        make_pipeline(Stepwise(StandardScaler()), GaussianHMM(1))
    ).fit(sequences, y)
    outside = make_pipeline(
        Stepwise(StandardScaler()), SequenceClassifier(GaussianHMM(1))
    ).fit(sequences, y)
    np.testing.assert_allclose(inside.predict_proba(sequences), outside.predict_proba(sequences))
    assert inside.score(sequences, y) == 1.0
    assert len(inside.transformers_) == 1
    np.testing.assert_allclose(
        inside.transformers_[0].transformer_.mean_, np.concatenate(sequences).mean(axis=0)
    )
    # affine maps of the data leave the posterior alone
    bare = SequenceClassifier(GaussianHMM(1)).fit(sequences, y)
    np.testing.assert_allclose(
        bare.predict_proba(sequences), inside.predict_proba(sequences), atol=1e-8
    )


def test_passthrough_steps(rng):
    sequences, y = two_dynamics(rng, 10)
    pipeline = make_pipeline("passthrough", GaussianHMM(random_state=0))
    one = SequenceClassifier(pipeline).fit(sequences, y)
    two = SequenceClassifier(GaussianHMM(random_state=0)).fit(sequences, y)
    np.testing.assert_array_equal(one.predict_proba(sequences), two.predict_proba(sequences))
    assert one.transformers_ == []


def test_transformers_that_make_a_collection_of_rows(rng):
    rows = rng.normal(size=(20, 6))
    pipeline = make_pipeline(FunctionTransformer(lambda X: X), GaussianHMM(1))
    classifier = SequenceClassifier(pipeline).fit(rows, np.arange(20) % 2)
    assert classifier.predict(rows).shape == (20,)


# --- In scikit-learn's machinery ------------------------------------------------------------------


def test_grid_search(rng):
    sequences, y = two_dynamics(rng, 60)
    search = GridSearchCV(
        SequenceClassifier(GaussianHMM(random_state=0)), {"estimator__n_components": [1, 2]}, cv=3
    ).fit(sequences, y)
    assert search.best_params_ == {"estimator__n_components": 2}
    assert search.score(sequences, y) > 0.95
    inside = SequenceClassifier(
        make_pipeline(Stepwise(StandardScaler()), GaussianHMM(random_state=0))
    )
    search = GridSearchCV(
        inside, {"estimator__gaussianhmm__n_components": [1, 2]}, cv=3
    ).fit(sequences, y)
    assert search.best_params_ == {"estimator__gaussianhmm__n_components": 2}


def test_cross_val_predict(rng):
    sequences, y = two_dynamics(rng, 40)
    classifier = SequenceClassifier(GaussianHMM(random_state=0))
    found = cross_val_predict(
        classifier, sequences, y, cv=StratifiedKFold(4), method="predict_proba"
    )
    assert found.shape == (40, 2)
    assert np.mean(classifier.fit(sequences, y).classes_[found.argmax(axis=1)] == y) > 0.9


def test_random_state_seeds_what_is_inside(rng):
    sequences, y = two_dynamics(rng, 12)
    one, two, other = (
        SequenceClassifier(GaussianHMM(3, n_init=1, max_iter=1), random_state=seed)
        .fit(sequences, y)
        for seed in (0, 0, 1)
    )
    expected = one.predict_log_proba(sequences)
    np.testing.assert_array_equal(two.predict_log_proba(sequences), expected)
    assert np.any(other.predict_log_proba(sequences) != expected)
    assert one.estimator.random_state is None
    kept = SequenceClassifier(GaussianHMM(random_state=7)).fit(sequences, y)
    assert {model.random_state for model in kept.estimators_} == {7}


def test_clone_and_pickle(rng):
    import pickle

    sequences, y = two_dynamics(rng, 10)
    classifier = SequenceClassifier(GaussianHMM(random_state=0), priors=[0.3, 0.7])
    classifier.fit(sequences, y)
    again = clone(classifier).fit(sequences, y)
    copied = pickle.loads(pickle.dumps(classifier))
    for other in (again, copied):
        np.testing.assert_array_equal(
            other.predict_proba(sequences), classifier.predict_proba(sequences)
        )


def test_warnings_of_the_models_come_through(rng):
    sequences, y = two_dynamics(rng, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=1"):
            SequenceClassifier(GaussianHMM(max_iter=1)).fit(sequences, y)


def test_digits_read_row_by_row():
    """8 rows of 8 pixels; without the order of the rows it is harder."""
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8)
    train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    left_right = np.eye(6) + np.eye(6, k=1)
    left_right /= left_right.sum(axis=1, keepdims=True)
    shared = {"covariance_type": "full", "covars_prior": 4.0, "covars_weight": 20.0}
    model = GaussianHMM(
        6, startprob_init=np.eye(6)[0], transmat_init=left_right, random_state=0, n_init=1,
        max_iter=30, **shared,
    )  # fmt: skip
    ordered = SequenceClassifier(model).fit(train, y_train).score(test, y_test)
    blind = SequenceClassifier(GaussianHMM(1, **shared)).fit(train, y_train).score(test, y_test)
    assert ordered > 0.88
    assert ordered > blind + 0.2
    # a discriminative model on the pixels is no stranger to these numbers
    flat = LogisticRegression(max_iter=200).fit(train.reshape(len(train), -1) / 16, y_train)
    assert flat.score(test.reshape(len(test), -1) / 16, y_test) > 0.9


def test_warnings_name_the_class(rng):
    X = [rng.normal(size=(9, 1)) for _ in range(4)]
    classifier = SequenceClassifier(GaussianHMM(2, max_iter=1, n_init=1, random_state=0))
    with pytest.warns(ConvergenceWarning, match="Class b: GaussianHMM did not converge"):
        classifier.fit(X, ["a", "a", "b", "b"])
