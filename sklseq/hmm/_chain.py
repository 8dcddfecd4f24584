"""The hidden Markov model as a value, and what an emission family must offer.

    p(x_1..x_n) = sum over paths s of prod_t p(s_t | s_{t-1}) p(x_t | s_t)

The chain never sees data, only ``log_obs[t, k] = log p(x_t | s_t = k)``, so every emission family
shares the recursions of ``_forward_backward.pyx``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from sklseq._covariance import STARVED
from sklseq._sequences import Sequences
from sklseq.hmm import _forward_backward as kernels

SCORE_BLOCK = 65_536  # steps of log_obs that exist at a time when a long sequence is scored


class Emission(ABC):
    """A family p(x | s) of K states, as a value."""

    @abstractmethod
    def log_prob(self, X) -> np.ndarray:
        """log p(x_t | s_t = k) in nats, (n_steps, K); a missing entry contributes 0."""

    @abstractmethod
    def statistics(self, X, posteriors) -> tuple:
        """Expected sufficient statistics under `posteriors` (n_steps, K); they add."""

    @abstractmethod
    def m_step(self, statistics) -> Emission:
        """The emission of largest expected log-likelihood plus log prior."""

    @abstractmethod
    def sample(self, states, random_state) -> np.ndarray:
        """One observation for each state, (n_steps, n_features)."""

    @abstractmethod
    def n_free_parameters(self) -> int: ...

    @abstractmethod
    def expect(self, state_probabilities) -> dict[str, np.ndarray]:
        """What a forecast reports of the observations under the mixture of each row (n, K)."""

    def log_prior(self) -> float:
        """Log prior density of the parameters, up to a constant."""
        return 0.0


class ChainStatistics(NamedTuple):
    """Expected counts of one E-step."""

    starts: np.ndarray  # (K,)
    transitions: np.ndarray  # (K, K)
    occupancy: np.ndarray  # (K,)
    emission: Any


class Messages(NamedTuple):
    """The messages of the forward-backward algorithm.

    Attributes
    ----------
    filtered : ndarray of shape (n_steps, n_components)
        P(s_t | x_1..x_t).
    log_backward : ndarray of shape (n_steps, n_components)
        log p(x_{t+1}..x_n | s_t), 0 at the end of each sequence.
    posteriors : ndarray of shape (n_steps, n_components)
        P(s_t | x_1..x_n).
    transition_counts : ndarray of shape (n_components, n_components)
        Expected number of moves from i to j, over all sequences.
    log_likelihood : ndarray of shape (n_sequences,)
        log p(x_1..x_n) of each sequence, in nats.
    """

    filtered: np.ndarray
    log_backward: np.ndarray
    posteriors: np.ndarray
    transition_counts: np.ndarray
    log_likelihood: np.ndarray


@dataclass(frozen=True)
class HMM:
    """A hidden Markov chain with an emission.

    Parameters
    ----------
    startprob : ndarray of shape (K,)
    transmat : ndarray of shape (K, K)
        Rows sum to 1; ``transmat[i, j]`` is p(s_t = j | s_{t-1} = i).
    emission : Emission
    stationary : bool
        The start is the stationary distribution of `transmat` and moves with it.
    held : mapping of name -> boolean mask
        Entries that the M-step leaves alone.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    emission: Emission
    stationary: bool = False
    held: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_components(self) -> int:
        return len(self.startprob)

    # -- learning

    def e_step(self, X, offsets) -> tuple[ChainStatistics, float]:
        """Baum-Welch expectations (Rabiner 1989, eqs. 27, 37 and 38)."""
        posteriors, transitions, log_likelihoods = self.posteriors(X, offsets)
        statistics = ChainStatistics(
            posteriors[offsets[:-1]].sum(axis=0),
            transitions,
            posteriors.sum(axis=0),
            self.emission.statistics(X, posteriors),
        )
        return statistics, float(log_likelihoods.sum())

    def m_step(self, statistics: ChainStatistics) -> HMM:
        """Rabiner 1989, eqs. 40a and 40b, with held entries; the family does the rest."""
        emission = self.emission.m_step(statistics.emission)
        transmat = estimate_rows(
            statistics.transitions, self.transmat, self.held.get("transmat")
        )
        if self.stationary:
            transmat = _stationary_m_step(statistics, self.transmat, transmat, self.held)
            startprob = stationary_distribution(transmat)
        else:
            startprob = estimate_rows(
                statistics.starts[None], self.startprob[None], self.held.get("startprob")
            )[0]
        return replace(self, startprob=startprob, transmat=transmat, emission=emission)

    def log_prior(self) -> float:
        return self.emission.log_prior()

    def why_impossible(self, sequences: Sequences) -> str:
        """Which sequence has probability zero, and from which step on."""
        _, log_increments = self.filter(sequences.X, sequences.offsets)
        step = int(np.flatnonzero(np.isneginf(log_increments))[0])
        i = int(np.searchsorted(sequences.offsets, step, side="right")) - 1
        return (
            f"sequence {i} has probability zero under the model, at step "
            f"{step - sequences.offsets[i]} (row {step} of all rows): every state that can be "
            "reached there gives its observation probability zero."
        )

    def n_free_parameters(self) -> int:
        """Structural zeros, held entries and what sums to one are not counted."""
        count = self.emission.n_free_parameters()
        count += n_free_in_rows(self.transmat, self.held.get("transmat"))
        if not self.stationary:
            count += n_free_in_rows(self.startprob[None], self.held.get("startprob"))
        return count

    # -- inference: thin covers of the kernels

    def filter(self, X, offsets) -> tuple[np.ndarray, np.ndarray]:
        """(P(s_t | x_1..x_t) (n, K), log p(x_t | x_<t) (n,))."""
        log_obs = self.emission.log_prob(X)
        filtered = np.empty_like(log_obs)
        log_increments = np.empty(len(log_obs))
        kernels.forward(self.startprob, self.transmat, log_obs, offsets, filtered, log_increments)
        return filtered, log_increments

    def log_likelihoods(self, X, offsets) -> tuple[np.ndarray, np.ndarray]:
        """(log p(x) of each sequence (S,), filtered distribution at its end (S, K))."""
        totals = np.empty(len(offsets) - 1)
        final = np.empty((len(offsets) - 1, self.n_components))
        if X.shape[0] <= SCORE_BLOCK or len(offsets) > 2:
            log_obs = self.emission.log_prob(X)
            kernels.log_likelihood(self.startprob, self.transmat, log_obs, offsets, totals, final)
            return totals, final
        # one long sequence: block by block, each going on where the last one ended
        total, model = 0.0, self
        for start in range(0, X.shape[0], SCORE_BLOCK):
            block = X[start : start + SCORE_BLOCK]
            totals, final = model.log_likelihoods(block, np.array([0, block.shape[0]]))
            total += totals[0]
            model = replace(self, startprob=np.ascontiguousarray(final[0] @ self.transmat))
        return np.array([total]), final

    def posteriors(self, X, offsets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P(s_t | x) (n, K), expected transitions (K, K), log p(x) of each sequence (S,))."""
        log_obs = self.emission.log_prob(X)
        posteriors = np.empty_like(log_obs)
        transitions = np.zeros_like(self.transmat)
        totals = np.empty(len(offsets) - 1)
        kernels.forward_backward(
            self.startprob, self.transmat, log_obs, offsets, posteriors, transitions, totals
        )
        return posteriors, transitions, totals

    def messages(self, X, offsets) -> Messages:
        """All messages of the forward-backward algorithm."""
        filtered, _ = self.filter(X, offsets)
        log_backward = np.empty_like(filtered)
        kernels.backward(self.transmat, self.emission.log_prob(X), offsets, log_backward)
        return Messages(filtered, log_backward, *self.posteriors(X, offsets))

    def viterbi(self, X, offsets) -> tuple[np.ndarray, np.ndarray]:
        """(most probable path (n,), log p(path, x) of each sequence (S,))."""
        states = np.empty(X.shape[0], dtype=np.intp)
        totals = np.empty(len(offsets) - 1)
        with np.errstate(divide="ignore"):
            log_start, log_trans = np.log(self.startprob), np.log(self.transmat)
        kernels.viterbi(
            log_start, log_trans, self.emission.log_prob(X), offsets, states, totals
        )
        return states, totals

    def path_log_probability(self, X, offsets, states) -> float:
        """log p(path, x) of all sequences."""
        log_obs = self.emission.log_prob(X)
        first = np.zeros(len(states), dtype=bool)
        first[offsets[:-1]] = True
        moves = self.transmat[states[:-1], states[1:]][~first[1:]]
        with np.errstate(divide="ignore"):
            log_moves = np.log(moves).sum() + np.log(self.startprob[states[first]]).sum()
        return float(log_moves + np.take_along_axis(log_obs, states[:, None], axis=1).sum())

    def sample_posterior(self, X, offsets, uniforms) -> np.ndarray:
        """Paths drawn from P(s | x), one for each row of `uniforms` (n_draws, n)."""
        states = np.empty(uniforms.shape, dtype=np.intp)
        filtered, _ = self.filter(X, offsets)
        kernels.sample_backward(self.transmat, filtered, offsets, uniforms, states)
        return states

    def sample(self, n_steps: int, random_state) -> tuple[np.ndarray, np.ndarray]:
        """One sequence drawn from the model: (X, states)."""
        uniforms = random_state.uniform(size=n_steps)
        cumulative_start = np.cumsum(self.startprob)
        cumulative_rows = np.cumsum(self.transmat, axis=1)
        states = np.empty(n_steps, dtype=np.intp)
        cumulative = cumulative_start
        for t, u in enumerate(uniforms):
            # u times the total guards against a last sum of 1 - 1e-16; "right" skips zeros
            states[t] = np.searchsorted(cumulative, u * cumulative[-1], side="right")
            cumulative = cumulative_rows[states[t]]
        return self.emission.sample(states, random_state), states

    def ahead(self, final: np.ndarray, n_steps: int) -> np.ndarray:
        """P(s_{n+h} | x_1..x_n) for h = 1..n_steps, (S, n_steps, K), from filtered ends (S, K)."""
        result = np.empty((len(final), n_steps, self.n_components))
        for h in range(n_steps):
            final = final @ self.transmat
            result[:, h] = final
        return result


def starved_states(statistics: ChainStatistics) -> np.ndarray:
    """States that no step of the data belongs to."""
    return np.flatnonzero(statistics.occupancy < STARVED)


# ---------------------------------------------------------------------------------------------
# Rows of probabilities


def estimate_rows(counts, old, held=None) -> np.ndarray:
    """Rows proportional to counts; held entries stay, and a row without counts keeps its values."""
    if held is None:
        totals = counts.sum(axis=1, keepdims=True)
        if totals.min() >= STARVED:
            return counts / totals
        return np.where(totals >= STARVED, counts / np.maximum(totals, STARVED), old)
    free = ~np.broadcast_to(held, old.shape)
    counts = np.where(free, counts, 0.0)
    totals = counts.sum(axis=1, keepdims=True)
    mass = 1.0 - np.where(free, 0.0, old).sum(axis=1, keepdims=True)
    estimated = counts * (mass / np.maximum(totals, STARVED))
    return np.where(free & (totals >= STARVED), estimated, old)


def n_free_in_rows(rows, held=None) -> int:
    free = rows > 0
    if held is not None:
        free &= ~np.broadcast_to(held, rows.shape)
    return int(np.maximum(free.sum(axis=1) - 1, 0).sum())


def stationary_distribution(transmat: np.ndarray) -> np.ndarray:
    """The distribution with pi A = pi.

    Raises
    ------
    ValueError
        If it is not unique: the chain has several closed classes of states.
    """
    n_states = len(transmat)
    system = np.vstack([transmat.T - np.eye(n_states), np.ones(n_states)])
    target = np.append(np.zeros(n_states), 1.0)
    stationary, _, rank, _ = np.linalg.lstsq(system, target, rcond=1e-12)
    if rank < n_states:
        raise ValueError(
            "transmat has no unique stationary distribution (several closed classes of states), "
            f"so initial_state='stationary' is not defined: got\n{transmat}."
        )
    stationary = np.maximum(stationary, 0.0)
    return stationary / stationary.sum()


def _stationary_m_step(statistics, old, start, held) -> np.ndarray:
    """Maximise sum_ij n_ij log A_ij + sum_i m_i log pi_i(A), where pi A = pi.

    The stationary start couples the rows, so there is no closed form (Zucchini, MacDonald &
    Langrock 2016, sec. 4.2.5).  Rows are softmax of free logits; the better of the old matrix and
    the closed form without the start is where the search begins, so the objective cannot fall.
    """
    total = max(statistics.transitions.sum(), 1.0)
    transitions, starts = statistics.transitions / total, statistics.starts / total
    free = old > 0
    if "transmat" in held:
        free = free & ~held["transmat"]
    mass = 1.0 - np.where(free, 0.0, old).sum(axis=1, keepdims=True)
    n_states = len(old)

    def matrix(logits):
        rows = np.full(old.shape, -np.inf)
        rows[free] = logits
        top = np.where(free.any(axis=1), rows.max(axis=1, initial=-np.inf), 0.0)[:, None]
        weights = np.exp(rows - top)
        totals = np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.where(free, mass * weights / totals, old)

    def loss(logits):
        transmat = matrix(logits)
        stationary = stationary_distribution(transmat)
        safe = np.maximum(transmat, 1e-300)
        at_start = np.maximum(stationary, 1e-300)
        value = np.sum(transitions * np.log(safe)) + np.sum(starts * np.log(at_start))
        # d pi = pi dA (I - A + 1 pi)^-1  (Kemeny & Snell 1960, sec. 4.3)
        fundamental = np.eye(n_states) - transmat + np.outer(np.ones(n_states), stationary)
        gradient = transitions / safe + np.outer(
            stationary, np.linalg.solve(fundamental, starts / at_start)
        )
        weighted = np.where(free, gradient * transmat, 0.0)
        share = np.divide(transmat, mass, out=np.zeros_like(transmat), where=mass > 0)
        slope = weighted - share * weighted.sum(axis=1, keepdims=True)
        return -value, -slope[free]

    if not free.any():
        return old
    candidates = [np.log(np.maximum(candidate[free], 1e-300)) for candidate in (old, start)]
    begin = min(candidates, key=lambda logits: loss(logits)[0])
    options = {"gtol": 1e-10, "ftol": 1e-15}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    best = found.x if found.fun <= loss(begin)[0] else begin
    return matrix(best)
