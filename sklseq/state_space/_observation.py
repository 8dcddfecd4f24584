"""Linear-Gaussian observations of a state, as a value: whitening, statistics, M-step.

    X_t = B S_t + offset + D u_t + e_t,   e_t ~ N(0, Sigma)

NaN is a missing entry.  ``evidence`` turns rows into the local evidence that the chain understands:
the noise becomes the identity, and where there are more features than states a QR decomposition
leaves as many scalar observations as states, with an exact correction of the likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dtrtri

from sklseq._covariance import Floor, clip_covariance, raise_to_floor
from sklseq.state_space import _whitening as kernels
from sklseq.state_space._chain import SMALL, Evidence
from sklseq.state_space._estimate import (
    estimate_along,
    estimate_coefficients,
    estimate_covariance,
    free_covariances,
    free_without_noise,
    moved_sums,
    tell_blind,
)
from sklseq.state_space._ties import columns_along, tied_variances

LOG_2PI = np.log(2 * np.pi)
SURE_PIVOT = 1e-6  # of a variance: a pivot of Cholesky above this is none of rounding
BLOCK_ELEMENTS = 1 << 15
TABLE_ELEMENTS = 1 << 22  # doubles of per-pattern tables that exist at a time


class Patterns(NamedTuple):
    """Which entries of each row are there."""

    of_row: np.ndarray | None  # (n_steps,); None: all rows are complete
    masks: np.ndarray  # (n_patterns, p)


class ObservationStatistics(NamedTuple):
    """Expected sums of the residuals r = x - B S - offset - D u and h = (S, 1, u); they add."""

    counts: np.ndarray  # (p,) rows in which a feature was seen ("full": in which any was)
    gram: np.ndarray  # (h, h), or (p, h, h) for each feature its own
    cross: np.ndarray  # (p, h) sum of E[r h']
    second: np.ndarray  # (p, p) sum of E[r r'], or (p,) its diagonal


@dataclass(frozen=True)
class GaussianObservation:
    """A linear-Gaussian observation.

    Parameters
    ----------
    matrix : ndarray of shape (p, d)
        B.
    covariance : ndarray of shape (p, p)
        Sigma; diagonal unless `covariance_type` is "full".
    offset : ndarray of shape (p,)
    covariance_type : {"diag", "full", "spherical"}
    input_matrix : ndarray of shape (p, q), or None
        D.
    floor : Floor or None
        Under Sigma, for learning.
    partly_missing : bool
        Some row of the training data is neither complete nor empty.
    held : mapping of name -> boolean mask
    tied : mapping of name -> directions (k, *shape)
        Along which alone the M-step moves; `held` has the entries that they leave.
    """

    matrix: np.ndarray
    covariance: np.ndarray
    offset: np.ndarray
    covariance_type: str = "diag"
    input_matrix: np.ndarray | None = None
    floor: Floor | None = None
    partly_missing: bool = False
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    tied: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def diagonal(self) -> bool:
        return self.covariance_type != "full"

    @property
    def time_varying(self) -> bool:
        return False

    # -- evidence

    def centred(self, X, inputs=None) -> np.ndarray:
        """X - offset - D u."""
        centred = X - self.offset
        if inputs is not None:
            centred -= inputs @ self.input_matrix.T
        return centred

    def evidence(self, X, inputs=None, times=None) -> tuple[Evidence, Patterns]:
        """What each row says about its state; `times` (the step of each row) is not needed."""
        p, d = self.matrix.shape
        shift = None if inputs is None else np.ascontiguousarray(inputs @ self.input_matrix.T)
        exact = self._exact()
        if not exact and not self.diagonal and p <= min(d, SMALL):
            evidence = self._small_complete_evidence(X, shift)
            if evidence is not None:
                return evidence, _complete(p)
        weights = self._weights()
        if p > d and not exact:
            patterns = Patterns(*kernels.find_patterns(X))
            if patterns.of_row is None:
                return self._complete_evidence(X, inputs, weights), patterns
        if self.diagonal:
            rows = np.empty(X.shape)
            missing = kernels.scale_rows(X, self.offset, shift, weights, rows)
            patterns = Patterns(*kernels.find_patterns(X)) if missing else _complete(p)
            if not missing and not exact:
                S = np.ascontiguousarray((weights[:, None] * self.matrix)[None])
                constant = np.log(weights).sum() - 0.5 * p * LOG_2PI
                return Evidence(rows, None, S, None, constant), patterns
        else:
            patterns = Patterns(*kernels.find_patterns(X))
            rows = None
        if patterns.of_row is None and not exact:
            return self._complete_evidence(X, inputs, weights), patterns
        if p > d and not exact:
            return self._collapsed_evidence(X, shift, rows, weights, patterns), patterns
        tables = self._whitening_tables(patterns.masks, weights)
        y = rows
        if y is None:
            y = np.empty(X.shape)
            of_row = np.zeros(len(X), dtype=np.intp) if patterns.of_row is None else patterns.of_row
            kernels.map_rows_by_pattern(X, self.offset, shift, of_row, 0, tables.W, y)
        return Evidence(y, patterns.of_row, tables.S, tables.noise, None, tables.log_det), patterns

    def _weights(self) -> np.ndarray:
        """Reciprocal standard deviations, 1 where there is no noise or noise is correlated."""
        if not self.diagonal:
            return np.ones(len(self.matrix))
        variances = self.covariance.diagonal()
        return 1.0 / np.sqrt(np.where(variances > 0.0, variances, 1.0))

    @cached_property
    def factor(self) -> np.ndarray | None:
        """Lower Cholesky factor of Sigma, or None where some direction has no noise."""
        try:
            factor = np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            return None
        variances = self.covariance.diagonal()
        if np.all(factor.diagonal() ** 2 > SURE_PIVOT * variances):
            return factor
        # the rounding of a pivot may be larger than that of one step
        values = np.linalg.eigvalsh(self.covariance / np.sqrt(np.outer(variances, variances)))
        return factor if values[0] > singular_eigenvalue(values[-1], len(values)) else None

    def _exact(self) -> bool:
        """Whether some direction is observed without noise."""
        if self.diagonal:
            return bool(self.covariance.diagonal().min() == 0.0)
        return self.factor is None

    def _small_complete_evidence(self, X, shift) -> Evidence | None:
        """One pass over the rows, without BLAS; None where an entry is missing."""
        W = np.linalg.inv(self.factor)
        y = np.empty(X.shape)
        if not kernels.whiten_complete_rows(X, self.offset, shift, W, y):
            return None
        constant = np.log(np.diag(W)).sum() - 0.5 * len(W) * LOG_2PI
        return Evidence(y, None, np.ascontiguousarray(W @ self.matrix)[None], None, constant)

    def _complete_evidence(self, X, inputs, weights) -> Evidence:
        """In blocks whose temporaries stay in the cache."""
        p, d = self.matrix.shape
        collapses = p > d
        if self.diagonal:
            S, log_det = weights[:, None] * self.matrix, np.log(weights).sum()
            U, R = np.linalg.qr(S) if collapses else (None, S)
        else:
            W = dtrtri(self.factor, lower=1)[0]
            R, log_det = W @ self.matrix, np.log(W.diagonal()).sum()
            turn = W.T  # rows times this are whitened, the first d columns along the state
            if collapses:
                Q, R = np.linalg.qr(R, mode="complete")
                R, turn = R[:d], turn @ Q
        constant = log_det - 0.5 * p * LOG_2PI
        y, constants = np.empty((len(X), len(R))), np.full(len(X), constant)
        size = max(16, BLOCK_ELEMENTS // p)
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            block = self.centred(X[part], None if inputs is None else inputs[part])
            if self.diagonal:
                block *= weights
            else:
                block = block @ turn
            if not collapses:
                y[part] = block
                continue
            if self.diagonal:
                np.matmul(block, U, out=y[part])
                block -= y[part] @ U.T
            else:
                y[part], block = block[:, :d], block[:, d:]
            constants[part] -= 0.5 * np.einsum("np,np->n", block, block)
        S = np.ascontiguousarray(R[None])
        return Evidence(y, None, S, None, constants if collapses else constant)

    def _collapsed_evidence(self, X, shift, rows, weights, patterns: Patterns) -> Evidence:
        p, d = self.matrix.shape
        n_patterns = len(patterns.masks)
        y, rest = np.empty((len(X), d)), np.empty(len(X))
        S, log_det = np.empty((n_patterns, d, d)), np.empty(n_patterns)
        whitened = np.empty(X.shape) if rows is None else rows
        size = max(1, TABLE_ELEMENTS // (p * max(p, d)))
        for start in range(0, n_patterns, size):
            part = slice(start, start + size)
            tables = self._whitening_tables(patterns.masks[part], weights)
            if rows is None:
                kernels.map_rows_by_pattern(
                    X, self.offset, shift, patterns.of_row, start, tables.W, whitened
                )
            U, S[part] = np.linalg.qr(tables.S)
            log_det[part] = tables.log_det
            U = np.ascontiguousarray(U)
            kernels.project_rows_by_pattern(whitened, patterns.of_row, start, U, y, rest)
        return Evidence(y, patterns.of_row, S, None, -0.5 * rest, log_det)

    def _whitening_tables(self, masks, weights) -> _Tables:
        """Per pattern: W with W Sigma_oo W' = I, S = W B, and the constant of the log-density."""
        seen = masks.sum(axis=1)
        if self.diagonal:
            S = np.where(masks[:, :, None], weights[:, None] * self.matrix, 0.0)
            log_det = masks @ np.log(weights) - 0.5 * LOG_2PI * seen
            exact = masks & (np.diag(self.covariance) == 0.0)
            noise = np.where(exact, 0.0, 1.0) if exact.any() else None
            return _Tables(None, S, noise, log_det)
        p, d = self.matrix.shape
        if not self._exact():
            n = len(masks)
            tables = _Tables(np.empty((n, p, p)), np.empty((n, p, d)), None, np.empty(n))
            B = np.ascontiguousarray(self.matrix)
            kernels.whitening_maps(
                np.ascontiguousarray(masks).view(np.uint8), np.ascontiguousarray(self.covariance),
                B, tables.W, tables.S, tables.log_det,
            )
            tables.log_det[:] -= 0.5 * LOG_2PI * seen
            return tables
        both = masks[:, :, None] & masks[:, None, :]
        blocks = np.where(both, self.covariance, 0.0)
        values, vectors = np.linalg.eigh(blocks)
        # unseen coordinates are eigenvectors of value 0: a zero row of W, no observation
        real = np.einsum("npq,np->nq", vectors**2, masks) > 0.5
        smallest = singular_eigenvalue(np.max(values, axis=1, initial=0.0), p)[:, None]
        positive = real & (values > smallest)
        exact = real & ~positive
        scale = np.where(positive, 1.0 / np.sqrt(np.where(positive, values, 1.0)), exact)
        W = scale[:, :, None] * np.swapaxes(vectors, 1, 2)
        W = np.where(masks[:, None, :], W, 0.0)
        log_det = np.log(np.where(positive, scale, 1.0)).sum(axis=1) - 0.5 * LOG_2PI * seen
        noise = np.where(exact, 0.0, 1.0) if exact.any() else None
        return _Tables(np.ascontiguousarray(W), W @ self.matrix, noise, log_det)

    # -- learning

    def statistics(
        self, X, inputs, patterns: Patterns, means, pattern_sums
    ) -> ObservationStatistics:
        """Expected sums, given smoothed means (N, d) and covariance sums (n_patterns, d, d)."""
        p, d = self.matrix.shape
        masks = patterns.masks
        counts = np.array([float(len(X))])
        if patterns.of_row is not None:
            counts = np.bincount(patterns.of_row, minlength=len(masks)).astype(float)
        size = d + 1 + (0 if inputs is None else inputs.shape[1])
        gram = np.zeros((len(masks), size, size))
        complete = patterns.of_row is None
        if max(size, p) <= SMALL and (self.diagonal or complete):
            shift = None if inputs is None else inputs @ self.input_matrix.T
            cross, second = np.zeros((p, size)), np.zeros((p, p))
            B = np.ascontiguousarray(self.matrix)
            kernels.residual_sums(
                X, self.offset, shift, B, means, inputs, patterns.of_row, gram, cross, second
            )
            if self.diagonal:
                return self._diagonal_statistics(
                    cross, second.diagonal(), masks, counts, gram, pattern_sums
                )
            gram[0, :d, :d] += pattern_sums[0]
            spread = self.matrix @ pattern_sums[0]
            cross[:, :d] -= spread
            return ObservationStatistics(
                np.full(p, counts[0]), gram[0], cross, second + spread @ self.matrix.T
            )
        residual = self.centred(X, inputs) - means @ self.matrix.T
        ones = np.ones((len(X), 1))
        h = np.hstack([means, ones] if inputs is None else [means, ones, inputs])
        if complete:
            gram[0] = h.T @ h
        else:
            residual = np.where(np.isnan(residual), 0.0, residual)
            kernels.add_products_by_pattern(h, patterns.of_row, gram)
        if self.diagonal:
            second = np.einsum("np,np->p", residual, residual)
            return self._diagonal_statistics(
                residual.T @ h, second, masks, counts, gram, pattern_sums
            )
        gram[:, :d, :d] += pattern_sums
        return self._full_statistics(residual, h, patterns, counts, gram, pattern_sums)

    def _diagonal_statistics(self, cross, second, masks, counts, gram, pattern_sums):
        """Sums over means in, sums over states out."""
        d = self.matrix.shape[1]
        gram[:, :d, :d] += pattern_sums
        if len(masks) == 1 and not self.partly_missing and masks.all():
            B_spread = self.matrix @ pattern_sums[0]
            cross[:, :d] -= B_spread
            second = second + (B_spread * self.matrix).sum(axis=1)
            return ObservationStatistics(np.full(len(cross), counts[0]), gram[0], cross, second)
        weights = masks.T.astype(float)  # (p, n_patterns)
        spread = (weights @ pattern_sums.reshape(len(masks), -1)).reshape(-1, d, d)
        B_spread = np.einsum("pi,pij->pj", self.matrix, spread)
        cross[:, :d] -= B_spread
        second = second + np.einsum("pj,pj->p", B_spread, self.matrix)
        if self.partly_missing:
            size = gram.shape[1]
            gram = (weights @ gram.reshape(len(masks), -1)).reshape(-1, size, size)
        else:
            gram = gram[masks.all(axis=1)].sum(axis=0)
        return ObservationStatistics(weights @ counts, gram, cross, second)

    def _full_statistics(self, residual, h, patterns, counts, gram, pattern_sums):
        p, d = self.matrix.shape
        masks = patterns.masks
        some = masks.any(axis=1)
        cross, second = np.zeros((p, h.shape[1])), np.zeros((p, p))
        expected = residual
        groups = [slice(None)]
        if patterns.of_row is not None:
            expected = residual.copy()
            order = np.argsort(patterns.of_row, kind="stable")
            groups = np.split(order, np.cumsum(counts.astype(int))[:-1])
        for q in np.flatnonzero(some):
            K, left = self._completion(masks[q])
            spread = K @ self.matrix @ pattern_sums[q]
            cross[:, :d] -= spread
            second += spread @ self.matrix.T @ K.T + counts[q] * left
            if not masks[q].all():
                expected[groups[q]] = residual[groups[q]] @ K.T
        if not some.all():
            for q in np.flatnonzero(~some):
                expected[groups[q]] = 0.0
        cross += expected.T @ h
        second += expected.T @ expected
        rows = np.full(p, counts[some].sum())
        return ObservationStatistics(rows, gram[some].sum(axis=0), cross, second)

    def _completion(self, mask):
        """E[r | r_o] = K r_o and Cov(r | r_o), for noise r of which r_o was seen."""
        p = len(mask)
        K, left = np.diag(mask.astype(float)), np.zeros((p, p))
        lost = ~mask
        if lost.any():
            block = self.covariance[np.ix_(mask, mask)]
            between = self.covariance[np.ix_(mask, lost)]
            gain = np.linalg.lstsq(block, between, rcond=None)[0].T
            K[np.ix_(lost, mask)] = gain
            left[np.ix_(lost, lost)] = self.covariance[np.ix_(lost, lost)] - gain @ between
        return K, left

    def m_step(self, statistics: ObservationStatistics) -> GaussianObservation:
        """Regression on the state, 1 and inputs (Ghahramani and Hinton 1996, eqs. 14-16)."""
        counts, gram, cross, second = statistics
        noise = self.covariance.diagonal() if self.diagonal else self.covariance
        held = self._held_coefficients(statistics)
        along = self._coefficient_directions(cross.shape, held)
        if along is None:
            shift = estimate_coefficients(cross, gram, held, noise)
        else:
            shift = estimate_along(along, cross, gram, noise)
        _, moment = moved_sums(cross, gram, second, shift)
        return replace(
            self._with_shift(shift), covariance=self._estimate_covariance(moment, counts)
        )

    def _coefficient_directions(self, shape, held) -> np.ndarray | None:
        """Of (B, offset, D), where some are tied."""
        d = self.matrix.shape[-1]
        parts = ("observation_matrix", slice(0, d)), ("observation_offset", slice(d, d + 1))
        held = np.zeros(shape, dtype=bool) if held is None else held
        return columns_along(self.tied, held, parts)

    def _held_coefficients(self, statistics: ObservationStatistics) -> np.ndarray | None:
        """The mask of (B, offset, D); None: all are free."""
        d, counts = self.matrix.shape[-1], statistics.counts
        if not self.held and counts.min() > 0:
            return None
        held = np.zeros(statistics.cross.shape, dtype=bool)
        held[:, :d] = self.held.get("observation_matrix", False)
        held[:, d] = self.held.get("observation_offset", False)
        held[:, d + 1 :] = self.held.get("input_matrix", False)
        held[counts == 0] = True  # a feature never seen says nothing
        return held

    def _with_shift(self, shift) -> GaussianObservation:
        """(B, offset, D) moved."""
        d = self.matrix.shape[-1]
        D = self.input_matrix
        return replace(
            self,
            matrix=self.matrix + shift[:, :d],
            offset=self.offset + shift[:, d],
            input_matrix=None if D is None else D + shift[:, d + 1 :],
        )

    def _shift_to(self, target) -> np.ndarray:
        """How far (B, offset, D) of `target` are from here; the same at all steps."""
        p, d = self.matrix.shape[-2:]
        parts = [
            (target.matrix - self.matrix).reshape(-1, p, d)[0],
            (target.offset - self.offset)[:, None],
        ]
        if self.input_matrix is not None:
            parts.append(target.input_matrix - self.input_matrix)
        return np.hstack(parts)

    def moved(self, statistics: ObservationStatistics, target) -> ObservationStatistics:
        """Sums of residuals of this observation as those of `target`."""
        counts, gram, cross, second = statistics
        return ObservationStatistics(
            counts, gram, *moved_sums(cross, gram, second, self._shift_to(target))
        )

    def without_noise(self) -> dict[str, np.ndarray]:
        """Parameter -> mask of its free coefficients of which the M-step learns nothing."""
        parts = {
            "observation_matrix": self.matrix,
            "observation_offset": self.offset,
            "input_matrix": self.input_matrix,
        }
        return {
            name: free_without_noise(value, self.covariance, self.held.get(name, False))
            for name, value in parts.items()
            if value is not None and value.ndim < 3 and self.covariance.ndim < 3
        }

    def tell_blind(self) -> str | None:
        """What the M-step cannot learn, if anything."""
        return tell_blind(self.without_noise(), lambda _: "observation_covariance")

    def of_any_rows(self, statistics: ObservationStatistics | None):
        """This observation and its statistics where later rows may be missing in part."""
        if self.partly_missing or not self.diagonal:
            return self, statistics
        if statistics is not None:
            own = (len(self.matrix), *statistics.gram.shape)
            statistics = statistics._replace(gram=np.broadcast_to(statistics.gram, own))
        return replace(self, partly_missing=True), statistics

    def raised(self) -> GaussianObservation:
        """With a covariance no lower than the floor, if all of it is learned: the first M-step
        would lift it there, and the likelihood might fall."""
        held = np.any(self.held.get("observation_covariance", False))
        if held or "observation_covariance" in self.tied or self.covariance.ndim == 3:
            return self
        covariance = raise_to_floor(self.covariance, self.covariance_type, self.floor)
        return replace(self, covariance=covariance)

    def _estimate_covariance(self, moment, counts):
        held = self.held.get("observation_covariance", np.array(False))
        if held.all():
            return self.covariance
        rows = np.maximum(counts, 1.0)
        tied = self.tied.get("observation_covariance")
        if tied is not None and self.diagonal:
            variances = self.covariance.diagonal()
            return tied_variances(moment, counts, variances, tied, self.floor.variances)
        if tied is not None:
            return estimate_covariance(
                self.covariance, moment / rows[0], "full", held, tied=tied
            )
        if self.covariance_type == "spherical":
            variance = max(moment.sum() / rows.sum(), 0.0)
            return np.eye(len(rows)) * max(variance, self.floor.variances.max())
        if self.covariance_type == "diag":
            variances = np.where(counts > 0, moment / rows, self.covariance.diagonal())
            variances = np.maximum(variances, self.floor.variances)
            kept = np.diag(held) if held.ndim else held
            return np.diag(np.where(kept, self.covariance.diagonal(), variances))
        estimate = estimate_covariance(self.covariance, moment / rows[0], "full", held)
        return estimate if held.any() else clip_covariance(estimate, self.floor)

    def n_free_parameters(self) -> int:
        p, d = self.matrix.shape[-2:]

        def free(name, shape):
            if name in self.tied:
                return len(self.tied[name])
            return int(np.sum(~np.broadcast_to(self.held.get(name, False), shape)))

        count = free("observation_matrix", (p, d)) + free("observation_offset", (p,))
        if self.input_matrix is not None:
            count += free("input_matrix", self.input_matrix.shape)
        Sigma = "observation_covariance"
        return count + (free(Sigma, (p, p)) if Sigma in self.tied else free_covariances(
            self.covariance_type, p, self.held.get(Sigma, False)))  # fmt: skip

    # -- other uses

    def transformed(self, T) -> GaussianObservation:
        """The same observation of the states T S."""
        return replace(self, matrix=self.matrix @ np.linalg.inv(T))

    def at(self, t: int) -> GaussianObservation:
        """The observation of step t alone."""
        return self

    def from_step(self, n: int) -> GaussianObservation:
        """The observation of sequences that start at step n."""
        return self

    def expect(self, means, inputs=None, times=None) -> np.ndarray:
        """E[X | S = means], (..., p)."""
        expected = means @ self.matrix.T + self.offset
        return expected if inputs is None else expected + inputs @ self.input_matrix.T


def _complete(p: int) -> Patterns:
    return Patterns(None, np.ones((1, p), dtype=bool))


class _Tables(NamedTuple):
    W: np.ndarray | None  # (n_patterns, p, p); None: rows are whitened already
    S: np.ndarray  # (n_patterns, p, d)
    noise: np.ndarray | None  # (n_patterns, p)
    log_det: np.ndarray  # (n_patterns,)


def singular_eigenvalue(largest, p):
    """An eigenvalue up to this is a zero of rounding."""
    return 4 * p * np.finfo(float).eps * largest
