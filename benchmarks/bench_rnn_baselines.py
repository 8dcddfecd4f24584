"""Default CharRNNClassifier and CharRNNLanguageModel beside the simple baseline of each task.

    PYTHONPATH=. python benchmarks/bench_rnn_baselines.py [names] [endings] [sms] [rare] [languages]
                                                          [nextchar]

names      surnames of 18 languages, one stratified fold of five
endings    6,000 distinct surnames with a made label: class 1 with the probability that ENDINGS
           gives for the last letter.  First names by gender are like it; the best log-loss is known
sms        SMS spam, one stratified fold of five
rare       27 spam among 1,327 messages, 1,327 others (53 spam) to test: average precision
languages  sentences of eight surnames of one of 17 languages, 2,500 to train and 2,500 to test:
           no multilingual text is at hand, so the sentences are made
nextchar   a language model of 900 sentences (UD English EWT) beside an interpolated 6-gram

The baseline of labels: TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)) and
LogisticRegression with the better C of 1, 10 and 100 *on the test set*: no easy mark.
Data from ../shared/data.  Times are CPU seconds of this process.
"""

import sys
import time
import warnings
from collections import Counter, defaultdict

import numpy as np
from bench_rnn_learning import DATA, read_names, read_sms
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

ENDINGS = {"a": 0.95, "e": 0.75, "i": 0.7, "y": 0.6, "o": 0.15, "u": 0.4}
OTHER_ENDING = 0.15


def told(name, model, train, test, y_train, y_test):
    began = time.process_time()
    model.fit(train, y_train)
    seconds = time.process_time() - began
    p = model.predict_proba(test)
    accuracy = (model.classes_[p.argmax(axis=1)] == y_test).mean()
    loss = log_loss(y_test, p, labels=model.classes_)
    line = f"  {name}: accuracy {accuracy:.4f}, log-loss {loss:.4f}"
    if len(model.classes_) == 2:
        ap = average_precision_score(y_test, p[:, 1], pos_label=model.classes_[1])
        line += f", average precision {ap:.4f}"
    print(f"{line}, {seconds:.1f} s", flush=True)


def compare(task, train, test, y_train, y_test):
    print(f"{task}: {len(train)} to train, {len(test)} to test")
    for C in (1, 10, 100):
        ngrams = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False),
            LogisticRegression(C=C, max_iter=2000),
        )
        told(f"n-grams, C={C}", ngrams, train, test, y_train, y_test)
    told("CharRNNClassifier()", CharRNNClassifier(random_state=0), train, test, y_train, y_test)


def one_fold(X, y):
    train, test = next(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    return X[train], X[test], y[train], y[test]


def made_labels(X, random):
    p = np.array([ENDINGS.get(x[-1].lower(), OTHER_ENDING) for x in X])
    return (random.random_sample(len(X)) < p).astype(int), p


def bench_names():
    compare("names", *one_fold(*read_names()))


def bench_endings():
    random = np.random.RandomState(0)
    X = random.permutation(np.unique(read_names()[0]))[:6000].astype(object)
    y, p = made_labels(X, random)
    train, test, y_train, y_test, _, p_test = train_test_split(X, y, p, random_state=0)
    print(f"endings: the best that is possible is {log_loss(y_test, p_test):.4f}")
    compare("endings", train, test, y_train, y_test)


def bench_sms():
    compare("sms", *one_fold(*read_sms()))


def bench_rare():
    X, y = read_sms()
    random = np.random.RandomState(0)
    ham, spam = (random.permutation(np.flatnonzero(y == label)) for label in ("ham", "spam"))
    train = np.concatenate([ham[:1300], spam[:27]])
    test = np.concatenate([ham[1300:2574], spam[27:80]])
    compare("rare", X[train], X[test], y[train], y[test])


def bench_languages():
    X, y = read_names()
    random = np.random.RandomState(0)
    languages = [name for name in np.unique(y) if name != "Scottish"]  # as good as English
    sentences, labels = [], []
    for label in random.choice(languages, 5000):
        sentences.append(" ".join(random.choice(X[y == label], 8)))
        labels.append(label)
    X, y = np.array(sentences, dtype=object), np.array(labels)
    compare("languages", X[:2500], X[2500:], y[:2500], y[2500:])


class NGrams:
    """Interpolated n-grams of characters by Witten and Bell's estimate, for a mark."""

    def __init__(self, order=6):
        self.order = order

    def fit(self, texts):
        self.counts = defaultdict(Counter)
        self.symbols = set("".join(texts)) | {"\n"}
        for text in texts:
            padded = "\n" + text + "\n"
            for i in range(1, len(padded)):
                for n in range(self.order):
                    if i - n >= 0:
                        self.counts[padded[i - n : i]][padded[i]] += 1
        return self

    def score(self, texts):
        total = n_symbols = 0
        for text in texts:
            padded = "\n" + text + "\n"
            for i in range(1, len(padded)):
                p = 1.0 / (len(self.symbols) + 1)
                for n in range(min(i, self.order - 1) + 1):
                    seen = self.counts.get(padded[i - n : i])
                    if seen:
                        many = sum(seen.values())
                        p = (seen[padded[i]] + len(seen) * p) / (many + len(seen))
                total += np.log(p)
            n_symbols += len(text) + 1
        return total / n_symbols


def read_sentences(part):
    blocks = (DATA / "ud_ewt" / f"{part}.tsv").read_text(encoding="utf8").strip().split("\n\n")
    return [" ".join(line.split("\t")[0] for line in block.splitlines()) for block in blocks]


def bench_nextchar():
    train, test = read_sentences("dev")[:900], read_sentences("test")[:900]
    known = set("".join(train))
    test = [text for text in test if set(text) <= known]
    print(f"nextchar: {len(train)} sentences to train, {len(test)} to test")
    for order in (5, 6):
        print(f"  {order}-gram: {-NGrams(order).fit(train).score(test):.4f} nats")
    began = time.process_time()
    model = CharRNNLanguageModel(random_state=0).fit(train)
    seconds = time.process_time() - began
    print(f"  CharRNNLanguageModel(): {-model.score(test):.4f} nats, {seconds:.0f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or ["names", "endings", "sms", "rare", "languages", "nextchar"]:
        globals()[f"bench_{name}"]()
