"""What the character RNNs learn on real data, with default settings unless told.

    PYTHONPATH=. python benchmarks/bench_rnn_learning.py [names] [sms] [dna] [lstm128] [gru256]
                                                          [shakespeare]

names        surnames of 18 languages, 5-fold stratified: accuracy and log-loss, beside character
             n-grams with logistic regression
sms          SMS spam, 5-fold stratified: accuracy
dna          106 promoter sequences, 5-fold stratified: accuracy
lstm128      tinyshakespeare, first 90 % / last 10 %, the budget of the torch run: LSTM-128, ten
             epochs, batch 50, windows of 50, Adam (torch: 1.693)
gru256       likewise GRU-256, eight epochs (torch: 1.576)
shakespeare  tinyshakespeare, as good as ten CPU minutes allow (a Kneser-Ney 7-gram: 1.517)

Data from ../shared/data.  Times are CPU seconds of this process.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklseq.rnn import CharRNNClassifier, CharRNNLanguageModel

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


def read_names():
    X, y = [], []
    for path in sorted((DATA / "names").glob("*.txt")):
        lines = [line.strip() for line in path.read_text(encoding="utf8").splitlines()]
        X += [line for line in lines if line]
        y += [path.stem] * sum(map(bool, lines))
    return np.array(X, dtype=object), np.array(y)


def read_sms():
    lines = (DATA / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf8").split("\n")
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    return np.array([p[1] for p in pairs], dtype=object), np.array([p[0] for p in pairs])


def read_dna():
    lines = (DATA / "promoters" / "promoters.data").read_text().splitlines()
    rows = [line.strip().split(",") for line in lines]
    return np.array(["".join(r[1:-1]) for r in rows], dtype=object), np.array([r[-1] for r in rows])


def folds(name, model, X, y, n_folds=5):
    scores = []
    cut = StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)
    for fold, (train, test) in zip(range(n_folds), cut):
        began = time.process_time()
        model.fit(X[train], y[train])
        p = model.predict_proba(X[test])
        accuracy = accuracy_score(y[test], model.classes_[p.argmax(axis=1)])
        scores.append((accuracy, log_loss(y[test], p, labels=model.classes_)))
        print(f"  {name} fold {fold}: accuracy {accuracy:.4f}, log-loss {scores[-1][1]:.4f}, "
              f"{time.process_time() - began:.0f} s", flush=True)  # fmt: skip
    print(f"{name}: accuracy %.4f, log-loss %.4f" % tuple(np.mean(scores, axis=0)), flush=True)


def bench_names():
    X, y = read_names()
    folds("names, CharRNNClassifier()", CharRNNClassifier(random_state=0), X, y)
    ngrams = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False),
        LogisticRegression(C=10, max_iter=1000),
    )
    folds("names, n-grams", ngrams, X, y)


def bench_sms():
    folds("sms, CharRNNClassifier()", CharRNNClassifier(random_state=0), *read_sms())


def bench_dna():
    folds("dna, CharRNNClassifier()", CharRNNClassifier(random_state=0), *read_dna())


def shakespeare(name, model):
    text = (DATA / "tinyshakespeare" / "input.txt").read_text()
    cut = int(0.9 * len(text))
    began = time.process_time()
    model.fit([text[:cut]])
    seconds = time.process_time() - began
    print(f"{name}: {-model.score([text[cut:]]):.4f} nats per character, {seconds:.0f} s to fit")


def plain(cell, hidden_size, max_iter):
    """Adam at a constant rate and the last weights, as in the runs of torch."""
    return CharRNNLanguageModel(
        cell, hidden_size, max_iter=max_iter, batch_size=50, bptt_steps=50, solver="adam",
        alpha=0.0, learning_rate="constant", learning_rate_init=2e-3, average_decay=0.0,
        random_state=0, verbose=True,
    )  # fmt: skip


def bench_lstm128():
    shakespeare("LSTM-128, 10 epochs", plain("lstm", 128, 10))


def bench_gru256():
    shakespeare("GRU-256, 8 epochs", plain("gru", 256, 8))


def bench_shakespeare():
    shakespeare(
        "GRU-512, 8 epochs",
        CharRNNLanguageModel(
            "gru", 512, max_iter=8, batch_size=64, bptt_steps=64, dropout=0.25, random_state=0,
            verbose=True,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or ["names", "sms", "dna", "lstm128", "gru256", "shakespeare"]:
        globals()[f"bench_{name}"]()
