"""Gaussian emissions: p(x_t | s_t = k) = N(x_t | mean_k, C_k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sklseq._covariance import (
    COVARIANCES,
    STARVED,
    CovarianceType,
    Floor,
    GaussianMoments,
    column_mean,
    column_scale,
)
from sklseq._validation import check_choice, check_parameter_array
from sklseq.hmm._base import BaseHMM
from sklseq.hmm._chain import Emission


@dataclass(frozen=True)
class GaussianEmission(Emission):
    """K Gaussians; see `sklseq._covariance` for what depends on the covariance type."""

    means: np.ndarray  # (K, D)
    covars: np.ndarray  # shape by type
    covariance_type: str
    floor: Floor | None = None
    held: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def type(self) -> CovarianceType:
        return COVARIANCES[self.covariance_type]

    def log_prob(self, X, out):
        self.type.log_density(X, self.means, self.covars, out)

    def statistics(self, X, posteriors) -> GaussianMoments:
        return self.type.moments(X, posteriors, self.means, self.covars)

    def m_step(self, statistics: GaussianMoments) -> GaussianEmission:
        """Weighted mean and covariance of each state (Rabiner 1989, eqs. 53 and 54)."""
        weights = statistics.weights
        shift = statistics.first / np.maximum(weights, STARVED)
        shift = np.where(weights < STARVED, 0.0, shift)
        if "means" in self.held:
            shift = np.where(self.held["means"], 0.0, shift)
        covars = self.type.estimate(statistics, shift, self.covars, self.floor)
        if "covars" in self.held:
            covars = np.where(self.held["covars"], self.covars, covars)
        return replace(self, means=self.means + shift, covars=covars)

    def sample(self, states, random_state):
        n_components, n_features = self.means.shape
        full = self.type.to_full(self.covars, n_features, n_components)
        noise = random_state.standard_normal((len(states), n_features))
        factors = np.linalg.cholesky(full)
        return self.means[states] + np.einsum("nde,ne->nd", factors[states], noise)

    def n_free_parameters(self):
        n_components, n_features = self.means.shape
        n_means = self.means.size
        n_covars = self.type.n_parameters(n_components, n_features)
        if "means" in self.held:
            n_means -= int(np.sum(self.held["means"]))
        if "covars" in self.held:  # a symmetric pair of held entries is one parameter
            held_share = np.mean(self.held["covars"])
            n_covars -= round(n_covars * held_share)
        return n_means + n_covars

    def expect(self, state_probabilities):
        """Mean and covariance of the mixture (law of total covariance)."""
        n_components, n_features = self.means.shape
        full = self.type.to_full(self.covars, n_features, n_components)
        means = state_probabilities @ self.means
        deviation = self.means[None] - means[:, None]
        within = np.einsum("nk,kde->nde", state_probabilities, full)
        between = np.einsum("nk,nkd,nke->nde", state_probabilities, deviation, deviation)
        return {"means": means, "covariances": within + between}


class GaussianHMM(BaseHMM):
    r"""Hidden Markov model with Gaussian emissions.

    .. math::
        p(x_1..x_n) = \sum_s \prod_t p(s_t | s_{t-1})\, N(x_t | \mu_{s_t}, C_{s_t})

    Parameters
    ----------
    n_components : int, default=2
        Number of hidden states.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="diag"
        Covariances of the states: each its own matrix, one matrix for all, each its own variances,
        each one variance.
    initial_state : {"learn", "stationary"}, default="learn"
        Learn the start distribution, or take the stationary distribution of the transition matrix,
        which moves with it (one sequence says next to nothing about its start).
    startprob_init : array-like of shape (n_components,), default=None
        Starting value of the start distribution; a zero stays zero.  Default: uniform.
    transmat_init : array-like of shape (n_components, n_components), default=None
        Starting value of the transition matrix; a zero stays zero, which makes left-right models.
        Default: the moves between k-means clusters.
    means_init : array-like of shape (n_components, n_features), default=None
        Starting value of the means.
    covars_init : array-like, shape as `covars_`, default=None
        Starting value of the covariances.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init``: "startprob", "transmat", "means", "covars"; a mask
        holds single entries.
    reg_covar : float, default=1e-6
        Floor under the covariances: in columns divided by their standard deviation (a constant
        column by 1), eigenvalues are at least this.
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
    n_init : int, default=5
        Number of starting values (k-means first, then random rows); each gets ten
        iterations, the best is finished.  One where every ``*_init`` is given.
    n_jobs : int, default=None
        Threads over shards of whole sequences; None is one.  The result does not depend on it.
        Inside ``joblib.parallel_config`` the shards go to that backend.
    random_state : int, RandomState instance or None, default=None
        For the starting values and ``sample``.
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        Print a line every so many iterations.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_components,)
        p(s_1 = k).
    transmat_ : ndarray of shape (n_components, n_components)
        :math:`A`; ``transmat_[i, j]`` is p(s_t = j | s_{t-1} = i), rows sum to 1.
    means_ : ndarray of shape (n_components, n_features)
        :math:`\mu_k`.
    covars_ : ndarray
        :math:`C_k`: (n_components, n_features, n_features) for "full", (n_features, n_features) for
        "tied", (n_components, n_features) for "diag", (n_components,) for "spherical".
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
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    CategoricalHMM : For symbols.
    PoissonHMM : For counts.
    sklearn.mixture.GaussianMixture : The same model without order.

    Notes
    -----
    A missing entry (NaN) is integrated out: a missing row contributes nothing, a partly missing one
    the density of what was seen; "full" and "tied" covariances fill in conditional expectations in
    the M-step.

    References
    ----------
    L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
    recognition", Proc. IEEE 77(2).

    Examples
    --------
    >>> import numpy as np
    >>> from sklseq import GaussianHMM
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 1, (50, 1)), rng.normal(5, 1, (50, 1))])
    >>> hmm = GaussianHMM(n_components=2, random_state=0).fit(X)
    >>> np.sort(hmm.means_.ravel()).round(1)
    array([0.1, 5. ])
    >>> len(set(hmm.predict(X)[:50])), len(set(hmm.predict(X)[50:]))
    (1, 1)
    """

    def __init__(
        self,
        n_components=2,
        *,
        covariance_type="diag",
        initial_state="learn",
        startprob_init=None,
        transmat_init=None,
        means_init=None,
        covars_init=None,
        fixed=(),
        reg_covar=1e-6,
        algorithm="viterbi",
        continues=False,
        max_iter=200,
        tol=1e-6,
        n_init=5,
        n_jobs=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.means_init = means_init
        self.covars_init = covars_init
        self.fixed = fixed
        self.reg_covar = reg_covar
        self.algorithm = algorithm
        self.continues = continues
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    @classmethod
    def from_parameters(
        cls, *, startprob, transmat, means, covars, covariance_type="diag", **params
    ) -> GaussianHMM:
        """A model with known parameters, ready to score, decode and sample.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
        means : array-like of shape (n_components, n_features)
        covars : array-like, shape by `covariance_type`
        covariance_type : {"full", "tied", "diag", "spherical"}, default="diag"
        **params
            Constructor parameters.

        Returns
        -------
        GaussianHMM
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        params = {"covariance_type": covariance_type, **params}
        estimator = cls._from_chain(startprob, transmat, params)
        n_states = estimator.n_components
        estimator.means_ = check_parameter_array(means, "means", (n_states, None))
        estimator.n_features_in_ = estimator.means_.shape[1]
        covariance = COVARIANCES[covariance_type]
        estimator.covars_ = covariance.check(covars, "covars", n_states, estimator.n_features_in_)
        return estimator

    def _check_parameters(self):
        super()._check_parameters()
        check_choice(self, "covariance_type", COVARIANCES)

    def _emission_shapes(self):
        shape = (self.n_components, self.n_features_in_)
        return {"means": shape, "covars": COVARIANCES[self.covariance_type].shape(*shape)}

    def _learning(self, sequences, held):
        if "covars" in held and COVARIANCES[self.covariance_type].is_matrix:
            mask = held["covars"]
            whole = mask.reshape(*mask.shape[:-2], -1)
            if np.any(whole.any(axis=-1) & ~whole.all(axis=-1)):
                raise ValueError(
                    "fixed['covars'] must hold all or none of the entries of a covariance matrix, "
                    f"got\n{mask}."
                )
        return {"floor": Floor(column_scale(sequences.X), self.reg_covar), "held": held}

    def _init_emission(self, sequences, labels, random_state):
        """Means of the labelled rows; for all states their pooled covariance."""
        n_states = self.n_components
        covariance = COVARIANCES[self.covariance_type]
        if self.means_init is not None and self.covars_init is not None:
            return GaussianEmission(*self._given_init(), self.covariance_type)
        floor = Floor(column_scale(sequences.X), self.reg_covar)
        centre = column_mean(sequences.X)
        pooled = GaussianEmission(
            np.repeat(centre[None], n_states, axis=0), np.diag(floor.scale**2), "tied", floor
        )
        pooled = pooled.m_step(pooled.statistics(sequences.X, np.eye(n_states)[labels]))
        covars = covariance.from_full(pooled.covars, n_states)
        given_means, given_covars = self._given_init()
        return GaussianEmission(
            pooled.means if given_means is None else given_means,
            covars if given_covars is None else given_covars,
            self.covariance_type,
        )

    def _given_init(self):
        shape = (self.n_components, self.n_features_in_)
        covariance = COVARIANCES[self.covariance_type]
        means, covars = self.means_init, self.covars_init
        if means is not None:
            means = check_parameter_array(means, "means_init", shape)
        if covars is not None:
            covars = covariance.check(covars, "covars_init", *shape)
        return means, covars

    def _emission(self):
        shape = COVARIANCES[self.covariance_type].shape(*self.means_.shape)
        if self.covars_.shape != shape:
            raise ValueError(
                f"covariance_type={self.covariance_type!r} asks for covars_ of shape {shape}, the "
                f"fitted one has {self.covars_.shape}: fit again."
            )
        return GaussianEmission(self.means_, self.covars_, self.covariance_type)

    def _set_emission(self, emission):
        self.means_, self.covars_ = emission.means, emission.covars
