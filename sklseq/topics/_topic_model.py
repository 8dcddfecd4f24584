"""The topic model as a value: phi, alpha, and what follows from them for given documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import comb, softmax

from sklseq._sequences import run_calls
from sklseq.topics._count_vectors import count_vectors, exact
from sklseq.topics._left_to_right import left_to_right
from sklseq.topics._proportions import importance, mean_field

# Documents in one shard of work: fixed, so that shards depend on the data only.
SHARD_SIZE = 32
# Earlier topics redrawn before each word: all of them up to this many, then a moving window.
WINDOW = 512
# Fraction of the words to come that particles know of, and iterations of mean field behind the
# guess which topics those have: converged it is too sure of itself, and particles miss modes.
FORESIGHT = 0.5
GUESS_ITERATIONS = 5
# A document of more words is scored over theta: particles would have to hold every word's topic.
MAX_WORDS = 20_000
# Exact recursion: the largest table of count vectors, and the cost that is always worth it, in
# multiply-adds (under a millisecond).  A redrawn topic costs one for each topic, and this many more
# for the random number, the search and the look-ups.
MAX_VECTORS = 1_000_000
ALWAYS_EXACT = 1_000_000
REDRAW_COST = 20
# Importance sampling that states a larger error has missed what matters: it is then off by several
# times as much (benchmarks), and says infinity.
TRUSTED_ERROR = 0.2
# Importance sampling draws this many theta for each particle asked for.
DRAWS_PER_PARTICLE = 48
MEAN_FIELD_TOL = 1e-7
MEAN_FIELD_MAX_ITER = 1000


@dataclass(frozen=True)
class Documents:
    """Distinct words and their counts, CSR fashion, in the types the kernels take."""

    offsets: np.ndarray  # (n_documents + 1,) int64
    indices: np.ndarray  # int32, increasing within a document
    counts: np.ndarray  # float64, positive

    @classmethod
    def from_csr(cls, X: csr_array) -> Documents:
        """From canonical CSR: sorted, no duplicates, no stored zeros."""
        return cls(X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_words(self) -> np.ndarray:
        """Words of each document, (n_documents,).  Summed in the order of the vocabulary."""
        rows = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.bincount(rows, weights=self.counts, minlength=len(self))

    @property
    def whole(self) -> np.ndarray:
        """Which documents have whole counts only, (n_documents,)."""
        broken = np.concatenate([[0], np.cumsum(self.counts != np.floor(self.counts))])
        return broken[self.offsets[1:]] == broken[self.offsets[:-1]]

    def take(self, rows: np.ndarray) -> Documents:
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        where = np.repeat(self.offsets[rows], lengths) + inside
        return Documents(offsets, self.indices[where], self.counts[where])

    def word_lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Every word of every document by itself, and where each document begins.

        A document's words stand in the order of a hash of (word, how often it stood before): one
        order for one content, and no run of alike words, which the recursions like least.
        """
        repeats = self.counts.astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(repeats)])
        words, offsets = np.repeat(self.indices, repeats), ends[self.offsets]
        copies = np.arange(ends[-1]) - np.repeat(ends[:-1], repeats)
        keys = _mix(_mix(words.astype(np.uint64)) + copies.astype(np.uint64))
        rows = np.repeat(np.arange(len(self)), np.diff(offsets))
        return words[np.lexsort((keys, rows))], offsets

    def seeds(self, seed: int) -> np.ndarray:
        """One 64-bit seed for each document, of its content alone.

        The sum modulo 2**64 over its words of mix(mix(word + mix(seed)) xor bits of the count),
        mix the finaliser of splitmix64: neither neighbours, nor order, nor dtype matter.
        """
        words = self.indices.astype(np.uint64) + _mix(np.array([seed], dtype=np.uint64))
        hashes = _mix(_mix(words) ^ self.counts.view(np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
        return sums[self.offsets[1:]] - sums[self.offsets[:-1]]


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, element by element."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class TopicModel:
    """p(w_1..w_N) = integral of Dirichlet(theta; alpha) prod_t sum_k theta_k phi_k(w_t).

    Parameters
    ----------
    topic_word : ndarray of shape (n_topics, n_vocabulary)
        phi, rows sum to 1.
    prior : ndarray of shape (n_topics,)
        alpha, positive.
    """

    topic_word: np.ndarray
    prior: np.ndarray

    def proportions(self, documents: Documents, n_jobs: int | None = None) -> np.ndarray:
        """Mean-field posterior mean of theta, (n_documents, n_topics)."""
        gamma = self.gamma(documents, MEAN_FIELD_MAX_ITER, n_jobs)
        return gamma / gamma.sum(axis=1, keepdims=True)

    def log_prob(
        self, documents: Documents, *, n_particles: int, seed: int, n_jobs: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """log p(words of each document in their order), nats, and its standard error.

        The error is 0 where the recursion is exact, infinite where it cannot be told.
        """
        if len(self.prior) == 1:
            return self._single_topic(documents), np.zeros(len(documents))
        log_prob, std_error = np.zeros((2, len(documents)))
        by_dp, by_particles, by_theta = self._routes(documents, n_particles)
        log_prob[by_dp] = self._exact(documents.take(by_dp), n_jobs)
        seeds = documents.seeds(seed)
        for rows, estimate in ((by_particles, self._left_to_right), (by_theta, self._importance)):
            log_prob[rows], std_error[rows] = estimate(
                documents.take(rows), seeds[rows], n_particles, n_jobs
            )
        return log_prob, std_error

    def sample(self, n_words: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
        """Documents of n_words words each: counts, and the topic proportions behind them."""
        theta = draw_dirichlet(self.prior, len(n_words), rng)
        words = theta @ self.topic_word
        words /= words.sum(axis=1, keepdims=True)
        counts = [rng.multinomial(n, row) for n, row in zip(n_words, words)]
        return np.array(counts, dtype=np.int64).reshape(-1, words.shape[1]), theta

    @property
    def _word_topic(self) -> np.ndarray:
        """phi by word, topics padded to a multiple of 4 by zeros: what every kernel reads."""
        n_topics, n_vocabulary = self.topic_word.shape
        padded = np.zeros((n_vocabulary, -(-n_topics // 4) * 4))
        padded[:, :n_topics] = self.topic_word.T
        return padded

    def _routes(self, documents: Documents, n_particles: int) -> list[np.ndarray]:
        """Rows for the exact recursion, for particles and for draws of theta."""
        n_words, n_topics = documents.n_words, len(self.prior)
        whole = documents.whole & (n_words <= MAX_WORDS)
        n_vectors = comb(n_words + n_topics - 1, n_topics - 1)
        exact_cost = n_vectors * (n_words + n_topics)
        window = np.minimum(n_words, WINDOW)
        particle_cost = n_particles * window * (n_words - window / 2) * (n_topics + REDRAW_COST)
        cheaper = exact_cost <= np.maximum(particle_cost, ALWAYS_EXACT)
        by_dp = whole & cheaper & (n_vectors <= MAX_VECTORS)
        return [np.flatnonzero(which) for which in (by_dp, whole & ~by_dp, ~whole)]

    def _single_topic(self, documents: Documents) -> np.ndarray:
        with np.errstate(divide="ignore"):
            log_word = np.log(self.topic_word[0])[documents.indices]
        rows = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
        return np.bincount(rows, documents.counts * log_word, minlength=len(documents))

    def gamma(
        self, documents: Documents, max_iter: int, n_jobs: int | None, tol: float = MEAN_FIELD_TOL
    ) -> np.ndarray:
        """Parameters of the mean-field Dirichlet posterior, (n_documents, n_topics)."""
        word_topic, n_topics = self._word_topic, len(self.prior)

        def work(rows):
            shard = documents.take(rows)
            gamma = np.empty((len(shard), n_topics))
            mean_field(
                word_topic, self.prior, shard.offsets, shard.indices, shard.counts,
                tol, max_iter, np.empty((3, n_topics)), gamma,
            )
            return gamma

        return _map_documents(work, len(documents), n_jobs, np.empty((0, n_topics)))

    def _exact(self, documents: Documents, n_jobs: int | None) -> np.ndarray:
        words, offsets = documents.word_lists()
        longest, n_topics = int(np.diff(offsets).max(initial=0)), len(self.prior)
        word_topic = self._word_topic
        sizes, counts, parents = _count_vector_table(longest, n_topics)
        rising = self.prior[:, None] + (np.arange(longest + 1) - 1.0)
        rising[:, 0] = 0.0

        def work(rows):
            begin, end = offsets[rows[0]], offsets[rows[-1] + 1]
            log_prob = np.empty(len(rows))
            exact(
                word_topic, self.prior.sum(), words[begin:end],
                offsets[rows[0] : rows[-1] + 2] - begin, sizes, counts, parents, rising,
                np.empty(len(counts)), np.empty(n_topics), log_prob,
            )
            return log_prob

        return _map_documents(work, len(documents), n_jobs, np.empty(0))

    def _left_to_right(self, documents: Documents, seeds, n_particles, n_jobs):
        words, offsets = documents.word_lists()
        word_topic = self._word_topic
        n_topics, n_padded = len(self.prior), word_topic.shape[1]
        prior, guess = np.zeros(n_padded), np.zeros((len(documents), n_padded))
        prior[:n_topics] = self.prior
        guess[:, :n_topics] = self.gamma(documents, GUESS_ITERATIONS, n_jobs)

        def work(rows):
            begin, end = offsets[rows[0]], offsets[rows[-1] + 1]
            shard_offsets = offsets[rows[0] : rows[-1] + 2] - begin
            longest = int(np.diff(shard_offsets).max())
            result = np.empty((2, len(rows)))
            left_to_right(
                word_topic, prior, guess[rows], FORESIGHT, WINDOW, words[begin:end],
                shard_offsets, seeds[rows],
                np.empty((2, n_particles * longest), dtype=np.int32),
                np.empty((2, n_particles, n_padded)), np.empty((3, n_padded)),
                np.empty((3, n_particles)), result[0], result[1],
            )
            return result.T

        return _map_documents(work, len(documents), n_jobs, np.empty((0, 2))).T

    def _importance(self, documents: Documents, seeds, n_particles, n_jobs):
        gamma = self.gamma(documents, MEAN_FIELD_MAX_ITER, n_jobs)
        word_topic, n_topics = self._word_topic, len(self.prior)

        def work(rows):
            shard = documents.take(rows)
            result = np.empty((2, len(rows)))
            importance(
                word_topic, self.prior, shard.offsets, shard.indices, shard.counts, gamma[rows],
                seeds[rows], np.empty((6, n_topics)), np.empty(DRAWS_PER_PARTICLE * n_particles),
                result[0], result[1],
            )
            result[1, result[1] > TRUSTED_ERROR] = np.inf
            return result.T

        return _map_documents(work, len(documents), n_jobs, np.empty((0, 2))).T


def _count_vector_table(n_words: int, n_topics: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of count vectors after 0..n_words words; the vectors; their parents' ranks."""
    sizes = comb(np.arange(n_words + 1) + n_topics - 1, n_topics - 1).round().astype(np.int64)
    binomials = comb(np.arange(n_words + n_topics)[:, None], np.arange(n_topics))
    binomials = np.minimum(binomials, 2.0**53)  # larger ones are never looked up
    counts = np.empty((sizes[-1], n_topics), dtype=np.int32)
    parents = np.empty((sizes[-1], n_topics - 1), dtype=np.int32)
    count_vectors(
        binomials.round().astype(np.int64), np.zeros(n_topics - 1, dtype=np.int64), counts, parents
    )
    return sizes, counts, parents


def _map_documents(
    work: Callable, n_documents: int, n_jobs: int | None, empty: np.ndarray
) -> np.ndarray:
    """Concatenated results of work(rows) over fixed-size shards of documents."""
    shards = [
        (np.arange(begin, min(begin + SHARD_SIZE, n_documents)),)
        for begin in range(0, n_documents, SHARD_SIZE)
    ]
    return np.concatenate([empty, *run_calls(work, shards, n_jobs)])


def draw_dirichlet(concentration, n: int, rng) -> np.ndarray:
    """Draws (n, K) of a Dirichlet distribution, with gamma variables by their logarithms.

    A Gamma(a) is a Gamma(a + 1) times U^(1/a) (Marsaglia and Tsang 2000): for small a all of them
    underflow to 0, whose ratios nobody knows.
    """
    shape = (n, len(concentration))
    log_gamma = np.log(rng.standard_gamma(np.broadcast_to(concentration + 1.0, shape)))
    log_gamma -= rng.standard_exponential(shape) / concentration
    return softmax(log_gamma, axis=1)
