"""TopicMixture: cost and error of the held-out likelihood.

    python benchmarks/bench_topics.py [--quick]

One thread, CPU time.  Documents are drawn from the model that scores them.  Errors are in nats per
document, against the exact recursion where it is feasible, else against 1500 particles.

``plain`` is the left-to-right estimator without foresight, ``unweighted`` the one of Wallach et al.
(2009) as published (no weights; NumPy, tests/references_topics.py), ``frozen`` the same without
redrawing topics, ``theta`` importance sampling over topic proportions.  ``lost`` is the fraction of
estimates that say of themselves that they failed; ``z`` is, for the others, the root mean square of
error over stated standard error: 1 where the statement is right.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from sklearn.decomposition import LatentDirichletAllocation

from sklseq.topics import TopicMixture, _topic_model
from sklseq.topics._topic_model import Documents, TopicModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import references_topics as reference

N_PARTICLES = 20


def draw(n_topics, n_vocabulary, n_words, prior, n_documents, seed=0):
    rng = np.random.default_rng(seed)
    topic_word = rng.dirichlet(np.full(n_vocabulary, 0.1), size=n_topics)
    model = TopicModel(topic_word, np.full(n_topics, float(prior)))
    counts = reference.sample_counts(rng, topic_word, model.prior, n_documents, n_words)
    return model, counts


def as_documents(counts) -> Documents:
    return Documents.from_csr(csr_array(counts.astype(float)))


def speed(rounds):
    """The goal: a document of 200 words, K = 50, V = 1000, 20 particles, under 0.2 s."""
    model, counts = draw(50, 1000, 200, 0.1, 10)
    estimator = TopicMixture.from_parameters(
        topic_word=model.topic_word, doc_topic_prior=model.prior, random_state=0,
        n_particles=N_PARTICLES,
    )  # fmt: skip
    estimator.score_samples(counts[:1])
    times = []
    for _ in range(rounds):
        start = time.process_time()
        estimator.score_samples(counts)
        times.append((time.process_time() - start) / len(counts))
    print(f"score_samples, 200 words, K = 50, V = 1000: {1e3 * np.median(times):.1f} ms a document")


def particles(model, documents, seed, foresight=None):
    before = _topic_model.FORESIGHT
    _topic_model.FORESIGHT = before if foresight is None else foresight
    try:
        return model._left_to_right(documents, documents.seeds(seed), N_PARTICLES, None)
    finally:
        _topic_model.FORESIGHT = before


def published(model, counts, seed, redraw):
    rng = np.random.default_rng(seed)
    values = [
        reference.left_to_right_unweighted(
            row, model.topic_word, model.prior, N_PARTICLES, rng, redraw=redraw
        )
        for row in counts
    ]
    return np.array(values), np.full(len(counts), np.nan)


def rms(values):
    return np.sqrt(np.mean(values**2)) if values.size else np.nan


def errors(quick):
    shapes = [
        (3, 30, 60, 0.3, 20), (5, 100, 30, 0.1, 20), (10, 500, 60, 0.1, 10),
        (20, 1000, 100, 0.1, 8), (50, 1000, 50, 0.1, 8), (50, 1000, 200, 0.1, 6),
        (50, 1000, 200, 0.02, 6), (100, 1000, 100, 0.01, 8),
    ]  # fmt: skip
    print("    K     V    n  alpha method        bias    sd   stated    z  lost     ms")
    for n_topics, n_vocabulary, n_words, prior, n_documents in shapes[:3] if quick else shapes:
        model, counts = draw(n_topics, n_vocabulary, n_words, prior, n_documents)
        documents = as_documents(counts)
        if n_topics <= 5:
            start = time.process_time()
            truth = model._exact(documents, None)
            cost = 1e3 * (time.process_time() - start) / n_documents
            print(f"{n_topics:5d} {n_vocabulary:5d} {n_words:4d} {prior:6.2f} exact{cost:46.2f}")
        else:
            truth = model._left_to_right(documents, documents.seeds(10**6), 1500, None)[0]
        methods = {
            "particles": lambda s, m=model, d=documents: particles(m, d, s),
            "plain": lambda s, m=model, d=documents: particles(m, d, s, 0.0),
            "theta": lambda s, m=model, d=documents: m._importance(d, d.seeds(s), 20, None),
            "unweighted": lambda s, m=model, c=counts: published(m, c, s, True),
            "frozen": lambda s, m=model, c=counts: published(m, c, s, False),
        }
        for name, method in methods.items():
            slow = name == "unweighted"
            if slow and n_words > 100:
                continue
            n_repeats = 2 if slow else 20
            start = time.process_time()
            results = [method(seed) for seed in range(n_repeats)]
            cost = 1e3 * (time.process_time() - start) / n_repeats / n_documents
            error = np.array([log_prob for log_prob, _ in results]) - truth
            stated = np.array([std_error for _, std_error in results])
            known = stated < np.inf  # False for NaN: the published estimator states no error
            z = rms(error[known] / stated[known])
            spread = np.sqrt(error.var(axis=0, ddof=1).mean())
            print(
                f"{n_topics:5d} {n_vocabulary:5d} {n_words:4d} {prior:6.2f} {name:11s}"
                f"{error.mean():7.3f}{spread:7.3f}"
                f"{rms(stated[known]):8.3f}{z:6.2f}"
                f"{np.mean(np.isinf(stated)):6.2f}{cost:8.2f}"
            )


def foresight():
    """What share of the future, guessed by how many iterations of mean field."""
    before = _topic_model.GUESS_ITERATIONS
    print("\n    K    n  alpha foresight iterations    rms     z")
    for n_topics, n_vocabulary, n_words, prior in ((5, 100, 30, 0.1), (50, 1000, 100, 0.02)):
        model, counts = draw(n_topics, n_vocabulary, n_words, prior, 8)
        documents = as_documents(counts)
        truth = model._left_to_right(documents, documents.seeds(10**6), 1500, None)[0]
        for share, iterations in (
            (0, 5), (0.3, 5), (0.5, 5), (0.7, 5), (1, 5), (0.5, 1), (0.5, 999)
        ):  # fmt: skip
            _topic_model.GUESS_ITERATIONS = iterations
            results = [particles(model, documents, seed, share) for seed in range(20)]
            error = np.array([log_prob for log_prob, _ in results]) - truth
            z = error / np.array([std_error for _, std_error in results])
            print(
                f"{n_topics:5d} {n_words:4d} {prior:6.2f} {share:9.1f} {iterations:10d}"
                f"{rms(error):8.3f}{rms(z):6.2f}"
            )
    _topic_model.GUESS_ITERATIONS = before


def flat_topics():
    """Topics that share their words, and priors that want one topic a document: Gibbs sticks."""
    print("\n    K     V    n   alpha    rms     z   (flat topics)")
    for prior in (1.0, 0.1, 0.01):
        rng = np.random.default_rng(0)
        model = TopicModel(rng.dirichlet(np.ones(5), size=4), np.full(4, prior))
        counts = reference.sample_counts(rng, model.topic_word, model.prior, 20, 40)
        documents = as_documents(counts)
        truth = model._exact(documents, None)
        results = [particles(model, documents, seed) for seed in range(20)]
        error = np.array([log_prob for log_prob, _ in results]) - truth
        z = error / np.array([std_error for _, std_error in results])
        print(f"{4:5d} {5:5d} {40:4d} {prior:7.2f}{rms(error):7.3f}{rms(z):6.2f}")


def test_set_size():
    """The mean per word of the first documents as the test set grows around them."""
    model, counts = draw(5, 100, 40, 0.1, 350)
    train, test = counts[:150], counts[150:]
    theirs = LatentDirichletAllocation(5, random_state=0).fit(train)
    ours = TopicMixture(5, random_state=0).fit(train)
    exact = model._exact(as_documents(test), None)
    print("\ndocuments in the test set: nats per word")
    print("             scikit-learn   TopicMixture   true parameters, exact")
    for size in (5, 10, 50, 200):
        part, words = test[:size], test[:size].sum()
        truth = exact[:size].sum() / words
        bound = theirs.score(part) / words
        print(f"{size:10d} {bound:14.3f} {ours.score(part):14.3f} {truth:14.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    speed(3 if arguments.quick else 7)
    errors(arguments.quick)
    foresight()
    flat_topics()
    test_set_size()
