"""The softmax state-space model as a value: a linear-Gaussian chain and words, learned together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from sklseq._covariance import covariance_from_vector, covariance_to_vector
from sklseq._sequences import Sequences
from sklseq.state_space import _softmax_sites as kernels
from sklseq.state_space._chain import ChainStatistics, LinearGaussianChain, Moments
from sklseq.state_space._quadrature import sigma_rule, wide_rule
from sklseq.state_space._softmax_posterior import (
    ContentStreams,
    Counts,
    GaussianPosterior,
    Words,
    corrected_moments,
    draw_gaussian_paths,
    draw_paths,
    gaussian_posterior,
    local_correction,
    matched_filter,
    twisted_log_likelihoods,
)

M_STEP_ITERATIONS = 5  # of L-BFGS, warm from the last M-step; ten gain nothing over EM as a whole
M_STEP_GAIN = 1e-9  # relative; what is missing is made up in the next M-step
SMOOTHING = 0.5  # pseudo-count of every word in the unigram that `offset` shrinks to


class Beliefs:
    """Steps and the Gaussian beliefs about their states; adding joins them, in order."""

    def __init__(self, totals, means, covariances):
        self.parts = [(totals, means, covariances)]

    def __add__(self, other: Beliefs) -> Beliefs:
        both = Beliefs.__new__(Beliefs)
        both.parts = self.parts + other.parts
        return both

    def joined(self):
        """totals (n,), means (n, d), covariances (n, d, d)."""
        if len(self.parts) > 1:
            self.parts = [tuple(np.concatenate(column) for column in zip(*self.parts))]
        return self.parts[0]


class WordStatistics(NamedTuple):
    """What the M-step of (B, b) needs; they add.

    A softmax has no sufficient statistics of fixed size, so the beliefs themselves are handed on,
    O(n d^2) numbers.
    """

    moments: np.ndarray  # (V, d + 1) sum of y_t (m_t, 1)'
    beliefs: Beliefs


@dataclass(frozen=True)
class SoftmaxModel:
    """S_t = A S_{t-1} + w_t,   p(word w at step t | S_t) = softmax(B S_t + b)_w.

    Parameters
    ----------
    chain : LinearGaussianChain
    words : Words
        B (V, d) and b (V,).
    alpha : float
        L2 penalty on B and on b - `prior_offset`, in coordinates where Gamma = I (in those given,
        where Gamma is held), and weight of ``LinearGaussianChain.start_log_prior``.
    prior_offset : ndarray of shape (V,)
        The smoothed log-unigram.
    held : mapping of name -> boolean mask
        Of "observation_matrix", "observation_offset": entries that the M-step leaves alone.
    free_gauge : bool
        The state may be transformed: every M-step ends at Gamma = I.
    start : tuple (means (N, d), covariances (N, d, d)), or None
        Beliefs from which the next E-step sets out, for all rows that it is given.
    """

    chain: LinearGaussianChain
    words: Words
    alpha: float = 0.0
    prior_offset: np.ndarray | None = None
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    free_gauge: bool = False
    start: tuple | None = None

    # -- inference

    def counts(self, X) -> Counts:
        return Counts.of(X, self.words)

    def posterior(self, X, offsets, counts: Counts | None = None, start=None) -> GaussianPosterior:
        counts = self.counts(X) if counts is None else counts
        return gaussian_posterior(self.chain, self.words, counts, offsets, start)

    def smooth(self, X, offsets):
        """Smoothed means, covariances, lag-one covariances."""
        return tuple(self.posterior(X, offsets).moments)

    def filter(self, X, offsets):
        """Filtered means and covariances."""
        return matched_filter(self.chain, self.words, self.counts(X), offsets)[1:]

    def final(self, X, offsets) -> Moments:
        """Moments of the last state of each sequence given all of it."""
        counts = self.counts(X)
        q = self.posterior(X, offsets, counts)
        return corrected_moments(self.words, counts, q, offsets[1:] - 1)

    def step_scores(self, X, offsets):
        """(log p(y_t | y_<t), (n_steps,))."""
        return (matched_filter(self.chain, self.words, self.counts(X), offsets)[0],)

    def sequence_scores(self, X, offsets, n_particles: int, seed: int):
        """(log p(y_1..y_n), (n_sequences,)), by the twisted particle filter or, with no particles,
        by the local correction."""
        counts = self.counts(X)
        q = self.posterior(X, offsets, counts)
        if n_particles == 0:
            return (local_correction(self.words, counts, offsets, q),)
        streams = ContentStreams(seed, X, offsets)
        return (
            twisted_log_likelihoods(self.words, counts, offsets, q, streams, n_particles),
        )

    def sample_posterior(self, X, offsets, n_particles: int, n_draws: int, random_state):
        """Paths given X, (n_draws, n_steps, d)."""
        counts = self.counts(X)
        q = self.posterior(X, offsets, counts)
        if n_particles == 0:
            return draw_gaussian_paths(q, offsets, n_draws, random_state)
        return draw_paths(self.words, counts, offsets, q, n_particles, n_draws, random_state)

    def forecast(self, means, covariances, n_steps: int) -> np.ndarray:
        """Word probabilities of the steps after given final moments: (n_sequences, n_steps, V)."""
        rule = wide_rule(self.chain.n_components)
        result = np.empty((len(means), n_steps, len(self.words.offset)))
        for i, (mean, covariance) in enumerate(zip(means, covariances)):
            for step in range(n_steps):
                mean, covariance = self.chain.predict(mean, covariance)
                values, vectors = np.linalg.eigh(covariance)
                root = vectors * np.sqrt(np.maximum(values, 0.0))
                states = mean + rule.nodes @ root.T
                result[i, step] = rule.weights @ self.words.probabilities(states)
        return result

    def sample(self, n_steps: int, n_words: int, random_state):
        """(counts, states) of one sequence."""
        states = self.chain.sample(n_steps, random_state)
        probabilities = self.words.probabilities(states)
        counts = np.array([random_state.multinomial(n_words, p) for p in probabilities], float)
        return counts, states

    # -- learning

    def part(self, rows: slice) -> SoftmaxModel:
        """With the beliefs about these rows only, which travel with the model."""
        if self.start is None:
            return self
        return replace(self, start=tuple(values[rows] for values in self.start))

    def e_step(self, X, offsets):
        """Statistics under the KL-optimal Gaussian, and the bound on the log-likelihood."""
        counts = self.counts(X)
        q = self.posterior(X, offsets, counts, self.start)
        means, covariances, lag_one = q.moments
        everything = covariances.sum(axis=0)
        sums = np.stack([
            everything - covariances[offsets[1:] - 1].sum(axis=0),
            everything - covariances[offsets[:-1]].sum(axis=0),
            lag_one.sum(axis=0),
            covariances[offsets[:-1]].sum(axis=0),
        ])  # fmt: skip
        moments = np.empty((X.shape[1], means.shape[1] + 1))
        moments[:, :-1] = X.T @ means
        moments[:, -1] = np.asarray(X.sum(axis=0)).reshape(-1)
        words = WordStatistics(moments, Beliefs(counts.totals, means, covariances))
        return (self.chain.statistics(means, sums, offsets), words), float(q.bounds.sum())

    @property
    def _gamma_learned(self) -> bool:
        return not np.any(self.chain.held.get("transition_covariance", False))

    def _metric(self) -> np.ndarray:
        """The penalty on B is alpha tr(B metric B') / 2."""
        if self._gamma_learned:
            return self.chain.transition_covariance
        return np.eye(self.chain.n_components)

    def log_prior(self) -> float:
        if not self.alpha:
            return 0.0
        B, b = self.words
        size = np.sum((B @ self._metric()) * B)
        if not np.all(self.held.get("observation_offset", False)):
            size += np.square(b - self.prior_offset).sum()
        return -0.5 * self.alpha * float(size) + self.chain.start_log_prior(self.alpha)

    def m_step(self, statistics: tuple[ChainStatistics, WordStatistics]) -> SoftmaxModel:
        """(B, b) first, then the chain given B, since Gamma carries the penalty on it."""
        chain_statistics, word_statistics = statistics
        words = maximise_words(self, word_statistics)
        penalty = None
        if self.alpha and self._gamma_learned:
            penalty = self.alpha * words.matrix.T @ words.matrix
        _, means, covariances = word_statistics.beliefs.joined()
        model = replace(
            self,
            chain=self.chain.m_step(chain_statistics, penalty, self.alpha),
            words=words,
            start=(means, covariances),
        )
        return model.whitened()

    def why_impossible(self, sequences: Sequences) -> str:
        return (
            "the bound on the log-likelihood is not finite at these parameters; starting values of "
            "a smaller scale would help."
        )

    # -- coordinates

    def transformed(self, T) -> SoftmaxModel:
        """The same model with states T S."""
        B = np.ascontiguousarray(np.linalg.solve(T.T, self.words.matrix.T).T)
        start = self.start
        if start is not None:
            start = (start[0] @ T.T, T @ start[1] @ T.T)
        return replace(
            self, chain=self.chain.transformed(T), words=self.words._replace(matrix=B), start=start
        )

    def whitened(self) -> SoftmaxModel:
        """Gamma = I, where the gauge is free and Gamma is regular."""
        if not self.free_gauge:
            return self
        Gamma = self.chain.transition_covariance
        values, vectors = np.linalg.eigh(Gamma)
        if not values[0] > 1e-12 * values[-1]:
            return self
        model = self.transformed((vectors / np.sqrt(values)) @ vectors.T)
        identity = np.eye(len(Gamma))
        return replace(model, chain=replace(model.chain, transition_covariance=identity))

    def normalised(self) -> SoftmaxModel:
        """B and b centred over words; where the gauge is free Gamma = I, B'B diagonal and
        decreasing, and the largest loading of each state positive."""
        model = self.centred().whitened()
        if not self.free_gauge:
            return model
        B = model.words.matrix
        rotation = np.linalg.eigh(B.T @ B)[1][:, ::-1]
        B = B @ rotation
        largest = B[np.abs(B).argmax(axis=0), np.arange(B.shape[1])]
        rotation = rotation * np.where(largest < 0, -1.0, 1.0)
        model = model.transformed(rotation.T)
        identity = np.eye(len(rotation))
        return replace(model, chain=replace(model.chain, transition_covariance=identity))

    def centred(self) -> SoftmaxModel:
        """A constant added to all logits of a step changes nothing; held entries stay."""
        B, b = self.words
        if not np.any(self.held.get("observation_matrix", False)):
            B = B - B.mean(axis=0)
        if not np.any(self.held.get("observation_offset", False)):
            b = b - b.mean()
        return replace(self, words=Words(B, b))

    # -- parameters as one vector, for acceleration

    def _free(self, name: str) -> np.ndarray:
        value = self._parameters()[name]
        held = {**self.chain.held, **self.held}.get(name, False)
        return ~np.broadcast_to(held, value.shape)

    def _parameters(self) -> dict[str, np.ndarray]:
        chain = self.chain
        values = {
            "transition_matrix": chain.transition_matrix,
            "observation_matrix": self.words.matrix,
            "observation_offset": self.words.offset,
        }
        if not chain.stationary:
            values["initial_state_mean"] = chain.initial_mean
        return values

    def _covariances(self) -> dict[str, np.ndarray]:
        """Covariances that are learned as a whole and regular."""
        chain = self.chain
        values = {}
        if not self.free_gauge:
            values["transition_covariance"] = chain.transition_covariance
        if not chain.stationary and chain.start_ratio is None:
            values["initial_state_covariance"] = chain.initial_covariance
        return {
            name: value
            for name, value in values.items()
            if not np.any(chain.held.get(name, False))
            and np.linalg.eigvalsh(value)[0] > 1e-12 * np.trace(value)
        }

    def to_vector(self) -> np.ndarray:
        """Free parameters as real numbers without constraints."""
        parts = [value[self._free(name)] for name, value in self._parameters().items()]
        parts += [covariance_to_vector(value) for value in self._covariances().values()]
        return np.concatenate(parts)

    def from_vector(self, vector) -> SoftmaxModel | None:
        """The model with these free parameters, or None where they make none."""
        if not np.all(np.isfinite(vector)):
            return None
        values, at = {}, 0
        for name, value in self._parameters().items():
            free = self._free(name)
            values[name] = value.copy()
            values[name][free] = vector[at : at + free.sum()]
            at += free.sum()
        for name, value in self._covariances().items():
            size = len(covariance_to_vector(value))
            values[name] = covariance_from_vector(vector[at : at + size], value)
            at += size
            if not np.all(np.isfinite(values[name])):
                return None
        words = Words(values.pop("observation_matrix"), values.pop("observation_offset"))
        if "initial_state_mean" in values:
            values["initial_mean"] = values.pop("initial_state_mean")
        if "initial_state_covariance" in values:
            values["initial_covariance"] = values.pop("initial_state_covariance")
        chain = replace(self.chain, **values)
        if chain.start_ratio is not None:
            covariance = chain.start_ratio * chain.transition_covariance
            chain = replace(chain, initial_covariance=covariance)
        if chain.stationary:
            chain = chain.at_stationary_start()
            if chain is None:
                return None
        return replace(self, chain=chain, words=words)

    def n_free_parameters(self) -> int:
        """Entries learned; a constant in all logits and the gauge of the state are not counted."""
        B, b = (self._free(name) for name in ("observation_matrix", "observation_offset"))
        count = self.chain.n_free_parameters() + int(B.sum() + b.sum())
        if B.all():
            count -= B.shape[1]
        if b.all():
            count -= 1
        if not self.free_gauge:
            return count
        d = self.chain.n_components
        gamma = {"full": d * (d + 1) // 2, "diag": d, "spherical": 1}
        if self._gamma_learned:  # Gamma = I, and rotations of the state
            count -= gamma[self.chain.covariance_type] + d * (d - 1) // 2
        return count


# ---- the M-step of the words


def unigram_offset(counts: np.ndarray) -> np.ndarray:
    """Centred logarithm of the smoothed unigram."""
    logs = np.log(counts + SMOOTHING)
    return logs - logs.mean()


def maximise_words(model: SoftmaxModel, statistics: WordStatistics) -> Words:
    """(B, b) of larger expected log-probability minus penalty, by preconditioned L-BFGS.

    The expected normaliser is that of the E-step, rule and all, so the bound cannot fall.
    """
    B, b = model.words
    free_B, free_b = model._free("observation_matrix"), model._free("observation_offset")
    free = np.hstack([free_B, free_b[:, None]])
    if not free.any():
        return model.words
    beliefs = statistics.beliefs.joined()
    rule = sigma_rule(B.shape[1])
    metric = np.zeros((B.shape[1] + 1,) * 2)
    metric[:-1, :-1], metric[-1, -1] = model._metric(), 1.0
    centre = np.zeros((len(B), B.shape[1] + 1))
    if model.prior_offset is not None:
        centre[:, -1] = model.prior_offset
    weights = np.ones(len(metric))
    if not free_b.any():
        weights[-1] = 0.0  # no penalty on an offset that is not there
    penalty = model.alpha * metric * weights
    precondition = _Preconditioner(statistics, beliefs, penalty, free)
    work = np.empty(kernels.work_size(B.shape[1]))

    def loss(vector):
        theta = precondition.to_parameters(vector)
        slope = np.zeros_like(theta)
        matrix, offset = np.ascontiguousarray(theta[:, :-1]), np.ascontiguousarray(theta[:, -1])
        value = kernels.expected_normalisers(matrix, offset, *beliefs, *rule, slope, work)
        shift = (theta - centre) @ penalty
        value += 0.5 * np.sum(shift * (theta - centre)) - np.sum(statistics.moments * theta)
        slope += shift - statistics.moments
        return value, precondition.to_vector_slope(slope)

    start = np.hstack([B, b[:, None]])
    precondition.origin = start
    found = minimize(
        loss, np.zeros(start.size), jac=True, method="L-BFGS-B",
        options={"maxiter": M_STEP_ITERATIONS, "ftol": M_STEP_GAIN, "gtol": 1e-9, "maxcor": 10},
    )  # fmt: skip
    if not np.isfinite(found.fun):
        return model.words
    theta = precondition.to_parameters(found.x)
    return Words(np.ascontiguousarray(theta[:, :-1]), np.ascontiguousarray(theta[:, -1]))


class _Preconditioner:
    """Parameters in units of the curvature that each word would have by itself.

    The Hessian's block of word v is about p_v sum_t n_t E[x x'] + penalty, x = (s, 1), with p_v its
    frequency: exact but for p_v^2 and the blocks between words.
    """

    def __init__(self, statistics: WordStatistics, beliefs, penalty, free):
        totals, means, covariances = beliefs
        d = means.shape[1]
        x = np.hstack([means, np.ones((len(means), 1))])
        gram = (x * totals[:, None]).T @ x
        gram[:d, :d] += np.tensordot(totals, covariances, axes=1)
        counts = statistics.moments[:, -1] + SMOOTHING
        p = counts / counts.sum()
        curvature = p[:, None, None] * gram + penalty
        curvature += 1e-10 * (1.0 + np.trace(gram)) * np.eye(d + 1) * p[:, None, None]
        if not free.all():
            curvature = curvature * np.eye(d + 1)
        self.inverse = np.linalg.inv(np.linalg.cholesky(curvature))
        self.free = free
        self.origin = np.zeros(free.shape)

    def to_parameters(self, vector) -> np.ndarray:
        moved = np.einsum("vji,vj->vi", self.inverse, vector.reshape(self.free.shape))
        return self.origin + np.where(self.free, moved, 0.0)

    def to_vector_slope(self, slope) -> np.ndarray:
        slope = np.where(self.free, slope, 0.0)
        return np.einsum("vij,vj->vi", self.inverse, slope).ravel()
