"""Slow, obvious oracles for the topic model; each says what it computes, none is clever."""

from itertools import product

import numpy as np
from scipy.special import gammaln, roots_jacobi


def word_list(counts):
    """The words of one document, in the order of the vocabulary."""
    return np.repeat(np.arange(len(counts)), counts)


def log_assignment_prior(topic_counts, prior):
    """log p(z_1..z_n) of assignments with these topic counts: a Polya urn."""
    topic_counts, prior = np.asarray(topic_counts), np.asarray(prior)
    return (
        gammaln(prior.sum())
        - gammaln(prior.sum() + topic_counts.sum())
        + np.sum(gammaln(prior + topic_counts) - gammaln(prior))
    )


def log_prob_by_enumeration(counts, topic_word, prior):
    """log of the sum of p(z) p(w given z) over all K**N assignments of topics to words."""
    words, n_topics = word_list(counts), len(topic_word)
    total = 0.0
    for assignment in product(range(n_topics), repeat=len(words)):
        topic_counts = np.bincount(np.array(assignment, dtype=int), minlength=n_topics)
        likelihood = np.prod([topic_word[z, w] for z, w in zip(assignment, words)])
        total += likelihood * np.exp(log_assignment_prior(topic_counts, prior))
    return np.log(total)


def log_prob_by_polynomial(counts, topic_word, prior):
    """The same in log space: coefficients of prod_t sum_k phi_k(w_t) x_k, times p(z)."""
    n_topics = len(topic_word)
    with np.errstate(divide="ignore"):
        log_topic_word = np.log(topic_word)
    coefficients = {(0,) * n_topics: 0.0}
    for word in word_list(counts):
        extended = {}
        for vector, log_sum in coefficients.items():
            for k in range(n_topics):
                key = (*vector[:k], vector[k] + 1, *vector[k + 1 :])
                term = log_sum + log_topic_word[k, word]
                extended[key] = np.logaddexp(extended.get(key, -np.inf), term)
        coefficients = extended
    terms = [value + log_assignment_prior(key, prior) for key, value in coefficients.items()]
    return np.logaddexp.reduce(terms)


def log_prob_two_topics(counts, topic_word, prior):
    """The same for K = 2 and long documents: coefficients of a polynomial in one variable."""
    with np.errstate(divide="ignore"):
        log_topic_word = np.log(topic_word)
    coefficients = np.zeros(1)
    for word in word_list(counts):
        stay = np.append(coefficients + log_topic_word[0, word], -np.inf)
        step = np.append(-np.inf, coefficients + log_topic_word[1, word])
        coefficients = np.logaddexp(stay, step)
    n_words, n_second = np.sum(counts), np.arange(np.sum(counts) + 1)
    log_prior = (
        gammaln(np.sum(prior)) - gammaln(np.sum(prior) + n_words)
        + gammaln(prior[0] + n_words - n_second) - gammaln(prior[0])
        + gammaln(prior[1] + n_second) - gammaln(prior[1])
    )
    return np.logaddexp.reduce(coefficients + log_prior)


def log_prob_by_quadrature(counts, topic_word, prior, n_nodes=200):
    """Gauss-Jacobi over theta, K = 2 or 3 (stick breaking); counts may be fractional."""
    counts = np.asarray(counts, dtype=float)
    used = counts > 0

    def beta_rule(a, b):  # nodes and weights of Beta(a, b)
        nodes, weights = roots_jacobi(n_nodes, b - 1.0, a - 1.0)
        return (nodes + 1.0) / 2.0, weights / weights.sum()

    first, weights = beta_rule(prior[0], np.sum(prior[1:]))
    if len(prior) == 2:
        theta = np.column_stack([first, 1.0 - first])
    else:
        second, inner = beta_rule(prior[1], prior[2])
        first, rest = first[:, None], 1.0 - first[:, None]
        parts = np.broadcast_arrays(first, rest * second, rest * (1.0 - second))
        theta = np.stack(parts, axis=-1).reshape(-1, 3)
        weights = np.outer(weights, inner).ravel()
    log_likelihood = np.log(theta @ topic_word[:, used]) @ counts[used]
    largest = log_likelihood.max()
    return largest + np.log(weights @ np.exp(log_likelihood - largest))


def left_to_right_unweighted(counts, topic_word, prior, n_particles, rng, redraw=True):
    """Wallach et al. (2009), algorithm 3, word by word: the mean of p(w_n given z_<n) over
    particles that carry no weights.  ``redraw=False`` leaves the earlier topics as they are."""
    words, n_topics = word_list(counts), len(topic_word)
    words = rng.permutation(words)
    topics = np.zeros((n_particles, len(words)), dtype=int)
    topic_counts = np.zeros((n_particles, n_topics))
    each = np.arange(n_particles)

    def draw(mass):
        point = rng.uniform(size=(n_particles, 1)) * mass.sum(axis=1, keepdims=True)
        return np.minimum((mass.cumsum(axis=1) <= point).sum(axis=1), n_topics - 1)

    result = 0.0
    for n, word in enumerate(words):
        for i in range(n if redraw else 0):
            topic_counts[each, topics[:, i]] -= 1
            topics[:, i] = draw((topic_counts + prior) * topic_word[:, words[i]])
            topic_counts[each, topics[:, i]] += 1
        mass = (topic_counts + prior) * topic_word[:, word] / (np.sum(prior) + n)
        result += np.log(mass.sum(axis=1).mean())
        topics[:, n] = draw(mass)
        topic_counts[each, topics[:, n]] += 1
    return result


def sample_counts(rng, topic_word, prior, n_documents, n_words):
    """Documents of the model itself."""
    theta = rng.dirichlet(prior, size=n_documents)
    return np.array([rng.multinomial(n_words, row @ topic_word) for row in theta])
