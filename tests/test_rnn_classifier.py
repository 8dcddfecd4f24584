"""CharRNNClassifier: input, the scikit-learn contract, determinism, weights, drawing."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

CELLS = ("rnn", "gru", "lstm")


@parametrize_with_checks([CharRNNClassifier(cell=cell) for cell in CELLS])
def test_estimator_checks(estimator, check):
    check(estimator)


def small(cell="gru", **parameters):
    """A classifier that is quick on little data."""
    given = {"hidden_size": 12, "max_iter": 8, "batch_size": 16, "random_state": 0}
    return CharRNNClassifier(cell, **{**given, **parameters})


def words(n=120, seed=0):
    """Two made-up languages: one likes vowels."""
    random = np.random.RandomState(seed)
    X, y = [], []
    for _ in range(n):
        label = random.randint(2)
        letters = list("aeioukl") if label else list("krtgzal")
        X.append("".join(random.choice(letters, random.randint(1, 9))))
        y.append(("hard", "soft")[label])
    return X, np.array(y)


@pytest.fixture(scope="module")
def fitted():
    return small(max_iter=30).fit(*words(400))


# ---------------------------------------------------------------- input


def test_every_form_of_texts_gives_the_same_bits():
    pandas = pytest.importorskip("pandas")
    X, y = words()
    expected = small().fit(X, y).predict_proba(X)
    forms = [tuple(X), np.array(X), np.array(X, dtype=object)]
    forms.append(pandas.Series(X, index=range(7, 127)))
    try:
        import polars
    except ImportError:
        pass
    else:
        forms.append(polars.Series(X))
    for form in forms:
        np.testing.assert_array_equal(small().fit(form, y).predict_proba(form), expected)


def test_characters_as_tokens_are_characters():
    X, y = words()
    tokens = [list(x) for x in X]
    np.testing.assert_array_equal(
        small().fit(X, y).predict_proba(X), small().fit(tokens, y).predict_proba(tokens)
    )


def test_analyzers():
    X = ["good film", "bad film", "a good one", "one bad one"] * 5
    y = [1, 0, 1, 0] * 5
    model = small(analyzer="word", max_iter=60).fit(X, y)
    assert sorted(model.vocabulary_) == ["a", "bad", "film", "good", "one"]
    assert model.score(X, y) == 1.0
    texts, _ = model.sample(5, random_state=0)
    assert all(set(t.split()) <= set(model.vocabulary_) for t in texts)
    split = small(analyzer=str.split, max_iter=60).fit(X, y)
    np.testing.assert_array_equal(split.predict_proba(X), model.predict_proba(X))
    with pytest.raises(ValueError, match="analyzer must be 'char', 'word' or a callable; got 'x'"):
        small(analyzer="x").fit(X, y)


@pytest.mark.parametrize(
    "X, message",
    [
        ("hello", "got a single str"),
        (["ab", None, "c"], "text 1 is None"),
        (["ab", float("nan"), "c"], "text 1 is nan"),
        (["ab", 3, "c"], "text 1 is 3"),
        ([["a", "b"], ["c", 4], ["d"]], "text 1 has 4"),
        ([[1.0, np.nan], [0.0, 1.0], [1.0, 1.0]], "NaN"),
        ([1.0, 2.0, 3.0], "2D"),
        ([], "0 sample"),
        (np.array("hello"), "got a single str"),
        (np.str_("hello"), "got a single str"),
        (np.array([["ab"], ["c"]]), r"one dimension; got shape \(2, 1\)"),
        ([None, None, None], "text 0 is None"),
        (b"hello", "got a single bytes"),
        ([b"ab", b"c", b"d"], "text 0 is b'ab'"),
    ],
)
def test_bad_X_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        small().fit(X, [0, 1, 0])


def test_any_unicode_and_the_empty_string(fitted):
    X = ["", "naïve", "日本語", "🙂🙃", "\udc80lone", "a\x00b", "e\u0301"] * 6
    y = np.arange(len(X)) % 2
    model = small().fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(fitted.predict_proba(["", "日本語"])).all()
    assert small().fit(["", ""], [0, 1]).predict_proba([""]).shape == (1, 2)


def test_unknown_characters(fitted):
    np.testing.assert_array_equal(fitted.predict_proba(["qaq"]), fitted.predict_proba(["☃a☃"]))
    strict = clone(fitted).set_params(handle_unknown="error", max_iter=1).fit(*words())
    strict.predict(["aka"])
    with pytest.raises(ValueError, match="text 1 has a symbol that was not seen in fit: 'q'"):
        strict.predict(["aka", "aqa"])


def test_texts_and_numbers_do_not_mix(fitted):
    with pytest.raises(ValueError, match="X holds numbers, but this model was fitted on texts"):
        fitted.predict([[1.0, 2.0]])
    numbers = small().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    with pytest.raises(ValueError, match="X holds texts"):
        numbers.predict(["ab"])
    with pytest.raises(ValueError, match="sample needs a model of texts"):
        numbers.sample()
    with pytest.raises(AttributeError):
        numbers.vocabulary_  # noqa: B018


def test_a_failed_fit_leaves_a_fitted_model_alone(fitted):
    model = pickle.loads(pickle.dumps(fitted))
    before = model.predict_proba(["akka", "oo"])
    for X, y in [(["a", None], [0, 1]), (["a", "b"], [0, 1, 2]), (["a"], None), (["a"], [0.5])]:
        with pytest.raises(ValueError):
            model.fit(X, y)
        with pytest.raises(ValueError):
            model.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(["akka", "oo"]), before)


@pytest.mark.parametrize(
    "name, value",
    [
        ("cell", "elman"), ("hidden_size", 0), ("hidden_size", 2.5), ("n_layers", 0),
        ("dropout", 1.0), ("pooling", "first"), ("next_char_weight", -1), ("solver", "lbfgs"),
        ("alpha", -1), ("batch_size", 0), ("learning_rate_init", 0.0), ("max_iter", 0),
        ("max_grad_norm", 0), ("handle_unknown", "zero"), ("validation_fraction", 1.0),
        ("learning_rate", "step"), ("average_decay", 1.0), ("hidden_size", True),
    ],
)  # fmt: skip
def test_bad_parameters_are_named_with_their_value(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*; got {value!r}"):
        small(**{"cell": "gru", name: value}).fit(*words())


def test_reset_after_belongs_to_the_gru():
    with pytest.raises(ValueError, match="reset_after=True is a variant of cell='gru'"):
        small("lstm", reset_after=True).fit(*words())


# ---------------------------------------------------------------- what must hold


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_output_is_the_same_alone_in_a_batch_and_in_any_order(cell, n_layers):
    X, y = words(300)
    model = small(cell, n_layers=n_layers, batch_size=7, max_iter=2).fit(X, y)
    together = model.predict_proba(X)
    order = np.random.RandomState(0).permutation(len(X))
    np.testing.assert_array_equal(model.predict_proba([X[i] for i in order]), together[order])
    for i in range(0, 300, 41):
        np.testing.assert_array_equal(model.predict_proba([X[i]])[0], together[i])
    # a stale initial state shows after a fit with another batch size
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), together)
    np.testing.assert_array_equal(model.transform([X[5]])[0], model.transform(X)[5])


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_seed_and_any_n_jobs_give_the_same_bits(cell):
    X, y = words(150)
    models = [
        small(cell, n_jobs=n_jobs, batch_size=70, max_iter=3).fit(X, y) for n_jobs in (1, 1, 2, 3)
    ]
    for model in models[1:]:
        assert model.loss_curve_ == models[0].loss_curve_
        np.testing.assert_array_equal(model.predict_proba(X), models[0].predict_proba(X))
        assert model.sample(6, random_state=3)[0] == models[0].sample(6, random_state=3)[0]
    other = small(cell, random_state=1, batch_size=70, max_iter=3).fit(X, y)
    assert other.loss_curve_ != models[0].loss_curve_


def test_an_integer_weight_is_a_repetition_and_zero_an_absence():
    X, y = words(90)
    weights = np.random.RandomState(0).randint(0, 4, size=90)
    repeated = np.repeat(np.arange(90), weights)
    np.random.RandomState(1).shuffle(repeated)
    a = small().fit(X, y, sample_weight=weights)
    b = small().fit([X[i] for i in repeated], y[repeated])
    assert a.vocabulary_ == b.vocabulary_
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_weights_that_are_no_repetitions():
    X, y = words(200)
    heavy = np.where(y == "soft", 20.5, 0.25)
    plain = small(max_iter=3).fit(X, y)
    weighted = small(max_iter=3).fit(X, y, sample_weight=heavy)
    classes = small(max_iter=3, class_weight={"soft": 20.5, "hard": 0.25}).fit(X, y)
    soft = list(plain.classes_).index("soft")
    gain = weighted.predict_proba(X)[:, soft].mean() - plain.predict_proba(X)[:, soft].mean()
    assert gain > 0.1
    np.testing.assert_allclose(weighted.predict_proba(X), classes.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="sample_weight must be finite and not negative"):
        small().fit(X, y, sample_weight=-np.ones(200))
    with pytest.raises(ValueError, match="one for each sample of X"):
        small().fit(X, y, sample_weight=[1, 2])


def test_balanced_class_weight_lifts_the_rare_label():
    X, y = words(400)
    keep = np.flatnonzero((y == "hard") | (np.arange(400) % 8 == 0))
    X, y = [X[i] for i in keep], y[keep]
    plain, balanced = (small(class_weight=w).fit(X, y) for w in (None, "balanced"))
    assert balanced.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.1


def test_learns_and_its_outputs_agree(fitted):
    X, y = words(200, seed=1)
    assert fitted.score(X, y) > 0.85
    p = fitted.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), p, rtol=1e-10)
    d = fitted.decision_function(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-d)), p[:, 1], rtol=1e-10)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[p.argmax(axis=1)])
    assert fitted.transform(X).shape == (200, 12)
    assert fitted.get_feature_names_out()[0] == "charrnnclassifier0"
    assert [w.shape for w in fitted.recurrent_weights_] == [(12, 36)]
    assert fitted.input_weights_[0].shape == (len(fitted.vocabulary_) + 2, 36)
    assert fitted.output_weights_.shape == (36, 2)


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("learning_rate", ["constant", "cosine"])
def test_every_solver_lowers_the_loss(solver, learning_rate):
    rate = 0.1 if solver == "sgd" else 5e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small(solver=solver, learning_rate=learning_rate, learning_rate_init=rate,
                      alpha=1e-3, dropout=0.0).fit(*words(200))  # fmt: skip
    assert model.loss_curve_[-1] < 0.9 * model.loss_curve_[0]


def test_warnings_and_the_end_of_training():
    X, y = words(100)
    with pytest.warns(ConvergenceWarning, match=r"max_iter \(2\) reached"):
        small(learning_rate="constant", max_iter=2).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = small(learning_rate="constant", max_iter=50, tol=10.0, n_iter_no_change=3).fit(X, y)
        assert done.n_iter_ == 4 and done.converged_  # the first epoch, then three without gain
        assert small(max_iter=2).fit(X, y).converged_  # the schedule ran to its end
    with pytest.warns(ConvergenceWarning, match="loss is not finite in epoch"):
        wild = small("rnn", solver="sgd", learning_rate_init=1e38, max_grad_norm=1e38).fit(X, y)
    assert np.isfinite(wild.predict_proba(X)).all()


def test_early_stopping_keeps_the_best_weights():
    X, y = words(200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = small(
            early_stopping=True, n_iter_no_change=4, max_iter=100, learning_rate="constant",
            dropout=0.0, next_char_weight=0.0, learning_rate_init=0.02,
        ).fit(X, y)  # fmt: skip
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ < 100
    assert model.best_validation_score_ == max(scores) > scores[-1]


def test_verbose_tells_epoch_loss_validation_and_speed(capsys):
    small(verbose=True, max_iter=2, early_stopping=True).fit(*words())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    for part in ("after 2 epochs", "loss ", "validation ", "characters/s"):
        assert part in lines[0]


def test_warm_start_goes_on():
    X, y = words(200)
    model = small(max_iter=3, warm_start=True).fit(X, y)
    first = model.loss_
    assert model.fit(X, y).loss_curve_[0] < first
    with pytest.raises(ValueError, match="warm_start needs the labels of the first fit"):
        model.fit(X[:2], ["x", "y"])
    with pytest.raises(ValueError, match="shape of the first fit"):
        model.set_params(hidden_size=13).fit(X, y)


def test_partial_fit():
    X, y = words(300)
    model = small()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    for epoch in range(12):
        for first in range(0, 300, 100):
            part = slice(first, first + 100)
            model.partial_fit(X[part], y[part], classes=["hard", "soft"] if epoch == 0 else None)
    assert model.score(X, y) > 0.85
    assert len(model.loss_curve_) == 36
    with pytest.raises(ValueError, match="labels that are not in classes"):
        model.partial_fit(["a"], ["other"])
    again = pickle.loads(pickle.dumps(model))
    a, b = (m.partial_fit(X, y).predict_proba(X) for m in (model, again))
    np.testing.assert_array_equal(a, b)


def test_unfitted_raises():
    for method in ("predict", "predict_proba", "transform", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(small(), method)(["a"])
    with pytest.raises(NotFittedError):
        small().sample()


# ---------------------------------------------------------------- among others


def test_searches_ensembles_and_pipelines():
    X, y = words(150)
    X = np.array(X, dtype=object)
    search = GridSearchCV(small(max_iter=3), {"cell": list(CELLS)}, cv=2).fit(X, y)
    assert search.best_params_["cell"] in CELLS
    calibrated = CalibratedClassifierCV(small(max_iter=3), cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (150, 2)
    ngrams = make_pipeline(TfidfVectorizer(analyzer="char"), LogisticRegression())
    vote = VotingClassifier([("rnn", small(max_iter=3)), ("ngrams", ngrams)], voting="soft")
    assert vote.fit(X, y).score(X, y) > 0.8
    p = cross_val_predict(small(), X, y, cv=3, method="predict_proba")
    assert p.shape == (150, 2) and ((p.argmax(axis=1) == (y == "soft")).mean() > 0.75)
    states = make_pipeline(small(), LogisticRegression()).fit(X, y)
    assert states.score(X, y) > 0.85


def test_pickles_are_equal_and_hold_no_machine_form(fitted):
    fitted.predict(["a"])
    data = pickle.dumps(fitted)
    again = pickle.loads(data)
    X = ["akz", ""]
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert len(data) < 4 * fitted._network.parameters.nbytes + 20_000


@pytest.mark.parametrize("cell", CELLS)
def test_init_starts_from_a_language_model(cell):
    X, y = words(200)
    lm = CharRNNLanguageModel(cell, 12, max_iter=5, random_state=0).fit([*X, "xyz"])
    model = small(cell, init=lm, max_iter=1, learning_rate_init=1e-12, average_decay=0.0).fit(X, y)
    np.testing.assert_allclose(
        model.recurrent_weights_[0], lm.recurrent_weights_[0], atol=1e-6
    )
    for symbol, row in model.vocabulary_.items():
        np.testing.assert_allclose(
            model.input_weights_[0][row], lm.input_weights_[0][lm.vocabulary_[symbol]], atol=1e-6
        )
    np.testing.assert_allclose(model.transform(X), lm.transform(X), atol=1e-5)
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        clone(model).fit(X, y)
    clone(model).set_params(init=FrozenEstimator(lm)).fit(X, y)
    with pytest.raises(ValueError, match="hidden_size must be that of init, 12; got 9"):
        small(cell, hidden_size=9, init=lm).fit(X, y)


# ---------------------------------------------------------------- drawing


def test_sample_draws_texts_with_labels(fitted):
    texts, labels = fitted.sample(200, random_state=0)
    assert len(texts) == len(labels) == 200 and set(labels) == {"hard", "soft"}
    assert set("".join(texts)) <= set(fitted.vocabulary_)
    # made of the letters of its label: z and t are only in the hard words
    hard = [t for t, label in zip(texts, labels) if label == "hard"]
    soft = [t for t, label in zip(texts, labels) if label == "soft"]
    assert np.mean([c in "rtgz" for c in "".join(hard)]) > 0.3
    assert np.mean([c in "rtgz" for c in "".join(soft)]) < 0.1
    again, _ = fitted.sample(200, random_state=0)
    assert again == texts
    assert fitted.sample(3, random_state=0)[0] == texts[:3]
    assert max(map(len, fitted.sample(50, max_length=4, random_state=0)[0])) <= 4


def test_sample_by_label(fitted):
    texts, labels = fitted.sample(20, "soft", random_state=0)
    assert len(texts) == 20 and (labels == "soft").all()
    with pytest.raises(ValueError, match="label must be one of"):
        fitted.sample(1, "medium")
    never = small(class_weight={"hard": 1.0, "soft": 1e-12}, max_iter=40).fit(*words(100))
    with pytest.warns(UserWarning, match="texts with label 'soft'"):
        texts, labels = never.sample(500, "soft", max_tries=1, random_state=0)
    assert len(texts) == len(labels) < 500


def test_sample_needs_its_head():
    model = small(next_char_weight=0.0, max_iter=1).fit(*words())
    with pytest.raises(ValueError, match="next_char_weight > 0"):
        model.sample()


# ---------------------------------------------------------------- input at its edges


def test_an_iterator_is_read_to_its_end():
    """Looking at the first item to see what X holds must not lose it."""
    X, y = words()
    expected = small().fit(X, y).predict_proba(X)
    model = small().fit((x for x in X), y)
    np.testing.assert_array_equal(model.predict_proba(x for x in X), expected)
    np.testing.assert_array_equal(model.predict_proba(np.str_(x) for x in X), expected)


def test_missing_texts_of_a_series_are_named(fitted):
    pandas = pytest.importorskip("pandas")
    for values, dtype, told in [
        (["a", None], "string", "text 1 is <NA>"), ([None, "a"], "string", "text 0 is <NA>"),
        (["a", np.nan], object, "text 1 is nan"), ([np.nan, np.nan], object, "text 0 is nan"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=told):
            fitted.predict(pandas.Series(values, dtype=dtype))
    with pytest.raises(ValueError, match="Pass the column itself"):
        fitted.predict(pandas.DataFrame({"text": ["a", "b"]}))


def test_empty_input_and_empty_token_lists(fitted):
    for nothing in ([], np.array([], dtype=object), np.array([], dtype=str)):
        with pytest.raises(ValueError, match="0 sample"):
            fitted.predict(nothing)
    np.testing.assert_array_equal(fitted.predict_proba([[], []]), fitted.predict_proba(["", ""]))


def test_an_analyzer_must_make_strings():
    X, y = words()
    with pytest.raises(ValueError, match="analyzer must make a list of str"):
        small(analyzer=lambda text: None).fit(X, y)
    with pytest.raises(ValueError, match="analyzer must make a list of str"):
        small(analyzer=lambda text: [len(text)]).fit(X, y)
    small(analyzer=str.lower, max_iter=1).fit(X, y)


def test_class_weights_at_their_edges():
    X, y = words()
    for weight, told in [
        ("even", "class_weight must be a dict, 'balanced' or None; got 'even'"),
        ({"soft": -1.0}, "class_weight must be finite and not negative"),
        ({"soft": np.nan}, "class_weight must be finite and not negative"),
        ({"soft": 0.0, "hard": 0.0}, "class_weight leaves no sample a weight"),
    ]:
        with pytest.raises(ValueError, match=told):
            small(class_weight=weight).fit(X, y)
        with pytest.raises(ValueError, match=told):
            small(class_weight=weight).partial_fit(X, y, classes=["hard", "soft"])
    # a label of weight zero: many a minibatch would have no weight at all
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small(class_weight={"soft": 0.0}, batch_size=1, max_iter=1, early_stopping=True)
        model.fit(X, y)
    assert model.classes_.tolist() == ["hard", "soft"]
    assert model.predict_proba(X)[:, 0].min() > 0.5


def test_a_label_to_draw_must_be_one(fitted):
    for label in (["soft"], np.array(["hard", "soft"]), np.nan):
        with pytest.raises(ValueError, match="label must be one of"):
            fitted.sample(1, label)


def test_averaging_switched_on_later_starts_from_the_weights_of_then():
    texts, labels = ["ab", "ba"] * 10, [0, 1] * 10
    model = CharRNNClassifier(
        hidden_size=8, average_decay=0.0, batch_size=4, learning_rate_init=0.02, random_state=0
    )
    for _ in range(40):
        model.partial_fit(texts, labels, classes=[0, 1])
    assert model.score(texts, labels) == 1.0
    model.set_params(average_decay=0.99).partial_fit(texts, labels)
    assert model.score(texts, labels) == 1.0
