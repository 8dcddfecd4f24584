"""Gaussian emissions: p(x_t | s_t = k) = N(x_t | mean_k, C_k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from sklseq._covariance import (
    COVARIANCES,
    CovarianceType,
    Floor,
    GaussianMoments,
    GaussianPrior,
    check_gaussian_prior,
    column_mean,
    column_scale,
)
from sklseq._sequences import refuse_overflow
from sklseq._validation import as_fitted, check_choice, check_parameter_array
from sklseq.hmm._base import BaseHMM
from sklseq.hmm._chain import Emission, LogTails, Parameter
from sklseq.hmm._forward_backward import gaussian_source

BISECTIONS = 64  # halvings of an interval until its ends are neighbours


@dataclass(frozen=True)
class GaussianEmission(Emission):
    """K Gaussians; see `sklseq._covariance` for what depends on the covariance type."""

    means: np.ndarray  # (K, D)
    covars: np.ndarray  # shape by type
    covariance_type: str
    floor: Floor | None = None
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: GaussianPrior | None = None

    @property
    def type(self) -> CovarianceType:
        return COVARIANCES[self.covariance_type]

    def log_prob(self, X, out):
        self.type.log_density(X, self.means, self.covars, out)

    def statistics(self, X, posteriors) -> GaussianMoments:
        return self.type.moments(X, posteriors, self.means, self.covars)

    @property
    def has_source(self):
        return True

    def source(self, X):
        if self.type.is_matrix and np.isnan(np.min(X)):  # NaN passes through min
            return None  # rows missing in part have densities by pattern
        spread = self.type.spread(self.covars, *self.means.shape)
        return gaussian_source(X, self.means, spread.reshape(-1), self.type.is_matrix)

    def statistics_of_source(self, sums) -> GaussianMoments:
        return self.type.from_sums(sums, *self.means.shape)

    def m_step(self, statistics: GaussianMoments) -> GaussianEmission:
        """Weighted mean and covariance of each state (Rabiner 1989, eqs. 53 and 54)."""
        means, covars = self.type.m_step(
            statistics, self.means, self.covars, self.floor, held=self.held, prior=self.prior
        )
        self.type.check_regular(means, covars, self.floor)
        return GaussianEmission(
            means, covars, self.covariance_type, self.floor, self.held, self.prior
        )

    def log_prior(self):
        return self.type.log_prior(self.prior, self.means, self.covars)

    @property
    def rounding(self):
        return self.type.rounding(self.covars)

    def admissible(self):
        raised = self.type.raised(self.covars, self.floor)
        return replace(self, covars=np.where(self.held.get("covars", False), self.covars, raised))

    def on_floor(self):
        entries = self.type.on_floor(self.covars, self.floor)
        entries = np.where(self.held.get("covars", False), False, entries)
        if self.covariance_type == "tied":
            return np.full(len(self.means), entries.any())
        return entries.reshape(len(entries), -1).any(axis=1)

    def signature(self):
        if self.covariance_type == "tied":
            return self.means
        return np.hstack([self.means, self.covars.reshape(len(self.means), -1)])

    def moved(self, statistics, target):
        return self.type.shifted(statistics, target.means - self.means)

    def reordered_statistics(self, statistics, order):
        weights, first, second = statistics
        second = second if self.covariance_type == "tied" else second[order]
        return GaussianMoments(weights[order], first[order], second)

    def has_hidden(self, X):
        """A row missing in part has expectations that move with the covariance."""
        missing = np.isnan(X)
        return self.type.is_matrix and bool(np.any(missing.any(axis=1) & ~missing.all(axis=1)))

    def sample(self, states, random_state):
        noise = random_state.standard_normal((len(states), self.means.shape[1]))
        return self.means[states] + self.type.correlate(
            noise, self.covars, states, len(self.means)
        )

    def n_free_parameters(self):
        return self.type.n_free_parameters(self.means, self.held)

    def expect(self, state_probabilities):
        """Mean and covariance of the mixture (law of total covariance)."""
        means = state_probabilities @ self.means
        deviation = self.means[None] - means[:, None]
        weighted = state_probabilities[:, :, None] * deviation
        covariances = np.swapaxes(weighted, 1, 2) @ deviation
        self.type.add_average(state_probabilities, self.covars, covariances)
        return {"means": means, "covariances": covariances}

    def full_covars(self) -> np.ndarray:
        return self.type.to_full(self.covars, self.means.shape[1], len(self.means))

    def reordered(self, order):
        covars = self.covars if self.covariance_type == "tied" else self.covars[order]
        return replace(self, means=self.means[order], covars=covars)

    def distances(self, other):
        """(m1 - m2)' C^-1 (m1 - m2) / 8 + log(|C| / sqrt(|C1| |C2|)) / 2 with C = (C1 + C2) / 2
        (Kailath 1967)."""
        deviation = self.means[:, None] - other.means[None]
        if not self.type.is_matrix and not other.type.is_matrix:
            left, right = self._column_scales()[:, None], other._column_scales()[None]
            middle = (left**2 + right**2) / 2
            apart = deviation**2 / middle / 8 + np.log(middle / (left * right)) / 2
            return apart.sum(axis=2)
        left, right = self.full_covars()[:, None], other.full_covars()[None]
        middle = (left + right) / 2
        distance = np.einsum(
            "ijd,ijd->ij", deviation, np.linalg.solve(middle, deviation[..., None])[..., 0]
        )
        outer = np.linalg.slogdet(left)[1] + np.linalg.slogdet(right)[1]
        return distance / 8 + np.linalg.slogdet(middle)[1] / 2 - outer / 4

    def parameters(self):
        return gaussian_parameters(self.type, self.means, self.covars, self.held, self.floor)

    def with_values(self, values):
        return replace(self, means=values[0], covars=values[1])

    def gradient(self, statistics):
        return list(self.type.gradient(statistics, self.covars))

    def log_tails(self, X):
        z = (X[:, None, :] - self.means) / self._column_scales()
        return normal_log_tails(z)

    def quantiles(self, state_probabilities, probabilities):
        return normal_mixture_quantiles(
            state_probabilities, self.means, self._column_scales(), probabilities
        )

    def _column_scales(self) -> np.ndarray:
        """Standard deviation of each column in each state, (K, D)."""
        return self.type.deviations(self.covars, *self.means.shape)


def pooled_start(X, labels, n_components, covariance_type, floor) -> GaussianEmission:
    """Means of the labelled rows; for all components their pooled covariance."""
    centre = np.repeat(column_mean(X)[None], n_components, axis=0)
    of_type = COVARIANCES[covariance_type]
    if not of_type.is_matrix:
        means, variances = _pooled_variances(X, labels, centre, floor)
        covars = of_type.from_variances(variances, n_components)
        of_type.check_regular(means, covars, floor)
        return GaussianEmission(means, covars, covariance_type)
    tied = COVARIANCES["tied"]
    around = centre, np.diag(floor.scale**2)
    moments = tied.moments(X, np.eye(n_components)[labels], *around)
    means, pooled = tied.m_step(moments, *around, floor, held={}, prior=None)
    covars = of_type.from_full(pooled, n_components)
    of_type.check_regular(means, covars, floor)
    return GaussianEmission(means, covars, covariance_type)


def _pooled_variances(X, labels, centre, floor) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, D) of the labelled rows and the variances (D,) around them, column by column."""
    diag, around = COVARIANCES["diag"], (centre, np.repeat(floor.scale[None] ** 2, len(centre), 0))
    moments = diag.moments(X, np.eye(len(centre))[labels], *around)
    means, _ = diag.m_step(moments, *around, floor, held={"covars": True}, prior=None)
    moments = diag.shifted(moments, means - centre)
    pooled = GaussianMoments(*(sums.sum(axis=0) for sums in moments))
    return means, diag.estimate(pooled, floor.scale**2, floor)


def gaussian_parameters(
    covariance: CovarianceType, means, covars, held, floor: Floor | None
) -> list[Parameter]:
    """Means and covariances of K Gaussians for `standard_errors`.

    The unit of a step in a matrix shrinks with its least eigenvalue, or it would leave the cone.
    """
    edge = held_up = None
    if floor is not None:
        edge = covariance.on_floor(covars, floor)
        # a mean is as certain as its covariance says, which is here the floor's word
        held_up = covariance.columns_of(edge, *means.shape)
    deviations = covariance.deviations(covars, *means.shape)
    if covariance.is_matrix:
        of_columns = np.sqrt(np.diagonal(covars, axis1=-2, axis2=-1))
        unit = of_columns[..., :, None] * of_columns[..., None, :]
        least = np.linalg.eigvalsh(covars / unit)[..., :1, None]
        unit = unit * np.clip(100.0 * least, np.finfo(float).eps, 1.0)
        covars = Parameter("covars", covars, "symmetric", unit, held.get("covars"), edge)
    else:
        covars = Parameter("covars", covars, "free", covars, held.get("covars"), edge)
    return [Parameter("means", means, "free", deviations, held.get("means"), held_up), covars]


def normal_log_tails(z) -> LogTails:
    """Of the standard normal distribution at z."""
    upto, beyond = log_ndtr(z), log_ndtr(-z)
    return LogTails(upto, upto, beyond, beyond)


def normal_mixture_quantiles(weights, means, deviations, probabilities) -> np.ndarray:
    """Quantiles (n, Q, D) of each column of mixtures with `weights` (n, M), by bisection.

    A quantile of a mixture lies between the least and the largest of its components'.
    """
    of_components = means + deviations * ndtri(np.asarray(probabilities))[:, None, None]
    used = (weights > 0)[:, None, :, None]
    low = np.where(used, of_components, np.inf).min(axis=2)
    high = np.where(used, of_components, -np.inf).max(axis=2)
    target = np.asarray(probabilities)[:, None]
    for _ in range(BISECTIONS):
        middle = low / 2 + high / 2
        z = (middle[:, :, None, :] - means) / deviations
        below = np.einsum("nm,nqmd->nqd", weights, ndtr(z)) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low / 2 + high / 2


def fitted_covars(estimator, shape: tuple) -> np.ndarray:
    """The attribute ``covars_``; what one type means by its entries another reads differently."""
    now = estimator.covariance_type
    before = getattr(estimator, "_covariance_type", now)
    if now != before:
        raise ValueError(
            f"covariance_type={now!r}, but covars_ was fitted with {before!r}: fit again."
        )
    rule = "covariance" if COVARIANCES[now].is_matrix else "positive"
    return as_fitted(estimator, "covars_", shape, rule)


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
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them):
        "startprob", "transmat", "means", "covars"; a mask holds single entries.
    startprob_prior : float or array-like of shape (n_components,), default=None
        Concentration of a Dirichlet prior on the start distribution, at least 1: one more than the
        starts that it counts as.  None: no prior.  Only with ``initial_state="learn"``.
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Concentrations of Dirichlet priors on the rows of the transition matrix, at least 1: one
        more than the moves that they count as.  None: no prior.
    stickiness : float, default=0.0
        Added to the diagonal of `transmat_prior`: so many more moves that stay.
    means_prior : float or array-like of shape (n_components, n_features), default=None
        Prior means; one row serves all states.  None with a `means_weight`: the mean of X.
    means_weight : float, default=0.0
        The number of steps that `means_prior` counts as in each state; 0: no prior.
    covars_prior : float or array-like, shape as `covars_`, default=None
        Prior covariances, a number for that times the identity.  None with a `covars_weight`: the
        variances of the columns of X.
    covars_weight : float, default=0.0
        The number of steps that `covars_prior` counts as in each state ("tied": in all); 0: no
        prior.
    reg_covar : float, default=1e-10
        Floor under the covariances: in columns divided by their standard deviation (a constant
        column by 1), eigenvalues are at least this.  A warning says where a fitted covariance
        stands on it.
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
        `transmat_init` make a left-right model), then parts that each find their own scale, then
        random rows.  The better half goes on after 10, 20, 40 ... iterations; the last one is
        finished, and so is the first: more starts are never worse.  Compare numbers of states after
        more of them, such as 20.  One where every ``*_init`` is given.
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
    CategoricalHMM : For symbols.
    PoissonHMM : For counts.
    sklearn.mixture.GaussianMixture : The same model without order.

    Notes
    -----
    A missing entry (NaN) is integrated out: a missing row contributes nothing, a partly missing one
    the density of what was seen; "full" and "tied" covariances fill in conditional expectations in
    the M-step.

    The priors on means and covariances are conjugate, a normal-Wishart distribution of mean and
    precision: the posterior mode of the mean is (w m + sum of x) / (w + n) and that of the
    covariance (v C + w (mean - m)(mean - m)' + scatter) / (v + n), with weights w and v.  They are
    part of ``objectives_``, so that every EM iteration raises it.  The prior is proper where both
    weights are positive; a weight of 0 leaves its parameter flat.

    References
    ----------
    M. H. DeGroot (1970), Optimal Statistical Decisions, sec. 9.10 (the priors).

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
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
        means_prior=None,
        means_weight=0.0,
        covars_prior=None,
        covars_weight=0.0,
        reg_covar=1e-10,
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
        self.covariance_type = covariance_type
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.means_init = means_init
        self.covars_init = covars_init
        self.fixed = fixed
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.reg_covar = reg_covar
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
        means = check_parameter_array(means, "means", (n_states, None))
        estimator.n_features_in_ = means.shape[1]
        covars = COVARIANCES[covariance_type].check(covars, "covars", *means.shape)
        estimator._set_emission(GaussianEmission(means, covars, covariance_type))
        return estimator

    _splits_rows = True

    def _given_places(self):
        means, _ = self._given_init()
        return None if means is None else means[:, None]

    def _check_parameters(self):
        super()._check_parameters()
        check_choice(self, "covariance_type", COVARIANCES)

    def _encode(self, sequences, reset):
        refuse_overflow(sequences)
        return sequences

    def _emission_shapes(self):
        shape = (self.n_components, self.n_features_in_)
        return {"means": shape, "covars": COVARIANCES[self.covariance_type].shape(*shape)}

    def _learning(self, sequences, held):
        covariance = COVARIANCES[self.covariance_type]
        covariance.check_held(held)
        return {
            "floor": Floor(column_scale(sequences.X), self.reg_covar),
            "held": held,
            "prior": check_gaussian_prior(self, covariance, sequences.X, self.n_components),
        }

    def _init_emission(self, sequences, labels, random_state):
        """Means of the labelled rows; for all states their pooled covariance."""
        means, covars = self._given_init()
        if means is None or covars is None:
            floor = Floor(column_scale(sequences.X), self.reg_covar)
            found = pooled_start(
                sequences.X, labels, self.n_components, self.covariance_type, floor
            )
            means = found.means if means is None else means
            covars = found.covars if covars is None else covars
        return GaussianEmission(means, covars, self.covariance_type)

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
        shapes = self._emission_shapes()
        covars = fitted_covars(self, shapes["covars"])
        return GaussianEmission(
            as_fitted(self, "means_", shapes["means"]), covars, self.covariance_type
        )

    def _set_emission(self, emission):
        self.means_, self.covars_ = emission.means, emission.covars
        self._covariance_type = emission.covariance_type
