"""The hidden Markov model as a value, and what an emission family must offer.

    p(x_1..x_n) = sum over paths s of prod_t p(s_t | s_{t-1}) p(x_t | s_t)

The chain never sees data, only ``log_obs[t, k] = log p(x_t | s_t = k)``, so every emission family
shares the recursions of ``_forward_backward.pyx``.  A family whose densities the kernels can work
out themselves hands them a `Source` in place of the array.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from math import fsum
from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlogy

from sklseq._covariance import STARVED
from sklseq._em import add_statistics, map_statistics
from sklseq._scratch import scratch
from sklseq._sequences import Sequences
from sklseq.hmm import _forward_backward as kernels
from sklseq.hmm._list_viterbi import list_viterbi

# Steps of log_obs that exist at a time when a long sequence is scored: few enough for the cache,
# and a multiple of the lanes times the chunks that the kernels cut.
SCORE_BLOCK = 16_288

COUNTED_BLOCK = 4_096  # steps whose known states are spread over an array for the cache

FORGOTTEN = 1e-100  # predicted probabilities below may be of states that rounding has lost
STATIONARY_GAIN = 1e-13  # nats a move, at which an M-step without a closed form is at its end

SOURCE_SHARD_STEPS = 65_536  # of a shard whose evidence the kernels work out block by block


class Emission(ABC):
    """A family p(x | s) of K states, as a value."""

    remedy = ""  # what helps where an observation is impossible

    @abstractmethod
    def log_prob(self, X, out) -> None:
        """OUT out (n_steps, K): log p(x_t | s_t = k) in nats; a missing entry contributes 0."""

    @abstractmethod
    def statistics(self, X, posteriors) -> tuple:
        """Expected sufficient statistics under `posteriors` (n_steps, K); they add."""

    @property
    def has_source(self) -> bool:
        """Whether `source` gives one, at least of rows without missing entries."""
        return False

    def source(self, X) -> kernels.Source | None:
        """What the kernels work out log_prob and statistics from; None: only as arrays."""
        return None

    def statistics_of_source(self, sums) -> tuple:
        """`statistics` from the sums that a kernel made of a `source`."""
        raise NotImplementedError

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

    @abstractmethod
    def reordered(self, order) -> Emission:
        """State k of the result is state ``order[k]`` of this one."""

    @abstractmethod
    def distances(self, other: Emission) -> np.ndarray:
        """Bhattacharyya distance -log sum_x sqrt(p(x) q(x)) of each pair of states, (K, K)."""

    @abstractmethod
    def signature(self) -> np.ndarray:
        """The numbers that tell the states apart, a row for each (K, P)."""

    @abstractmethod
    def parameters(self) -> list[Parameter]:
        """What `standard_errors` has errors for, in the order of `with_values`."""

    @abstractmethod
    def with_values(self, values: list[np.ndarray]) -> Emission:
        """The same family at other values of its `parameters`."""

    @abstractmethod
    def gradient(self, statistics) -> list[np.ndarray]:
        """Derivatives of the expected log-likelihood by each entry of each of `parameters`."""

    @property
    def family(self) -> str:
        """The public name, for messages."""
        return type(self).__name__.replace("Emission", "HMM")

    def log_prior(self) -> float:
        """Log prior density of the parameters, up to a constant."""
        return 0.0

    @property
    def rounding(self) -> float:
        """Nats by which rounding alone may change the log-density of a step."""
        return 0.0

    def admissible(self) -> Emission:
        """The same emission if an M-step could return it, else the nearest one that it could."""
        return self

    def parted_within(self, X, random_state, way: str) -> Emission:
        """The same with parts of a state that are alike, and so would stay, parted by the data."""
        return self

    def on_floor(self) -> np.ndarray:
        """States (K,) whose parameters are where the M-step was not let go further."""
        return np.zeros(len(self.signature()), dtype=bool)

    def moved(self, statistics, target: Emission) -> tuple:
        """Statistics as `target` would have taken them; plain sums do not depend on that."""
        return statistics

    def reordered_statistics(self, statistics, order) -> tuple:
        """Those of `reordered`; every leaf has the states on its first axis."""
        return map_statistics(lambda leaf: leaf[order], statistics)

    def has_hidden(self, X) -> bool:
        """Whether, with the states known, something is still hidden that EM must iterate for."""
        return False

    def log_tails(self, X) -> LogTails:
        """Distribution functions of each column under each state, for pseudo-residuals."""
        raise ValueError(f"pseudo_residuals are not defined for {self.family}.")

    def quantiles(self, state_probabilities, probabilities) -> np.ndarray:
        """Quantiles (n, Q, D) of each column under the mixture of each row (n, K)."""
        raise ValueError(f"quantiles of a forecast are not defined for {self.family}.")


class Parameter(NamedTuple):
    """An array of free parameters of a model, as the observed information sees it."""

    name: str  # the fitted attribute without its underscore
    values: np.ndarray
    kind: str  # "rows" of probabilities, "free" entries, "symmetric" matrices
    scale: np.ndarray | None = None  # the unit of a small step ("free", "symmetric")
    held: np.ndarray | None = None  # entries that are not estimated
    edge: np.ndarray | None = None  # entries that have no error ("free", "symmetric")


class LogTails(NamedTuple):
    """Log distribution functions at x_td under state k, each (n, K, D); NaN where x is missing."""

    below: np.ndarray  # log P(X < x)
    upto: np.ndarray  # log P(X <= x)
    beyond: np.ndarray  # log P(X > x)
    onward: np.ndarray  # log P(X >= x)


class ChainStatistics(NamedTuple):
    """Expected counts of one E-step."""

    starts: np.ndarray  # (K,)
    transitions: np.ndarray  # (K, K)
    ends: np.ndarray  # (K,)
    emission: Any

    @property
    def occupancy(self) -> np.ndarray:
        """Expected steps in each state (K,): every step moves on or is the last."""
        return self.transitions.sum(axis=1) + self.ends


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
    pseudo_counts : mapping of name -> ndarray
        Dirichlet concentrations minus 1 of "startprob" and "transmat": counts that the prior adds.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    emission: Emission
    stationary: bool = False
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    pseudo_counts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_components(self) -> int:
        return len(self.startprob)

    @property
    def shard_steps(self) -> int | None:
        """Steps of a shard: large ones where the kernels need no array of the shard's size."""
        few = self.n_components <= kernels.MOST_STATES_OF_A_SOURCE
        return SOURCE_SHARD_STEPS if few and self.emission.has_source else None

    # -- learning

    def e_step(self, X, offsets, states=None) -> tuple[ChainStatistics, float]:
        """Baum-Welch expectations (Rabiner 1989, eqs. 27, 37 and 38), given known `states`."""
        if states is not None and np.all(states >= 0):
            return self._count(X, offsets, states)
        source = self._source(X, states)
        if source is not None:
            return self._e_step_of_source(source, offsets)
        with scratch(X.shape[0], self.n_components) as posteriors:
            transitions, log_likelihoods = self._smooth(X, offsets, posteriors, states)
            statistics = ChainStatistics(
                posteriors[offsets[:-1]].sum(axis=0),
                transitions,
                posteriors[offsets[1:] - 1].sum(axis=0),
                self.emission.statistics(X, posteriors),
            )
        return statistics, float(log_likelihoods.sum())

    def part(self, rows: slice) -> HMM:
        return self

    def _count(self, X, offsets, states) -> tuple[ChainStatistics, float]:
        """The E-step where every state is known: there is one path, and nothing to sum over."""
        n_states = self.n_components
        moves = np.delete(states[:-1] * n_states + states[1:], offsets[1:-1] - 1)
        starts = np.bincount(states[offsets[:-1]], minlength=n_states).astype(float)
        ends = np.bincount(states[offsets[1:] - 1], minlength=n_states).astype(float)
        transitions = np.bincount(moves, minlength=n_states**2).astype(float)
        transitions = transitions.reshape(n_states, n_states)
        log_likelihood = xlogy(starts, self.startprob).sum()
        log_likelihood += xlogy(transitions, self.transmat).sum()
        parts = []
        for first in range(0, len(states), COUNTED_BLOCK):
            block, known = X[first : first + COUNTED_BLOCK], states[first : first + COUNTED_BLOCK]
            with scratch(len(known), n_states) as rows:
                self.emission.log_prob(block, rows)
                log_likelihood += rows[np.arange(len(known)), known].sum()
                rows[:] = 0
                rows[np.arange(len(known)), known] = 1
                parts.append(self.emission.statistics(block, rows))
        emission = reduce(add_statistics, parts)
        return ChainStatistics(starts, transitions, ends, emission), float(log_likelihood)

    @property
    def rounding(self) -> float:
        return self.emission.rounding

    def _e_step_of_source(self, source, offsets) -> tuple[ChainStatistics, float]:
        """The same in one pass, which leaves no posteriors."""
        starts, ends = np.empty((2, len(offsets) - 1, self.n_components))
        transitions = np.zeros_like(self.transmat)
        sums, totals = np.zeros(source.n_statistics), np.empty(len(starts))
        kernels.expected_statistics(
            self.startprob, self.transmat, source, offsets, starts, ends, transitions, sums, totals
        )
        statistics = ChainStatistics(
            starts.sum(axis=0), transitions, ends.sum(axis=0),
            self.emission.statistics_of_source(sums),
        )  # fmt: skip
        return statistics, float(totals.sum())

    def m_step(self, statistics: ChainStatistics) -> HMM:
        """Rabiner 1989, eqs. 40a and 40b, with held entries; the family does the rest.

        The posterior mode under Dirichlet priors: their counts are added.
        """
        emission = self.emission.m_step(statistics.emission)
        if self.pseudo_counts:
            statistics = statistics._replace(
                starts=self._with_prior("startprob", statistics.starts),
                transitions=self._with_prior("transmat", statistics.transitions),
            )
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
        return HMM(
            startprob, transmat, emission, self.stationary, self.held, self.pseudo_counts
        )

    def moved(self, statistics: ChainStatistics, target: HMM) -> ChainStatistics:
        """Statistics of this model's E-step in the form of `target`'s."""
        emission = self.emission.moved(statistics.emission, target.emission)
        return statistics._replace(emission=emission)

    def _with_prior(self, name: str, counts) -> np.ndarray:
        """Counts and those of the prior, which has none where a probability is 0 by structure."""
        if name not in self.pseudo_counts:
            return counts
        return counts + np.where(getattr(self, name) > 0, self.pseudo_counts[name], 0.0)

    def log_prior(self) -> float:
        """Dirichlet on the start and on the rows, over what is not a structural zero."""
        total = self.emission.log_prior()
        for name, counts in self.pseudo_counts.items():
            probabilities = getattr(self, name)
            total += float(xlogy(counts, np.where(probabilities > 0, probabilities, 1.0)).sum())
        return total

    def why_impossible(self, sequences: Sequences) -> str:
        """Which sequence has probability zero, and from which step on."""
        _, log_increments = self.filter(sequences.X, sequences.offsets, *sequences.aligned)
        step = int(np.flatnonzero(~np.isfinite(log_increments))[0])
        i = int(np.searchsorted(sequences.offsets, step, side="right")) - 1
        if sequences.aligned and not np.isneginf(self.filter(*sequences[:2])[1]).any():
            return (
                f"the states given for sequence {i} are impossible at step "
                f"{step - sequences.offsets[i]} (row {step} of all rows): they contradict a zero "
                "of startprob_init, transmat_init or the emission's starting value."
            )
        return (
            f"sequence {i} has probability zero under the model, at step "
            f"{step - sequences.offsets[i]} (row {step} of all rows): every state that can be "
            f"reached there gives its observation probability zero.{self.emission.remedy}"
        )

    def n_free_parameters(self) -> int:
        """Structural zeros, held entries and what sums to one are not counted."""
        count = self.emission.n_free_parameters()
        count += n_free_in_rows(self.transmat, self.held.get("transmat"))
        if not self.stationary:
            count += n_free_in_rows(self.startprob[None], self.held.get("startprob"))
        return count

    # -- inference: thin covers of the kernels

    def _source(self, X, states=None) -> kernels.Source | None:
        """The emission as a source of evidence: for few states, none of them known."""
        if self.n_components > kernels.MOST_STATES_OF_A_SOURCE:
            return None
        if states is not None and np.any(states >= 0):
            return None
        return self.emission.source(X)

    @contextmanager
    def _evidence(self, X, states=None) -> Iterator[np.ndarray | kernels.Source]:
        """What the chain sees of X: a source, or else `_log_obs`."""
        source = self._source(X, states)
        if source is not None:
            yield source
            return
        with self._log_obs(X, states) as log_obs:
            yield log_obs

    @contextmanager
    def _log_obs(self, X, states=None) -> Iterator[np.ndarray]:
        """log p(x_t | s_t = k) (n, K), for the length of the ``with`` block.

        Known `states` (n,), -1 for none, leave the other states -inf: the chain then works on the
        joint probability of X and the known states.
        """
        with scratch(X.shape[0], self.n_components) as log_obs:
            self.emission.log_prob(X, log_obs)
            if states is not None:
                others = np.arange(self.n_components) != states[:, None]
                log_obs[others & (states[:, None] >= 0)] = -np.inf
            yield log_obs

    def filter(self, X, offsets, states=None) -> tuple[np.ndarray, np.ndarray]:
        """(P(s_t | x_1..x_t) (n, K), log p(x_t | x_<t) (n,))."""
        filtered = np.empty((X.shape[0], self.n_components))
        log_increments = np.empty(len(filtered))
        with self._evidence(X, states) as evidence:
            kernels.forward(
                self.startprob, self.transmat, evidence, offsets, filtered, log_increments
            )
        return filtered, log_increments

    def log_likelihoods(self, X, offsets) -> tuple[np.ndarray, np.ndarray]:
        """(log p(x) of each sequence (S,), filtered distribution at its end (S, K))."""
        n_states = self.n_components
        totals = np.empty(len(offsets) - 1)
        final = np.empty((len(offsets) - 1, n_states))
        source = self._source(X)
        if source is not None:
            kernels.log_likelihood(self.startprob, self.transmat, source, offsets, totals, final)
            return totals, final
        size = SCORE_BLOCK if n_states <= 16 else max(1024, SCORE_BLOCK * 16 // n_states)
        if X.shape[0] <= size or len(offsets) > 2:
            with self._log_obs(X) as log_obs:
                kernels.log_likelihood(
                    self.startprob, self.transmat, log_obs, offsets, totals, final
                )
            return totals, final
        # one long sequence: block by block, each going on where the last one ended, as long as
        # what it ended with keeps every state that may come to matter
        parts = []
        startprob = self.startprob
        for start in range(0, X.shape[0], size):
            if start > 0 and startprob.min() < FORGOTTEN:
                with self._log_obs(X) as log_obs:
                    kernels.log_likelihood(
                        self.startprob, self.transmat, log_obs, offsets, totals, final
                    )
                return totals, final
            block = X[start : start + size]
            ends = np.array([0, block.shape[0]])
            with self._log_obs(block) as log_obs:
                kernels.log_likelihood(startprob, self.transmat, log_obs, ends, totals, final)
            parts.append(totals[0])
            startprob = final[0] @ self.transmat
        return np.array([fsum(parts)]), final

    def posteriors(self, X, offsets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P(s_t | x) (n, K), expected transitions (K, K), log p(x) of each sequence (S,))."""
        posteriors = np.empty((X.shape[0], self.n_components))
        return posteriors, *self._smooth(X, offsets, posteriors)

    def _smooth(self, X, offsets, posteriors, states=None) -> tuple[np.ndarray, np.ndarray]:
        """OUT posteriors (n, K). (expected transitions (K, K), log p(x) of each sequence (S,))."""
        transitions = np.zeros_like(self.transmat)
        totals = np.empty(len(offsets) - 1)
        with self._evidence(X, states) as evidence:
            kernels.forward_backward(
                self.startprob, self.transmat, evidence, offsets, posteriors, transitions, totals
            )
        return transitions, totals

    def messages(self, X, offsets) -> Messages:
        """All messages of the forward-backward algorithm."""
        filtered, _ = self.filter(X, offsets)
        return Messages(filtered, self.log_backward(X, offsets), *self.posteriors(X, offsets))

    def log_backward(self, X, offsets) -> np.ndarray:
        """log p(x_{t+1}..x_n | s_t), (n, K)."""
        log_backward = np.empty((X.shape[0], self.n_components))
        with self._log_obs(X) as log_obs:
            kernels.backward(self.transmat, log_obs, offsets, log_backward)
        return log_backward

    def viterbi(self, X, offsets) -> tuple[np.ndarray, np.ndarray]:
        """(most probable path (n,), log p(path, x) of each sequence (S,))."""
        states = np.empty(X.shape[0], dtype=np.intp)
        totals = np.empty(len(offsets) - 1)
        with self._evidence(X) as evidence:
            kernels.viterbi(*self._log_chain(), evidence, offsets, states, totals)
        return states, totals

    def best_paths(self, X, offsets, n_paths: int) -> tuple[np.ndarray, np.ndarray]:
        """(the most probable paths, best first (n, n_paths), log p(path, x) (S, n_paths)).

        Of a sequence with fewer possible paths the rest is -1 and -inf.
        """
        states = np.empty((X.shape[0], n_paths), dtype=np.intp)
        totals = np.empty((len(offsets) - 1, n_paths))
        with self._log_obs(X) as log_obs:
            list_viterbi(*self._log_chain(), log_obs, offsets, states, totals)
        return states, totals

    def path_log_probability(self, X, offsets, states) -> float:
        """log p(path, x) of all sequences."""
        first = np.zeros(len(states), dtype=bool)
        first[offsets[:-1]] = True
        moves = self.transmat[states[:-1], states[1:]][~first[1:]]
        with np.errstate(divide="ignore"):
            log_moves = np.log(moves).sum() + np.log(self.startprob[states[first]]).sum()
        with self._log_obs(X) as log_obs:
            return float(log_moves + np.take_along_axis(log_obs, states[:, None], axis=1).sum())

    def sample_posterior(self, X, offsets, uniforms) -> np.ndarray:
        """Paths drawn from P(s | x), one for each row of `uniforms` (n_draws, n)."""
        states = np.empty(uniforms.shape, dtype=np.intp)
        filtered, _ = self.filter(X, offsets)
        hard = kernels.sample_backward(self.transmat, filtered, offsets, uniforms, states)
        for s in hard:
            rows = slice(offsets[s], offsets[s + 1])
            drawn = np.empty_like(states[:, rows], order="C")
            with self._log_obs(X[rows]) as log_obs:
                kernels.sample_backward_in_logs(
                    *self._log_chain(), log_obs, uniforms[:, rows].copy(), drawn
                )
            states[:, rows] = drawn
        return states

    def _log_chain(self) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of `startprob` and `transmat`."""
        with np.errstate(divide="ignore"):
            return np.log(self.startprob), np.log(self.transmat)

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


    # -- the states as a set

    def reordered(self, order) -> HMM:
        """State k of the result is state ``order[k]`` of this model."""
        order = np.asarray(order)
        return replace(
            self,
            startprob=self.startprob[order],
            transmat=np.ascontiguousarray(self.transmat[np.ix_(order, order)]),
            emission=self.emission.reordered(order),
        )

    def reordered_statistics(self, statistics: ChainStatistics, order) -> ChainStatistics:
        """Those of `reordered`."""
        starts, transitions, ends, emission = statistics
        return ChainStatistics(
            starts[order],
            transitions[np.ix_(order, order)],
            ends[order],
            self.emission.reordered_statistics(emission, order),
        )


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


def stationary_gradient(transmat, stationary, by_stationary) -> np.ndarray:
    """Derivative of f(pi(A)) by A, up to what vanishes for moves that keep the row sums.

    d pi = pi dA (I - A + 1 1')^-1, from pi A = pi (Kemeny & Snell 1960, sec. 4.3).
    """
    return np.outer(stationary, np.linalg.solve(_stationary_system(transmat), by_stationary))


def _stationary_system(transmat) -> np.ndarray:
    """I - A + 1 1', by which pi becomes 1'."""
    return np.eye(len(transmat)) - transmat + 1.0


def _stationary_m_step(statistics, old, start, held) -> np.ndarray:
    """Maximise sum_ij n_ij log A_ij + sum_i m_i log pi_i(A), where pi A = pi.

    The stationary start couples the rows, so there is no closed form (Zucchini, MacDonald &
    Langrock 2016, sec. 4.2.5).  With the start's term replaced by its tangent there is one, a row
    at a time (`_tilted_rows`); its gradient is the true one, so the way there goes up and a step
    that is halved where it goes too far never lets the objective fall.
    """
    total = max(statistics.transitions.sum(), 1.0)
    transitions, starts = statistics.transitions / total, statistics.starts / total
    free = old > 0
    if "transmat" in held:
        free = free & ~held["transmat"]
    counts = np.where(free, transitions, 0.0)
    moving = total * counts.sum(axis=1) >= STARVED  # a row without counts keeps what it had
    if not moving.any():
        return old
    mass = 1.0 - np.where(free, 0.0, old).sum(axis=1)

    def value_and_tilt(transmat):
        try:
            inverse = np.linalg.inv(_stationary_system(transmat))
        except np.linalg.LinAlgError:
            return -np.inf, None  # several closed classes of states
        stationary = np.maximum(inverse.sum(axis=0), np.finfo(float).tiny)
        with np.errstate(over="ignore", invalid="ignore"):  # a state that is next to never entered
            tilt = np.outer(stationary, inverse @ (starts / stationary))  # `stationary_gradient`
        off = np.abs(stationary @ transmat - stationary).max()
        if off > 1e-8 or not np.isfinite(tilt).all():
            return -np.inf, None
        return xlogy(transitions, transmat).sum() + xlogy(starts, stationary).sum(), tilt

    best, (value, tilt) = max(
        ((transmat, value_and_tilt(transmat)) for transmat in (old, start)),
        key=lambda candidate: candidate[1][0],
    )
    if tilt is None:
        return old
    for _ in range(200):
        rows = best.copy()
        rows[moving] = _tilted_rows(counts[moving], tilt[moving], mass[moving])
        target = np.where(free, rows, old)
        step, gain = 1.0, -np.inf
        while gain < 0 and step > 1e-6:
            trial = best + step * (target - best)
            new_value, new_tilt = value_and_tilt(trial)
            gain, step = new_value - value, step / 2
        if not gain >= 0:
            break
        best, value, tilt = trial, new_value, new_tilt
        if gain < STATIONARY_GAIN:
            break
    return best


def _tilted_rows(counts, tilt, mass) -> np.ndarray:
    """The rows that maximise sum_j n_j log a_j + t_j a_j and sum to their mass.

    a_j = n_j / (level - t_j), the level of each row by Newton's method for one over the sum, which
    is concave and rises with it (linear for one a_j), so that starting below it no step goes too
    far.  The level is measured from the largest t_j.  A tiny n_j may come close to that: steps
    beside its pole are as tiny, so that the start is first brought near by halving in logarithms.
    """
    mass = mass[:, None]
    seen, least = counts > 0, counts / mass
    below = np.where(seen, tilt, -np.inf).max(axis=1, keepdims=True) - tilt

    def rows_at(level):
        # no a_j is above its mass, which a large t_j may have rounded off the level
        gap = np.where(seen, np.maximum(level + below, least), 1.0)
        rows = counts / gap
        return rows, gap, rows.sum(axis=1, keepdims=True) / mass

    level = np.where(seen, least - below, -np.inf).max(axis=1, keepdims=True)
    above = least.sum(axis=1, keepdims=True)
    while np.any(level < 1e-3 * above):
        middle = np.sqrt(level) * np.sqrt(above)
        too_low = rows_at(middle)[2] > 1.0
        level, above = np.where(too_low, middle, level), np.where(too_low, above, middle)
    for _ in range(60):
        rows, gap, ratio = rows_at(level)
        if ratio.max() <= 1.0 + 1e-14:
            break
        slope = (rows * (level / gap)).sum(axis=1, keepdims=True)  # in logarithms of the level
        level = level * (1.0 + (ratio - 1.0) * ratio * mass / slope)
    return rows * (mass / rows.sum(axis=1, keepdims=True))
