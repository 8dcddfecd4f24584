"""Softmax observations of a linear-Gaussian chain: the Gaussian posterior and what corrects it.

For q, the Gaussian made of the chain's prior and unit-variance observations z_t = S_t s_t + e_t
(the *sites*), the prior cancels from the exact posterior over q:

    log p(y, s) - log q(s) = log Z + sum_t r_t(s_t),
    r_t(s) = log p(y_t | s) + |z_t - S_t s|^2 / 2,

where log Z is the log-likelihood of the sites under the chain without constants, as
``_kalman_pass`` returns it.  The bound is E_q of the right-hand side; the twisted particle filter
averages exp of it along paths of q; the local correction integrates each exp r_t by itself.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from scipy import sparse

from sklseq.state_space import _softmax_sites as kernels
from sklseq.state_space._chain import Evidence, LinearGaussianChain, Posterior
from sklseq.state_space._quadrature import fine_rule, sigma_rule

MAX_ITER = 100  # of the fixed-point iteration; moderate models need 5 to 15
SMALLEST_STEP = 2.0**-12
GAIN = 1e-11  # relative gain of the bound at which a sequence is left alone
RUN_NORMALS = 1 << 20  # normals drawn at a time


class Words(NamedTuple):
    """The observation model p(w | s) = softmax(B s + b)_w."""

    matrix: np.ndarray  # (V, d)
    offset: np.ndarray  # (V,)

    def log_normalisers(self, states: np.ndarray) -> np.ndarray:
        """log sum_w exp(B_w s + b_w) at states (n, d)."""
        states = np.ascontiguousarray(states)
        lse = np.empty(len(states))
        kernels.normalisers(self.matrix, self.offset, states, lse, _work(states.shape[1]))
        return lse

    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """p(w | s) at states (n, d): (n, V)."""
        logits = states @ self.matrix.T + self.offset
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits


class Counts(NamedTuple):
    """All that the recursions need of the words of each step."""

    totals: np.ndarray  # (n,)
    times_matrix: np.ndarray  # (n, d) y' B
    times_offset: np.ndarray  # (n,) y' b

    @classmethod
    def of(cls, X, words: Words) -> Counts:
        totals = np.asarray(X.sum(axis=1), dtype=np.float64).reshape(-1)
        return cls(totals, np.ascontiguousarray(X @ words.matrix), np.asarray(X @ words.offset))

    def rows(self, index) -> Counts:
        return Counts(*(np.ascontiguousarray(values[index]) for values in self))

    def log_p(self, states: np.ndarray, words: Words) -> np.ndarray:
        """log p(y_t | s) at states (n, m, d): (n, m)."""
        lse = words.log_normalisers(states.reshape(-1, states.shape[2])).reshape(states.shape[:2])
        linear = np.einsum("ti,tmi->tm", self.times_matrix, states)
        return linear + self.times_offset[:, None] - self.totals[:, None] * lse


class GaussianPosterior(NamedTuple):
    """The Gaussian q closest to the posterior in KL(q || posterior), for all sequences."""

    moments: Posterior
    evidence: Evidence  # its sites
    log_Z: np.ndarray  # (n_sequences,) log-likelihood of the sites
    bounds: np.ndarray  # (n_sequences,) on log p(y)


def _work(d: int, n_nodes: int = 0, n_particles: int = 0) -> np.ndarray:
    return np.empty(kernels.work_size(d, n_nodes, n_particles))


class _Sites(NamedTuple):
    """Natural parameters of the sites exp(h's - s'Hs / 2)."""

    linear: np.ndarray  # (n, d)
    curvature: np.ndarray  # (n, d, d)

    def rows(self, index) -> _Sites:
        return _Sites(self.linear[index], self.curvature[index])

    def towards(self, other: _Sites, size: np.ndarray) -> _Sites:
        step = size[:, None]
        return _Sites(
            self.linear + step * (other.linear - self.linear),
            self.curvature + step[:, :, None] * (other.curvature - self.curvature),
        )


def _expectations(words: Words, counts: Counts, means, covariances):
    """(n,) expected log p(y_t | s), and the sites that its derivatives make."""
    n, d = means.shape
    rule = sigma_rule(d)
    value, gradient, curvature = np.empty(n), np.empty((n, d)), np.empty((n, d, d))
    kernels.site_expectations(
        words.matrix, words.offset, *counts, means, covariances, *rule, value, gradient,
        curvature, _work(d),
    )  # fmt: skip
    linear = gradient + np.matmul(curvature, means[:, :, None])[:, :, 0]
    return value, _Sites(linear, curvature)


def evidence_of(sites: _Sites, means) -> Evidence:
    n, d = means.shape
    y, S = np.empty((n, d)), np.empty((n, d, d))
    kernels.site_evidence(
        np.ascontiguousarray(means), np.ascontiguousarray(sites.linear),
        np.ascontiguousarray(sites.curvature), y, S, _work(d),
    )  # fmt: skip
    return Evidence(y, np.arange(n, dtype=np.intp), S)


def _misfit(evidence: Evidence, means, covariances) -> np.ndarray:
    """E |z_t - S_t s_t|^2 / 2 of each step, without covariances at the means."""
    missed = evidence.y - np.matmul(evidence.S, means[:, :, None])[:, :, 0]
    result = np.einsum("ti,ti->t", missed, missed)
    result += np.einsum("tij,tij->t", np.matmul(evidence.S, covariances), evidence.S)
    return 0.5 * result


class _Search:
    """Natural-gradient ascent of the bound, every sequence at its own pace.

    A step replaces the sites by those of the current q (Khan and Lin 2017, with step size one); it
    is halved while the bound does not rise, which the exact derivatives of the discretised bound
    ensure for small steps.  Sequences at rest leave, so that none depends on its neighbours.
    """

    def __init__(self, chain: LinearGaussianChain, words: Words, counts: Counts, offsets):
        n, d = len(counts.totals), chain.n_components
        self.chain, self.words, self.counts, self.offsets = chain, words, counts, offsets
        n_sequences = len(offsets) - 1
        self.best = Posterior(np.empty((n, d)), np.empty((n, d, d)), np.empty((n, d, d)))
        self.y, self.S = np.empty((n, d)), np.empty((n, d, d))
        self.log_Z = np.empty(n_sequences)
        self.bounds = np.full(n_sequences, -np.inf)
        self.size = np.ones(n_sequences)
        self.at = _Sites(np.zeros((n, d)), np.zeros((n, d, d)))
        self.target = self.at
        self.active = np.arange(n_sequences)

    def run(self, start) -> GaussianPosterior:
        if start is None:
            start = self._start_at_prior()
        self.target = _expectations(self.words, self.counts, *start)[1]
        if np.isneginf(self.bounds).all():  # warm: the first sites have nothing to fall below
            self.at = self.target
        reference = start[0]
        for _ in range(MAX_ITER):
            reference = self._step(reference)
            if not len(self.active):
                break
        pattern = np.arange(len(self.y), dtype=np.intp)
        return GaussianPosterior(
            self.best, Evidence(self.y, pattern, self.S), self.log_Z, self.bounds
        )

    def _start_at_prior(self):
        """q = prior; the first sites are those of a Newton step from the prior means."""
        zero = self.at
        evidence = evidence_of(zero, zero.linear)
        moments, log_Z = self.chain.smooth(evidence, self.offsets, likelihoods=True)
        value, _ = _expectations(self.words, self.counts, *moments[:2])
        self._keep(slice(None), slice(None), moments, evidence, log_Z)
        self.bounds = np.add.reduceat(value, self.offsets[:-1])
        centred = self.words.matrix - self.words.matrix.mean(axis=0)
        reach = np.sqrt(np.square(centred).sum(axis=1).max())
        scale = 1e-3 / reach if reach > 0 else 1.0  # so narrow that curvature is the Hessian's
        d = self.chain.n_components
        narrow = np.broadcast_to(scale**2 * np.eye(d), moments.covariances.shape)
        return moments.means, np.ascontiguousarray(narrow)

    def _keep(self, rows, sequences, moments, evidence, log_Z):
        for mine, new in zip(self.best, moments):
            mine[rows] = new
        self.y[rows], self.S[rows], self.log_Z[sequences] = evidence.y, evidence.S, log_Z

    def _step(self, reference):
        """Try the sites between `at` and `target` for the active sequences."""
        active = self.active
        lengths = np.diff(self.offsets)[active]
        all_active = len(active) == len(self.bounds)
        if all_active:
            rows, offsets, counts = slice(None), self.offsets, self.counts
        else:
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
            rows = np.repeat(self.offsets[active] - offsets[:-1], lengths) + np.arange(offsets[-1])
            counts = self.counts.rows(rows)
        tried = self.at.rows(rows).towards(
            self.target.rows(rows), np.repeat(self.size[active], lengths)
        )
        evidence = evidence_of(tried, reference[rows])
        moments, log_Z = self.chain.smooth(evidence, offsets, likelihoods=True)
        value, sites = _expectations(self.words, counts, *moments[:2])
        steps = value + _misfit(evidence, *moments[:2])
        bounds = log_Z + np.add.reduceat(steps, offsets[:-1])
        gain = bounds - self.bounds[active]
        small = GAIN * (1.0 + np.abs(bounds))
        good = np.isfinite(bounds) & (gain >= 0)
        self._accept(rows, offsets, active, good, tried, sites, moments, evidence, log_Z, bounds)
        self.size[active] = np.where(good, 1.0, 0.5 * self.size[active])
        rest = (good & (gain <= small)) | (self.size[active] < SMALLEST_STEP)
        rest |= ~good & (np.abs(gain) <= small)  # no further than rounding
        self.active = active[~rest]
        return self.best.means

    def _accept(self, rows, offsets, active, good, tried, sites, moments, evidence, log_Z, bounds):
        if good.all():
            into = rows
            if isinstance(rows, slice):
                self.at, self.target = tried, sites
            else:
                self._set_sites(rows, tried, sites)
        else:
            inside = np.repeat(good, np.diff(offsets))
            into = np.flatnonzero(inside) if isinstance(rows, slice) else rows[inside]
            self._set_sites(into, tried.rows(inside), sites.rows(inside))
            moments = Posterior(*(values[inside] for values in moments))
            evidence = evidence._replace(y=evidence.y[inside], S=evidence.S[inside])
        self._keep(into, active[good], moments, evidence, log_Z[good])
        self.bounds[active[good]] = bounds[good]

    def _set_sites(self, rows, at: _Sites, target: _Sites):
        if self.at is self.target:
            self.target = _Sites(*(values.copy() for values in self.at))
        for mine, new in zip((*self.at, *self.target), (*at, *target)):
            mine[rows] = new


def gaussian_posterior(
    chain: LinearGaussianChain, words: Words, counts: Counts, offsets, start=None
) -> GaussianPosterior:
    """KL-optimal Gaussian posterior (Opper and Archambeau 2009) of every sequence.

    Parameters
    ----------
    start : tuple (means, covariances), or None
        Marginal moments near the answer; None: a Newton step from the prior.
    """
    return _Search(chain, words, counts, offsets).run(start)
