"""Multinomial emissions: counts x_t ~ Multinomial(their total, emissionprob_k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import betainc, gammaln

from sklseq._sequences import Sequences, refuse_overflow
from sklseq._validation import as_fitted, check_count, check_probabilities, check_real
from sklseq.hmm._base import BaseHMM, warn_fractions
from sklseq.hmm._categorical import (
    table_distances,
    table_gradient,
    table_log_prior,
    table_m_step,
)
from sklseq.hmm._chain import Emission, LogTails, Parameter, n_free_in_rows
from sklseq.hmm._saddle_point import LARGE, deviance, half_log


@dataclass(frozen=True)
class MultinomialEmission(Emission):
    """Rows of counts (n, V) whose totals are given."""

    remedy = (
        " With alpha > 0 a category that a state did not have in training keeps a positive "
        "probability."
    )

    table: np.ndarray  # (K, V)
    n_trials: int = 1  # total of a sampled row
    alpha: float = 0.0
    held: Mapping[str, np.ndarray] = field(default_factory=dict)

    def log_prob(self, X, out):
        log_table = np.log(np.maximum(self.table, np.finfo(float).tiny))
        np.matmul(X, log_table.T, out=out)
        # the multinomial coefficient: in how many orders the counts can come about
        out += gammaln(X.sum(axis=1, keepdims=True) + 1.0)
        out -= gammaln(X + 1.0).sum(axis=1, keepdims=True)
        totals = X.sum(axis=1)
        large = np.flatnonzero(totals > LARGE)
        if len(large):
            self._log_prob_of_large(X[large], totals[large], large, out)
        if not self.table.all():
            impossible = (X > 0).astype(float) @ (self.table == 0).astype(float).T > 0
            out[impossible] = -np.inf

    def _log_prob_of_large(self, X, totals, rows, out):
        """The rows of `out` whose plain form would cancel: Poisson counts, given their total.

        A table that sums to 1 but for rounding is taken as one that does.
        """
        common = half_log(totals) - half_log(X).sum(axis=1)
        for k, probabilities in enumerate(np.maximum(self.table, np.finfo(float).tiny)):
            apart = deviance(X, totals[:, None] * probabilities)
            out[rows, k] = common - apart.sum(axis=1)

    def statistics(self, X, posteriors) -> tuple[np.ndarray]:
        """Expected counts (K, V)."""
        return (posteriors.T @ X,)

    def m_step(self, statistics) -> MultinomialEmission:
        """Relative frequencies with `alpha` added to each count."""
        table = table_m_step(
            statistics[0], self.table, self.alpha, self.held.get("emissionprob")
        )
        return replace(self, table=table)

    def log_prior(self):
        return table_log_prior(self.table, self.alpha)

    def sample(self, states, random_state):
        """Category by category: binomial, of what is left, by the share of what is left."""
        ahead = np.cumsum(self.table[:, ::-1], axis=1)[:, ::-1]  # ends in the last category's own
        shares = np.divide(self.table, ahead, out=np.zeros_like(self.table), where=ahead > 0)
        left = np.full(len(states), self.n_trials)
        counts = np.zeros((len(states), self.table.shape[1]))
        for category in range(self.table.shape[1]):
            drawn = random_state.binomial(left, np.minimum(shares[states, category], 1.0))
            counts[:, category] = drawn
            left -= drawn
        return counts

    def n_free_parameters(self):
        return n_free_in_rows(self.table, self.held.get("emissionprob"))

    def expect(self, state_probabilities):
        return {"probabilities": state_probabilities @ self.table}

    def reordered(self, order):
        return replace(self, table=self.table[order])

    def distances(self, other):
        return table_distances(self.table, other.table)

    def signature(self):
        return self.table

    def parameters(self):
        held = self.held.get("emissionprob")
        return [Parameter("emissionprob", self.table, "rows", held=held)]

    def with_values(self, values):
        return replace(self, table=values[0])

    def gradient(self, statistics):
        return [table_gradient(statistics[0], self.table)]

    def log_tails(self, X):
        """A count is binomial, given the total of its row."""
        totals = X.sum(axis=1)[:, None, None]
        counts = X[:, None, :]
        with np.errstate(divide="ignore"):
            return LogTails(*(np.log(tail) for tail in (
                _binomial_below(counts, totals, self.table),
                _binomial_below(counts + 1.0, totals, self.table),
                _binomial_onward(counts + 1.0, totals, self.table),
                _binomial_onward(counts, totals, self.table),
            )))  # fmt: skip


def _binomial_below(count, total, p) -> np.ndarray:
    """P(X < count), by the incomplete beta function (Abramowitz & Stegun 26.5.24)."""
    inside = betainc(np.maximum(total - count + 1.0, 1.0), np.maximum(count, 1.0), 1.0 - p)
    return np.where(count <= 0, 0.0, np.where(count > total, 1.0, inside))


def _binomial_onward(count, total, p) -> np.ndarray:
    """P(X >= count)."""
    inside = betainc(np.maximum(count, 1.0), np.maximum(total - count + 1.0, 1.0), p)
    return np.where(count <= 0, 1.0, np.where(count > total, 0.0, inside))


class MultinomialHMM(BaseHMM):
    r"""Hidden Markov model with multinomial emissions, for rows of counts such as documents.

    .. math::
        p(x_1..x_n) = \sum_s \prod_t p(s_t | s_{t-1})\,
        \frac{(\sum_v x_{tv})!}{\prod_v x_{tv}!} \prod_v B_{s_t v}^{x_{tv}}

    A row of X counts how often each of V categories occurred in a step; totals may differ from row
    to row and are taken as given.  A row of zeros says nothing about its state: that is how a
    missing step is written, since NaN has no meaning in a row whose total is given.

    Parameters
    ----------
    n_components : int, default=2
        Number of hidden states.
    n_trials : int, default=None
        Total of a row that ``sample`` draws.  Default: the mean total in ``fit``, rounded.
    alpha : float, default=0.0
        Pseudo-count of each category in each state; 0 is maximum likelihood.  It is part of the
        objective: a Dirichlet(1 + alpha) prior.  Held-out data may have categories that a training
        fold lacks, and score -inf with 0: cross-validation needs ``alpha > 0``.
    initial_state : {"learn", "stationary"}, default="learn"
        Learn the start distribution, or take the stationary distribution of the transition matrix,
        which moves with it (one sequence says next to nothing about its start).
    startprob_init : array-like of shape (n_components,), default=None
        Starting value of the start distribution; a zero stays zero.  Default: uniform.
    transmat_init : array-like of shape (n_components, n_components), default=None
        Starting value of the transition matrix; a zero stays zero, which makes left-right models.
        Default: the moves between k-means clusters.
    emissionprob_init : array-like of shape (n_components, n_features), default=None
        Starting value of the emission probabilities; a zero stays zero.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them):
        "startprob", "transmat", "emissionprob"; a mask holds single entries.
    startprob_prior : float or array-like of shape (n_components,), default=None
        Concentration of a Dirichlet prior on the start distribution, at least 1: one more than the
        starts that it counts as.  None: no prior.  Only with ``initial_state="learn"``.
    transmat_prior : float or array-like of shape (n_components, n_components), default=None
        Concentrations of Dirichlet priors on the rows of the transition matrix, at least 1: one
        more than the moves that they count as.  None: no prior.
    stickiness : float, default=0.0
        Added to the diagonal of `transmat_prior`: so many more moves that stay.
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
    emissionprob_ : ndarray of shape (n_components, n_features)
        :math:`B`; probabilities of the categories, rows sum to 1.
    n_trials_ : int
        Total of a row that ``sample`` draws.
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
    CategoricalHMM : For one symbol a step, as an integer code.
    PoissonHMM : For counts whose total is random as well.

    Notes
    -----
    The likelihood has the multinomial coefficient, so it is the probability of the counts given
    their total, as in hmmlearn.  The coefficient does not depend on the parameters; without it the
    likelihood would be that of the symbols in their order, which is what ``CategoricalHMM`` and
    ``SoftmaxStateSpace`` score.  For one symbol a step (one-hot rows) it is 1 and all agree.

    Counts need not be whole numbers, so that weights, such as those of ``TfidfTransformer``, can be
    fitted as they are (a factorial is then a Gamma function): the likelihood is a quasi-likelihood,
    to be compared between models of the same X only.

    References
    ----------
    W. Zucchini, I. L. MacDonald & R. Langrock (2016), Hidden Markov Models for Time Series, 2nd ed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklseq import MultinomialHMM
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([
    ...     rng.multinomial(20, [0.7, 0.2, 0.1], size=30),
    ...     rng.multinomial(20, [0.1, 0.2, 0.7], size=30),
    ... ])
    >>> hmm = MultinomialHMM(random_state=0).fit(X)
    >>> states = hmm.predict(X)
    >>> len(set(states[:30])), len(set(states[30:]))
    (1, 1)
    """

    def __init__(
        self,
        n_components=2,
        *,
        n_trials=None,
        alpha=0.0,
        initial_state="learn",
        startprob_init=None,
        transmat_init=None,
        emissionprob_init=None,
        fixed=(),
        startprob_prior=None,
        transmat_prior=None,
        stickiness=0.0,
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
        self.n_trials = n_trials
        self.alpha = alpha
        self.initial_state = initial_state
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.emissionprob_init = emissionprob_init
        self.fixed = fixed
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.stickiness = stickiness
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
    def from_parameters(cls, *, startprob, transmat, emissionprob, **params) -> MultinomialHMM:
        """A model with known parameters, ready to score, decode and sample.

        Parameters
        ----------
        startprob : array-like of shape (n_components,)
        transmat : array-like of shape (n_components, n_components)
        emissionprob : array-like of shape (n_components, n_features)
        **params
            Constructor parameters; `n_trials` is 1 where it is not given.

        Returns
        -------
        MultinomialHMM
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        estimator = cls._from_chain(startprob, transmat, params)
        table = check_probabilities(emissionprob, "emissionprob", (estimator.n_components, None))
        estimator.emissionprob_ = table
        _refuse_one_column(table.shape[1])
        estimator.n_features_in_ = table.shape[1]
        estimator.n_trials_ = 1 if estimator.n_trials is None else int(estimator.n_trials)
        return estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.allow_nan = False
        return tags

    def _check_parameters(self):
        super()._check_parameters()
        check_real(self, "alpha", 0.0)
        if self.n_trials is not None:
            check_count(self, "n_trials", 0)

    def _encode(self, sequences: Sequences, reset: bool) -> Sequences:
        refuse_overflow(sequences)
        if reset:
            _refuse_one_column(sequences.X.shape[1])
            warn_fractions(sequences.X, type(self).__name__)
            mean_total = int(np.rint(sequences.X.sum(axis=1).mean()))
            self.n_trials_ = mean_total if self.n_trials is None else int(self.n_trials)
        return sequences

    def _rows_to_cluster(self, sequences):
        """Square roots of proportions, whose distances are Hellinger's."""
        totals = np.maximum(sequences.X.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.sqrt(sequences.X / totals)

    def _given_places(self):
        if self.emissionprob_init is None:
            return None
        shape = (self.n_components, self.n_features_in_)
        table = check_probabilities(self.emissionprob_init, "emissionprob_init", shape)
        return np.sqrt(table)[:, None]

    def _emission_shapes(self):
        return {"emissionprob": (self.n_components, self.n_features_in_)}

    def _learning(self, sequences, held):
        return {"alpha": self.alpha, "held": held}

    def _init_emission(self, sequences, labels, random_state):
        """Frequencies of the labelled rows, mixed with a little of the whole data's."""
        shape = (self.n_components, self.n_features_in_)
        if self.emissionprob_init is not None:
            table = check_probabilities(self.emissionprob_init, "emissionprob_init", shape)
            return MultinomialEmission(table)
        counts = sequences.X
        overall = (counts.sum(axis=0) + 1.0) / (counts.sum() + shape[1])
        by_state = np.eye(shape[0])[labels].T @ counts + overall
        by_state /= by_state.sum(axis=1, keepdims=True)
        # a category that a state has never seen could not come back
        return MultinomialEmission(0.95 * by_state + 0.05 * overall)

    def _emission(self):
        shape = self._emission_shapes()["emissionprob"]
        table = as_fitted(self, "emissionprob_", shape, "probabilities")
        return MultinomialEmission(table, self.n_trials_)

    def _set_emission(self, emission):
        self.emissionprob_ = emission.table


def _refuse_one_column(n_features: int) -> None:
    """Every count of one category is certain, given the total of its row."""
    if n_features == 1:
        raise ValueError(
            "MultinomialHMM counts categories, one in each column, and needs two of them: got "
            "n_features=1. A column of codes (0, 1, 2 ...) is for CategoricalHMM; a column of "
            "counts of one thing is for PoissonHMM."
        )
