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
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sklseq.state_space import _softmax_sites as kernels
from sklseq.state_space._chain import Evidence, LinearGaussianChain, Moments, Posterior
from sklseq.state_space._quadrature import fine_rule, sigma_rule

MAX_ITER = 100  # of the fixed-point iteration; moderate models need 5 to 15
SMALLEST_STEP = 2.0**-12
GAIN = 1e-11  # relative gain of the bound at which a sequence is left alone
RUN_NORMALS = 1 << 20  # normals drawn at a time
BLOCK = 1 << 20  # numbers that a block of corrected steps holds


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
    value, linear, curvature = np.empty(n), np.empty((n, d)), np.empty((n, d, d))
    kernels.site_expectations(
        words.matrix, words.offset, *counts, means, covariances, *rule, value, linear, curvature,
        _work(d),
    )  # fmt: skip
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
    """E |z_t - S_t s_t|^2 / 2 of each step."""
    misfits = np.empty(len(means))
    kernels.site_misfits(evidence.y, evidence.S, means, covariances, misfits)
    return misfits


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
        moments, log_Z = self.chain.smooth(evidence, self.offsets)
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
        tried = self.target.rows(rows)
        if np.any(self.size[active] < 1):
            tried = self.at.rows(rows).towards(tried, np.repeat(self.size[active], lengths))
        evidence = evidence_of(tried, reference[rows])
        moments, log_Z = self.chain.smooth(evidence, offsets)
        value, sites = _expectations(self.words, counts, *moments[:2])
        steps = value + _misfit(evidence, *moments[:2])
        bounds = log_Z + np.add.reduceat(steps, offsets[:-1])
        with np.errstate(invalid="ignore"):  # a bound that is infinite is no gain
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


# ---- the exact likelihood, corrected from q


def _corrections(words: Words, counts: Counts, q: GaussianPosterior, rows):
    """States under the marginals of q at `rows` (an index), (n, k, d), and their r_t, (n, k)."""
    rule = fine_rule(q.moments.means.shape[1])
    roots = _roots(q.moments.covariances[rows])
    states = q.moments.means[rows][:, None] + rule.nodes @ np.swapaxes(roots, 1, 2)
    r = counts.rows(rows).log_p(states, words)
    misses = q.evidence.y[rows][:, None] - states @ np.swapaxes(q.evidence.S[rows], 1, 2)
    return states, r + 0.5 * np.square(misses).sum(axis=2)


def local_correction(words: Words, counts: Counts, offsets, q: GaussianPosterior) -> np.ndarray:
    """log Z + sum_t log E_q[exp r_t(s_t)] of each sequence: deterministic, nearly exact."""
    n, d = q.moments.means.shape
    rule = fine_rule(d)
    log_means = np.zeros(n)
    block = max(1, BLOCK // (len(rule.weights) * d))
    for start in range(0, n, block):
        rows = slice(start, start + block)
        _, r = _corrections(words, counts, q, rows)
        top = r.max(axis=1, keepdims=True)
        log_means[rows] = np.log(np.exp(r - top) @ rule.weights) + top[:, 0]
    return q.log_Z + np.add.reduceat(log_means, offsets[:-1])


def corrected_moments(words: Words, counts: Counts, q: GaussianPosterior, rows) -> Moments:
    """Means and covariances of q_t(s) exp r_t(s) at `rows`: nearer to the posterior's than q's,
    which are a little narrow."""
    states, r = _corrections(words, counts, q, rows)
    weights = fine_rule(states.shape[2]).weights * np.exp(r - r.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.einsum("tk,tki->ti", weights, states)
    centred = states - means[:, None]
    return Moments(means, np.einsum("tk,tki,tkj->tij", weights, centred, centred))


def _roots(covariances: np.ndarray) -> np.ndarray:
    """L with L L' = C for a stack of positive semi-definite matrices."""
    if covariances.shape[1] == 1:
        return np.sqrt(np.maximum(covariances, 0.0))
    values, vectors = np.linalg.eigh(covariances)
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


class _Transitions(NamedTuple):
    """q as a Markov chain: s_t = m_t + gain_t (s_{t-1} - m_{t-1}) + root_t z."""

    gains: np.ndarray  # (n, d, d), zero where a sequence opens
    roots: np.ndarray  # (n, d, d)

    @classmethod
    def of(cls, q: GaussianPosterior) -> _Transitions:
        _, covariances, lag_one = q.moments
        before = np.concatenate([covariances[:1], covariances[:-1]])
        if covariances.shape[1] == 1:
            inverse = np.where(before > 0, 1.0 / np.where(before > 0, before, 1.0), 0.0)
        else:
            inverse = np.linalg.pinv(before, rcond=1e-14, hermitian=True)
        gains = lag_one @ inverse
        left = covariances - gains @ np.swapaxes(lag_one, 1, 2)
        return cls(np.ascontiguousarray(gains), np.ascontiguousarray(_roots(left)))


class ContentStreams:
    """A random stream for each sequence, from a seed and what the sequence holds.

    Its neighbours do not change it.  X is a CSR array without stored zeros.
    """

    def __init__(self, seed: int, X, offsets):
        self.seed, self.X, self.offsets = seed, X, offsets

    def __getitem__(self, i: int) -> np.random.Generator:
        X, first, last = self.X, self.offsets[i], self.offsets[i + 1]
        entries = slice(X.indptr[first], X.indptr[last])
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.diff(X.indptr[first : last + 1]).astype("<i8").tobytes())
        digest.update(X.indices[entries].astype("<i8").tobytes())
        digest.update(X.data[entries].astype("<f8").tobytes())
        content = np.frombuffer(digest.digest(), dtype="<u4")
        return np.random.Generator(
            np.random.SFC64(np.random.SeedSequence([self.seed, *content.tolist()]))
        )


def twisted_log_likelihoods(
    words: Words, counts: Counts, offsets, q: GaussianPosterior, streams, n_particles: int
) -> np.ndarray:
    """Unbiased (as a likelihood) estimate of log p(y) of each sequence by the psi-APF."""
    transitions = _Transitions.of(q)
    result = np.empty(len(offsets) - 1)
    for i, (first, last) in enumerate(pairwise(offsets)):
        filtered = _TwistedFilter(words, counts, q, transitions, n_particles, streams[i])
        result[i] = q.log_Z[i] + filtered.run(first, last)
    return result


class _TwistedFilter:
    """The particles of one sequence, moved in runs so that the normals stay few."""

    def __init__(self, words, counts, q, transitions, n_particles: int, stream):
        self.words, self.counts, self.q, self.transitions = words, counts, q, transitions
        self.stream = stream
        d = q.moments.means.shape[1]
        self.states = np.zeros((n_particles, d))
        self.log_weights = np.full(n_particles, -np.log(n_particles))
        self.run_length = max(1, RUN_NORMALS // (n_particles * d))
        self.work = _work(d, n_particles=n_particles)

    def run(self, first: int, last: int, paths=None, path_weights=None) -> float:
        """Sum of the increments; keeps particles and log-weights of every step if asked."""
        total = 0.0
        for start in range(first, last, self.run_length):
            stop = min(last, start + self.run_length)
            kept = slice(start - first, stop - first)
            total += self._run(
                start, stop, start == first,
                None if paths is None else paths[kept],
                None if paths is None else path_weights[kept],
            )  # fmt: skip
        return total

    def _run(self, start, stop, opens, paths, path_weights) -> float:
        rows, n = slice(start, stop), stop - start
        means, evidence = self.q.moments.means, self.q.evidence
        normals = self.stream.standard_normal((n, *self.states.shape))
        uniforms = self.stream.random(n)
        increments = np.empty(n)
        kernels.twisted_filter(
            self.words.matrix, self.words.offset, *self.counts.rows(rows), means[rows],
            None if opens else means[start - 1], self.transitions.gains[rows],
            self.transitions.roots[rows], evidence.y[rows], evidence.S[rows], normals, uniforms,
            self.states, self.log_weights, increments, paths, path_weights, self.work,
        )  # fmt: skip
        return float(increments.sum())


# ---- draws of paths given the words


def draw_gaussian_paths(q: GaussianPosterior, offsets, n_draws: int, random_state) -> np.ndarray:
    """Paths of q, (n_draws, n_steps, d)."""
    means = q.moments.means
    gains, roots = _Transitions.of(q)
    normals = random_state.standard_normal((n_draws, *means.shape))
    paths = np.matmul(roots, normals[..., None])[..., 0]
    opens = np.zeros(len(means), dtype=bool)
    opens[offsets[:-1]] = True
    for t in range(len(means)):
        if not opens[t]:
            paths[:, t] += paths[:, t - 1] @ gains[t].T
    return paths + means


def draw_paths(
    words: Words, counts: Counts, offsets, q: GaussianPosterior, n_particles: int, n_draws: int,
    random_state,
) -> np.ndarray:  # fmt: skip
    """Paths given the words, (n_draws, n_steps, d): backward sampling through the psi-APF.

    Godsill, Doucet and West (2004), with the transitions of q as the dynamics and exp r_t as the
    likelihood.
    """
    transitions = _Transitions.of(q)
    n, d = q.moments.means.shape
    result = np.empty((n_draws, n, d))
    for first, last in pairwise(offsets):
        paths = np.empty((last - first, n_particles, d))
        log_weights = np.empty((last - first, n_particles))
        stream = np.random.Generator(np.random.SFC64(random_state.randint(2**31 - 1)))
        _TwistedFilter(words, counts, q, transitions, n_particles, stream).run(
            first, last, paths, log_weights
        )
        rows = slice(first, last)
        _draw_backward(
            paths, log_weights, q.moments.means[rows], transitions.gains[rows],
            transitions.roots[rows], q.moments.covariances[rows], stream, result[:, rows],
        )  # fmt: skip
    return result


def _draw_backward(paths, log_weights, means, gains, roots, covariances, stream, out) -> None:
    log_weight = log_weights[-1][None]
    for t in range(len(paths) - 1, -1, -1):
        if t < len(paths) - 1:
            # density of the step drawn last given each particle, by its covariance root root'
            expected = means[t + 1] + (paths[t] - means[t]) @ gains[t + 1].T
            spread = roots[t + 1] @ roots[t + 1].T
            # a step without noise: as good as equal
            spread += 1e-12 * np.diag(np.diag(covariances[t + 1]))
            inverse = np.linalg.pinv(np.linalg.cholesky(spread + 1e-300 * np.eye(len(spread))))
            missed = (out[:, None, t + 1] - expected) @ inverse.T
            log_weight = log_weights[t] - 0.5 * np.square(missed).sum(axis=2)
        weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
        edges = np.cumsum(weight, axis=1)
        targets = stream.random(len(out)) * edges[:, -1]
        if len(edges) == 1:
            at = np.searchsorted(edges[0], targets)
        else:
            at = (edges < targets[:, None]).sum(axis=1)
        out[:, t] = paths[t, np.minimum(at, paths.shape[1] - 1)]


# ---- causal


def matched_filter(chain: LinearGaussianChain, words: Words, counts: Counts, offsets):
    """log p(y_t | y_<t) (n,), and filtered means and covariances, by moment matching."""
    n, d = counts.times_matrix.shape
    small, fine = sigma_rule(d), fine_rule(d)
    log_p, means, covariances = np.empty(n), np.empty((n, d)), np.empty((n, d, d))
    kernels.matched_filter(
        words.matrix, words.offset, *counts, chain.transition_matrix, chain.transition_covariance,
        chain.initial_mean, chain.initial_covariance, offsets, *small, *fine,
        log_p, means, covariances, _work(d, max(len(small.weights), len(fine.weights))),
    )  # fmt: skip
    return log_p, means, covariances
