"""Poisson emissions: p(x_t | s_t = k) = prod_d Poisson(x_td | rate_kd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, pdtr, pdtrc, xlogy
from scipy.stats import poisson

from sklseq._covariance import STARVED, column_mean
from sklseq._sequences import refuse_overflow
from sklseq._validation import as_fitted, check_broadcast, check_parameter_array, check_real
from sklseq.hmm._base import BaseHMM, warn_fractions
from sklseq.hmm._chain import Emission, LogTails, Parameter
from sklseq.hmm._saddle_point import LARGE, deviance, half_log

MINIMUM = np.finfo(float).tiny


class PoissonSums(NamedTuple):
    """Weighted sums; they add."""

    weights: np.ndarray  # (K, D) expected number of observed entries
    counts: np.ndarray  # (K, D)


@dataclass(frozen=True)
class PoissonEmission(Emission):
    """Independent Poisson columns; log x! is log Gamma(x + 1), so fractional counts are legal."""

    rates: np.ndarray  # (K, D)
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: PoissonSums | None = None  # of a gamma prior: what it counts as

    def log_prob(self, X, out):
        observed = ~np.isnan(X)
        counts = np.where(observed, X, 0.0)
        log_rates = np.log(np.maximum(self.rates, MINIMUM))
        np.matmul(counts, log_rates.T, out=out)
        out -= observed.astype(float) @ self.rates.T
        out -= gammaln(counts + 1.0).sum(axis=1, keepdims=True)
        large = np.flatnonzero((counts > LARGE).any(axis=1))
        if len(large):
            self._log_prob_of_large(counts[large], observed[large], large, out)
        if not self.rates.all():  # a rate of zero allows no events
            impossible = (counts > 0).astype(float) @ (self.rates == 0).astype(float).T > 0
            out[impossible] = -np.inf

    def _log_prob_of_large(self, counts, observed, rows, out):
        """The rows of `out` that have counts whose plain form would cancel."""
        common = half_log(counts).sum(axis=1)
        for k, rates in enumerate(np.maximum(self.rates, MINIMUM)):
            apart = np.where(observed, deviance(counts, rates), 0.0)
            out[rows, k] = -apart.sum(axis=1) - common

    def statistics(self, X, posteriors) -> PoissonSums:
        observed = ~np.isnan(X)
        counts = np.where(observed, X, 0.0)
        return PoissonSums(posteriors.T @ observed.astype(float), posteriors.T @ counts)

    def m_step(self, statistics: PoissonSums) -> PoissonEmission:
        """Weighted means (Zucchini, MacDonald & Langrock 2016, sec. 4.2.5)."""
        weights, counts = statistics
        if self.prior is not None:
            weights, counts = weights + self.prior.weights, counts + self.prior.counts
        rates = counts / np.maximum(weights, STARVED)
        rates = np.where(weights < STARVED, self.rates, rates)
        if "rates" in self.held:
            rates = np.where(self.held["rates"], self.rates, rates)
        return replace(self, rates=rates)

    def sample(self, states, random_state):
        return random_state.poisson(self.rates[states]).astype(float)

    def n_free_parameters(self):
        return int(self.rates.size - np.sum(self.held.get("rates", 0)))

    def expect(self, state_probabilities):
        return {"means": state_probabilities @ self.rates}

    def log_prior(self):
        if self.prior is None:
            return 0.0
        return float(np.sum(xlogy(self.prior.counts, self.rates) - self.prior.weights * self.rates))

    @property
    def rounding(self):
        """A rate is off by its last digit, which costs the square of that over twice the rate."""
        return float(np.finfo(float).eps ** 2 * self.rates.sum(axis=1).max())

    def reordered(self, order):
        return replace(self, rates=self.rates[order])

    def distances(self, other):
        roots = np.sqrt(self.rates)[:, None] - np.sqrt(other.rates)[None]
        return (roots**2).sum(axis=2) / 2

    def signature(self):
        return self.rates

    def parameters(self):
        held = np.broadcast_to(self.held.get("rates", False), self.rates.shape)
        # a rate of zero is at the edge of what is possible
        return [Parameter("rates", self.rates, "free", self.rates, held | (self.rates == 0))]

    def with_values(self, values):
        return replace(self, rates=values[0])

    def gradient(self, statistics):
        return [statistics.counts / np.maximum(self.rates, MINIMUM) - statistics.weights]

    def log_tails(self, X):
        counts, rates = np.floor(X)[:, None, :], self.rates
        with np.errstate(divide="ignore"):
            below = np.where(counts == 0, 0.0, pdtr(counts - 1, rates))
            onward = np.where(counts == 0, 1.0, pdtrc(counts - 1, rates))
            return LogTails(
                np.log(below), np.log(pdtr(counts, rates)), np.log(pdtrc(counts, rates)),
                np.log(onward),
            )  # fmt: skip

    def quantiles(self, state_probabilities, probabilities):
        """By bisection of whole numbers between the least and the largest of the states'."""
        targets = np.asarray(probabilities)[:, None]
        of_states = poisson.ppf(targets[..., None], self.rates)
        used = (state_probabilities > 0)[:, None, :, None]
        low = np.where(used, of_states, np.inf).min(axis=2)
        high = np.where(used, of_states, -np.inf).max(axis=2)
        while np.any(low < high):
            middle = np.floor((low + high) / 2)
            cumulative = np.einsum(
                "nk,nqkd->nqd", state_probabilities, pdtr(middle[:, :, None, :], self.rates)
            )
            enough = cumulative >= targets
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
            low = np.minimum(low, high)
        return high


class PoissonHMM(BaseHMM):
    r"""Hidden Markov model with Poisson emissions, for counts.

    .. math::
        p(x_1..x_n) = \sum_s \prod_t p(s_t | s_{t-1}) \prod_d
        e^{-\lambda_{s_t d}} \lambda_{s_t d}^{x_{td}} / x_{td}!

    Several columns are independent given the state.

    Parameters
    ----------
    n_components : int, default=2
        Number of hidden states.
    initial_state : {"learn", "stationary"}, default="learn"
        Learn the start distribution, or take the stationary distribution of the transition matrix,
        which moves with it (one sequence says next to nothing about its start).
    startprob_init : array-like of shape (n_components,), default=None
        Starting value of the start distribution; a zero stays zero.  Default: uniform.
    transmat_init : array-like of shape (n_components, n_components), default=None
        Starting value of the transition matrix; a zero stays zero, which makes left-right models.
        Default: the moves between k-means clusters.
    rates_init : array-like of shape (n_components, n_features), default=None
        Starting value of the rates.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them):
        "startprob", "transmat", "rates"; a mask holds single entries.
    startprob_prior : float or array-like of shape (n_components,), default=None
        Concentration of a Dirichlet prior on the start distribution, at least 1: one more than the
        starts that it counts as.  None: no prior.  Only with ``initial_state="learn"``.
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Concentrations of Dirichlet priors on the rows of the transition matrix, at least 1: one
        more than the moves that they count as.  None: no prior.
    stickiness : float, default=0.0
        Added to the diagonal of `transmat_prior`: so many more moves that stay.
    rates_prior : float or array-like of shape (n_components, n_features), default=None
        Prior rates; one row serves all states.  None with a `rates_weight`: the mean of X.
    rates_weight : float, default=0.0
        The number of steps that `rates_prior` counts as in each state: a gamma prior of shape
        1 + weight x prior and rate weight, the conjugate one; 0: no prior.
    algorithm : {"viterbi", "map"}, default="viterbi"
        What ``predict`` and ``decode`` return: the most probable path, or the most probable state
        of each step.
    continues : bool, default=False
        After a fit on one sequence, a flat X goes on from its end instead of starting anew: every
        block of a ``TimeSeriesSplit`` does.
    max_iter : int, default=200
        The largest number of EM iterations.
    tol : float, default=1e-6
        Stop when the objective gains less than this per step, in nats.
    learning_decay : float, default=0.7
        Of ``partial_fit``: chunk t is mixed in with weight t to the power of minus this, above 0.5
        and at most 1.  1 remembers all chunks alike; less forgets the first ones, which were seen
        with poor parameters.
    n_init : int, default=5
        Number of starting values: k-means first (equal parts of each sequence, where the zeros of
        `transmat_init` make a left-right model), then random rows.  The better half goes on after
        10, 20, 40 ... iterations; the last one is finished, and so is the first: more starts are
        never worse.  Compare numbers of states after more of them, such as 20.  One where every
        ``*_init`` is given.
    n_jobs : int, default=None
        Threads over shards of whole sequences; None is one.  The result does not depend on it.
        Inside ``joblib.parallel_config`` the shards go to that backend.
    random_state : int, RandomState instance or None, default=None
        For the starting values and ``sample``.
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 prints a line for each start, for every ten seconds and at the end; 2 for each iteration.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_components,)
        p(s_1 = k).
    transmat_ : ndarray of shape (n_components, n_components)
        :math:`A`; ``transmat_[i, j]`` is p(s_t = j | s_{t-1} = i), rows sum to 1.
    rates_ : ndarray of shape (n_components, n_features)
        :math:`\lambda_k`, the mean counts.
    n_iter_ : int
        Number of EM iterations of the best start.
    converged_ : bool
        Whether the last iteration gained less than `tol`.
    log_likelihood_ : float
        Mean log-likelihood per step of the training data at the fitted parameters, in nats.
    log_likelihoods_ : ndarray of shape (n_iter_ + 1,)
        The same at the start and after each iteration.
    objectives_ : ndarray of shape (n_iter_ + 1,)
        Log-likelihood plus log prior, per step: what EM raises and `tol` looks at.
    final_stateprob_ : ndarray of shape (n_components,) or None
        Filtered state probabilities at the end of training; None after several sequences.
    stationary_distribution_ : ndarray of shape (n_components,)
        The distribution over states that `transmat_` keeps; ValueError where it is not unique.
    expected_dwell_times_ : ndarray of shape (n_components,)
        Expected number of steps of a visit to each state, 1 / (1 - transmat_[k, k]).
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    GaussianHMM : For vectors.
    CategoricalHMM : For symbols.

    Notes
    -----
    Counts need not be whole numbers: log x! is log Gamma(x + 1), so that rates per unit, weighted
    or averaged counts can be fitted as they are.  The likelihood is then a quasi-likelihood, to be
    compared between models of the same X only.

    References
    ----------
    W. Zucchini, I. L. MacDonald & R. Langrock (2016), Hidden Markov Models for Time Series, 2nd ed.

    C. Loader (2000), "Fast and accurate computation of binomial probabilities" (large counts).

    Examples
    --------
    >>> from sklseq import PoissonHMM
    >>> from sklseq.datasets import load_earthquakes
    >>> X = load_earthquakes().data
    >>> hmm = PoissonHMM(n_components=2, random_state=0).fit(X)
    >>> sorted(hmm.rates_.ravel().round(1).tolist())
    [15.4, 26.0]
    """

    def __init__(
        self,
        n_components=2,
        *,
        initial_state="learn",
        startprob_init=None,
        transmat_init=None,
        rates_init=None,
        fixed=(),
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
        rates_prior=None,
        rates_weight=0.0,
        algorithm="viterbi",
        continues=False,
        max_iter=200,
        tol=1e-6,
        learning_decay=0.7,
        n_init=5,
        n_jobs=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.rates_init = rates_init
        self.fixed = fixed
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.rates_prior = rates_prior
        self.rates_weight = rates_weight
        self.algorithm = algorithm
        self.continues = continues
        self.max_iter = max_iter
        self.tol = tol
        self.learning_decay = learning_decay
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    @classmethod
    def from_parameters(cls, *, startprob, transmat, rates, **params) -> PoissonHMM:
        """A model with known parameters, ready to score, decode and sample.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
        rates : array-like of shape (n_components, n_features)
        **params
            Constructor parameters.

        Returns
        -------
        PoissonHMM
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        estimator = cls._from_chain(startprob, transmat, params)
        estimator.rates_ = _check_rates(rates, "rates", (estimator.n_components, None))
        estimator.n_features_in_ = estimator.rates_.shape[1]
        return estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    def _encode(self, sequences, reset):
        refuse_overflow(sequences)
        if reset:
            warn_fractions(sequences.X, type(self).__name__)
        return sequences

    def _rows_to_cluster(self, sequences):
        return np.sqrt(sequences.X)  # variances of counts are then about equal

    def _given_places(self):
        if self.rates_init is None:
            return None
        shape = (self.n_components, self.n_features_in_)
        return np.sqrt(_check_rates(self.rates_init, "rates_init", shape))[:, None]

    def _emission_shapes(self):
        return {"rates": (self.n_components, self.n_features_in_)}

    def _learning(self, sequences, held):
        return {"held": held, "prior": self._check_prior(sequences.X)}

    def _check_prior(self, X) -> PoissonSums | None:
        weight = check_real(self, "rates_weight", 0.0)
        if self.rates_prior is not None and not weight:
            raise ValueError(
                "rates_prior needs a positive rates_weight, the number of steps that it counts as: "
                f"got {weight}."
            )
        if not weight:
            return None
        shape = (self.n_components, self.n_features_in_)
        centre = column_mean(X) if self.rates_prior is None else self.rates_prior
        rates = _check_rates(check_broadcast(centre, "rates_prior", shape), "rates_prior", shape)
        return PoissonSums(np.full(shape, float(weight)), weight * rates)

    def _init_emission(self, sequences, labels, random_state):
        shape = (self.n_components, self.n_features_in_)
        if self.rates_init is not None:
            return PoissonEmission(_check_rates(self.rates_init, "rates_init", shape))
        centre = column_mean(sequences.X)
        emission = PoissonEmission(np.repeat(centre[None], shape[0], axis=0))
        emission = emission.m_step(emission.statistics(sequences.X, np.eye(shape[0])[labels]))
        # a state of zeros only could never learn a count again
        return PoissonEmission(0.95 * emission.rates + 0.05 * centre)

    def _emission(self):
        return PoissonEmission(
            as_fitted(self, "rates_", self._emission_shapes()["rates"], "not negative")
        )

    def _set_emission(self, emission):
        self.rates_ = emission.rates


def _check_rates(value, name: str, shape: tuple) -> np.ndarray:
    rates = check_parameter_array(value, name, shape)
    if np.any(rates < 0):
        raise ValueError(f"{name} must be non-negative, got {rates.min()}.")
    return rates
