"""One language model for each class, and numbers that are no texts."""

import warnings

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklseq import SequenceClassifier
from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel


def language(**parameters):
    return CharRNNLanguageModel(**{"hidden_size": 12, "max_iter": 20, **parameters})


def two_languages(n, seed):
    """Words of letters that follow one another in two different orders."""
    random = np.random.RandomState(seed)
    X, y = [], []
    for _ in range(n):
        label = random.randint(2)
        order = "abcd" if label else "adcb"
        start, length = random.randint(4), random.randint(3, 9)
        X.append("".join(order[(start + i) % 4] for i in range(length)))
        y.append("forth" if label else "back")
    return X, np.array(y)


def test_the_classes_are_told_by_bayes_rule():
    X, y = two_languages(120, 0)
    test, truth = two_languages(60, 1)
    model = SequenceClassifier(language(max_iter=100, learning_rate_init=0.01), random_state=0)
    model.fit(X, y)
    assert (model.predict(test) == truth).mean() > 0.95
    # by hand: the class's prior times its model's probability
    joint = np.log([np.mean(y == name) for name in model.classes_]) + np.stack(
        [one.score_samples(test) for one in model.estimators_], axis=1
    )
    expected = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(test), expected, rtol=1e-10)
    letters = make_pipeline(CountVectorizer(analyzer="char"), MultinomialNB()).fit(X, y)
    assert letters.score(test, truth) < 0.8  # it is the order that tells


@pytest.mark.parametrize("form", ["array", "series", "tokens", "tuple"])
def test_texts_in_any_form_give_the_same_bits(form):
    X, y = two_languages(20, 0)
    expected = SequenceClassifier(language(max_iter=2), random_state=0).fit(X, y)
    if form == "series":
        pandas = pytest.importorskip("pandas")
    given = {
        "array": lambda: np.array(X, dtype=object),
        "series": lambda: pandas.Series(X),
        "tokens": lambda: [list(text) for text in X],
        "tuple": lambda: tuple(X),
    }[form]()
    model = SequenceClassifier(language(max_iter=2), random_state=0).fit(given, y)
    np.testing.assert_array_equal(model.predict_proba(given), expected.predict_proba(X))
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize(
    ("parameters", "symbols"),
    [({}, "abxy"), ({"min_frequency": 3}, "ab"), ({"max_symbols": 1}, "a"),
     ({"vocabulary": "abz"}, "abz")],
)  # fmt: skip
def test_all_classes_know_the_symbols_of_all(parameters, symbols):
    X, y = ["aaa", "aab", "aax", "bba", "bay"], [0, 0, 0, 1, 1]
    model = SequenceClassifier(language(max_iter=2, **parameters), random_state=0).fit(X, y)
    for one in model.estimators_:
        assert list(one.vocabulary_) == list(symbols)
    # what no class has seen, and what but one has: no score is -inf, and nothing warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proba = model.predict_proba(["☃", "x", "y", ""])
    assert ((proba > 0) & (proba < 1)).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)


def test_in_a_pipeline_and_a_search():
    X, y = two_languages(40, 0)
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    model = SequenceClassifier(make_pipeline(lower, language(max_iter=2)), random_state=0)
    model.fit([text.upper() for text in X], y)
    plain = SequenceClassifier(language(max_iter=2), random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    search = GridSearchCV(
        SequenceClassifier(language(max_iter=2), random_state=0),
        {"estimator__hidden_size": [2, 4]}, cv=2, error_score="raise",
    )  # fmt: skip
    assert np.isfinite(search.fit(np.array(X, dtype=object), y).best_score_)


def test_what_is_no_text_is_refused():
    model = SequenceClassifier(language(max_iter=1)).fit(["ab", "ba"], [0, 1])
    before = model.predict_proba(["ab"])
    for X, message in (
        ([[1, 2], [3, 4]], "tokens must be strings; text 0 has 1"),
        ("ab", "got a single str"),
        (["ab", None], "text 1 is None"),
        (np.zeros((2, 2)), "one dimension"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(X)
        with pytest.raises(ValueError, match=message):
            model.fit(X, [0, 1])
    np.testing.assert_array_equal(model.predict_proba(["ab"]), before)
    with pytest.raises(ValueError, match="inconsistent"):
        model.fit(["ab"], [0, 1])


# ---------------------------------------------------------------- numbers


def test_lists_of_integers_are_not_taken_as_numbers_in_silence():
    X, y = [[3, 1, 2], [1, 1, 1], [2, 3, 1], [1, 2, 1]], [0, 1, 0, 1]
    model = CharRNNClassifier(hidden_size=4, max_iter=2, random_state=0)
    message = "lists of integers, .* Tokens must be strings"
    with pytest.warns(UserWarning, match=message) as told:
        model.fit(X, y)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match=message):
        CharRNNClassifier().partial_fit(X, y, classes=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = model.fit([[str(token) for token in text] for text in X], y)
        assert list(tokens.vocabulary_) == ["1", "2", "3"]
        model.fit(np.array(X), y).predict(X)
        model.fit([[0.5, 1.0], [1.0, 0.5]], [0, 1])


@pytest.mark.parametrize(
    ("scale", "shift", "told"),
    [(1, 0, False), (1, 10, False), (10, 0, False), (0.01, 0, False), (100, 100, False),
     (1, 5000, True), (1, 100, True), (1000, 0, True), (1e-4, 0, True)],
)  # fmt: skip
def test_numbers_far_from_the_order_of_one_are_told(scale, shift, told):
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    X = scale * rng.normal(size=(20, 6)) + shift
    model = CharRNNClassifier(hidden_size=4, max_iter=1, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    assert [str(one.message)[:10] for one in caught] == ["X has mean"] * told
    assert all(one.filename == __file__ for one in caught)


@pytest.mark.parametrize("X", [[[1, 2, 3], [2, 3]], [[0.5], [1.0, 2.0]]], ids=str)
def test_lists_of_numbers_that_differ_in_length_are_told(X):
    with pytest.raises(ValueError, match=r"row 1 has .* Tokens of a text must be strings"):
        CharRNNClassifier(hidden_size=4, max_iter=1).fit(X * 3, [0, 1] * 3)
    numbers = CharRNNClassifier(hidden_size=4, max_iter=1).fit(np.eye(4), [0, 1] * 2)
    with pytest.raises(ValueError, match="row 1 has"):
        numbers.predict(X)
