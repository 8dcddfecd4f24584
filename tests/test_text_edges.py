"""Text models at the edges: frames, words of every script, trainings that blow up."""

import unicodedata
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel
from sklseq.topics import TopicMixture

TEXTS = ["abba", "aab", "b", "", "babab", "abbb"] * 5
LABELS = [0, 1, 0, 1, 0, 1] * 5


def small(cls, **parameters):
    return cls(**{"hidden_size": 6, "max_iter": 2, "random_state": 0, **parameters})


# ---------------------------------------------------------------- a loss above a uniform guess


@pytest.mark.parametrize("learning_rate", ["cosine", "constant"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("cls", [CharRNNClassifier, CharRNNLanguageModel])
def test_a_training_that_blows_up_in_its_first_epoch_has_not_converged(
    cls, early_stopping, learning_rate
):
    """The loss of the first epoch is no measure then: a uniform guess is."""
    model = small(cls, learning_rate_init=1e3, alpha=0.0, early_stopping=early_stopping,
                  learning_rate=learning_rate, max_iter=30, n_iter_no_change=3, batch_size=4,
                  average_decay=0.0)  # fmt: skip
    labels = (LABELS,) if cls is CharRNNClassifier else ()
    with pytest.warns(ConvergenceWarning, match="a uniform guess has|the loss rose"):
        model.fit(TEXTS, *labels)
    assert not model.converged_


@pytest.mark.parametrize("cls", [CharRNNClassifier, CharRNNLanguageModel])
def test_labels_and_symbols_that_cannot_be_told_are_no_blow_up(cls):
    random = np.random.RandomState(0)
    texts = ["".join(random.choice(list("abcd"), 8)) for _ in range(60)]
    labels = (random.randint(2, size=60),) if cls is CharRNNClassifier else ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small(cls, max_iter=1).fit(texts, *labels).converged_


# ---------------------------------------------------------------- frames


@pytest.fixture(params=["pandas", "polars"])
def frames(request):
    return pytest.importorskip(request.param)


def test_a_frame_of_numbers_is_its_array(frames):
    X = np.random.default_rng(0).normal(size=(30, 3))
    expected = small(CharRNNClassifier).fit(X, LABELS)
    found = small(CharRNNClassifier).fit(frames.DataFrame(dict(zip("abc", X.T))), LABELS)
    assert found.feature_names_in_.tolist() == ["a", "b", "c"]
    frame = frames.DataFrame(dict(zip("abc", X.T)))
    np.testing.assert_array_equal(found.predict_proba(frame), expected.predict_proba(X))
    partial = small(CharRNNClassifier).partial_fit(frame, LABELS, classes=[0, 1])
    assert partial.predict(frame).shape == (30,)


@pytest.mark.parametrize("cls", [CharRNNClassifier, CharRNNLanguageModel])
def test_a_frame_of_one_column_of_texts_is_refused_with_the_way_out(cls, frames):
    frame = frames.DataFrame({"text": TEXTS})
    labels = (LABELS,) if cls is CharRNNClassifier else ()
    model = small(cls).fit(frame["text"], *labels)
    calls = [(small(cls).fit, labels), (model.partial_fit, labels), (model.score, labels)]
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform",
                 "score_samples", "perplexity", "bits_per_char", "char_log_proba"):  # fmt: skip
        calls += [(getattr(model, name), ())] if hasattr(model, name) else []
    for call, more in calls:
        with pytest.raises(ValueError, match=r"Pass the column itself, as X\['text'\]") as told:
            call(frame, *more)
        assert len(str(told.value)) < 200


# ---------------------------------------------------------------- words

SENTENCES = [
    ("to be, or not", ["to", "be", ",", "or", "not"]),
    ("यह एक हिंदी वाक्य है।", ["यह", "एक", "हिंदी", "वाक्य", "है", "।"]),
    (unicodedata.normalize("NFD", "Été à Köln!"),
     [unicodedata.normalize("NFD", word) for word in ("Été", "à", "Köln", "!")]),
    ("می\u200cخواهم", ["می\u200cخواهم"]),
    ("\u0301x !\u0301", ["\u0301", "x", "!", "\u0301"]),
]  # fmt: skip


@pytest.mark.parametrize("sentence, words", SENTENCES)
def test_a_word_keeps_the_marks_that_follow(sentence, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small(CharRNNLanguageModel, analyzer="word").fit([sentence])
    assert set(model.vocabulary_) == set(words)
    assert len(model.char_log_proba([sentence])[0]) == len(words)
    # what is joined by spaces is read as the same words
    np.testing.assert_array_equal(
        model.char_log_proba([" ".join(words)])[0], model.char_log_proba([sentence])[0]
    )


# ---------------------------------------------------------------- topics


@pytest.mark.parametrize("n_topics", [66, 67, 150, 1200])
def test_many_topics_are_scored_without_a_warning(n_topics):
    topic_word = np.random.default_rng(0).dirichlet(np.ones(40), size=n_topics)
    model = TopicMixture.from_parameters(
        topic_word=topic_word, doc_topic_prior=0.1, n_particles=2, random_state=0
    )
    X = np.eye(40)[:3] + np.eye(40)[5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_prob, std_error = model.score_samples(np.eye(40)[:3], return_std=True)
        assert np.isfinite(model.score_samples(X)).all()
    # one word: the mean of its probabilities under a symmetric prior
    np.testing.assert_allclose(log_prob, np.log(topic_word[:, :3].mean(axis=0)), rtol=1e-11)
    assert (std_error == 0).all()


# ---------------------------------------------------------------- weight decay by default


def test_automatic_weight_decay_is_a_number_that_falls_with_the_samples():
    for n_samples, alpha in ((10, 0.15), (4500, 0.15), (9000, 0.075)):
        np.testing.assert_allclose(CharRNNClassifier()._alpha(n_samples), alpha)
        np.testing.assert_allclose(
            CharRNNClassifier(solver="adam")._alpha(n_samples), 0.01 * alpha
        )
    automatic = small(CharRNNClassifier).fit(TEXTS, LABELS)
    by_hand = small(CharRNNClassifier, alpha=0.15).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(automatic.predict_proba(TEXTS), by_hand.predict_proba(TEXTS))
    with pytest.raises(ValueError, match=r"alpha must be a number .* got 'auto'"):
        small(CharRNNLanguageModel, alpha="auto").fit(TEXTS)
    with pytest.raises(ValueError, match=r"alpha must be a number .* got 'some'"):
        small(CharRNNClassifier, alpha="some").fit(TEXTS, LABELS)


def test_labels_that_cannot_be_known_are_not_believed():
    """Over-confidence: the log-loss on new texts stays near the entropy of the labels."""
    random = np.random.RandomState(0)
    X = ["".join(random.choice(list("abcdefgh"), random.randint(4, 9))) for _ in range(2500)]
    p = np.array([0.85 if text[-1] in "aceg" else 0.15 for text in X])
    y = (random.random_sample(2500) < p).astype(int)
    model = CharRNNClassifier(random_state=0).fit(X[:2000], y[:2000])
    found = model.predict_proba(X[2000:])[np.arange(500), y[2000:]]
    best = np.where(y == 1, p, 1 - p)[2000:]
    assert -np.log(found).mean() < -np.log(best).mean() + 0.03
