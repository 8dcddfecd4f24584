"""Gaussian mixture emissions: p(x_t | s_t = k) = sum_m weight_km N(x_t | mean_km, C_km)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from sklseq._covariance import (
    COVARIANCES,
    CovarianceType,
    Floor,
    GaussianMoments,
    GaussianPrior,
    check_gaussian_prior,
    column_scale,
)
from sklseq._sequences import refuse_overflow
from sklseq._validation import (
    as_fitted,
    check_choice,
    check_concentration,
    check_count,
    check_parameter_array,
    check_probabilities,
)
from sklseq.hmm._base import BaseHMM
from sklseq.hmm._chain import Emission, LogTails, Parameter, estimate_rows, n_free_in_rows
from sklseq.hmm._gaussian import (
    GaussianEmission,
    fitted_covars,
    gaussian_parameters,
    pooled_start,
)
from sklseq.hmm._start import groups_alike, label_rows, part_states


class MixtureSums(NamedTuple):
    """Weighted sums of the components; they add."""

    weights: np.ndarray  # (K, M) expected number of steps
    moments: tuple[GaussianMoments, ...]  # of the M components of each state


@dataclass(frozen=True)
class GaussianMixtureEmission(Emission):
    """K mixtures of M Gaussians; the components of a state are one `CovarianceType` of M."""

    weights: np.ndarray  # (K, M)
    means: np.ndarray  # (K, M, D)
    covars: np.ndarray  # (K, shape by type)
    covariance_type: str
    floor: Floor | None = None
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior: GaussianPrior | None = None  # of the components of each state
    pseudo_counts: np.ndarray | None = None  # (K, M) of the Dirichlet prior of the weights

    @property
    def type(self) -> CovarianceType:
        return COVARIANCES[self.covariance_type]

    def log_prob(self, X, out):
        for k, joint in enumerate(self._log_joints(X)):
            out[:, k] = logsumexp(joint, axis=1)

    def _log_joints(self, X):
        """log weight_km N(x_t | mean_km, C_km), (n, M), state by state."""
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        for k, (means, covars) in enumerate(zip(self.means, self.covars)):
            joint = np.empty((len(X), len(means)))
            self.type.log_density(X, means, covars, joint)
            joint += log_weights[k]
            yield joint

    def statistics(self, X, posteriors) -> MixtureSums:
        weights, moments = [], []
        for k, joint in enumerate(self._log_joints(X)):
            share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
            share *= posteriors[:, k, None]
            weights.append(share.sum(axis=0))
            moments.append(self.type.moments(X, share, self.means[k], self.covars[k]))
        return MixtureSums(np.array(weights), tuple(moments))

    def m_step(self, statistics: MixtureSums) -> GaussianMixtureEmission:
        """That of a mixture whose rows are weighted (Rabiner 1989, eqs. 52-54)."""
        counts = statistics.weights
        if self.pseudo_counts is not None:
            counts = counts + np.where(self.weights > 0, self.pseudo_counts, 0.0)
        weights = estimate_rows(counts, self.weights, self.held.get("weights"))
        means, covars = zip(*(
            self.type.m_step(
                moments, self.means[k], self.covars[k], self.floor, held=self._held_of(k),
                prior=self.prior,
            )
            for k, moments in enumerate(statistics.moments)
        ))  # fmt: skip
        for of_state in zip(means, covars):
            self.type.check_regular(*of_state, self.floor)
        return replace(self, weights=weights, means=np.stack(means), covars=np.stack(covars))

    def _components_of(self, state: int) -> GaussianEmission:
        return GaussianEmission(
            self.means[state], self.covars[state], self.covariance_type, self.floor,
            self._held_of(state), self.prior,
        )  # fmt: skip

    @property
    def rounding(self):
        return max(map(self.type.rounding, self.covars))

    def admissible(self):
        parts = [self._components_of(k).admissible() for k in range(len(self.means))]
        return replace(self, covars=np.stack([part.covars for part in parts]))

    def parted_within(self, X, random_state, way):
        means, covars = self.means.copy(), self.covars.copy()
        for k in range(len(means)):
            components = self._components_of(k)
            for alike in groups_alike(components.signature()):
                parted = part_states(
                    components, X, X, self._shares(X, k), alike, random_state, way
                )
                if parted is not None:
                    components = parted[0]
                    means[k], covars[k] = components.means, components.covars
        return replace(self, means=means, covars=covars)

    def _shares(self, X, state: int) -> np.ndarray:
        """Posteriors (n, M) of the components of a state, where all states are equally probable."""
        joints = list(self._log_joints(X))
        return np.exp(joints[state] - logsumexp(np.hstack(joints), axis=1, keepdims=True))

    def on_floor(self):
        return np.array([self._components_of(k).on_floor().any() for k in range(len(self.means))])

    def signature(self):
        parts = self.weights, self.means, self.covars
        return np.hstack([part.reshape(len(part), -1) for part in parts])

    def _held_of(self, state: int) -> dict[str, np.ndarray]:
        return {name: self.held[name][state] for name in ("means", "covars") if name in self.held}

    def log_prior(self):
        total = sum(
            self.type.log_prior(self.prior, means, covars)
            for means, covars in zip(self.means, self.covars)
        )
        if self.pseudo_counts is not None:
            used = self.weights > 0
            total += float(self.pseudo_counts[used] @ np.log(self.weights[used]))
        return total

    def moved(self, statistics, target):
        shifts = target.means - self.means
        moments = tuple(map(self.type.shifted, statistics.moments, shifts))
        return statistics._replace(moments=moments)

    def reordered_statistics(self, statistics, order):
        moments = tuple(statistics.moments[k] for k in order)
        return MixtureSums(statistics.weights[order], moments)

    def has_hidden(self, X):
        return True

    def flat(self) -> GaussianEmission:
        """All K M components, those of a state side by side."""
        n_states, n_mix, n_features = self.means.shape
        means, covariance_type = self.means.reshape(-1, n_features), self.covariance_type
        if covariance_type == "tied":  # each state has one of its own
            return GaussianEmission(means, np.repeat(self.covars, n_mix, axis=0), "full")
        covars = self.covars.reshape(n_states * n_mix, *self.covars.shape[2:])
        return GaussianEmission(means, covars, covariance_type)

    def _of_components(self, state_probabilities) -> np.ndarray:
        """Probabilities (n, K M) of the components of `flat`."""
        joint = state_probabilities[:, :, None] * self.weights
        return joint.reshape(len(joint), -1)

    def sample(self, states, random_state):
        n_mix = self.weights.shape[1]
        cumulative = np.cumsum(self.weights, axis=1)[states]
        uniforms = random_state.uniform(size=len(states)) * cumulative[:, -1]
        chosen = (cumulative <= uniforms[:, None]).sum(axis=1)
        return self.flat().sample(states * n_mix + chosen, random_state)

    def n_free_parameters(self):
        count = n_free_in_rows(self.weights, self.held.get("weights"))
        for k, means in enumerate(self.means):
            count += self.type.n_free_parameters(means, self._held_of(k))
        return count

    def expect(self, state_probabilities):
        """Mean and covariance of the mixture of mixtures."""
        return self.flat().expect(self._of_components(state_probabilities))

    def reordered(self, order):
        return replace(self, weights=self.weights[order], means=self.means[order],
                       covars=self.covars[order])  # fmt: skip

    def distances(self, other):
        """Those of the Gaussians with the mean and the covariance of each mixture."""
        return self._matched().distances(other._matched())

    def _matched(self) -> GaussianEmission:
        moments = self.expect(np.eye(len(self.weights)))
        return GaussianEmission(moments["means"], moments["covariances"], "full")

    def parameters(self):
        of_states = [
            gaussian_parameters(self.type, means, covars, self._held_of(k), self.floor)
            for k, (means, covars) in enumerate(zip(self.means, self.covars))
        ]
        stacked = []
        for parts in zip(*of_states):
            held, edge, values, scale = (
                None if first is None else np.stack([getattr(part, name) for part in parts])
                for name in ("held", "edge", "values", "scale")
                for first in (getattr(parts[0], name),)
            )
            stacked.append(Parameter(parts[0].name, values, parts[0].kind, scale, held, edge))
        return [Parameter("weights", self.weights, "rows", held=self.held.get("weights")), *stacked]

    def with_values(self, values):
        return replace(self, weights=values[0], means=values[1], covars=values[2])

    def gradient(self, statistics):
        used = self.weights > 0
        by_weights = np.divide(
            statistics.weights, self.weights, out=np.zeros_like(self.weights), where=used
        )
        parts = [self.type.gradient(moments, covars)
                 for moments, covars in zip(statistics.moments, self.covars)]  # fmt: skip
        return [by_weights, *(np.stack(part) for part in zip(*parts))]

    def log_tails(self, X):
        n_states, n_mix, n_features = self.means.shape
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)[:, :, None]
        return LogTails(*(
            logsumexp(tail.reshape(-1, n_states, n_mix, n_features) + log_weights, axis=2)
            for tail in self.flat().log_tails(X)
        ))

    def quantiles(self, state_probabilities, probabilities):
        return self.flat().quantiles(self._of_components(state_probabilities), probabilities)


class GaussianMixtureHMM(BaseHMM):
    r"""Hidden Markov model whose states are mixtures of Gaussians.

    .. math::
        p(x_1..x_n) = \sum_s \prod_t p(s_t | s_{t-1}) \sum_m w_{s_t m}\,
        N(x_t | \mu_{s_t m}, C_{s_t m})

    Parameters
    ----------
    n_components : int, default=2
        Number of hidden states.
    n_mix : int, default=2
        Number of Gaussians in each state.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="diag"
        Covariances of the Gaussians: each its own matrix, one matrix for all Gaussians of a state,
        each its own variances, each one variance.
    initial_state : {"learn", "stationary"}, default="learn"
        Learn the start distribution, or take the stationary distribution of the transition matrix,
        which moves with it (one sequence says next to nothing about its start).
    startprob_init : array-like of shape (n_components,), default=None
        Starting value of the start distribution; a zero stays zero.  Default: uniform.
    transmat_init : array-like of shape (n_components, n_components), default=None
        Starting value of the transition matrix; a zero stays zero, which makes left-right models.
        Default: the moves between k-means clusters.
    weights_init : array-like of shape (n_components, n_mix), default=None
        Starting value of the weights; a zero stays zero, which gives a state fewer Gaussians.
    means_init : array-like of shape (n_components, n_mix, n_features), default=None
        Starting value of the means.
    covars_init : array-like, shape as `covars_`, default=None
        Starting value of the covariances.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them):
        "startprob", "transmat", "weights", "means", "covars"; a mask holds single entries.
    startprob_prior : float or array-like of shape (n_components,), default=None
        Concentration of a Dirichlet prior on the start distribution, at least 1: one more than the
        starts that it counts as.  None: no prior.  Only with ``initial_state="learn"``.
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Concentrations of Dirichlet priors on the rows of the transition matrix, at least 1: one
        more than the moves that they count as.  None: no prior.
    stickiness : float, default=0.0
        Added to the diagonal of `transmat_prior`: so many more moves that stay.
    weights_prior : float or array-like of shape (n_components, n_mix), default=None
        Concentrations of Dirichlet priors on the weights, at least 1.  None: no prior.
    means_prior : float or array-like of shape (n_mix, n_features), default=None
        Prior means, the same in all states; one row serves all Gaussians.  None with a
        `means_weight`: the mean of X.
    means_weight : float, default=0.0
        The number of steps that `means_prior` counts as for each Gaussian; 0: no prior.
    covars_prior : float or array-like, shape as ``covars_[0]``, default=None
        Prior covariances, the same in all states, a number for that times the identity.  None with
        a `covars_weight`: the variances of the columns of X.
    covars_weight : float, default=0.0
        The number of steps that `covars_prior` counts as for each Gaussian ("tied": in each
        state); 0: no prior.
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
    weights_ : ndarray of shape (n_components, n_mix)
        :math:`w_{km}`, rows sum to 1.
    means_ : ndarray of shape (n_components, n_mix, n_features)
        :math:`\mu_{km}`.
    covars_ : ndarray
        :math:`C_{km}`: (n_components, n_mix, n_features, n_features) for "full", (n_components,
        n_features, n_features) for "tied", (n_components, n_mix, n_features) for "diag",
        (n_components, n_mix) for "spherical".
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
    GaussianHMM : One Gaussian in each state.
    sklearn.mixture.GaussianMixture : Mixtures without order.

    Notes
    -----
    Which Gaussian of its state a step belongs to is hidden as well, so known `states` leave EM work
    to do.  Missing entries (NaN) and the priors are treated as in :class:`GaussianHMM`.

    References
    ----------
    L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
    recognition", Proc. IEEE 77(2), sec. IV.A.

    Examples
    --------
    A state with two clusters far apart, and one between them:

    >>> import numpy as np
    >>> from sklseq import GaussianMixtureHMM
    >>> rng = np.random.default_rng(0)
    >>> ends = rng.choice([-5.0, 5.0], size=(60, 1)) + rng.normal(size=(60, 1))
    >>> X = np.concatenate([ends, rng.normal(size=(60, 1))])
    >>> start = [[[-5.0], [5.0]], [[-1.0], [1.0]]]
    >>> hmm = GaussianMixtureHMM(means_init=start, random_state=0).fit(X)
    >>> states = hmm.predict(X)
    >>> len(set(states[:60])), len(set(states[60:]))
    (1, 1)
    """

    def __init__(
        self,
        n_components=2,
        *,
        n_mix=2,
        covariance_type="diag",
        initial_state="learn",
        startprob_init=None,
        transmat_init=None,
        weights_init=None,
        means_init=None,
        covars_init=None,
        fixed=(),
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
        weights_prior=None,
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
        self.n_mix = n_mix
        self.covariance_type = covariance_type
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.weights_init = weights_init
        self.means_init = means_init
        self.covars_init = covars_init
        self.fixed = fixed
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
        self.weights_prior = weights_prior
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
        cls, *, startprob, transmat, weights, means, covars, covariance_type="diag", **params
    ) -> GaussianMixtureHMM:
        """A model with known parameters, ready to score, decode and sample.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
        weights : array-like of shape (n_components, n_mix)
        means : array-like of shape (n_components, n_mix, n_features)
        covars : array-like, shape by `covariance_type`
            As `covars_`.
        covariance_type : {"full", "tied", "diag", "spherical"}, default="diag"
        **params
            Constructor parameters.

        Returns
        -------
        GaussianMixtureHMM
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        means = check_parameter_array(means, "means", (np.size(startprob), None, None))
        params = {"covariance_type": covariance_type, "n_mix": means.shape[1], **params}
        estimator = cls._from_chain(startprob, transmat, params)
        weights = check_probabilities(weights, "weights", means.shape[:2])
        covars = _check_covars(covars, "covars", covariance_type, means.shape)
        estimator._set_emission(GaussianMixtureEmission(weights, means, covars, covariance_type))
        estimator.n_features_in_ = means.shape[2]
        return estimator

    _splits_rows = True

    def _given_places(self):
        if self.means_init is None:
            return None
        shape = self._emission_shapes()["means"]
        return check_parameter_array(self.means_init, "means_init", shape)

    def _check_parameters(self):
        super()._check_parameters()
        check_choice(self, "covariance_type", COVARIANCES)
        check_count(self, "n_mix", 1)
        check_concentration(self.weights_prior, "weights_prior", (self.n_components, self.n_mix))

    def _encode(self, sequences, reset):
        refuse_overflow(sequences)
        return sequences

    def _emission_shapes(self):
        of_state = (self.n_mix, self.n_features_in_)
        return {
            "weights": (self.n_components, self.n_mix),
            "means": (self.n_components, *of_state),
            "covars": (self.n_components, *COVARIANCES[self.covariance_type].shape(*of_state)),
        }

    def _learning(self, sequences, held):
        covariance = COVARIANCES[self.covariance_type]
        covariance.check_held(held)
        counts = None
        if self.weights_prior is not None:
            shape = (self.n_components, self.n_mix)
            counts = check_concentration(self.weights_prior, "weights_prior", shape) - 1.0
        return {
            "floor": Floor(column_scale(sequences.X), self.reg_covar),
            "held": held,
            "prior": check_gaussian_prior(self, covariance, sequences.X, self.n_mix),
            "pseudo_counts": counts,
        }

    def _init_emission(self, sequences, labels, random_state):
        """Each state's rows in clusters of their own; within a state pooled covariances."""
        shapes = self._emission_shapes()
        given = {name: getattr(self, f"{name}_init") for name in shapes}
        found = {}
        if any(value is None for value in given.values()):
            found = self._cluster_states(sequences.X, labels, random_state)
        if given["weights"] is not None:
            found["weights"] = check_probabilities(
                given["weights"], "weights_init", shapes["weights"]
            )
        if given["means"] is not None:
            found["means"] = check_parameter_array(given["means"], "means_init", shapes["means"])
        if given["covars"] is not None:
            found["covars"] = _check_covars(
                given["covars"], "covars_init", self.covariance_type, shapes["means"]
            )
        return GaussianMixtureEmission(**found, covariance_type=self.covariance_type)

    def _cluster_states(self, X, labels, random_state) -> dict[str, np.ndarray]:
        floor = Floor(column_scale(X), self.reg_covar)
        weights, means, covars = [], [], []
        for k in range(self.n_components):
            rows = X[labels == k]
            rows = rows if len(rows) else X
            clusters = label_rows(rows, self.n_mix, random_state, way="kmeans")
            counts = np.bincount(clusters, minlength=self.n_mix) + 1.0
            start = pooled_start(rows, clusters, self.n_mix, self.covariance_type, floor)
            weights.append(counts / counts.sum())
            means.append(start.means)
            covars.append(start.covars)
        return {"weights": np.stack(weights), "means": np.stack(means), "covars": np.stack(covars)}

    def _emission(self):
        shapes = self._emission_shapes()
        return GaussianMixtureEmission(
            as_fitted(self, "weights_", shapes["weights"], "probabilities"),
            as_fitted(self, "means_", shapes["means"]),
            fitted_covars(self, shapes["covars"]),
            self.covariance_type,
        )

    def _set_emission(self, emission):
        self.weights_, self.means_ = emission.weights, emission.means
        self.covars_, self._covariance_type = emission.covars, emission.covariance_type


def _check_covars(value, name: str, covariance_type: str, shape: tuple) -> np.ndarray:
    """Covariances of K states, each as the type has it for M components."""
    n_states, n_mix, n_features = shape
    covariance = COVARIANCES[covariance_type]
    of_state = covariance.shape(n_mix, n_features)
    covars = check_parameter_array(value, name, (n_states, *of_state))
    return np.stack([covariance.check(one, name, n_mix, n_features) for one in covars])
