"""Variational Bayes for the topics, with a prior of topic proportions that may differ by topic.

Beside the mean-field posterior q(theta_d) = Dirichlet(gamma_d) of ``_proportions`` stands that of
the topics, q(phi_k) = Dirichlet(lambda_k) (Hoffman, Blei and Bach 2010, equations 3 to 5):

    lambda_kv = eta + sum_d x_dv r_dvk,    r_dvk prop. to exp(E log theta_dk + E log phi_kv),

and, where it is learned, alpha that makes sum_d E log p(theta_d | alpha) largest (Minka 2000,
"Estimating a Dirichlet distribution", equation 9): psi(alpha_k) = psi(sum_j alpha_j) + the mean of
E log theta_dk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import gammaln, polygamma, psi

from sklseq.topics._topic_model import Documents, TopicModel

GAMMA_TOL, GAMMA_MAX_ITER = 1e-5, 200
PRIOR_STEPS = 50  # of the fixed point for alpha after each pass
FIRST_PASSES = 10  # before alpha is learned: topics all alike must part first, or some go under
LEAST_PRIOR = 1e-4  # of a topic that no document has
BLOCK = 2**20  # numbers of the responsibilities held at once


class TopicStatistics(NamedTuple):
    """Expected counts (n_topics, n_vocabulary), sum of E log theta (n_topics,), documents."""

    word_counts: np.ndarray
    log_theta: np.ndarray
    n_documents: np.ndarray


@dataclass(frozen=True)
class VariationalTopics:
    """The posterior of the topics, as a value.

    Parameters
    ----------
    components : ndarray of shape (n_topics, n_vocabulary)
        lambda, positive.
    word_prior : float
        eta.
    prior : ndarray of shape (n_topics,)
        alpha.
    learns_prior : bool
        Whether an M-step moves alpha, after `first_passes` that do not.
    first_passes : int
    """

    components: np.ndarray
    word_prior: float
    prior: np.ndarray
    learns_prior: bool
    first_passes: int = 0

    def e_step(self, X: csr_array, n_jobs: int | None = None) -> tuple[TopicStatistics, float]:
        """Statistics of documents, and the lower bound of their log-probability, nats."""
        log_word = _mean_log(self.components)
        shift = log_word.max(axis=0)  # cancels in the responsibilities; keeps rare words from 0
        word = np.exp(log_word - shift)
        documents = Documents.from_csr(X)
        gamma = TopicModel(word, self.prior).gamma(documents, GAMMA_MAX_ITER, n_jobs, GAMMA_TOL)
        log_theta = _mean_log(gamma)
        highest = log_theta.max(axis=1)
        theta = np.exp(log_theta - highest[:, None])
        word_counts, rows = np.zeros_like(word), X.indptr
        row_of = np.repeat(np.arange(X.shape[0]), np.diff(rows))
        bound, step = 0.0, max(1, BLOCK // len(self.prior))
        for first in range(0, X.nnz, step):
            part = slice(first, first + step)
            d, v, x = row_of[part], X.indices[part], X.data[part]
            total = np.einsum("ik,ki->i", theta[d], word[:, v])
            bound += x @ (np.log(total) + highest[d] + shift[v])
            shares = csr_array((x / total, (d - d[0], v)), shape=(d[-1] - d[0] + 1, len(shift)))
            word_counts += (shares.T @ theta[d[0] : d[-1] + 1]).T
        bound += _divergence(gamma, self.prior, log_theta)
        bound += _divergence(
            self.components, np.full(len(shift), self.word_prior), log_word
        )
        return TopicStatistics(
            word_counts * word, log_theta.sum(axis=0), np.array(float(X.shape[0]))
        ), bound

    def m_step(self, statistics: TopicStatistics) -> VariationalTopics:
        """The posterior of the topics, and alpha where it is learned."""
        prior = self.prior
        if self.learns_prior and not self.first_passes:
            prior = _learned_prior(prior, statistics.log_theta / statistics.n_documents)
        return replace(
            self,
            components=self.word_prior + statistics.word_counts,
            prior=prior,
            first_passes=max(self.first_passes - 1, 0),
        )

    def moved(self, statistics: TopicStatistics, model: VariationalTopics) -> TopicStatistics:
        """Statistics in the form that an E-step at `model` has: they are what they were."""
        return statistics


class VariationalPasses:
    """Passes over all documents, in the words of LatentDirichletAllocation."""

    def __init__(self, model: VariationalTopics) -> None:
        self.model = model
        self.statistics: TopicStatistics | None = None

    def partial_fit(self, X: csr_array) -> None:
        statistics, _ = self.model.e_step(X)
        self.model, self.statistics = self.model.m_step(statistics), statistics

    def score(self, X: csr_array) -> float:
        return self.model.e_step(X)[1]

    @property
    def components_(self) -> np.ndarray:
        return self.model.components

    @property
    def doc_topic_prior_(self) -> np.ndarray:
        return self.model.prior


def random_components(rng, n_topics: int, n_vocabulary: int) -> np.ndarray:
    """The start of LatentDirichletAllocation: all words about alike in all topics."""
    return rng.gamma(100.0, 0.01, (n_topics, n_vocabulary))


def _mean_log(shapes: np.ndarray) -> np.ndarray:
    """E log of Dirichlet distributed rows."""
    return psi(shapes) - psi(shapes.sum(axis=1, keepdims=True))


def _divergence(shapes: np.ndarray, prior: np.ndarray, mean_log: np.ndarray) -> float:
    """sum over rows of E log Dirichlet(prior) - E log Dirichlet(shapes), under the latter."""
    total = ((prior - shapes) * mean_log).sum() + (gammaln(shapes) - gammaln(prior)).sum()
    return float(total + len(shapes) * gammaln(prior.sum()) - gammaln(shapes.sum(axis=1)).sum())


def _learned_prior(prior: np.ndarray, mean_log_theta: np.ndarray) -> np.ndarray:
    """alpha by Minka's fixed point: every step raises E log p(theta | alpha)."""
    for _ in range(PRIOR_STEPS):
        old = prior
        prior = np.maximum(_inverse_psi(psi(prior.sum()) + mean_log_theta), LEAST_PRIOR)
        if np.allclose(prior, old, rtol=1e-9, atol=0.0):
            break
    return prior


def _inverse_psi(y: np.ndarray) -> np.ndarray:
    """x with psi(x) = y, by Newton's method (Minka 2000, appendix C)."""
    x = np.where(y >= -2.22, np.exp(y) + 0.5, -1.0 / (np.minimum(y, -2.22) - psi(1.0)))
    for _ in range(6):
        x = x - (psi(x) - y) / polygamma(1, x)
    return x
