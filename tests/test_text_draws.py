"""What a text model draws is read back by the model as the symbols drawn."""

import numpy as np
import pytest

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

SENTENCES = ["to be, or not to be", "not now", "to or, be now"] * 10
TOKENS = [["to", "be"], ["t o", "be", ","], ["be", "", "to", "b"]] * 10
MIXED = ["to be", ["to", "be", "two words"]] * 10


def pairs(text):
    return [text[i : i + 2] for i in range(0, len(text), 2)]


def model_of(cls, X, analyzer="char"):
    model = cls(hidden_size=8, max_iter=3, analyzer=analyzer, random_state=0)
    return model.fit(X, np.arange(len(X)) % 2) if cls is CharRNNClassifier else model.fit(X)


FORMS = {
    "characters": (SENTENCES, "char", str),
    "words": (SENTENCES, "word", str),
    "callable": (SENTENCES, str.split, list),
    "pairs": (SENTENCES, pairs, list),
    "tokens": (TOKENS, "char", list),
    "tokens by words": (TOKENS, "word", list),
    "letters in lists": ([list(s) for s in SENTENCES], "char", list),
    "mixed": (MIXED, "char", list),
}


@pytest.mark.parametrize("cls", [CharRNNClassifier, CharRNNLanguageModel])
@pytest.mark.parametrize("form", FORMS)
def test_draws_are_read_back_as_the_symbols_drawn(cls, form, monkeypatch):
    X, analyzer, kind = FORMS[form]
    model = model_of(cls, X, analyzer)
    codes = []
    draw = cls._draw
    monkeypatch.setattr(cls, "_draw", lambda *args: codes.extend(drawn := draw(*args)) or drawn)
    drawn = model.sample(40, random_state=0)
    texts = drawn[0] if cls is CharRNNClassifier else drawn
    assert {type(text) for text in texts} == {kind}
    read = model._encode(texts)
    for start, n, expected in zip(read.starts, read.lengths, codes):
        assert read.codes[start + 1 : start + n].tolist() == expected
    if cls is CharRNNLanguageModel:
        assert np.isfinite(model.score(texts))


@pytest.mark.parametrize("form", FORMS)
def test_each_draw_follows_its_prefix(form):
    X, analyzer, kind = FORMS[form]
    model = model_of(CharRNNLanguageModel, X, analyzer)
    if callable(analyzer):  # a list of strings would be the tokens of one prefix
        X = [analyzer(text) for text in X]
    prefixes = [X[0], X[1], X[0]]
    drawn = model.sample(3, prefix=prefixes, max_length=5, random_state=0)
    for text, prefix in zip(drawn, prefixes):
        expected = model._encode([prefix])
        n = int(expected.lengths[0])
        assert model._encode([text]).codes[:n].tolist() == expected.codes[:n].tolist()
        assert isinstance(text, list if isinstance(prefix, list) else kind)
    # the same prefix for all, given once or each by itself
    alike = model.sample(3, prefix=[X[1]] * 3, max_length=5, random_state=0)
    assert model.sample(3, prefix=X[1], max_length=5, random_state=0) == alike
    assert drawn[1] == alike[1]


def test_a_list_of_strings_is_the_prefix_of_token_lists_and_a_prefix_each_of_strings():
    tokens, words = model_of(CharRNNLanguageModel, TOKENS), model_of(
        CharRNNLanguageModel, SENTENCES, "word"
    )
    assert tokens.sample(1, prefix=["to", "be"], max_length=0) == [["to", "be"]]
    assert words.sample(2, prefix=["to", "be"], max_length=0) == ["to", "be"]
    assert words.sample(1, prefix=[["to", "be"]], max_length=0) == [["to", "be"]]
    assert words.sample(1, prefix="to be ", max_length=1, top_k=1)[0].startswith("to be ")
    with pytest.raises(ValueError, match="one entry for each of n_samples=1 draws; got 2"):
        words.sample(1, prefix=["to", "be"])
    for wrong in (3, None, {"to"}, [["to", 3]]):
        with pytest.raises(ValueError, match="prefix"):
            words.sample(1, prefix=wrong)


@pytest.mark.parametrize("cls", [CharRNNClassifier, CharRNNLanguageModel])
def test_a_joiner_makes_strings_and_warns_of_what_is_not_read_back(cls):
    by_pairs = model_of(cls, ["abcdef", "cdef", "abcd"] * 10, pairs)
    drawn = by_pairs.sample(20, joiner="", random_state=0)
    texts = drawn[0] if cls is CharRNNClassifier else drawn
    lists = by_pairs.sample(20, random_state=0)
    lists = lists[0] if cls is CharRNNClassifier else lists
    assert texts == ["".join(tokens) for tokens in lists]
    with pytest.warns(UserWarning, match="is read back by analyzer as") as told:
        by_pairs.sample(20, joiner="+", random_state=0)
    assert told[0].filename == __file__
    with pytest.raises(ValueError, match="joiner must be a str or None; got 1"):
        by_pairs.sample(1, joiner=1)
