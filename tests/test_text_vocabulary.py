"""Which symbols a text model knows, and the probability of all others."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV, KFold

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

TEXTS = ["abba", "abac", "cabd", "bbae", "", "baba"] * 4 + ["xyz"]
CLASSES = [CharRNNClassifier, CharRNNLanguageModel]


def model_of(cls, X=TEXTS, sample_weight=None, **parameters):
    model = cls(**{"hidden_size": 8, "max_iter": 3, "random_state": 0, **parameters})
    labels = (np.arange(len(X)) % 2,) if cls is CharRNNClassifier else ()
    return model.fit(X, *labels, sample_weight=sample_weight)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("analyzer", ["char", "word", str.split])
def test_the_symbols_are_those_that_count_vectorizer_keeps(cls, analyzer):
    X = TEXTS if analyzer == "char" else [" ".join(text) for text in TEXTS]
    counts = CountVectorizer(analyzer="char" if analyzer == "char" else str.split, lowercase=False)
    totals = np.asarray(counts.fit_transform(X).sum(axis=0)).ravel()
    names = counts.get_feature_names_out()
    for least in (1, 2, 4, 5, 24):
        model = model_of(cls, X, analyzer=analyzer, min_frequency=least)
        assert list(model.vocabulary_) == names[totals >= least].tolist()
        share = model_of(cls, X, analyzer=analyzer, min_frequency=(least - 0.5) / totals.sum())
        assert share.vocabulary_ == model.vocabulary_
    for most in (1, 2, 3, 100):
        kept = names[np.sort(np.argsort(-totals, kind="stable")[:most])].tolist()
        assert list(model_of(cls, X, analyzer=analyzer, max_symbols=most).vocabulary_) == kept
        given = model_of(cls, X, analyzer=analyzer, vocabulary=kept[::-1])
        assert list(given.vocabulary_) == kept


@pytest.mark.parametrize("cls", CLASSES)
def test_a_weight_is_a_repetition_where_symbols_are_counted(cls):
    weights = np.ones(len(TEXTS))
    weights[-1], weights[2] = 3, 0
    for factor in (1, 50):  # repetitions, and weights that stay weights
        model = model_of(cls, sample_weight=weights * factor, min_frequency=3 * factor)
        assert list(model.vocabulary_) == ["a", "b", "c", "d", "e", "x", "y", "z"]
        model = model_of(cls, sample_weight=weights * factor, min_frequency=4 * factor)
        assert list(model.vocabulary_) == ["a", "b", "c", "e"]


def test_probabilities_with_all_other_symbols_sum_to_one_and_none_is_zero():
    model = model_of(CharRNNLanguageModel, min_frequency=4, max_iter=300, learning_rate_init=0.01)
    assert model.symbols_.tolist() == ["", "a", "b", "c", "d", "e", None]
    p = model.predict_proba(["ab", "qq", ""])
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert np.isfinite(model.score(["xyz", "☃"]))
    # what was rare and what was never seen are one symbol
    np.testing.assert_array_equal(model.score_samples(["axb"]), model.score_samples(["a☃b"]))
    np.testing.assert_allclose(
        model.char_log_proba(["ab☃"])[0][2], np.log(p[0, -1]), rtol=1e-5
    )
    # and it is learned: rare symbols stand where a text begins, or after one of themselves
    after = model.predict_proba(["x", "a"])[:, -1]
    assert after[0] > 3 * after[1]
    assert "q" not in "".join(model.sample(50, prefix="q")).replace("q", "", 50)


@pytest.mark.parametrize("most", [1, 2])
def test_draws_have_known_symbols_only(most):
    model = model_of(CharRNNLanguageModel, max_symbols=most)
    assert set("".join(model.sample(200, random_state=0, max_length=20))) <= set("ab"[:most])
    assert set("".join(model.sample(3, temperature=0.0, max_length=20))) <= set("ab"[:most])


def test_all_folds_and_searches_over_rare_symbols_have_scores():
    random = np.random.RandomState(0)
    X = np.array(["".join(random.choice(list("abc"), 5)) for _ in range(40)], dtype=object)
    X[:10] = [f"{text}{chr(200 + i)}" for i, text in enumerate(X[:10])]  # once each
    search = GridSearchCV(
        CharRNNLanguageModel(max_iter=2, random_state=0), {"hidden_size": [4, 8]},
        cv=KFold(5, shuffle=True, random_state=0), error_score="raise",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert search.fit(X).best_score_ == -np.inf
    search.set_params(estimator__min_frequency=2)
    assert np.isfinite(search.fit(X).cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_vocabulary_serves_streams(cls):
    labels = ([0, 1],) if cls is CharRNNClassifier else ()
    more = {"classes": [0, 1]} if cls is CharRNNClassifier else {}
    model = cls(hidden_size=8, vocabulary="abcz", random_state=0)
    model.partial_fit(["ab", "ba"], *labels, **more)
    assert list(model.vocabulary_) == ["a", "b", "c", "z"]
    before = model.input_weights_[0][model.vocabulary_["z"]].copy()
    model.partial_fit(["zz", "☃"], *labels)
    assert not np.array_equal(model.input_weights_[0][model.vocabulary_["z"]], before)
    again = pickle.loads(pickle.dumps(clone(model).fit(["ab", "z☃"], *labels)))
    assert len(again.input_weights_[0]) == 7  # hidden, end, four symbols, all others
    words = cls(hidden_size=8, analyzer="word", vocabulary={"to": 3, "be": 1}, max_iter=2)
    assert list(words.fit(["to be", "or"], *labels).vocabulary_) == ["be", "to"]
    with pytest.raises(ValueError, match=r"text 1 has a symbol .*: 'or'"):
        words.set_params(handle_unknown="error").fit(["to be", "or"], *labels)


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_of_the_vocabulary_are_checked(cls):
    wrong = [
        ({"min_frequency": 0}, "min_frequency must be an integer at least 1; got 0"),
        ({"min_frequency": 1.5}, "min_frequency must be a number .* got 1.5"),
        ({"min_frequency": True}, "min_frequency must be .* got True"),
        ({"max_symbols": 0}, "max_symbols must be an integer at least 1; got 0"),
        ({"vocabulary": 3}, "vocabulary must be a collection of symbols.* got 3"),
        ({"vocabulary": "ab", "analyzer": "word"}, "vocabulary must be a collection"),
        ({"vocabulary": []}, "vocabulary must have symbols that are strings; got none"),
        ({"vocabulary": ["a", 3]}, "got 3 among them"),
        ({"vocabulary": ["a", "b", "a"]}, "each symbol once; got 'a' twice"),
        ({"vocabulary": ["a"], "max_symbols": 3}, "must be None where vocabulary="),
        ({"handle_unknown": "error", "min_frequency": 2}, "None where handle_unknown='error'"),
    ]
    for parameters, message in wrong:
        with pytest.raises(ValueError, match=message):
            model_of(cls, **parameters)


def test_a_classifier_starts_from_the_unknown_symbol_of_its_language_model():
    lm = model_of(CharRNNLanguageModel, min_frequency=4)
    model = CharRNNClassifier(
        init=lm, hidden_size=8, min_frequency=5, max_iter=1, learning_rate_init=1e-30,
        average_decay=0.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(TEXTS, np.arange(len(TEXTS)) % 2)
    np.testing.assert_allclose(model.input_weights_[0][-1], lm.input_weights_[0][-1])
    assert model.input_weights_[0].shape == (4 + 2, 24) and list(model.vocabulary_) == list("abc")
