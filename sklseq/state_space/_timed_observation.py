"""Linear-Gaussian observations whose B or Sigma is known for each step: a leading time axis.

    X_t = B_t S_t + offset + D u_t + e_t,   e_t ~ N(0, Sigma_t)

Entry t belongs to step t of a sequence.  Steps and patterns of missing entries together make
*cells*, and a cell is to the pass what a pattern is otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklseq.state_space import _whitening as kernels
from sklseq.state_space._chain import Evidence
from sklseq.state_space._estimate import estimate_along, free_directions
from sklseq.state_space._observation import (
    LOG_2PI,
    TABLE_ELEMENTS,
    GaussianObservation,
    ObservationStatistics,
    singular_eigenvalue,
)


class Cells(NamedTuple):
    """Which entries are there, step by step (``Patterns`` with a step each)."""

    of_row: np.ndarray  # (n_rows,)
    masks: np.ndarray  # (n_cells, p)
    times: np.ndarray  # (n_cells,)


@dataclass(frozen=True)
class TimedObservation(GaussianObservation):
    """A Gaussian observation with `matrix` (n_times, p, d) or `covariance` (n_times, p, p) or both.

    An array with a time axis is known: learning moves a matrix by the same amount at all steps, in
    entries that are not held, and leaves a covariance alone.
    """

    # -- by step

    @property
    def time_varying(self) -> bool:
        return True

    def _matrices(self, times) -> np.ndarray:
        """B of each of `times`, (n, p, d)."""
        B = self.matrix
        return B[times] if B.ndim == 3 else np.broadcast_to(B, (len(times), *B.shape))

    def _covariances(self, times) -> np.ndarray:
        """Sigma of each of `times`, (n, p, p)."""
        Sigma = self.covariance
        return Sigma[times] if Sigma.ndim == 3 else np.broadcast_to(
            Sigma, (len(times), *Sigma.shape))  # fmt: skip

    def at(self, t: int) -> GaussianObservation:
        """The observation of step t alone."""
        values = {item.name: getattr(self, item.name) for item in fields(GaussianObservation)}
        values |= {"matrix": self._matrices([t])[0], "covariance": self._covariances([t])[0]}
        return GaussianObservation(**values)

    def from_step(self, n: int) -> TimedObservation:
        return replace(
            self,
            matrix=self.matrix[n:] if self.matrix.ndim == 3 else self.matrix,
            covariance=self.covariance[n:] if self.covariance.ndim == 3 else self.covariance,
        )

    def expect(self, means, inputs=None, times=None) -> np.ndarray:
        """E[X | S = means], (..., n, p), of means (..., n, d) at `times` (n,)."""
        times = np.arange(means.shape[-2]) if times is None else times
        expected = np.einsum("npd,...nd->...np", self._matrices(times), means) + self.offset
        return expected if inputs is None else expected + inputs @ self.input_matrix.T

    # -- evidence

    def evidence(self, X, inputs=None, times=None) -> tuple[Evidence, Cells]:
        """What each row says about its state, cell by cell."""
        p, d = self.matrix.shape[-2:]
        cells = _cells(X, times)
        shift = None if inputs is None else np.ascontiguousarray(inputs @ self.input_matrix.T)
        exact = self._exact()
        collapses = p > d and not exact
        n_cells, k = len(cells.masks), d if collapses else p
        S, log_det = np.empty((n_cells, k, d)), np.empty(n_cells)
        noise = np.ones((n_cells, k)) if exact else None
        rows, rest = np.zeros(X.shape), np.zeros(len(X))
        y = np.empty((len(X), d)) if collapses else rows
        size = max(1, TABLE_ELEMENTS // (p * max(p, d)))
        for start in range(0, n_cells, size):
            part = slice(start, start + size)
            W, loadings, perfect, log_det[part] = self._tables(cells, part)
            kernels.map_rows_by_pattern(X, self.offset, shift, cells.of_row, start, W, rows)
            if perfect is not None:
                noise[part] = np.where(perfect, 0.0, 1.0)
            if not collapses:
                S[part] = loadings
                continue
            U, S[part] = np.linalg.qr(loadings)
            U = np.ascontiguousarray(U)
            kernels.project_rows_by_pattern(rows, cells.of_row, start, U, y, rest)
        constants = -0.5 * rest if collapses else None
        return Evidence(y, cells.of_row, S, noise, constants, log_det), cells

    @cached_property
    def _singular_times(self) -> np.ndarray:
        """Steps at which some direction has no noise, (n_times,) or (1,)."""
        Sigma = self.covariance.reshape(-1, *self.covariance.shape[-2:])
        variances = np.diagonal(Sigma, axis1=1, axis2=2)
        if self.diagonal:
            return (variances == 0.0).any(axis=1)
        least = np.linalg.eigvalsh(_correlations(Sigma)[0])[:, 0]
        return least <= singular_eigenvalue(1.0, Sigma.shape[-1])

    def _exact(self) -> bool:
        return bool(self._singular_times.any())

    def _tables(self, cells: Cells, part: slice):
        """Of some cells: W with W Sigma_oo W' = I, W B, which of their rows are perfect (or None),
        and the constants of the log-densities."""
        masks, times = cells.masks[part], cells.times[part]
        B, Sigma = self._matrices(times), self._covariances(times)
        both = masks[:, :, None] & masks[:, None, :]
        log_det = -0.5 * LOG_2PI * masks.sum(axis=1)
        if self.diagonal:
            variances = np.diagonal(Sigma, axis1=1, axis2=2)
            weights = 1.0 / np.sqrt(np.where(variances > 0.0, variances, 1.0))
            W = np.where(both, weights[:, :, None] * np.eye(masks.shape[1]), 0.0)
            log_det += np.where(masks, np.log(weights), 0.0).sum(axis=1)
            perfect = masks & (variances == 0.0)
            return W, W @ B, perfect if self._exact() else None, log_det
        singular = self._singular_times[times if len(self._singular_times) > 1 else 0 * times]
        # what is missing becomes independent noise of variance 1
        blocks = np.where(both, Sigma, np.eye(masks.shape[1]))
        W, perfect = np.empty_like(blocks), np.zeros(masks.shape, dtype=bool)
        regular = ~singular
        W[regular] = np.linalg.inv(np.linalg.cholesky(blocks[regular]))
        log_det[regular] += np.log(np.diagonal(W[regular], axis1=1, axis2=2)).sum(axis=1)
        W = np.where(both, W, 0.0)
        if singular.any():
            W[singular], perfect[singular], logs = _spectral_whitening(
                blocks[singular], masks[singular]
            )
            log_det[singular] += logs
        return W, W @ B, perfect if singular.any() else None, log_det

    # -- learning

    def statistics(
        self, X, inputs, patterns: Cells, means, pattern_sums
    ) -> ObservationStatistics:
        """As of a constant observation; where Sigma has a time axis, weighted by its inverse.

        `gram` is then (p, h, h), of uncorrelated features, or (p, h, p, h), that of the normal
        equations.
        """
        cells = patterns
        residual = X - self.expect(means, inputs, cells.times[cells.of_row])
        residual = np.where(np.isnan(residual), 0.0, residual)
        ones = np.ones((len(X), 1))
        h = np.hstack([means, ones] if inputs is None else [means, ones, inputs])
        second_h = np.zeros((len(cells.masks), h.shape[1], h.shape[1]))
        kernels.add_products_by_pattern(np.ascontiguousarray(h), cells.of_row, second_h)
        second_h[:, : means.shape[1], : means.shape[1]] += pattern_sums
        if self.covariance.ndim == 3:
            return self._weighted_statistics(residual, h, cells, second_h, pattern_sums)
        spread = self._matrices(cells.times) @ pattern_sums  # Cov(B S, S)
        if self.diagonal:
            return self._diagonal_sums(residual, h, cells, second_h, spread)
        return self._full_sums(residual, h, cells, second_h, spread)

    def _counts(self, cells: Cells) -> np.ndarray:
        """Rows of each cell."""
        return np.bincount(cells.of_row, minlength=len(cells.masks)).astype(float)

    def _weighted_statistics(self, residual, h, cells, second_h, pattern_sums):
        p, d = self.matrix.shape[-2:]
        size = h.shape[1]
        B = self._matrices(cells.times)
        counts = cells.masks.T @ self._counts(cells)
        nothing = np.zeros(p)
        if self.diagonal:
            variances = np.diagonal(self._covariances(cells.times), axis1=1, axis2=2)
            weights = np.where(cells.masks & (variances > 0), 1.0, 0.0)
            weights /= np.where(variances > 0, variances, 1.0)
            gram = (weights.T @ second_h.reshape(len(weights), -1)).reshape(p, size, size)
            cross = (weights[cells.of_row] * residual).T @ h
            cross[:, :d] -= np.einsum("cp,cpd->pd", weights, B @ pattern_sums)
            return ObservationStatistics(counts, gram, cross, nothing)
        precisions = self._precisions(cells)
        flat = precisions.reshape(len(precisions), -1).T @ second_h.reshape(len(precisions), -1)
        gram = flat.reshape(p, p, size, size).transpose(0, 2, 1, 3)
        cross = np.einsum("npq,nq->np", precisions[cells.of_row], residual).T @ h
        cross[:, :d] -= np.einsum("cpq,cqd->pd", precisions, B @ pattern_sums)
        return ObservationStatistics(counts, gram, cross, nothing)

    def _precisions(self, cells: Cells) -> np.ndarray:
        """(Sigma_oo)^-1 of each cell, 0 elsewhere; perfect directions are left out."""
        result = np.empty((len(cells.masks), *self.covariance.shape[-2:]))
        size = max(1, TABLE_ELEMENTS // result.shape[-1] ** 2)
        for start in range(0, len(result), size):
            part = slice(start, start + size)
            W, _, perfect, _ = self._tables(cells, part)
            if perfect is not None:
                W = np.where(perfect[:, :, None], 0.0, W)
            result[part] = np.swapaxes(W, 1, 2) @ W
        return result

    def _diagonal_sums(self, residual, h, cells, second_h, spread):
        """Sums over means in, sums over states out: feature by feature."""
        d = spread.shape[2]
        weights = cells.masks.astype(float)
        cross = residual.T @ h  # a missing entry has residual 0
        cross[:, :d] -= np.einsum("cp,cpd->pd", weights, spread)
        second = np.einsum("np,np->p", residual, residual)
        second += np.einsum("cp,cpd,cpd->p", weights, spread, self._matrices(cells.times))
        size = h.shape[1]
        gram = (weights.T @ second_h.reshape(len(weights), -1)).reshape(-1, size, size)
        return ObservationStatistics(weights.T @ self._counts(cells), gram, cross, second)

    def _full_sums(self, residual, h, cells, second_h, spread):
        """Missing entries by their conditional expectations, pattern by pattern."""
        p, d = self.matrix.shape[-2:]
        B = self._matrices(cells.times)
        row_counts = self._counts(cells)
        cross, second = np.zeros((p, h.shape[1])), np.zeros((p, p))
        masks, which = np.unique(cells.masks, axis=0, return_inverse=True)
        which = which.reshape(-1)
        seen = np.flatnonzero(masks.any(axis=1))
        for q in seen:
            here = np.flatnonzero(which == q)
            K, left = self._completion(masks[q])
            moved = K @ spread[here]
            cross[:, :d] -= moved.sum(axis=0)
            second += np.einsum("cpd,cqd,rq->pr", moved, B[here], K)
            second += row_counts[here].sum() * left
            rows = which[cells.of_row] == q
            expected = residual[rows] @ K.T
            cross += expected.T @ h[rows]
            second += expected.T @ expected
        some = cells.masks.any(axis=1)
        counts = np.full(p, row_counts[some].sum())
        return ObservationStatistics(counts, second_h[some].sum(axis=0), cross, second)

    def m_step(self, statistics: ObservationStatistics) -> GaussianObservation:
        if statistics.gram.ndim < 4:
            return super().m_step(statistics)
        _, gram, cross, _ = statistics
        held = self._held_coefficients(statistics)
        held = np.zeros(cross.shape, dtype=bool) if held is None else held
        return self._with_shift(estimate_along(free_directions(held), cross, gram))

    def of_any_rows(self, statistics):
        return replace(self, partly_missing=True), statistics  # each feature has its own gram


def _cells(X, times) -> Cells:
    of_row, masks = kernels.find_patterns(X)
    if of_row is None:
        of_row = np.zeros(len(X), dtype=np.intp)
    codes, cell = np.unique(times * len(masks) + of_row, return_inverse=True)
    at, pattern = np.divmod(codes, len(masks))
    return Cells(cell.reshape(-1).astype(np.intp), masks[pattern], at)


def _correlations(covariances):
    """Covariances in units of their standard deviations (1 where there is none), and these."""
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    scale = np.sqrt(np.where(variances > 0.0, variances, 1.0))
    return covariances / scale[:, :, None] / scale[:, None, :], scale


def _spectral_whitening(blocks, masks):
    """(W, perfect rows, log|W|) of singular covariances."""
    correlation, scale = _correlations(blocks)
    p = masks.shape[1]
    # what is not seen gets a value that no eigenvalue of a correlation matrix of p columns has
    correlation = correlation + np.where(masks, 0.0, 2.0 * p)[:, :, None] * np.eye(p)
    values, vectors = np.linalg.eigh(correlation)
    real = values < p + 0.5
    positive = real & (values > singular_eigenvalue(1.0, p))
    size = np.where(positive, 1.0 / np.sqrt(np.where(positive, values, 1.0)), 1.0)
    W = size[:, :, None] * np.swapaxes(vectors, 1, 2) / scale[:, None, :]
    W = np.where(real[:, :, None] & masks[:, None, :], W, 0.0)
    logs = np.log(size).sum(axis=1) - np.log(scale).sum(axis=1)
    return W, real & ~positive, logs
