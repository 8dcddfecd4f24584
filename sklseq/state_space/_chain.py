"""The linear-Gaussian chain as a value: what Kalman and softmax observations share.

    S_1 ~ N(mu0, P0),   S_t = A S_{t-1} + B_u u_t + w_t,   w_t ~ N(0, Gamma)

The chain never sees data.  An observation model hands it *local evidence*: ``Evidence(y, pattern,
S)``, at each step k scalar observations of the state with unit variance.  Kalman gets there by
whitening, softmax by its Gaussian sites.

How an observation model uses a chain::

    evidence = Evidence(y, pattern, S, constants=...)
    chain.log_likelihoods(evidence, offsets)  -> step (N,), sequence (n_sequences,)
    chain.filter(evidence, offsets)           -> Moments of s_t | y_1..y_t, step, sequence
    chain.smooth(evidence, offsets)           -> Posterior (means, covariances, lag_one), sequence
    chain.e_step(evidence, offsets)           -> Expectations: statistics, means, pattern_sums
    chain.m_step(statistics)                  -> the chain of largest expected log-likelihood

Evidence that differs at every step (softmax) has ``pattern = arange(N)`` and S of N entries; it
then asks ``smooth`` for covariances, or ``e_step(..., pattern_sums=True)``, whose pattern sums are
the covariances of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from sklseq._covariance import Floor, raise_to_floor
from sklseq.state_space import _kalman_pass as kernels
from sklseq.state_space import _whitening as row_kernels
from sklseq.state_space._estimate import (
    estimate_along,
    estimate_coefficients,
    estimate_covariance,
    free_covariances,
    free_directions,
    free_without_noise,
    moved_sums,
    noiseless_rows,
    tell_blind,
)
from sklseq.state_space._stationary import maximise_stationary, stationary_covariance
from sklseq.state_space._ties import columns_along
from sklseq.state_space._timed_chain import timed_sums

HALVINGS = 40
NO_SEQUENCE = 1e-200
SMALL = 12  # columns up to which plain loops beat BLAS


class Evidence(NamedTuple):
    """What the steps say about their states, in the form of the pass (see ``_kalman_pass``).

    Attributes
    ----------
    y : ndarray of shape (n_steps, k)
    pattern : ndarray of intp of shape (n_steps,), or None
        None: every step has entry 0 of `S`, and sequences share their covariances.
    S : ndarray of shape (n_patterns, k, d)
    noise : ndarray of shape (n_patterns, k), or None
        1, or 0 for a perfect observation; None: all one.
    constants : ndarray of shape (n_steps,), float or None
        What to add to the pass's log-likelihood of each step.
    pattern_constants : ndarray of shape (n_patterns,), or None
        Likewise, by pattern.
    """

    y: np.ndarray
    pattern: np.ndarray | None
    S: np.ndarray
    noise: np.ndarray | None = None
    constants: np.ndarray | float | None = None
    pattern_constants: np.ndarray | None = None


class Moments(NamedTuple):
    """Means (n_steps, n_components) and covariances (n_steps, n_components, n_components)."""

    means: np.ndarray
    covariances: np.ndarray


class Posterior(NamedTuple):
    """The smoothed states.

    Attributes
    ----------
    means : ndarray of shape (n_steps, n_components)
        E[S_t | X].
    covariances : ndarray of shape (n_steps, n_components, n_components)
        Cov(S_t | X).
    lag_one_covariances : ndarray of shape (n_steps, n_components, n_components)
        Cov(S_t, S_{t-1} | X), zero at the first step of a sequence.
    """

    means: np.ndarray
    covariances: np.ndarray
    lag_one_covariances: np.ndarray


class ChainStatistics(NamedTuple):
    """Expected sums of *deviations from the current chain*, which lose no digits; they add.

    With w_t = S_t - A S_{t-1} - B_u u_t over transitions, z_t = (S_{t-1}, u_t), and S_1 - mu0.
    """

    n_sequences: float
    first: np.ndarray  # (d,) sum of E[S_1 - mu0]
    first_second: np.ndarray  # (d, d) sum of E[(S_1 - mu0)(S_1 - mu0)']
    n_transitions: float
    gram: np.ndarray  # (d + q, d + q) sum of E[z z']
    cross: np.ndarray  # (d, d + q) sum of E[w z']
    second: np.ndarray  # (d, d) sum of E[w w']

    def without_start(self) -> ChainStatistics:
        """Of a sequence that went on from another."""
        return self._replace(
            n_sequences=0.0, first=0.0 * self.first, first_second=0.0 * self.first_second
        )


class Expectations(NamedTuple):
    """What an E-step of the chain returns."""

    statistics: ChainStatistics
    means: np.ndarray  # (n_steps, d)
    pattern_sums: np.ndarray | None  # (n_patterns, d, d) covariances, added by pattern
    log_likelihoods: np.ndarray  # (n_sequences,)


@dataclass(frozen=True)
class LinearGaussianChain:
    """A linear-Gaussian Markov chain.

    Parameters
    ----------
    transition_matrix : ndarray of shape (d, d) or (n_times, d, d)
        A; with a time axis, entry t leads into step t of a sequence.
    transition_covariance : ndarray of shape (d, d) or (n_times, d, d)
        Gamma, positive semi-definite.
    initial_mean, initial_covariance : ndarray of shape (d,), (d, d)
        mu0, P0.
    input_matrix : ndarray of shape (d, q), or None
        B_u.
    covariance_type : {"full", "diag", "spherical"}
        Of Gamma, for learning.
    stationary : bool
        mu0 and P0 are those of the stationary distribution and move with A and Gamma.
    start_ratio : float, or None
        P0 is this times Gamma and moves with it.  Where the state's scale is free, a P0 held in its
        units would not hold: EM shrinks it by growing the state.
    floor : Floor or None
        Under Gamma, for learning from known states: few of them are fitted without noise, where
        the likelihood has no maximum.
    tied : mapping of name -> directions (k, *shape)
        Along which alone the M-step moves; `held` has the entries that they leave.
    held : mapping of name -> boolean mask
        Entries that the M-step leaves alone.
    """

    transition_matrix: np.ndarray
    transition_covariance: np.ndarray
    initial_mean: np.ndarray
    initial_covariance: np.ndarray
    input_matrix: np.ndarray | None = None
    covariance_type: str = "full"
    stationary: bool = False
    start_ratio: float | None = None
    floor: Floor | None = None
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    tied: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_components(self) -> int:
        return len(self.initial_mean)

    @property
    def time_varying(self) -> bool:
        return self.transition_matrix.ndim == 3 or self.transition_covariance.ndim == 3

    # -- inference

    def _arguments(self, evidence: Evidence, offsets, inputs):
        d = self.n_components
        drift = None if inputs is None else np.ascontiguousarray(inputs @ self.input_matrix.T)
        A, Gamma = (
            np.ascontiguousarray(matrix.reshape(-1, d, d))
            for matrix in (self.transition_matrix, self.transition_covariance)
        )
        return (
            evidence.y, evidence.pattern, evidence.S, evidence.noise, A, Gamma, drift,
            self.initial_mean, self.initial_covariance, offsets,
        )  # fmt: skip

    def log_likelihoods(self, evidence: Evidence, offsets, inputs=None, *, steps: bool = True):
        """log p(y_t | y_<t) of each step (None if not `steps`), and of each sequence."""
        step, sequence, _ = self._filter(evidence, offsets, inputs, None, None, steps=steps)
        return step, sequence

    def filter(self, evidence: Evidence, offsets, inputs=None):
        """Moments of S_t given y_1..y_t, and log-likelihoods of steps and sequences."""
        d, n = self.n_components, len(evidence.y)
        moments = Moments(np.empty((n, d)), np.empty((n, d, d)))
        step, sequence, _ = self._filter(evidence, offsets, inputs, *moments)
        return moments, step, sequence

    def final(self, evidence: Evidence, offsets, inputs=None):
        """Moments of the last state of each sequence given all of it, and log-likelihoods."""
        d, n = self.n_components, len(offsets) - 1
        moments = Moments(np.empty((n, d)), np.empty((n, d, d)))
        _, sequence, _ = self._filter(
            evidence, offsets, inputs, None, None, *moments, steps=False
        )
        return moments, sequence

    def _filter(
        self, evidence, offsets, inputs, means, covariances, last=None, last_covariances=None, *,
        steps=True,
    ):  # fmt: skip
        sequence = np.empty(len(offsets) - 1)
        step = np.empty(len(evidence.y)) if steps else None
        form = np.empty(len(sequence), dtype=np.int8)
        kernels.filter_pass(
            *self._arguments(evidence, offsets, inputs),
            sequence, step, form, means, covariances, last, last_covariances,
        )  # fmt: skip
        _add_constants(evidence, offsets, step, sequence)
        return step, sequence, form

    def smoothed_means(self, evidence: Evidence, offsets, inputs=None):
        """E[S_t | y], (n_steps, d), and log-likelihoods of the sequences."""
        means = np.empty((len(evidence.y), self.n_components))
        return means, self._smooth(evidence, offsets, inputs, means, None, None)

    def smooth(self, evidence: Evidence, offsets, inputs=None) -> tuple[Posterior, np.ndarray]:
        """All smoothed moments, and log-likelihoods of the sequences."""
        d, n = self.n_components, len(evidence.y)
        # one block: numpy asks for huge pages from 4 MB on, which cost a thirtieth of small ones
        posterior = Posterior(np.empty((n, d)), *np.empty((2, n, d, d)))
        return posterior, self._smooth(evidence, offsets, inputs, *posterior)

    def _smooth(self, evidence, offsets, inputs, means, covariances, lag_one):
        sequence = np.empty(len(offsets) - 1)
        form = np.empty(len(sequence), dtype=np.int8)
        kernels.smoother_pass(
            *self._arguments(evidence, offsets, inputs),
            sequence, None, form, means, covariances, lag_one,
        )  # fmt: skip
        _add_constants(evidence, offsets, None, sequence)
        return sequence

    # -- learning

    def e_step(
        self, evidence: Evidence, offsets, inputs=None, *, pattern_sums: bool = True
    ) -> Expectations:
        """Expected sums under the smoothed states (Shumway and Stoffer 1982, eqs. 9-11)."""
        if self.time_varying:
            return self._timed_e_step(evidence, offsets, inputs)
        d, n = self.n_components, len(evidence.y)
        sequence = np.empty(len(offsets) - 1)
        form = np.empty(len(sequence), dtype=np.int8)
        means, sums, disturbances = np.empty((n, d)), np.empty((4, d, d)), np.empty((2, d, d))
        by_pattern = np.empty((len(evidence.S), d, d)) if pattern_sums else None
        kernels.sums_pass(
            *self._arguments(evidence, offsets, inputs),
            sequence, None, form, means, sums, by_pattern, disturbances,
        )  # fmt: skip
        _add_constants(evidence, offsets, None, sequence)
        if not form.any() and not self.time_varying:
            disturbances = None
        statistics = self.statistics(means, sums, offsets, inputs, disturbances)
        return Expectations(statistics, means, by_pattern, sequence)

    def _timed_e_step(self, evidence: Evidence, offsets, inputs) -> Expectations:
        posterior, sequence = self.smooth(evidence, offsets, inputs)
        means, covariances, _ = posterior
        sums = np.zeros((len(evidence.S), *covariances.shape[1:]))
        pattern = 0 if evidence.pattern is None else evidence.pattern
        np.add.at(sums, pattern, covariances if evidence.pattern is not None else (
            covariances.sum(axis=0)))  # fmt: skip
        first = means[offsets[:-1]] - self.initial_mean
        statistics = ChainStatistics(
            float(len(first)),
            first.sum(axis=0),
            first.T @ first + covariances[offsets[:-1]].sum(axis=0),
            float(len(means) - len(first)),
            *timed_sums(self, posterior, offsets, inputs),
        )
        return Expectations(statistics, means, sums, sequence)

    def statistics(
        self, means, sums, offsets, inputs=None, disturbances=None
    ) -> ChainStatistics:
        """Sums from state means (N, d) and sums of covariances (4, d, d) of ``sums_pass``.

        Also from its sums of disturbances (2, d, d), without which they are made of differences,
        good to the digits that those leave.
        """
        before_cov, after_cov, lag_cov, first_cov = sums
        d = self.n_components
        first = means[offsets[:-1]] - self.initial_mean
        gram, cross, second = self._transition_sums(means, offsets, inputs)
        gram[:d, :d] += before_cov
        if disturbances is None:
            A = self.transition_matrix
            w_before = lag_cov - A @ before_cov
            w_squared = after_cov - A @ lag_cov.T - w_before @ A.T
        else:
            w_before, w_squared = disturbances
        cross[:, :d] += w_before
        second += w_squared
        return ChainStatistics(
            float(len(first)),
            first.sum(axis=0),
            first.T @ first + first_cov,
            float(len(means) - len(first)),
            gram,
            cross,
            (second + second.T) / 2,
        )

    def _transition_sums(self, means, offsets, inputs):
        """The part of the sums that the means make."""
        d = self.n_components
        drift = None if inputs is None else inputs @ self.input_matrix.T
        size = d if inputs is None else d + inputs.shape[1]
        if size <= SMALL:
            sums = np.zeros((size, size)), np.zeros((d, size)), np.zeros((d, d))
            A = np.ascontiguousarray(self.transition_matrix)
            row_kernels.transition_sums(means, A, drift, inputs, offsets, *sums)
            return sums
        residual = means[1:] - means[:-1] @ self.transition_matrix.T
        regressors = means[:-1]
        if inputs is not None:
            residual -= drift[1:]
            regressors = np.hstack([means[:-1], inputs[1:]])
        if len(offsets) > 2:  # the step from one sequence into the next is no transition
            inside = np.ones(len(residual), dtype=bool)
            inside[offsets[1:-1] - 1] = False
            residual, regressors = residual[inside], regressors[inside]
        return regressors.T @ regressors, residual.T @ regressors, residual.T @ residual

    def m_step(
        self, statistics: ChainStatistics, penalty=None, start_weight: float = 0.0
    ) -> LinearGaussianChain:
        """Ghahramani and Hinton (1996), eqs. 17-23, for entries not held.

        `penalty` (d, d): what is maximised has -tr(penalty Gamma) / 2 besides; Gamma is then either
        learned or held as a whole.  `start_weight`: it has ``start_log_prior`` besides.
        """
        metric = self._start_metric() if start_weight else None
        start_shift, start = self._estimate_start(statistics, start_weight, metric)
        P0 = self._estimate_start_covariance(start, statistics.n_sequences, start_weight, metric)
        chain = self
        if statistics.n_transitions:
            shift, second = self._estimate_transition(statistics)
            count = statistics.n_transitions
            if self.start_ratio is not None:
                second = second + start * statistics.n_sequences / self.start_ratio
                count = count + statistics.n_sequences
            if metric is not None and "transition_covariance" not in self.held:
                if not np.all(self.held.get("initial_state_mean", False)):
                    mean = self.initial_mean + start_shift
                    second = second + start_weight * mean[:, None] * mean
                if self._learns_start_covariance:
                    second = second + start_weight * P0
                    pull = start_weight * np.linalg.inv(P0)
                    penalty = pull if penalty is None else penalty + pull
            shrink = None if penalty is None else penalty / count
            chain = self._moved(shift, second / count, shrink)
        if self.stationary:
            return self._stationary_m_step(statistics, chain, penalty)
        if self.start_ratio is not None:
            P0 = self.start_ratio * chain.transition_covariance
        return replace(chain, initial_mean=self.initial_mean + start_shift, initial_covariance=P0)

    @property
    def _learns_start_covariance(self) -> bool:
        held = np.any(self.held.get("initial_state_covariance", False))
        return not (held or self.stationary or self.start_ratio is not None)

    def _start_metric(self) -> np.ndarray | None:
        """V of ``start_log_prior``: Gamma, or the identity where Gamma is held; None where it is
        singular and where nothing of the start is learned."""
        if self.stationary:
            return None
        if "transition_covariance" in self.held:
            return np.eye(self.n_components)
        Gamma = self.transition_covariance
        return None if noiseless_rows(Gamma).any() else Gamma

    def start_log_prior(self, weight: float) -> float:
        """-weight/2 (mu0' V^-1 mu0 + tr(V P0^-1) + tr(V^-1 P0)), of what is learned.

        A few sequences would have their first states where words are certain (mu0 and P0 without
        end) or all alike (P0 = 0).
        """
        V = self._start_metric()
        if V is None:
            return 0.0
        total = 0.0
        if not np.all(self.held.get("initial_state_mean", False)):
            total += self.initial_mean @ np.linalg.solve(V, self.initial_mean)
        if self._learns_start_covariance:
            P0 = self.initial_covariance
            total += np.trace(np.linalg.solve(P0, V)) + np.trace(np.linalg.solve(V, P0))
        return -0.5 * weight * float(total)

    def without_noise(self) -> dict[str, np.ndarray]:
        """Parameter -> mask of its free coefficients of which the M-step learns nothing."""
        parts = [
            ("transition_matrix", self.transition_matrix, self.transition_covariance),
            ("input_matrix", self.input_matrix, self.transition_covariance),
        ]
        if not self.stationary:
            parts.append(("initial_state_mean", self.initial_mean, self.initial_covariance))
        return {
            name: free_without_noise(value, noise, self.held.get(name, False))
            for name, value, noise in parts
            if value is not None and value.ndim < 3 and noise.ndim < 3
        }

    def tell_blind(self) -> str | None:
        """What the M-step cannot learn, if anything."""
        return tell_blind(
            self.without_noise(),
            lambda name: "initial_state_covariance" if name == "initial_state_mean" else (
                "transition_covariance"),
        )  # fmt: skip

    def moved(self, statistics: ChainStatistics, target: LinearGaussianChain) -> ChainStatistics:
        """Sums of deviations from this chain as those from `target`."""
        n, first, first_second, n_transitions, gram, cross, second = statistics
        shift = target.initial_mean - self.initial_mean
        crossed = first[:, None] * shift
        first_second = first_second - crossed - crossed.T + n * shift[:, None] * shift
        d = self.n_components
        # what is learned moves alike at all times
        step = (target.transition_matrix - self.transition_matrix).reshape(-1, d, d)[0]
        if self.input_matrix is not None:
            step = np.hstack([step, target.input_matrix - self.input_matrix])
        cross, second = moved_sums(cross, gram, second, step)
        return ChainStatistics(
            n, first - n * shift, first_second, n_transitions, gram, cross, second
        )

    def continued(self, end: Moments, inputs=None) -> LinearGaussianChain:
        """This chain started one step after a state with these moments (of one sequence)."""
        mean, covariance = self.predict(
            end.means[0], end.covariances[0], None if inputs is None else inputs[0]
        )
        return replace(self, initial_mean=mean, initial_covariance=covariance)

    def _estimate_start(self, statistics: ChainStatistics, weight: float = 0.0, metric=None):
        """Movement of mu0, and the new mean of (S_1 - mu0)(S_1 - mu0)'."""
        n = statistics.n_sequences
        if n < NO_SEQUENCE:  # a stream that went on and on
            return np.zeros_like(self.initial_mean), self.initial_covariance
        first = statistics.first / n
        held = np.broadcast_to(self.held.get("initial_state_mean", False), first.shape)
        shift = np.where(held, 0.0, first)
        if metric is not None and not held.all():
            # (n P0^-1 + weight V^-1) shift = P0^-1 first - weight V^-1 mu0
            pull = weight * np.linalg.inv(metric)
            precision = np.linalg.pinv(self.initial_covariance, hermitian=True)
            right = precision @ statistics.first - pull @ self.initial_mean
            free = np.flatnonzero(~held)
            shift[free] = np.linalg.solve((n * precision + pull)[np.ix_(free, free)], right[free])
        crossed = first[:, None] * shift
        second = statistics.first_second / n + shift[:, None] * shift
        return shift, second - crossed - crossed.T

    def _estimate_start_covariance(self, second, n: float, weight: float, metric) -> np.ndarray:
        held = self.held.get("initial_state_covariance", False)
        if metric is None or not self._learns_start_covariance or n < NO_SEQUENCE:
            return estimate_covariance(self.initial_covariance, second, "full", held)
        share = weight / n
        return estimate_covariance(
            self.initial_covariance, second + share * metric, "full", held,
            share * np.linalg.inv(metric),
        )  # fmt: skip

    def _held_coefficients(self, shape) -> np.ndarray:
        """The mask of (A, B_u)."""
        d, held = self.n_components, np.zeros(shape, dtype=bool)
        held[:, :d] = self.held.get("transition_matrix", False)
        held[:, d:] = self.held.get("input_matrix", False)
        return held

    def _coefficient_directions(self, shape) -> np.ndarray | None:
        """Of (A, B_u), where some are tied."""
        d = self.n_components
        parts = ("transition_matrix", slice(0, d)), ("input_matrix", slice(d, None))
        return columns_along(self.tied, self._held_coefficients(shape), parts)

    def _estimate_transition(self, statistics: ChainStatistics):
        """Movement of (A, B_u), and the new sum of w w'."""
        any_held = "transition_matrix" in self.held or "input_matrix" in self.held
        held = self._held_coefficients(statistics.cross.shape) if any_held else None
        if statistics.gram.ndim == 4:
            held = self._held_coefficients(statistics.cross.shape)
            shift = estimate_along(free_directions(held), statistics.cross, statistics.gram)
            return shift, statistics.second  # of a known Gamma: not looked at
        sums = statistics.cross, statistics.gram
        along = self._coefficient_directions(statistics.cross.shape)
        if along is None:
            shift = estimate_coefficients(*sums, held, self.transition_covariance)
        else:
            shift = estimate_along(along, *sums, self.transition_covariance)
        _, second = moved_sums(statistics.cross, statistics.gram, statistics.second, shift)
        return shift, second

    def _moved(self, shift, second, penalty=None) -> LinearGaussianChain:
        d = self.n_components
        held = self.held.get("transition_covariance", False)
        covariance = estimate_covariance(
            self.transition_covariance, second, self.covariance_type, held, penalty,
            self.tied.get("transition_covariance"),
        )  # fmt: skip
        if not np.any(held) and not self.tied:
            covariance = self.raised(covariance)
        return replace(
            self,
            transition_matrix=self.transition_matrix + shift[:, :d],
            input_matrix=None if self.input_matrix is None else self.input_matrix + shift[:, d:],
            transition_covariance=covariance,
        )

    def raised(self, covariance) -> np.ndarray:
        """Gamma, no lower than its floor."""
        if self.floor is None:
            return covariance
        return raise_to_floor(covariance, self.covariance_type, self.floor)

    def _stationary_m_step(self, statistics, target, penalty=None) -> LinearGaussianChain:
        """Up to the maximum of the expected density, that of S_1 included.

        Sets out towards the maximiser that ignores S_1, no further than the density rises; where
        Gamma is singular it ends there.
        """

        def value(chain):
            density = self._expected_log_density(statistics, self, chain)
            if penalty is None:
                return density
            return density - 0.5 * np.sum(penalty * chain.transition_covariance)

        best, before = self, value(self)
        fraction = 1.0
        for _ in range(HALVINGS):
            chain = self._towards(target, fraction)
            if chain is not None and value(chain) >= before:
                best = chain
                break
            fraction /= 2
        chain = best._refined(self.moved(statistics, best), penalty)
        return chain if chain is not None and value(chain) >= value(best) else best

    def _refined(self, statistics, penalty) -> LinearGaussianChain | None:
        """(A, B_u, Gamma) at the joint maximum, from statistics taken at this chain."""
        n, _, first_second, *transitions = statistics
        d = self.n_components
        held = self._held_coefficients(statistics.cross.shape)
        held_covariance = np.broadcast_to(self.held.get("transition_covariance", False), (d, d))
        found = maximise_stationary(
            self.transition_matrix, self.transition_covariance, (n, first_second, *transitions),
            (held, held_covariance), self.covariance_type, penalty,
            (self._coefficient_directions(held.shape), self.tied.get("transition_covariance")),
        )  # fmt: skip
        if found is None:
            return None
        shift, covariance = found
        inputs = self.input_matrix
        return replace(
            self,
            transition_matrix=self.transition_matrix + shift[:, :d],
            transition_covariance=covariance,
            input_matrix=None if inputs is None else inputs + shift[:, d:],
        ).at_stationary_start()

    def _towards(self, target, fraction) -> LinearGaussianChain | None:
        def between(a, b):
            return None if a is None else a + fraction * (b - a)

        chain = replace(
            self,
            transition_matrix=between(self.transition_matrix, target.transition_matrix),
            transition_covariance=between(
                self.transition_covariance, target.transition_covariance
            ),
            input_matrix=between(self.input_matrix, target.input_matrix),
        )
        return chain.at_stationary_start()

    @staticmethod
    def _expected_log_density(statistics, current, chain) -> float:
        """E[log p(S)] of `chain` under statistics taken at `current`, up to a constant."""
        d = current.n_components
        second = current.moved(statistics, chain).second
        start = statistics.first_second / statistics.n_sequences  # both means are zero
        total = 0.0
        for covariance, moment, count in (
            (chain.transition_covariance, second, statistics.n_transitions),
            (chain.initial_covariance, start * statistics.n_sequences, statistics.n_sequences),
        ):
            values, vectors = np.linalg.eigh(covariance)
            used = values > d * np.finfo(float).eps * values[-1]
            rotated = np.einsum("ji,jk,ki->i", vectors, moment, vectors)[used]
            total -= 0.5 * (count * np.log(values[used]).sum() + (rotated / values[used]).sum())
        return total

    def at_stationary_start(self) -> LinearGaussianChain | None:
        """The same chain started in its stationary distribution; None where it has none."""
        covariance = stationary_covariance(self.transition_matrix, self.transition_covariance)
        if covariance is None:
            return None
        return replace(
            self,
            initial_mean=np.zeros(self.n_components),
            initial_covariance=covariance,
            stationary=True,
        )

    def settles_state(self, B, B_held) -> bool:
        """Whether no transformation of the state leaves all held entries as they are.

        T = I + M moves B by -B M, A by M A - A M and B_u by M B_u, to first order.
        """
        d = self.n_components
        A, identity = self.transition_matrix, np.eye(d)
        A_held = self.held.get("transition_matrix", False)
        if not (np.any(B_held) or "input_matrix" in self.held):
            return False  # the unit of all states together is free
        if np.all(B_held):
            B = np.linalg.qr(B.reshape(-1, d), mode="r")  # as much, in d rows
            B_held = True
        if self.tied:
            return True  # what ties entries of A or Gamma seldom leaves a turn of the state
        moves = [(np.kron(B, identity), np.broadcast_to(B_held, B.shape)) for B in _some(B)]
        for one in _some(A):
            move = np.kron(identity, one.T) - np.kron(one, identity)
            moves.append((move, np.broadcast_to(A_held, one.shape)))
        if (B_u := self.input_matrix) is not None:
            inputs_held = np.broadcast_to(self.held.get("input_matrix", False), B_u.shape)
            moves.append((np.kron(identity, B_u.T), inputs_held))
        kept = np.concatenate([move[held.ravel()] for move, held in moves])
        return len(kept) >= d * d and np.linalg.matrix_rank(kept) == d * d

    def n_free_parameters(self) -> int:
        """Entries learned; gauge freedom is the estimator's business."""
        d = self.n_components

        def free(name, shape):
            if name in self.tied:
                return len(self.tied[name])
            return int(np.sum(~np.broadcast_to(self.held.get(name, False), shape)))

        count = free("transition_matrix", (d, d))
        if self.input_matrix is not None:
            count += free("input_matrix", self.input_matrix.shape)
        Gamma = "transition_covariance"
        count += free(Gamma, (d, d)) if Gamma in self.tied else free_covariances(
            self.covariance_type, d, self.held.get(Gamma, False))  # fmt: skip
        if not self.stationary:
            count += free("initial_state_mean", (d,))
            count += free_covariances("full", d, self.held.get("initial_state_covariance", False))
        return count

    # -- other uses

    def transformed(self, T) -> LinearGaussianChain:
        """The chain of the states T S."""
        inverse = np.linalg.inv(T)
        covariance, initial = (
            _symmetric(T @ matrix @ T.T)
            for matrix in (self.transition_covariance, self.initial_covariance)
        )
        return replace(
            self,
            transition_matrix=T @ self.transition_matrix @ inverse,
            transition_covariance=covariance,
            initial_mean=T @ self.initial_mean,
            initial_covariance=initial,
            input_matrix=None if self.input_matrix is None else T @ self.input_matrix,
        )

    def from_step(self, n: int) -> LinearGaussianChain:
        """The chain of sequences that start at step n; mu0 and P0 are left."""
        A, Gamma = self.transition_matrix, self.transition_covariance
        return replace(
            self,
            transition_matrix=A[n:] if A.ndim == 3 else A,
            transition_covariance=Gamma[n:] if Gamma.ndim == 3 else Gamma,
        )

    def at(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """(A, Gamma) of the transition into step t."""
        A, Gamma = self.transition_matrix, self.transition_covariance
        return (A[t] if A.ndim == 3 else A), (Gamma[t] if Gamma.ndim == 3 else Gamma)

    def predict(self, mean, covariance, inputs=None, t: int = 0):
        """Moments of the next state."""
        A, Gamma = self.at(t)
        mean = mean @ A.T if inputs is None else mean @ A.T + inputs @ self.input_matrix.T
        return mean, _symmetric(A @ covariance @ A.T + Gamma)

    def sample(self, n_steps: int, random_state, inputs=None) -> np.ndarray:
        """One path, (n_steps, d)."""
        return self.sample_many(1, n_steps, random_state, inputs)[0]

    def sample_many(self, n_paths: int, n_steps: int, random_state, inputs=None) -> np.ndarray:
        """Paths, (n_paths, n_steps, d)."""
        states = random_state.standard_normal((n_paths, n_steps, self.n_components))
        states[:, 0] = self.initial_mean + states[:, 0] @ semidefinite_root(
            self.initial_covariance
        ).T
        if self.transition_covariance.ndim == 3:
            for t in range(1, n_steps):
                states[:, t] = states[:, t] @ semidefinite_root(self.at(t)[1]).T
        else:
            states[:, 1:] = states[:, 1:] @ semidefinite_root(self.transition_covariance).T
        if inputs is not None:
            states[:, 1:] += inputs[1:] @ self.input_matrix.T
        for t in range(1, n_steps):
            states[:, t] += states[:, t - 1] @ self.at(t)[0].T
        return states


def _add_constants(evidence: Evidence, offsets, step, sequence) -> None:
    constants, by_pattern = evidence.constants, evidence.pattern_constants
    if constants is not None:
        if step is not None:
            step += constants
        if np.ndim(constants):
            sequence += np.add.reduceat(constants, offsets[:-1])
        else:
            sequence += constants * np.diff(offsets)
    if by_pattern is None:
        return
    if evidence.pattern is None:
        by_pattern = by_pattern[0]
        sequence += by_pattern * np.diff(offsets)
    elif len(sequence) == 1:
        sequence += np.bincount(evidence.pattern, minlength=len(by_pattern)) @ by_pattern
    else:
        by_pattern = by_pattern[evidence.pattern]
        sequence += np.add.reduceat(by_pattern, offsets[:-1])
    if step is not None:
        step += by_pattern if len(sequence) > 1 or np.ndim(by_pattern) == 0 else (
            by_pattern[evidence.pattern])  # fmt: skip


def _some(matrix: np.ndarray) -> np.ndarray:
    """A matrix in a stack of its own; of one with a time axis up to a hundred times."""
    stack = matrix.reshape(-1, *matrix.shape[-2:])
    return stack[:: 1 + len(stack) // 100]


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + np.swapaxes(matrix, -1, -2)) / 2


def semidefinite_root(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, for (a stack of) positive semi-definite matrices."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
