"""
==============================
Does the order of words help?
==============================

A topic model sees a bag of words; a hidden Markov model sees them in their order. Both say how
probable a text is, so the question is a subtraction, if only both speak of the same thing: the
probability of the words *in the order they stand*. For the topic model that is an integral over the
topic proportions of each document,

.. math:: p(x_1..x_n) = \\int p(\\theta | \\alpha) \\prod_t \\sum_s p(s | \\theta)\\, p(x_t | s)\\,
          d\\theta,

which :class:`~sklearn.decomposition.LatentDirichletAllocation` does not compute (its ``score`` is a
lower bound that changes with the size of the test set), and :class:`~sklseq.topics.TopicMixture`
does. Then we shuffle the words of every held-out document: what a model loses by that is what it
had from their order.
"""

import inspect
import re
import warnings
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.discovery import all_estimators

from sklseq import CategoricalHMM, SoftmaxStateSpace, TopicMixture

# %%
# The text comes with scikit-learn: what its documentation says about each estimator
# before the lists of parameters begin, and under "Notes". One page is one document; every fifth is
# held out. The 100 most frequent words of the training pages keep their name, the rest is "other".
N_WORDS = 100


def page(thing):
    """The prose of a docstring, as a list of words."""
    parts = re.split(r"\n([^\n]+)\n-{3,}\n", inspect.getdoc(thing) or "")
    titles, texts = parts[1::2], parts[2::2]
    notes = [text for title, text in zip(titles, texts) if title == "Notes"]
    prose = re.sub(r"(?m)^\s*(\.\.|:).*$", "", "\n".join([parts[0], *notes]))  # no directives
    return re.findall(r"[a-z]+", prose.lower())


pages = [page(thing) for _, thing in all_estimators()]
pages = [words for words in pages if len(words) >= 20]
training = [words for i, words in enumerate(pages) if i % 5]
frequent = Counter(word for words in training for word in words).most_common(N_WORDS)
code = {word: i for i, (word, _) in enumerate(frequent)}
documents = [np.array([code.get(word, N_WORDS) for word in words]) for words in pages]
train = [words for i, words in enumerate(documents) if i % 5]
test = documents[::5]
print(f"{len(train)} pages, {sum(map(len, train))} words; held out: {len(test)} pages")

rng = np.random.default_rng(0)
shuffled = [rng.permutation(words) for words in test]

# %%
# Each model wants the same text in its own form: steps for the HMM, counts of each page for the
# bags of words, one-hot rows for the state space.


def steps(documents):
    return [words.reshape(-1, 1) for words in documents]


def counts(documents):
    return np.array([np.bincount(words, minlength=N_WORDS + 1) for words in documents])


def one_hot(documents):
    return [
        csr_array((np.ones(len(words)), (np.arange(len(words)), words)), (len(words), N_WORDS + 1))
        for words in documents
    ]


unigram = (counts(train).sum(axis=0) + 1.0) / (counts(train).sum() + N_WORDS + 1.0)
models = {
    "unigram": (TopicMixture.from_parameters(topic_word=[unigram], doc_topic_prior=1.0), counts),
    "TopicMixture,\n20 topics": (
        TopicMixture(20, random_state=0).fit(counts(train)), counts
    ),
    "CategoricalHMM,\n20 states": (
        CategoricalHMM(
            20, n_categories=N_WORDS + 1, alpha=0.01, n_init=1, max_iter=100, tol=1e-3,
            random_state=0,
        ).fit(steps(train)),
        steps,
    ),
}  # fmt: skip
# Three EM iterations, so that the page is built in seconds; more would raise it a little.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    models["SoftmaxStateSpace,\n2 dimensions"] = (
        SoftmaxStateSpace(2, max_iter=3, n_init=1, n_particles=0, random_state=0).fit(
            one_hot(train)
        ),
        one_hot,
    )

bits = {
    name: [-model.score(form(text)) / np.log(2) for text in (test, shuffled)]
    for name, (model, form) in models.items()
}
for name, (ordered, mixed) in bits.items():
    print(f"{' '.join(name.split()):28s} {ordered:.3f} bits per word, shuffled {mixed:.3f}")

# %%
# The bags of words give the shuffled pages the very same probability. The topics know what a page
# is about, and that is worth something; the hidden Markov model knows what kind of word comes next,
# and that is worth more, until the words are shuffled.
fig, ax = plt.subplots(figsize=(8, 0.9 + 0.7 * len(bits)), layout="constrained")
for row, (ordered, mixed) in enumerate(bits.values()):
    ax.plot([ordered, mixed], [row, row], color="0.6", linewidth=2, zorder=1)
    ax.scatter(mixed, row, s=90, marker="D", color="#d1495b", label="words shuffled", zorder=2)
    ax.scatter(ordered, row, s=50, color="#30638e", label="as written", zorder=3)
    ax.annotate(
        f"{ordered:.2f}", (ordered, row), xytext=(0, 9), textcoords="offset points", ha="center"
    )
    if mixed - ordered > 0.05:
        ax.annotate(
            f"{mixed:.2f}", (mixed, row), xytext=(0, 9), textcoords="offset points", ha="center"
        )
ax.set_yticks(range(len(bits)), bits)
ax.set_ylim(len(bits) - 0.4, -0.7)
ax.margins(x=0.08)
ax.set_xlabel("bits per held-out word (fewer is better)")
handles, labels = ax.get_legend_handles_labels()
above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
ax.legend(handles[1::-1], labels[1::-1], frameon=False, ncols=2, **above)
plt.show()
