"""The linear-Gaussian state-space model as a value: a chain and its observation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import fsum

import numpy as np

from sklseq._covariance import (
    covariance_from_vector,
    covariance_to_vector,
    raise_to_floor,
)
from sklseq._sequences import Sequences
from sklseq.state_space import _whitening as kernels
from sklseq.state_space._chain import (
    ChainStatistics,
    Evidence,
    LinearGaussianChain,
    Moments,
    Posterior,
    semidefinite_root,
)
from sklseq.state_space._observation import (
    LOG_2PI,
    GaussianObservation,
    ObservationStatistics,
    Patterns,
)
from sklseq.state_space._ties import coordinates

LONG = 1 << 18  # steps of one sequence whose evidence is held at a time for its score


@dataclass(frozen=True)
class LinearGaussianModel:
    """S_t = A S_{t-1} (+ B_u u_t) + w_t,   X_t = B S_t + offset (+ D u_t) + e_t.

    Parameters
    ----------
    chain : LinearGaussianChain
    observation : GaussianObservation
    known_states : bool
        The last of the arrays aligned with X holds states that are known (NaN: not known).

    The arrays aligned with X are: inputs where the chain or the observation has an input matrix,
    then states.
    """

    chain: LinearGaussianChain
    observation: GaussianObservation
    known_states: bool = False

    # -- inference

    def inputs_of(self, aligned):
        """(of the state, of the observation)."""
        parts = self.chain, self.observation
        return tuple(None if part.input_matrix is None else aligned[0] for part in parts)

    @property
    def time_varying(self) -> bool:
        return self.chain.time_varying or self.observation.time_varying

    def time_axes(self) -> dict[str, int]:
        """Number of times of each parameter that has a time axis."""
        return {name: len(value) for name, value in self.time_varying_parameters().items()}

    def time_varying_parameters(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in self.parameters().items() if value.ndim == 3}

    def check_times(self, n_steps: int, what: str) -> None:
        """Refuse `n_steps` of `what` where a time axis ends before."""
        for name, n_times in self.time_axes().items():
            if n_times < n_steps:
                raise ValueError(f"{name} has {n_times} times, fewer than {what}.")

    def from_step(self, n: int) -> LinearGaussianModel:
        """The model of sequences that start at step n; mu0 and P0 are left."""
        return replace(
            self, chain=self.chain.from_step(n), observation=self.observation.from_step(n)
        )

    def evidence(self, X, offsets, *aligned) -> tuple[Evidence, Patterns]:
        """Evidence of the rows, and their patterns of missing entries."""
        times = None
        if self.time_varying:
            longest = int(np.diff(offsets).max())
            self.check_times(longest, f"the longest sequence ({longest} steps)")
            times = step_numbers(offsets)
        evidence, patterns = self.observation.evidence(X, self.inputs_of(aligned)[1], times)
        if self.known_states:
            evidence = _with_known_states(evidence, aligned[-1])
        return evidence, patterns

    def step_scores(self, X, offsets, *aligned):
        """(log p(x_t | x_<t), (n_steps,)), and (n_sequences,)."""
        evidence, _ = self.evidence(X, offsets, *aligned)
        return self.chain.log_likelihoods(evidence, offsets, self.inputs_of(aligned)[0])

    def sequence_scores(self, X, offsets, *aligned):
        """(log p(x_1..x_n), (n_sequences,))."""
        if len(offsets) == 2 and len(X) > LONG and not self.time_varying:
            return (self._score_in_blocks(X, *aligned),)
        evidence, _ = self.evidence(X, offsets, *aligned)
        inputs = self.inputs_of(aligned)[0]
        return (self.chain.log_likelihoods(evidence, offsets, inputs, steps=False)[1],)

    def _score_in_blocks(self, X, *aligned) -> np.ndarray:
        """Of one long sequence, block by block, each going on where the last one ended: the
        evidence of all steps would be as large as X."""
        model, parts = self, []
        for start in range(0, len(X), LONG):
            rows = slice(start, start + LONG)
            block = X[rows]
            ends = np.array([0, len(block)], dtype=np.intp)
            moments, scores = model.final(block, ends, *(values[rows] for values in aligned))
            parts.append(scores[0])
            if not np.isfinite(scores[0]):
                break
            if rows.stop < len(X):
                following = [values[rows.stop :] for values in aligned]
                model = self.continued(moments, *following)
        return np.array([fsum(parts)])

    def filter(self, X, offsets, *aligned):
        """Filtered means, covariances; log-likelihoods of the sequences."""
        evidence, _ = self.evidence(X, offsets, *aligned)
        moments, _, sequence = self.chain.filter(evidence, offsets, self.inputs_of(aligned)[0])
        return *moments, sequence

    def final(self, X, offsets, *aligned) -> tuple[Moments, np.ndarray]:
        """Filtered moments at the last step of each sequence; log-likelihoods."""
        evidence, _ = self.evidence(X, offsets, *aligned)
        return self.chain.final(evidence, offsets, self.inputs_of(aligned)[0])

    def smoothed_means(self, X, offsets, *aligned):
        """(E[S_t | X], (n_steps, d)), and log-likelihoods of the sequences."""
        evidence, _ = self.evidence(X, offsets, *aligned)
        return self.chain.smoothed_means(evidence, offsets, self.inputs_of(aligned)[0])

    def smooth(self, X, offsets, *aligned) -> tuple[Posterior, np.ndarray]:
        """All smoothed moments; log-likelihoods of the sequences."""
        evidence, _ = self.evidence(X, offsets, *aligned)
        return self.chain.smooth(evidence, offsets, self.inputs_of(aligned)[0])

    def continued(self, end: Moments, *aligned) -> LinearGaussianModel:
        """This model going on after a state with these moments."""
        return replace(self, chain=self.chain.continued(end, self.inputs_of(aligned)[0]))

    # -- learning

    def e_step(self, X, offsets, *aligned):
        """Smoothed sums (Shumway and Stoffer 1982), with missing entries integrated out."""
        state_inputs, observation_inputs = self.inputs_of(aligned)
        evidence, patterns = self.evidence(X, offsets, *aligned)
        expected = self.chain.e_step(evidence, offsets, state_inputs)
        pattern_sums = expected.pattern_sums
        if len(pattern_sums) != len(patterns.masks):  # patterns of known states cut finer
            pattern_sums = _coarser(pattern_sums, evidence.pattern, patterns)
        observed = self.observation.statistics(
            X, observation_inputs, patterns, expected.means, pattern_sums
        )
        return (expected.statistics, observed), float(expected.log_likelihoods.sum())

    def part(self, rows: slice) -> LinearGaussianModel:
        return self

    def m_step(self, statistics: tuple[ChainStatistics, ObservationStatistics]):
        return replace(
            self,
            chain=self.chain.m_step(statistics[0]),
            observation=self.observation.m_step(statistics[1]),
        )

    def moved(self, statistics, target: LinearGaussianModel):
        """Statistics of this model's E-step in the form of `target`'s."""
        return (
            self.chain.moved(statistics[0], target.chain),
            self.observation.moved(statistics[1], target.observation),
        )

    def of_any_rows(self, statistics):
        """This model and its statistics where later rows may be missing in part."""
        chain, observed = (None, None) if statistics is None else statistics
        observation, observed = self.observation.of_any_rows(observed)
        statistics = None if statistics is None else (chain, observed)
        return replace(self, observation=observation), statistics

    def log_prior(self) -> float:
        return 0.0

    def why_impossible(self, sequences: Sequences) -> str:
        """Which sequence has density zero, and from which step on."""
        steps, _ = self.step_scores(sequences.X, sequences.offsets, *sequences.aligned)
        bad = np.flatnonzero(~np.isfinite(steps))
        if len(bad) == 0:
            return "the log-likelihood is not finite."
        sequence = int(np.searchsorted(sequences.offsets, bad[0], side="right")) - 1
        step = int(bad[0] - sequences.offsets[sequence])
        if np.isnan(steps[bad[0]]):
            return (
                f"at step {step} of sequence {sequence} the state leaves the range of floating "
                "point, as an unstable transition_matrix makes it in a long gap."
            )
        return (
            f"step {step} of sequence {sequence} contradicts what the model knows with certainty: "
            "an observation without noise differs from its prediction without variance."
        )

    def n_free_parameters(self) -> int:
        return self.chain.n_free_parameters() + self.observation.n_free_parameters()

    # -- parameters as one vector, for acceleration

    def to_vector(self) -> np.ndarray:
        """Free parameters as real numbers without constraints: variances by their logarithms,
        matrices by Cholesky factors with logarithmic diagonals."""
        parts = []
        for name, value in self.parameters().items():
            held = self.held_entries(name)
            if name in _COVARIANCES:
                if not self._is_fixed_covariance(name, value):
                    parts.append(covariance_to_vector(value))
            else:
                value = value[0] if value.ndim == 3 else value  # what is free is so at all times
                if name in self.tied:
                    parts.append(coordinates(self.tied[name], value))
                    continue
                parts.append(value[~np.broadcast_to(held, value.shape)])
        return np.concatenate(parts)

    def from_vector(self, vector) -> LinearGaussianModel | None:
        """The model with these free parameters, or None where they make none."""
        values, start = {}, 0
        for name, value in self.parameters().items():
            shape = value.shape[1:] if value.ndim == 3 else value.shape
            held = np.broadcast_to(self.held_entries(name), shape)
            if name in _COVARIANCES:
                if self._is_fixed_covariance(name, value):
                    continue
                size = len(covariance_to_vector(value))
                new = covariance_from_vector(vector[start : start + size], value)
            elif name in self.tied:
                directions = self.tied[name]
                size = len(directions)
                far = vector[start : start + size] - coordinates(directions, value)
                new = value + np.tensordot(far, directions, axes=1)
            else:
                size = int(np.sum(~held))
                new = value.copy()
                new[..., ~held] = vector[start : start + size]
            start += size
            if not np.all(np.isfinite(new)):
                return None
            values[name] = new
        return self.with_parameters(values)

    @property
    def tied(self) -> dict[str, np.ndarray]:
        return {**self.chain.tied, **self.observation.tied}

    def held_entries(self, name: str):
        """Mask of the entries of a parameter that learning leaves alone."""
        if name == "input_matrix":
            return self.chain.held.get(name, False)
        if name == "observation_input_matrix":
            return self.observation.held.get("input_matrix", False)
        return {**self.chain.held, **self.observation.held}.get(name, False)

    def _is_fixed_covariance(self, name, value) -> bool:
        """Held in part, or singular: acceleration leaves it to EM."""
        if np.any(self.held_entries(name)) or name in self.tied:
            return True
        try:
            return not np.all(np.diag(np.linalg.cholesky(value)) > 0)
        except np.linalg.LinAlgError:
            return True

    def parameters(self) -> dict[str, np.ndarray]:
        chain, observation = self.chain, self.observation
        values = {
            "transition_matrix": chain.transition_matrix,
            "transition_covariance": chain.transition_covariance,
            "observation_matrix": observation.matrix,
            "observation_offset": observation.offset,
            "observation_covariance": observation.covariance,
        }
        if not chain.stationary:
            values["initial_state_mean"] = chain.initial_mean
            if chain.start_ratio is None:
                values["initial_state_covariance"] = chain.initial_covariance
        if chain.input_matrix is not None:
            values["input_matrix"] = chain.input_matrix
        if observation.input_matrix is not None:
            values["observation_input_matrix"] = observation.input_matrix
        return values

    def with_parameters(self, values, *, clip: bool = True) -> LinearGaussianModel | None:
        """The model with other values, or None where it has no stationary start; `clip` raises
        covariances to their floors."""
        chain, observation = self.chain, self.observation
        Gamma = chain.transition_covariance
        if "transition_covariance" in values:
            Gamma = values["transition_covariance"]
            Gamma = chain.raised(Gamma) if clip else Gamma
        chain = replace(
            chain,
            transition_matrix=values["transition_matrix"],
            transition_covariance=Gamma,
            initial_mean=values.get("initial_state_mean", chain.initial_mean),
            initial_covariance=values.get("initial_state_covariance", chain.initial_covariance),
            input_matrix=None if chain.input_matrix is None else values["input_matrix"],
        )
        if chain.start_ratio is not None:
            covariance = chain.start_ratio * chain.transition_covariance
            chain = replace(chain, initial_covariance=covariance)
        if chain.stationary:
            chain = chain.at_stationary_start()
            if chain is None:
                return None
        covariance = values.get("observation_covariance", observation.covariance)
        if clip and "observation_covariance" in values and observation.floor is not None:
            covariance = raise_to_floor(
                covariance, observation.covariance_type, observation.floor
            )
        observation = replace(
            observation,
            matrix=values["observation_matrix"],
            offset=values["observation_offset"],
            covariance=covariance,
            input_matrix=values.get("observation_input_matrix"),
        )
        return replace(self, chain=chain, observation=observation)

    # -- draws

    def sample(self, n_steps: int, random_state, *aligned):
        """(X, states) of one sequence."""
        state_inputs, observation_inputs = self.inputs_of(aligned)
        states = self.chain.sample(n_steps, random_state, state_inputs)
        return self._observe(states, random_state, observation_inputs), states

    def _observe(self, states, random_state, inputs=None, times=None) -> np.ndarray:
        """Observations of states (..., n, d) at `times` (n,), by default 0..n - 1."""
        expected = self.observation.expect(states, inputs, times)
        noise = random_state.standard_normal(expected.shape)
        if self.observation.covariance.ndim == 2:
            return expected + noise @ semidefinite_root(self.observation.covariance).T
        times = np.arange(states.shape[-2]) if times is None else times
        roots = semidefinite_root(self.observation.covariance)[times]
        return expected + np.einsum("npq,...nq->...np", roots, noise)

    def sample_deviations(self, X, offsets, n_draws: int, random_state) -> np.ndarray:
        """Draws of S - E[S | X], (n_draws, n_steps, d): they depend on the gaps of X alone.

        Durbin and Koopman (2002): of a draw (S*, X*) from the model, S* - E[S* | X*].
        """
        d, n = self.chain.n_components, len(X)
        centred = replace(
            self,
            chain=replace(self.chain, initial_mean=np.zeros(d), input_matrix=None),
            observation=replace(
                self.observation, offset=np.zeros_like(self.observation.offset), input_matrix=None
            ),
        )
        states = np.empty((n_draws, n, d))
        for start, stop in pairwise(offsets):
            states[:, start:stop] = centred.chain.sample_many(n_draws, stop - start, random_state)
        drawn = centred._observe(states, random_state, times=step_numbers(offsets))
        drawn[:, np.isnan(X)] = np.nan
        repeats = np.arange(n_draws)[:, None] * n
        all_offsets = np.append((repeats + offsets[:-1]).ravel(), n_draws * n).astype(np.intp)
        means, _ = centred.smoothed_means(drawn.reshape(-1, X.shape[1]), all_offsets)
        return states - means.reshape(states.shape)

    # -- other uses

    def transformed(self, T) -> LinearGaussianModel:
        """The same model with states T S."""
        return replace(
            self, chain=self.chain.transformed(T), observation=self.observation.transformed(T)
        )

    def normalised(self) -> LinearGaussianModel:
        """The gauge: Gamma = I, B' Sigma^-1 B diagonal and decreasing, each state's largest loading
        positive; a singular Gamma leaves the model alone."""
        values, vectors = np.linalg.eigh(self.chain.transition_covariance)
        if not values[0] > 1e-12 * values[-1]:
            return self
        root = vectors * np.sqrt(values)
        B = self.observation.matrix @ root
        precision = np.linalg.pinv(self.observation.covariance, hermitian=True)
        rotation = np.linalg.eigh(B.T @ precision @ B)[1][:, ::-1]
        B = B @ rotation
        largest = B[np.abs(B).argmax(axis=0), np.arange(B.shape[1])]
        rotation = rotation * np.where(largest < 0, -1.0, 1.0)
        model = self.transformed(rotation.T @ (vectors / np.sqrt(values)).T)
        identity = np.eye(self.chain.n_components)
        return replace(model, chain=replace(model.chain, transition_covariance=identity))


_COVARIANCES = frozenset(
    ("transition_covariance", "observation_covariance", "initial_state_covariance")
)


def step_numbers(offsets) -> np.ndarray:
    """Of each row, its step in its sequence."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def _with_known_states(evidence: Evidence, states) -> Evidence:
    """Evidence with known states as perfect observations of the state, pattern by pattern."""
    n, d = states.shape
    known_of, known_masks = kernels.find_patterns(states)
    zeros = np.zeros(n, dtype=np.intp)
    known_of = zeros if known_of is None else known_of
    pattern = zeros if evidence.pattern is None else evidence.pattern
    code = pattern * len(known_masks) + known_of
    codes, joint = np.unique(code, return_inverse=True)
    of_x, of_s = np.divmod(codes, len(known_masks))
    S = np.concatenate([evidence.S[of_x], known_masks[of_s][:, :, None] * np.eye(d)], axis=1)
    ones = np.ones(evidence.S.shape[:2])
    noise = np.hstack(
        [(ones if evidence.noise is None else evidence.noise)[of_x], 1.0 - known_masks[of_s]]
    )
    y = np.hstack([evidence.y, np.nan_to_num(states, nan=0.0)])
    by_pattern = evidence.pattern_constants
    by_pattern = np.zeros(len(evidence.S)) if by_pattern is None else by_pattern
    by_pattern = by_pattern[of_x] - 0.5 * LOG_2PI * known_masks[of_s].sum(axis=1)
    return Evidence(
        y, joint.astype(np.intp), np.ascontiguousarray(S), noise, evidence.constants, by_pattern
    )


def _coarser(pattern_sums, pattern, patterns: Patterns) -> np.ndarray:
    """Sums over joint patterns added up to sums over the patterns of X."""
    result = np.zeros((len(patterns.masks), *pattern_sums.shape[1:]))
    _, first = np.unique(pattern, return_index=True)
    of_x = np.zeros(len(first), dtype=np.intp)
    if patterns.of_row is not None:
        of_x = patterns.of_row[first]
    np.add.at(result, of_x, pattern_sums)
    return result
