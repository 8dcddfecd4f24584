"""SoftmaxStateSpace: words or documents driven by a linear-Gaussian state, as an estimator."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._base import unchanged_on_error
from sklseq._covariance import reshaped_covariance
from sklseq._em import EMResult, run_em
from sklseq._notices import warn
from sklseq._sequences import (
    Sequences,
    limit_threads,
    refuse_frame_output,
    refuse_overflow,
    warn_labels,
)
from sklseq._validation import (
    as_array,
    as_fitted,
    check_choice,
    check_count,
    check_fixed,
    check_parameter_array,
    check_positive,
    check_real,
)
from sklseq.state_space._base import (
    BaseStateSpace,
    at_stationary_start,
    check_covariance,
    check_observation_matrix,
    n_seen,
    seen_rows,
)
from sklseq.state_space._chain import (
    LinearGaussianChain,
    Moments,
    Posterior,
    stationary_covariance,
)
from sklseq.state_space._softmax_model import SoftmaxModel, unigram_offset
from sklseq.state_space._softmax_posterior import Words
from sklseq.state_space._softmax_start import spectral_start


class ProbabilityForecast(NamedTuple):
    """Future observations.

    Attributes
    ----------
    probabilities : ndarray of shape (n_steps, n_features), or (n_sequences, n_steps, n_features)
        Of each word to be the next, at each step ahead.
    """

    probabilities: np.ndarray


class SoftmaxStateSpace(BaseStateSpace):
    r"""Words or documents driven by a linear-Gaussian state: the discrete Kalman filter.

    .. math::
        S_1 \sim N(\mu_0, P_0), \quad S_t \sim N(A S_{t-1}, \Gamma), \quad
        W_t \sim \mathrm{Softmax}(B S_t + b)

    Each row of X counts the words of one step: a one-hot row is a word, a row of counts a document,
    a row of zeros a step without observation.  Log-likelihoods are those of the ordered words,
    without the multinomial coefficient, in the unit of ``CategoricalHMM``.

    Parameters
    ----------
    n_components : int, default=1
        Number of state dimensions.
    alpha : float, default=1.0
        L2 penalty :math:`\alpha/2` on the entries of :math:`B`, of :math:`b` minus the smoothed
        log-unigram and of a learned :math:`\mu_0`, in coordinates where :math:`\Gamma = I`; a
        learned :math:`P_0` has the penalty :math:`\alpha/2\, \mathrm{tr}(P_0 + P_0^{-1})`.
    fit_intercept : bool, default=True
        Learn :math:`b`; False is the plain :math:`\mathrm{Softmax}(B S_t)`.
    n_particles : int, default=500
        Of the particle filter behind ``score``; 0 takes the deterministic correction.
    transition_covariance_type : {"full", "diag", "spherical"}, default="full"
        Of :math:`\Gamma`; of no consequence unless parameters are fixed.
    initial_state : {"learn", "stationary"}, default="learn"
        "learn": :math:`\mu_0` where there are several sequences, and :math:`P_0` too where there
        are more than state dimensions.  Else :math:`\mu_0 = 0`, and :math:`P_0` is a multiple of
        :math:`\Gamma`, as large as the stationary covariance of the starting values
        (:math:`P_0 = \Gamma` for a chain without one).  "stationary": the stationary distribution,
        which moves with :math:`A`.
    transition_matrix_init : array-like of shape (n_components, n_components), default=None
        Starting value of :math:`A`.  Every default comes from the data.
    transition_covariance_init : array-like, default=None
        Starting value of :math:`\Gamma`: a matrix, variances, or one variance.
    observation_matrix_init : array-like of shape (n_features, n_components), default=None
        Starting value of :math:`B`.
    observation_offset_init : array-like of shape (n_features,), default=None
        Starting value of :math:`b`.
    initial_state_mean_init : array-like of shape (n_components,), default=None
        Starting value of :math:`\mu_0`.
    initial_state_covariance_init : array-like, default=None
        Starting value of :math:`P_0`: a matrix, variances, or one variance.
    fixed : str, tuple of str or dict of str -> bool mask, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them), by
        the names above without ``_init``; a mask holds single entries.
    acceleration : {"squarem", None}, default="squarem"
        Extrapolate over pairs of EM steps, never accepting a fall; None is plain EM.
    continues : bool, default=False
        After a fit on one sequence, a flat X goes on from its end instead of starting anew: every
        block of a ``TimeSeriesSplit`` does.
    max_iter : int, default=200
        The largest number of iterations (E-steps).
    tol : float, default=1e-6
        Stop when the objective gains less than this per step, in nats.
    n_init : int, default=1
        Number of starting values: spectral first, then random.  The better half goes on after 10,
        20, 40 ... iterations; the last one and the first are finished.
    n_jobs : int, default=None
        Threads over shards of whole sequences; None is one.  The result does not depend on it.
        Inside ``joblib.parallel_config`` the shards go to that backend.
    random_state : int, RandomState instance or None, default=None
        For further starting values and for ``sample``; it seeds the particle filter of ``score``,
        for which None is a constant.
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 prints a line for each start, for every ten seconds and at the end; 2 for each iteration.

    Attributes
    ----------
    transition_matrix_ : ndarray of shape (n_components, n_components)
        :math:`A`.
    transition_covariance_ : ndarray of shape (n_components, n_components)
        :math:`\Gamma`.
    observation_matrix_ : ndarray of shape (n_features, n_components)
        :math:`B`; the largest entries of a column are the words that go with that direction.
    observation_offset_ : ndarray of shape (n_features,)
        :math:`b`.
    initial_state_mean_ : ndarray of shape (n_components,)
        :math:`\mu_0`, of the first step of every sequence.
    initial_state_covariance_ : ndarray of shape (n_components, n_components)
        :math:`P_0`.
    n_iter_ : int
        Number of iterations of the best start.
    converged_ : bool
        Whether the last iterations gained less than `tol`.
    lower_bound_ : float
        Lower bound on the mean log-likelihood per step of the training data at the fitted
        parameters, in nats; ``score`` is the likelihood itself.
    lower_bounds_ : ndarray of shape (n_iter_ + 1,)
        The same at the start and after each iteration.
    objectives_ : ndarray of shape (n_iter_ + 1,)
        Lower bound minus penalty, per step: what EM raises and `tol` looks at; never falls.
    final_state_mean_ : ndarray of shape (n_components,) or None
        Of the state at the end of training; None after several sequences.
    final_state_covariance_ : ndarray of shape (n_components, n_components) or None
        Likewise.
    n_features_in_ : int
        Number of words.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    sklseq.KalmanSmoother : The same hidden state seen through Gaussian noise.
    sklseq.CategoricalHMM : Words driven by a state that takes one of a few values.
    sklearn.feature_extraction.text.CountVectorizer : Makes rows of counts of documents.
    sklearn.preprocessing.OneHotEncoder : Makes one-hot rows of labels.

    Notes
    -----
    States given words are approximated by the Gaussian of least Kullback-Leibler divergence from
    it, not by a Gaussian at the mode: with one word per step the latter (Laplace's method) loses a
    quarter of the state's variance, and EM with it drifts away from the data.  Likelihoods are not
    approximated: a particle filter guided by the Gaussian estimates them without bias, with a seed
    made of `random_state` and the content of each sequence.

    The state is only determined up to an invertible transformation, and logits up to a constant.
    B and b are centred over words; where nothing is fixed that the state's coordinates would move,
    :math:`\Gamma = I`, :math:`B'B` is diagonal and decreasing, and the largest entry of each column
    of :math:`B` is positive.

    Documents that each have a state of their own, sequences of one step, make a logistic-normal
    topic model; :math:`A = I` held fixed makes a dynamic topic model.

    References
    ----------
    M. Opper and C. Archambeau (2009), "The variational Gaussian approximation revisited", Neural
    Computation 21(3).

    M. Vihola, J. Helske and J. Franks (2020), "Importance sampling type estimators based on
    approximate marginal Markov chain Monte Carlo", Scandinavian J. Statistics 47(4), section 4.2.

    D. M. Blei and J. D. Lafferty (2006), "Dynamic topic models", ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from sklseq import SoftmaxStateSpace
    >>> rng = np.random.default_rng(0)
    >>> mood = np.cumsum(rng.normal(size=300)) / 5
    >>> words = np.where(rng.uniform(size=300) < 1 / (1 + np.exp(-mood)), "sun", "rain")
    >>> model = make_pipeline(OneHotEncoder(), SoftmaxStateSpace())
    >>> states = model.fit_transform(words.reshape(-1, 1))
    >>> states.shape
    (300, 1)
    >>> bool(abs(np.corrcoef(states[:, 0], mood)[0, 1]) > 0.5)
    True
    """

    def __init__(
        self,
        n_components=1,
        *,
        alpha=1.0,
        fit_intercept=True,
        n_particles=500,
        transition_covariance_type="full",
        initial_state="learn",
        transition_matrix_init=None,
        transition_covariance_init=None,
        observation_matrix_init=None,
        observation_offset_init=None,
        initial_state_mean_init=None,
        initial_state_covariance_init=None,
        fixed=(),
        acceleration="squarem",
        continues=False,
        max_iter=200,
        tol=1e-6,
        n_init=1,
        n_jobs=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.n_particles = n_particles
        self.transition_covariance_type = transition_covariance_type
        self.initial_state = initial_state
        self.transition_matrix_init = transition_matrix_init
        self.transition_covariance_init = transition_covariance_init
        self.observation_matrix_init = observation_matrix_init
        self.observation_offset_init = observation_offset_init
        self.initial_state_mean_init = initial_state_mean_init
        self.initial_state_covariance_init = initial_state_covariance_init
        self.fixed = fixed
        self.acceleration = acceleration
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
        cls,
        *,
        transition_matrix,
        transition_covariance,
        observation_matrix,
        observation_offset=0.0,
        initial_state_mean,
        initial_state_covariance,
        **params,
    ) -> SoftmaxStateSpace:
        """A model with known parameters, ready to smooth, score, forecast and sample.

        Parameters
        ----------
        transition_matrix : array-like of shape (n_components, n_components)
        transition_covariance : array-like, of the same shape, or variances, or one variance
            Positive semi-definite; singular is allowed.
        observation_matrix : array-like of shape (n_features, n_components)
        observation_offset : array-like of shape (n_features,) or float, default=0
        initial_state_mean : array-like of shape (n_components,)
        initial_state_covariance : array-like (n_components, n_components), or variances, or one
        **params
            Constructor parameters.

        Returns
        -------
        SoftmaxStateSpace
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        B = check_observation_matrix(observation_matrix)
        p, d = B.shape
        estimator = cls(d, **params)
        estimator._check_parameters()
        offset = as_array(observation_offset, "observation_offset")
        offset = offset if offset.ndim else [observation_offset] * p
        estimator._set_model(
            SoftmaxModel(
                LinearGaussianChain(
                    check_parameter_array(transition_matrix, "transition_matrix", (d, d)),
                    check_covariance(transition_covariance, "transition_covariance", d),
                    check_parameter_array(initial_state_mean, "initial_state_mean", (d,)),
                    check_covariance(initial_state_covariance, "initial_state_covariance", d),
                ),
                Words(B, check_parameter_array(offset, "observation_offset", (p,))),
            )
        )
        estimator.n_features_in_ = p
        estimator._set_final(None)
        return estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        # predict gives a column for each state dimension, never a 1-D array
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    # ---- checks

    def _check_parameters(self) -> None:
        self._check_chain_parameters()
        check_choice(self, "initial_state", ("learn", "stationary"))
        check_real(self, "alpha", 0.0)
        check_count(self, "n_particles", 0)
        if not isinstance(self.fit_intercept, bool | np.bool_):
            raise ValueError(f"fit_intercept must be True or False, got {self.fit_intercept!r}.")
        if not self.fit_intercept and self.observation_offset_init is not None:
            raise ValueError(
                "observation_offset_init is for fit_intercept=True: without it the offset is zero."
            )

    def _shapes(self) -> dict[str, tuple]:
        p, d = self.n_features_in_, self.n_components
        return self._chain_shapes() | {
            "observation_matrix": (p, d),
            "observation_offset": (p,),
        }

    def _encode(self, sequences: Sequences, reset: bool) -> Sequences:
        """CSR without stored zeros: dense or sparse, the same data gives the same bits."""
        refuse_overflow(sequences)
        X = sparse.csr_array(sequences.X)
        if X.nnz and not X.data.all():
            X = X.copy()
            X.eliminate_zeros()
        return sequences._replace(X=X)

    # ---- value <-> fitted attributes

    def _model(self) -> SoftmaxModel:
        p, d = self.n_features_in_, self.n_components
        B = as_fitted(self, "observation_matrix_", (p, d))
        return SoftmaxModel(self._chain(), Words(B, as_fitted(self, "observation_offset_", (p,))))

    def _model_for(self, sequences: Sequences) -> SoftmaxModel:
        model = self._model()
        return replace(model, chain=self._continued(model.chain, sequences))

    def _set_model(self, model: SoftmaxModel) -> None:
        self._set_chain(model.chain)
        self.observation_matrix_, self.observation_offset_ = model.words
        # what was learned, for the number of free parameters
        self._structure = replace(model, start=None, prior_offset=None)

    def _n_free_parameters(self) -> int:
        return self._structure.n_free_parameters()

    # ---- learning

    def fit(self, X, y=None, *, groups=None, lengths=None):
        """Fit by variational EM.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
            Non-negative; a row counts the words of a step.
        y : ignored
            For the scikit-learn interface.
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For invalid parameters or input.

        Warns
        -----
        ConvergenceWarning
            ``max_iter`` was reached, or the bound fell by the error of its quadrature rule.

        References
        ----------
        Opper and Archambeau (2009); R. M. Neal and G. E. Hinton (1998), "A view of the EM algorithm
        that justifies incremental, sparse, and other variants", in Learning in Graphical Models;
        C. Liu, D. B. Rubin and Y. N. Wu (1998), "Parameter expansion to accelerate EM", Biometrika
        85(4), for Gamma; R. Varadhan and C. Roland (2008), Scandinavian J. Statistics 35(2),
        scheme S3.
        """
        self._check_parameters()
        self._warn_forgotten()
        with unchanged_on_error(self):
            sequences = self._check_X(X, groups, lengths, y=y, reset=True)
            warn_labels(y, sequences, type(self).__name__)
            if self.n_features_in_ == 1:
                warn(
                    "X has one column: a vocabulary of one word, of which nothing can be learned. "
                    "If it holds codes of words, encode them first, by OneHotEncoder for one.",
                    UserWarning,
                    stacklevel=2,
                )
            self._set_result(self._run_em(sequences), sequences)
        return self

    def _run_em(self, sequences: Sequences) -> EMResult:
        """EM; a fall of the bound, which its rule of quadrature allows, is told as what it is."""
        starts = self._starts(sequences)
        result = run_em(
            starts,
            sequences,
            max_iter=self.max_iter,
            tol=self.tol,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            name=type(self).__name__,
            acceleration=self.acceleration,
            fall_is_a_fault=False,
        )
        if result.fell:
            warn(
                f"{type(self).__name__} stopped after {result.n_iter} iterations: the bound "
                "fell in the next one, by the error of the quadrature rule it is computed with. "
                "The best parameters so far are kept. The rule is good where states are not spread "
                "widely: a larger alpha, fewer components or initial_state='stationary' may help.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return result

    def _set_result(self, result, sequences: Sequences) -> None:
        model = result.model.normalised()
        self._set_model(model)
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.objectives_ = np.array(result.objectives)
        self.lower_bounds_ = np.array(result.log_likelihoods)
        self.lower_bound_ = result.log_likelihoods[-1]
        self._set_final(None)
        if sequences.n_sequences == 1:
            with limit_threads(sequences.n_steps):
                self._set_final(model.final(*sequences[:2]))

    def _starts(self, sequences: Sequences) -> list[SoftmaxModel]:
        shapes = self._shapes()
        held = check_fixed(self, shapes)
        given = {name: self._given(name, shape) for name, shape in shapes.items()}
        chain_held = self._softmax_chain_held(held, sequences)
        names = ("observation_matrix", "observation_offset")
        words_held = {name: held[name] for name in names if name in held}
        if not self.fit_intercept:
            words_held["observation_offset"] = np.array(True)
        counts = np.asarray(sequences.X.sum(axis=0)).reshape(-1)
        unigram = unigram_offset(counts) if self.fit_intercept else np.zeros(len(counts))
        if self.warm_start and hasattr(self, "transition_matrix_"):
            starts = [self._warm_model()]
        else:
            random_state = check_random_state(self.random_state)
            randoms = [None] + [random_state] * (self.n_init - 1)
            with limit_threads():
                starts = [self._start(sequences, given, unigram, random) for random in randoms]
        starts = [replace(start, chain=replace(start.chain, held=chain_held)) for start in starts]
        told = starts[0].chain.tell_blind()
        if told:
            raise ValueError(f"{told} Hold it in fixed, or give it noise.")
        B_held = words_held.get("observation_matrix", False)
        return [
            replace(
                start,
                chain=self._tied_start(
                    start.chain, chain_held, start.chain.settles_state(start.words.matrix, B_held)
                ),
                alpha=self.alpha,
                prior_offset=unigram,
                held=words_held,
                free_gauge=_gauge_is_free(held, given),
            ).whitened()
            for start in starts
        ]

    def _softmax_chain_held(self, held, sequences: Sequences) -> dict:
        """The user's masks, and what data of this form cannot tell."""
        n_sequences, transitions = n_seen(sequences), _has_transitions(sequences)
        chain_held = self._chain_held(held, n_sequences)
        if n_sequences <= 1 or not transitions:
            # one state alone cannot be told from the offset
            chain_held["initial_state_mean"] = np.array(True)
        if not transitions:
            # the scale of the state is then a matter of units: P0 stays, B follows
            for name in self._chain_shapes():
                chain_held[name] = np.array(True)
        return chain_held

    def _warm_model(self) -> SoftmaxModel:
        shape, before = (self.n_features_in_, self.n_components), np.shape(self.observation_matrix_)
        if before != shape:
            raise ValueError(
                f"warm_start goes on from an observation matrix of shape {before}, but n_features "
                f"and n_components now make it {shape}."
            )
        model = self._model()
        if self.initial_state == "stationary":
            chain = model.chain.at_stationary_start()
            return replace(model, chain=model.chain if chain is None else chain)
        return model

    def _start(self, sequences, given, unigram, random_state) -> SoftmaxModel:
        """Given values first, the rest from the data."""
        d = self.n_components
        A, B = spectral_start(sequences.X, sequences.offsets, d, random_state)
        if not _has_transitions(sequences):
            A = np.zeros((d, d))  # nothing comes after anything
        elif given["observation_matrix"] is not None:
            A = 0.9 * np.eye(d)  # what was found is in other coordinates
        A, B, b, Gamma = (
            value if given[name] is None else given[name]
            for name, value in (
                ("transition_matrix", A),
                ("observation_matrix", B),
                ("observation_offset", unigram),
                ("transition_covariance", np.eye(d)),
            )
        )
        mean, covariance = given["initial_state_mean"], given["initial_state_covariance"]
        stationary = stationary_covariance(A, Gamma)
        if covariance is None:
            covariance = Gamma if stationary is None else stationary
        chain = LinearGaussianChain(
            A, reshaped_covariance(Gamma, self.transition_covariance_type, "transition_covariance"),
            np.zeros(d) if mean is None else mean, covariance,
            covariance_type=self.transition_covariance_type,
        )  # fmt: skip
        if self.initial_state == "stationary":
            chain = at_stationary_start(chain)
        return SoftmaxModel(chain, Words(np.ascontiguousarray(B), np.ascontiguousarray(b)))

    # ---- inference

    def predict(self, X, *, groups=None, lengths=None):
        """The most probable states given all of X, which are the smoothed means.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
        """
        sequences = self._check_X(X, groups, lengths)
        return sequences.like_input(self._smooth(sequences)[0])

    def transform(self, X, *, groups=None, lengths=None):
        """Smoothed state means E[S_t | w_1..w_n].

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        References
        ----------
        Opper and Archambeau (2009).
        """
        sequences = self._check_X(X, groups, lengths)
        if sequences.form != "flat":
            refuse_frame_output(self)
        return sequences.like_input(self._smooth(sequences)[0])

    def _smooth(self, sequences: Sequences) -> list[np.ndarray]:
        return self._run(self._model_for(sequences).smooth, sequences)

    def inverse_transform(self, X):
        """Word probabilities of given states: softmax(B s + b).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_components), or a collection of such
            States, as ``transform`` returns them.

        Returns
        -------
        ndarray of shape (n_steps, n_features), or a collection as X was
        """
        check_is_fitted(self)
        words = self._model().words
        return self._of_states(X, lambda states, _: words.probabilities(states))

    def smooth(self, X, *, groups=None, lengths=None) -> Posterior:
        """Smoothed moments of S_t given all of X, by the KL-optimal Gaussian.

        Means are within a few hundredths of a posterior standard deviation of the exact ones, and
        standard deviations within 5 % up to a signal of 2.5 (the size of B where the state has unit
        variance); they are 7 % too small at a signal of 4.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Posterior
            Named tuple (means, covariances, lag_one_covariances), each in the form of X;
            ``lag_one_covariances[t]`` is Cov(S_t, S_{t-1}), zero at the first step of a sequence.
        """
        sequences = self._check_X(X, groups, lengths)
        moments = self._smooth(sequences)
        return Posterior(*(sequences.like_input(values) for values in moments))

    def filter(self, X, *, groups=None, lengths=None) -> Moments:
        """Filtered moments of S_t given w_1..w_t, which do not look ahead, by moment matching.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Moments
            Named tuple (means (n_steps, n_components), covariances (n_steps, n_components,
            n_components)), each in the form of X.

        References
        ----------
        T. P. Minka (2001), "Expectation propagation for approximate Bayesian inference", UAI
        (assumed-density filtering).
        """
        sequences = self._check_X(X, groups, lengths)
        moments = self._run(self._model_for(sequences).filter, sequences)
        return Moments(*(sequences.like_input(values) for values in moments))

    def forecast(self, X, n_steps: int = 1, *, groups=None, lengths=None) -> ProbabilityForecast:
        """Word probabilities after the end of each sequence.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        n_steps : int, default=1
            How many steps ahead.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ProbabilityForecast
            Named tuple with `probabilities`, (n_steps, n_features), or (n_sequences, n_steps,
            n_features) for several sequences.  The state's uncertainty is integrated out.
        """
        n_steps = check_positive(n_steps, "n_steps")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        with limit_threads(sequences.n_steps):
            probabilities = model.forecast(*model.final(*sequences[:2]), n_steps)
        single = sequences.form == "flat" and sequences.n_sequences == 1
        return ProbabilityForecast(probabilities[0] if single else probabilities)

    # ---- scores

    def score_samples(self, X, *, groups=None, lengths=None):
        """Log-likelihood of each step given those before it, in nats.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps,), stacked or object array as X was
            By a filter that matches moments, so its sum is the log-likelihood only nearly, within
            tenths of a nat per hundred steps; ``score_sequences`` is unbiased.
        """
        return super().score_samples(X, groups=groups, lengths=lengths)

    def _step_scores(self, sequences: Sequences) -> np.ndarray:
        return self._run(self._model_for(sequences).step_scores, sequences)[0]

    def _sequence_scores(self, sequences: Sequences) -> np.ndarray:
        check_count(self, "n_particles", 0)  # may have been set after the fit
        model, seed = self._model_for(sequences), self._seed()

        def scores(X, offsets):
            return model.sequence_scores(X, offsets, self.n_particles, seed)

        return self._run(scores, sequences)[0]

    def _seed(self) -> int:
        """Of the particle filter: scores must not move a RandomState."""
        if self.random_state is None:
            return 0
        if isinstance(self.random_state, np.random.RandomState):
            return int(copy.deepcopy(self.random_state).randint(2**31 - 1))
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    # ---- draws

    def sample(
        self,
        n_samples: int = 1,
        n_words: int = 1,
        *,
        n_sequences: int | None = None,
        random_state=None,
    ):
        """Draw from the model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of steps of a sequence.
        n_words : int, default=1
            The number of words of a step.
        n_sequences : int, default=None
            How many sequences; None draws one, not in a list.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or list of such
            Counts.
        states : ndarray of shape (n_samples, n_components), or list of such
        """
        check_is_fitted(self)
        n_samples = check_positive(n_samples, "n_samples")
        n_words = check_positive(n_words, "n_words")
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        model = self._model()
        if n_sequences is None:
            return model.sample(n_samples, n_words, random_state)
        n_sequences = check_positive(n_sequences, "n_sequences")
        draws = [model.sample(n_samples, n_words, random_state) for _ in range(n_sequences)]
        return [X for X, _ in draws], [states for _, states in draws]

    def sample_posterior(
        self, X, n_draws: int = 1, random_state=None, *, groups=None, lengths=None
    ):
        """Draw hidden paths given X.

        By backward sampling through the particle filter of ``score``, which corrects the Gaussian
        posterior; with ``n_particles=0``, from the Gaussian itself.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_steps, n_features), or a collection of such
        n_draws : int, default=1
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_draws, n_steps, n_components)
            For a collection, stacked (n_sequences, n_draws, n_steps, n_components) or an object
            array of ``(n_draws, n_steps_i, n_components)`` as X was.

        References
        ----------
        S. J. Godsill, A. Doucet and M. West (2004), "Monte Carlo smoothing for nonlinear time
        series", J. American Statistical Association 99(465).
        """
        n_draws = check_positive(n_draws, "n_draws")
        check_count(self, "n_particles", 0)
        sequences = self._check_X(X, groups, lengths)
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        with limit_threads(sequences.n_steps):
            draws = self._model_for(sequences).sample_posterior(
                *sequences[:2], self.n_particles, n_draws, random_state
            )
        return sequences.like_input(draws, axis=1)


def _has_transitions(sequences: Sequences) -> bool:
    """Whether some step with words comes after another in its sequence."""
    return int(seen_rows(sequences.X).sum()) > n_seen(sequences)


def _gauge_is_free(held, given) -> bool:
    """Whether the state may be transformed without moving a fixed parameter."""
    for name, mask in held.items():
        if name == "observation_offset":
            continue
        value, whole = given[name], bool(np.all(mask))
        scalar = value.ndim == 2 and np.array_equal(value, value[0, 0] * np.eye(*value.shape))
        unmoved = {"transition_matrix": scalar, "initial_state_mean": not np.any(value)}
        if not whole or not unmoved.get(name, False):
            return False
    return True
