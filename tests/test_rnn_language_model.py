"""CharRNNLanguageModel: streams, scores, drawing, determinism."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import references_rnn as reference
from scipy.stats import chi2
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV

from sklseq.rnn import CharRNNLanguageModel

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
CELLS = ("rnn", "gru", "lstm")
SENTENCE = "the quick brown fox jumps over the lazy dog, twice; the end."


def small(cell="gru", hidden_size=16, **parameters):
    given = {"max_iter": 5, "batch_size": 8, "bptt_steps": 10, "random_state": 0}
    return CharRNNLanguageModel(cell, hidden_size, **{**given, **parameters})


def texts(n=40, seed=0):
    random = np.random.RandomState(seed)
    return ["".join(random.choice(list("abc"), random.randint(0, 30))) for _ in range(n)]


@pytest.fixture(scope="module")
def fitted():
    return small(max_iter=20).fit(texts())


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("cell, reset_after", [*((c, False) for c in CELLS), ("gru", True)])
def test_scores_are_those_of_the_reference(cell, reset_after, n_layers):
    model = small(cell, reset_after=reset_after, n_layers=n_layers).fit(texts())
    name = "gru_reset_after" if reset_after else cell
    X = ["", "a", "abcabc", "cc" * 40]
    found = model._log_probabilities(model._encode(X))
    for text, values in zip(X, found):
        codes = np.array([1] + [model.vocabulary_[c] for c in text])
        h = reference.hidden_states(name, model._network.views, n_layers, codes)
        z = h @ model.output_weights_ + model.output_bias_
        target = np.append(codes[1:], 1) - 1
        expected = reference.log_softmax(z)[np.arange(len(codes)), target]
        np.testing.assert_allclose(values, expected, atol=2e-5)


def test_the_scores_fit_together(fitted):
    X = texts(15, seed=3)
    per_text = fitted.score_samples(X)
    n = sum(len(x) + 1 for x in X)
    np.testing.assert_allclose(fitted.score(X), per_text.sum() / n, rtol=1e-12)
    np.testing.assert_allclose(fitted.perplexity(X), np.exp(-fitted.score(X)))
    np.testing.assert_allclose(fitted.bits_per_char(X), -fitted.score(X) / np.log(2))
    surprise = fitted.char_log_proba(X)
    end = np.log(fitted.predict_proba(X)[:, 0])
    assert [len(s) for s in surprise] == [len(x) for x in X]
    np.testing.assert_allclose([s.sum() for s in surprise] + end, per_text, rtol=1e-5)
    weights = np.arange(15)
    expected = (weights @ per_text) / (weights @ [len(x) + 1 for x in X])
    np.testing.assert_allclose(fitted.score(X, sample_weight=weights), expected)


def test_predict_is_the_largest_of_predict_proba(fitted):
    X = texts(15, seed=3)
    p = fitted.predict_proba(X)
    assert list(fitted.symbols_) == ["", "a", "b", "c"]
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(fitted.predict(X), fitted.symbols_[p.argmax(axis=1)])
    # the probability of the next character is what extending the text says
    longer = fitted.char_log_proba([x + "b" for x in X])
    np.testing.assert_allclose(np.log(p[:, 2]), [v[-1] for v in longer], atol=1e-5)
    assert fitted.transform(X).shape == (15, 16)


def test_probabilities_of_all_short_texts_sum_to_one_with_the_longer_ones(fitted):
    """Texts of up to two characters, and what is left over at the third."""
    short = ["", *"abc", *(a + b for a in "abc" for b in "abc")]
    total = np.exp(fitted.score_samples(short)).sum()
    left = 0.0
    for text in (t for t in short if len(t) == 2):
        prefix = np.exp(fitted.char_log_proba([text])[0].sum())
        left += prefix * (1 - fitted.predict_proba([text])[0, 0])
    np.testing.assert_allclose(total + left, 1, atol=1e-6)


def test_unknown_characters_score_minus_infinity_or_raise(fitted):
    assert fitted.score_samples(["abz"])[0] == -np.inf
    values = fitted.char_log_proba(["azb"])[0]
    assert np.isfinite(values[[0, 2]]).all() and values[1] == -np.inf
    strict = clone(fitted).set_params(handle_unknown="error", max_iter=1).fit(texts())
    with pytest.raises(ValueError, match="text 0 has a symbol that was not seen in fit: 'z'"):
        strict.score(["abz"])


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("cell", CELLS)
def test_loss_curve_without_dropout_is_minus_score(cell):
    """At a learning rate of nothing the weights stand still, and Loss = −score exactly."""
    for X in (texts(), ["".join(texts(60))]):
        model = small(cell, learning_rate_init=1e-30, average_decay=0.0, max_iter=1, alpha=0.0,
                      bptt_steps=1000).fit(X)  # fmt: skip
        np.testing.assert_allclose(model.loss_curve_[0], -model.score(X), rtol=1e-6)


def test_long_texts_are_cut_into_streams_and_every_symbol_is_learnt_once():
    cases = [(["a" * 5000], 8), (["a" * 100], 3), (texts(40), 40), (["a" * 900, "b"], 9)]
    for X, n_streams in cases:
        model = small()
        tokens, lengths = model._tokens(X)
        vocabulary = model._learn_vocabulary(tokens, lengths, np.ones(len(X)), False)
        coded = vocabulary.encode(tokens, lengths)
        architecture = model._architecture(len(vocabulary), 0, True, "last")
        objective = model._stream_objective(architecture, coded, np.ones(len(X)))
        assert len(objective.starts) == n_streams
        covered = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(objective.starts, objective.lengths)]
        )
        np.testing.assert_array_equal(np.sort(covered), np.arange(len(coded.codes) - 1))
        if len(X) == 1:
            assert objective.lengths.min() >= 33
        minibatches = list(objective.minibatches(np.random.RandomState(0)))
        assert len(minibatches) == objective.n_minibatches()


def test_the_state_is_carried_from_window_to_window():
    """Seen through windows of 2 steps, what comes is told by what was 5 steps ago."""
    random = np.random.RandomState(0)
    text = "".join(w + "....." + w.upper() for w in random.choice(list("ab"), 1500))
    model = small(hidden_size=24, bptt_steps=14, max_iter=25, batch_size=16).fit([text])
    carried = model.char_log_proba([text])[0]
    answers = [i for i, c in enumerate(text) if c in "AB"][20:]
    assert carried[answers].mean() > -0.1
    # A window that starts in the middle starts from the state of the one before.
    starting = small(hidden_size=24, bptt_steps=3, max_iter=1, batch_size=1).fit([text[:30]])
    assert np.isfinite(starting.loss_)


@pytest.mark.parametrize("cell", CELLS)
def test_overfits_one_sentence_and_says_it_greedily(cell):
    assert len(SENTENCE) == 60
    model = small(cell, 64, max_iter=300, bptt_steps=61, learning_rate_init=1e-2, alpha=0.0)
    model.fit([SENTENCE])
    assert -model.score([SENTENCE]) < 0.05
    assert model.sample(1, temperature=0.0) == [SENTENCE]
    assert model.sample(1, temperature=0.0, prefix=SENTENCE[:20]) == [SENTENCE]


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_seed_and_any_n_jobs_give_the_same_bits(cell):
    X = texts(100)
    models = [
        small(cell, batch_size=70, n_jobs=n_jobs, dropout=0.2, max_iter=2).fit(X)
        for n_jobs in (1, 1, 2, 3)
    ]
    for model in models[1:]:
        assert model.loss_curve_ == models[0].loss_curve_
        np.testing.assert_array_equal(model.score_samples(X), models[0].score_samples(X))
        assert model.sample(9, random_state=1) == models[0].sample(9, random_state=1)


@pytest.mark.parametrize("cell", CELLS)
def test_output_is_the_same_alone_in_a_batch_and_in_any_order(cell):
    X = texts(200) + ["abc" * 400]
    model = small(cell, batch_size=3, n_layers=2, max_iter=1).fit(X[:30])
    together = model.score_samples(X)
    order = np.random.RandomState(0).permutation(len(X))
    np.testing.assert_array_equal(model.score_samples([X[i] for i in order]), together[order])
    for i in (0, 17, 200):
        assert model.score_samples([X[i]])[0] == together[i]
        np.testing.assert_array_equal(model.predict_proba([X[i]])[0], model.predict_proba(X)[i])


def test_early_stopping_holds_out_texts_or_the_end_of_the_one_text():
    for X in (texts(100), ["".join(texts(200))]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = small(
                early_stopping=True, learning_rate="constant", n_iter_no_change=2, max_iter=60,
                learning_rate_init=0.02,
            ).fit(X)  # fmt: skip
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert len(model.validation_scores_) == model.n_iter_


def test_partial_fit_and_warm_start_go_on():
    X = texts(60)
    model = small()
    for _ in range(10):
        model.partial_fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0] and len(model.loss_curve_) == 10
    warm = small(warm_start=True, max_iter=2).fit(X)
    first = warm.loss_
    assert warm.fit(X).loss_curve_[0] < first + 0.02
    with pytest.raises(ValueError, match="shape of the first fit"):
        warm.set_params(hidden_size=17).fit(X)


def test_input_is_checked(fitted):
    with pytest.raises(ValueError, match="got a single str"):
        fitted.score("abc")
    with pytest.raises(ValueError, match="got a single str"):
        fitted.score(np.array("abc"))
    with pytest.raises(ValueError, match="one dimension"):
        fitted.score(np.array([["a"], ["b"]]))
    with pytest.raises(ValueError, match="text 1 is 3"):
        fitted.score(["a", 3])
    assert fitted.score(x for x in ["ab", "c"]) == fitted.score(["ab", "c"])
    with pytest.raises(NotFittedError):
        small().score(["a"])
    with pytest.raises(NotFittedError):
        small().sample()
    with pytest.raises(ValueError, match="bptt_steps must be an integer at least 1; got 0"):
        small(bptt_steps=0).fit(["a"])


def test_in_a_search_and_pickled(fitted):
    X = np.array(texts(30), dtype=object)
    search = GridSearchCV(small(max_iter=1), {"hidden_size": [4, 8]}, cv=2).fit(X)
    assert search.best_score_ == search.best_score_ < 0
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))


def test_words():
    model = small(analyzer="word", max_iter=200, hidden_size=24, alpha=0.0)
    model.fit(["to be, or not to be"] * 8)
    assert sorted(model.vocabulary_) == [",", "be", "not", "or", "to"]
    assert model.sample(1, temperature=0.0) == ["to be , or not to be"]
    assert model.sample(1, temperature=0.0, prefix="to be") == ["to be , or not to be"]


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize(
    "temperature, top_k, top_p",
    [(1.0, None, 1.0), (0.5, None, 1.0), (2.0, 2, 1.0), (1.0, None, 0.6), (2.0, 3, 0.9)],
)
@pytest.mark.parametrize("cell", CELLS)
def test_draws_follow_the_predicted_distribution(cell, temperature, top_k, top_p):
    """20,000 draws of one character, chi-square."""
    model = small(cell, n_layers=2, max_iter=2).fit(texts())
    n = 20_000
    drawn = model.sample(n, max_length=1, prefix="ab", temperature=temperature, top_k=top_k,
                         top_p=top_p, random_state=0)  # fmt: skip
    counts = np.array([drawn.count("ab" + s) for s in model.symbols_])
    p = model.predict_proba(["ab"])[0] ** (1 / temperature)
    if top_k is not None:
        p[np.argsort(p)[:-top_k]] = 0
    p /= p.sum()
    largest_first = np.argsort(-p)
    before = np.concatenate([[0], np.cumsum(p[largest_first])[:-1]])
    p[largest_first[before >= top_p]] = 0
    p /= p.sum()
    assert counts.sum() == n and (counts[p == 0] == 0).all()
    used = p > 0
    statistic = ((counts[used] - n * p[used]) ** 2 / (n * p[used])).sum()
    assert statistic < chi2.ppf(0.999, used.sum() - 1)


def test_drawn_texts_have_the_likelihood_of_the_model(fitted):
    """E log p(x) over draws is minus the entropy: draws and scores are of one distribution."""
    drawn = fitted.sample(4000, max_length=400, random_state=0)
    lengths = np.array([len(x) for x in drawn])
    assert lengths.max() < 400
    # the chance of the empty text, and of a first letter, by counting and by the model
    assert abs(np.mean(lengths == 0) - np.exp(fitted.score_samples([""])[0])) < 0.02
    first = np.array([x[:1] for x in drawn])
    p = fitted.predict_proba([""])[0]
    for symbol, expected in zip(fitted.symbols_, p):
        assert abs((first == symbol).mean() - expected) < 0.03


def test_sample_words_of_the_contract(fitted):
    assert fitted.sample(5, random_state=0) == fitted.sample(5, random_state=0)
    assert fitted.sample(5, random_state=0) != fitted.sample(5, random_state=1)
    assert all(x.startswith("cab") for x in fitted.sample(5, prefix="cab"))
    assert fitted.sample(2, prefix="aaa", max_length=0) == ["aaa", "aaa"]
    assert max(len(x) for x in fitted.sample(50, max_length=7, random_state=0)) == 7
    assert fitted.sample(1, prefix="ab☃", max_length=3, random_state=0)[0].startswith("ab☃")
    assert len(set(fitted.sample(20, temperature=0.0))) == 1
    assert fitted.sample(3, top_k=1) == fitted.sample(3, temperature=0.0)
    for name, value in [("temperature", -1), ("top_k", 0), ("top_p", 0), ("max_length", -1),
                        ("n_samples", 0)]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must be .*; got {value}"):
            fitted.sample(**{"n_samples": 1, name: value})
