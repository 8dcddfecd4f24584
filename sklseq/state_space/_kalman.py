"""KalmanSmoother: the linear-Gaussian state-space model as an estimator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._base import unchanged_on_error
from sklseq._covariance import Floor, column_scale
from sklseq._em import expect, run_em
from sklseq._notices import warn
from sklseq._online import Stream, record_chunk
from sklseq._sequences import (
    Sequences,
    align_rows,
    flat_offsets,
    is_collection,
    limit_threads,
    map_rows,
    refuse_frame_output,
    refuse_overflow,
    warn_labels,
)
from sklseq._validation import (
    as_array,
    as_fitted,
    check_choice,
    check_fixed,
    check_parameter_array,
    check_positive,
    n_entries,
)
from sklseq.state_space._base import (
    BaseStateSpace,
    Forecast,
    at_stationary_start,
    check_covariance,
    check_observation_matrix,
    n_seen,
)
from sklseq.state_space._chain import SMALL, LinearGaussianChain, Moments, Posterior
from sklseq.state_space._gradient import Climb
from sklseq.state_space._innovations import Innovations, innovations
from sklseq.state_space._linear_gaussian import LinearGaussianModel, step_numbers
from sklseq.state_space._standard_errors import StandardErrors, standard_errors
from sklseq.state_space._start import data_driven, from_known_states, noise_for
from sklseq.state_space._ties import check_on_ties, split_ties, tied_directions
from sklseq.state_space._time_axis import (
    at_step,
    check_known,
    check_timed,
    make_observation,
    shaped_covariance,
)


class KalmanSmoother(BaseStateSpace):
    r"""Linear-Gaussian state-space model, learned by EM and smoothed exactly.

    .. math::
        S_1 \sim N(\mu_0, P_0), \quad S_t \sim N(A S_{t-1}, \Gamma), \quad
        X_t \sim N(B S_t + d, \Sigma)

    A hidden state moves linearly, and each step shows a noisy linear view of it.  A missing entry
    is NaN, in every method; sequences may be ragged.

    Parameters
    ----------
    n_components : int, default=1
        Number of state dimensions.
    observation_covariance_type : {"diag", "full", "spherical"}, default="diag"
        Of :math:`\Sigma`: features with their own noise, correlated noise, one variance.
    transition_covariance_type : {"full", "diag", "spherical"}, default="full"
        Of :math:`\Gamma`.
    initial_state : {"learn", "stationary", "diffuse"}, default="learn"
        "learn": :math:`\mu_0` from the data, and :math:`P_0` too where there are more sequences
        than state dimensions.  One sequence says next to nothing about it: :math:`P_0` then is the
        stationary covariance of the starting values, or 1e6 times the state's variance for a chain
        without one; unless fixed parameters or known states settle the state's units, it moves in
        proportion to :math:`\Gamma`.  "stationary": the stationary
        distribution, which moves with :math:`A` and
        :math:`\Gamma`.  "diffuse": mean 0 and 1e10 times the state's variance.
    inputs_to : {"state", "observation", "both"}, default="state"
        Where ``inputs`` enter: :math:`S_t = A S_{t-1} + B_u u_t` (:math:`u_1` is not used), or
        :math:`X_t = B S_t + d + D u_t`, or both: the input matrix then has the rows of :math:`B_u`
        and below them those of :math:`D`.  A mask in `fixed` keeps an input out of either.
    transition_matrix_init : array-like of shape (n_components, n_components), default=None
        Starting value of :math:`A`.  Every default comes from the data.
    transition_covariance_init : array-like, default=None
        Starting value of :math:`\Gamma`: a matrix, variances, or one variance.
    observation_matrix_init : array-like of shape (n_features, n_components), default=None
        Starting value of :math:`B`.
    observation_covariance_init : array-like, default=None
        Starting value of :math:`\Sigma`: a matrix, variances, or one variance.
    observation_offset_init : array-like of shape (n_features,), default=None
        Starting value of :math:`d`.
    initial_state_mean_init : array-like of shape (n_components,), default=None
        Starting value of :math:`\mu_0`.
    initial_state_covariance_init : array-like, default=None
        Starting value of :math:`P_0`: a matrix, variances, or one variance.
    input_matrix_init : array-like of shape (n_components or n_features, n_inputs), default=None
        Starting value of :math:`B_u` or :math:`D` (both: of n_components + n_features rows);
        default zero.
    fixed : str, tuple of str or dict of str -> bool mask or array of names, default=()
        Parameters held at their ``*_init`` (with ``warm_start`` where the last fit left them), by
        the names above without ``_init``; a mask holds single entries.  An array of
        names in the shape of :math:`A`, :math:`\Gamma`, :math:`B`,
        :math:`\Sigma` or :math:`d` ties entries: those of one name keep their ratios in ``*_init``
        (where all are 0 there: stay equal), and "" holds an entry.  ``[["c", "s"], ["s", "c"]]``
        with the start ``[[.9, .3], [-.3, .9]]`` is a cycle, ``[["q", ""], ["", "q"]]`` one
        variance.
    reg_covar : float, default=1e-6
        Floor under :math:`\Sigma`: in columns divided by their standard deviation (a constant
        column by 1), eigenvalues are at least this.  After a fit with known states likewise under
        :math:`\Gamma`, with a warning where it stands there.
    acceleration : {"squarem", None}, default="squarem"
        Extrapolate over pairs of EM steps, never accepting a fall, and end by quasi-Newton steps on
        the likelihood; None is plain EM.
    continues : bool, default=False
        After a fit on one sequence, a flat X goes on from its end instead of starting anew: every
        block of a ``TimeSeriesSplit`` does.
    max_iter : int, default=200
        The largest number of iterations, those of EM and the evaluations of the quasi-Newton
        steps.  Not counted are the passes that find the units and the curvature of these steps
        and those that try larger variances; ``n_iter_`` counts the steps that gained.
    tol : float, default=1e-6
        Stop when the log-likelihood gains less than this per step, in nats.
    learning_decay : float, default=0.7
        Of ``partial_fit``: chunk t is mixed in with weight t to the power of minus this, above 0.5
        and at most 1.  1 remembers all chunks alike; less forgets the first ones, which were seen
        with poor parameters.
    n_init : int, default=1
        Number of starting values: data-driven first, then perturbed at random.  The better half
        goes on after 10, 20, 40 ... iterations; the last one and the first are finished.
    n_jobs : int, default=None
        Threads over shards of whole sequences; None is one.  The result does not depend on it.
        Inside ``joblib.parallel_config`` the shards go to that backend.
    random_state : int, RandomState instance or None, default=None
        For further starting values and for sampling.
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 prints a line for each start, for every ten seconds and at the end; 2 for each iteration.

    Attributes
    ----------
    transition_matrix_ : ndarray of shape (n_components, n_components)
        :math:`A`; this and the next three have a time axis before where they were given one.
    transition_covariance_ : ndarray of shape (n_components, n_components)
        :math:`\Gamma`.
    observation_matrix_ : ndarray of shape (n_features, n_components)
        :math:`B`.
    observation_covariance_ : ndarray of shape (n_features, n_features)
        :math:`\Sigma`.
    observation_offset_ : ndarray of shape (n_features,)
        :math:`d`.
    initial_state_mean_ : ndarray of shape (n_components,)
        :math:`\mu_0`, of the first step of every sequence.
    initial_state_covariance_ : ndarray of shape (n_components, n_components)
        :math:`P_0`.
    input_matrix_ : ndarray of shape (n_components or n_features, n_inputs) or None
        :math:`B_u` or :math:`D`, or one above the other; None after a fit without inputs.
    n_iter_ : int
        Number of iterations of the best start.
    converged_ : bool
        Whether the likelihood is flat here: EM and its slope promise less than `tol`.
    log_likelihood_ : float
        Mean log-likelihood per step of the training data at the fitted parameters, in nats; after a
        fit with known states that of X and the states together.
    log_likelihoods_ : ndarray of shape (n_iter_ + 1,)
        The same at the start and after each iteration.
    objectives_ : ndarray of shape (n_iter_ + 1,)
        What EM raises and `tol` looks at; here the same.
    final_state_mean_ : ndarray of shape (n_components,) or None
        Filtered at the end of training; None after several sequences.
    final_state_covariance_ : ndarray of shape (n_components, n_components) or None
        Likewise.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had them.

    See Also
    --------
    sklseq.GaussianHMM : A hidden state that takes one of a few values.
    sklearn.decomposition.FactorAnalysis : The same model without order (:math:`A = 0`).

    Notes
    -----
    The state is only determined up to an invertible transformation.  After a fit in which nothing
    is fixed it is chosen so that :math:`\Gamma = I`, :math:`B'\Sigma^{-1}B` is diagonal and
    decreasing, and the largest loading of each state is positive; otherwise the parameters are left
    as EM found them.

    :math:`A`, :math:`\Gamma`, :math:`B` and :math:`\Sigma` may have a leading time axis, in
    ``*_init`` as in ``from_parameters``: irregular sampling, known regressors, sensors whose noise
    changes.  Entry t belongs to step t of every sequence (of a transition: leads into it), and no
    sequence may be longer.  ``fit`` takes what changes in time as known, so that it must be held by
    `fixed`; entries of :math:`A` or :math:`B` that a mask leaves free are learned, one value for
    all times.

    Under a vague start (a large :math:`P_0`) or perfect observations (a singular :math:`\Sigma`)
    the recursions switch to a square-root form by themselves, since smoothed covariances of the
    usual forms are then wrong and often negative.

    References
    ----------
    R. H. Shumway and D. S. Stoffer (1982), "An approach to time series smoothing and forecasting
    using the EM algorithm", J. Time Series Analysis 3(4).

    Z. Ghahramani and G. E. Hinton (1996), "Parameter estimation for linear dynamical systems",
    University of Toronto CRG-TR-96-2.

    J. Durbin and S. J. Koopman (2012), Time Series Analysis by State Space Methods.

    Examples
    --------
    >>> import numpy as np
    >>> from sklseq import KalmanSmoother
    >>> rng = np.random.default_rng(0)
    >>> level = np.cumsum(rng.normal(size=200))
    >>> X = (level + rng.normal(scale=2.0, size=200)).reshape(-1, 1)
    >>> X[50:60] = np.nan
    >>> smoother = KalmanSmoother().fit(X)
    >>> smoother.inverse_transform(smoother.transform(X)).shape
    (200, 1)
    >>> means, covariances = smoother.forecast(X, n_steps=3)
    >>> means.shape, covariances.shape
    ((3, 1), (3, 1, 1))
    """

    __metadata_request__fit = {"inputs": True, "states": True}
    __metadata_request__partial_fit = {"groups": True, "inputs": True, "states": True}
    __metadata_request__score = {"inputs": True}
    __metadata_request__predict = {"inputs": True}
    __metadata_request__transform = {"inputs": True}

    def __init__(
        self,
        n_components=1,
        *,
        observation_covariance_type="diag",
        transition_covariance_type="full",
        initial_state="learn",
        inputs_to="state",
        transition_matrix_init=None,
        transition_covariance_init=None,
        observation_matrix_init=None,
        observation_covariance_init=None,
        observation_offset_init=None,
        initial_state_mean_init=None,
        initial_state_covariance_init=None,
        input_matrix_init=None,
        fixed=(),
        reg_covar=1e-6,
        acceleration="squarem",
        continues=False,
        max_iter=200,
        tol=1e-6,
        learning_decay=0.7,
        n_init=1,
        n_jobs=None,
        random_state=None,
        warm_start=False,
        verbose=0,
    ):
        self.n_components = n_components
        self.observation_covariance_type = observation_covariance_type
        self.transition_covariance_type = transition_covariance_type
        self.initial_state = initial_state
        self.inputs_to = inputs_to
        self.transition_matrix_init = transition_matrix_init
        self.transition_covariance_init = transition_covariance_init
        self.observation_matrix_init = observation_matrix_init
        self.observation_covariance_init = observation_covariance_init
        self.observation_offset_init = observation_offset_init
        self.initial_state_mean_init = initial_state_mean_init
        self.initial_state_covariance_init = initial_state_covariance_init
        self.input_matrix_init = input_matrix_init
        self.fixed = fixed
        self.reg_covar = reg_covar
        self.acceleration = acceleration
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
        cls,
        *,
        transition_matrix,
        transition_covariance,
        observation_matrix,
        observation_covariance,
        observation_offset=0.0,
        initial_state_mean,
        initial_state_covariance,
        input_matrix=None,
        **params,
    ) -> KalmanSmoother:
        """A model with known parameters, ready to smooth, score, forecast and sample.

        Parameters
        ----------
        transition_matrix : array-like of shape (n_components, n_components), or \
                (n_times, n_components, n_components)
            With a time axis, for irregular sampling, entry t leads into step t of a sequence
            (entry 0 is not used) and no sequence may be longer than n_times.
        transition_covariance : array-like, of the same shape, or variances, or one variance
            Positive semi-definite; singular is allowed.
        observation_matrix : array-like of shape (n_features, n_components), or \
                (n_times, n_features, n_components)
            With a time axis, for known regressors, entry t is that of step t of a sequence.
        observation_covariance : array-like of shape (n_features, n_features), or (n_times, \
                n_features, n_features), or variances, or one variance
            Zero is allowed: a perfect observation.
        observation_offset : array-like of shape (n_features,) or float, default=0
        initial_state_mean : array-like of shape (n_components,)
        initial_state_covariance : array-like (n_components, n_components), or variances, or one
        input_matrix : array-like of shape (n_components or n_features, n_inputs), default=None
            By ``inputs_to``.
        **params
            Constructor parameters.

        Returns
        -------
        KalmanSmoother
            Counts as fitted.

        Raises
        ------
        ValueError
            Names the parameter, the rule and the value got.
        """
        if as_array(observation_matrix, "observation_matrix").ndim == 3:
            B = check_timed(observation_matrix, "observation_matrix", (None, None))
        else:
            B = check_observation_matrix(observation_matrix)
        p, d = B.shape[-2:]
        Sigma = check_timed(observation_covariance, "observation_covariance", (p, p))
        full = bool(np.any(Sigma[..., ~np.eye(p, dtype=bool)]))
        estimator = cls(
            d, **{"observation_covariance_type": "full" if full else "diag", **params}
        )
        estimator._check_parameters()
        estimator.transition_matrix_ = check_timed(transition_matrix, "transition_matrix", (d, d))
        estimator.transition_covariance_ = check_timed(
            transition_covariance, "transition_covariance", (d, d)
        )
        estimator.observation_matrix_ = B
        estimator.observation_covariance_ = Sigma
        offset = as_array(observation_offset, "observation_offset")
        offset = offset if offset.ndim else [observation_offset] * p
        estimator.observation_offset_ = check_parameter_array(offset, "observation_offset", (p,))
        estimator.initial_state_mean_ = check_parameter_array(
            initial_state_mean, "initial_state_mean", (d,)
        )
        estimator.initial_state_covariance_ = check_covariance(
            initial_state_covariance, "initial_state_covariance", d
        )
        estimator.n_features_in_ = p
        estimator.input_matrix_ = None
        if input_matrix is not None:
            estimator.input_matrix_ = check_parameter_array(
                input_matrix, "input_matrix", (estimator._input_rows(), None)
            )
        estimator._set_final(None)
        estimator._held, estimator._tied = {}, {}
        estimator._coordinates_known = False
        estimator._stream = None
        return estimator

    # ---- checks

    def _check_parameters(self) -> None:
        self._check_chain_parameters()
        check_choice(self, "observation_covariance_type", ("diag", "full", "spherical"))
        check_choice(self, "inputs_to", ("state", "observation", "both"))

    def _encode(self, sequences: Sequences, reset: bool) -> Sequences:
        refuse_overflow(sequences)
        return sequences

    def _input_rows(self) -> int:
        rows = {"state": self.n_components, "observation": self.n_features_in_}
        return rows.get(self.inputs_to, sum(rows.values()))

    def _split_inputs(self, matrix) -> tuple:
        """The rows of the state and those of the observation; None where there are none."""
        if matrix is None:
            return None, None
        n = {"state": len(matrix), "observation": 0}.get(self.inputs_to, self.n_components)
        return matrix[:n] if n else None, matrix[n:] if n < len(matrix) else None

    def _shapes(self, n_inputs: int) -> dict[str, tuple | None]:
        d, p = self.n_components, self.n_features_in_
        shapes = self._chain_shapes() | {
            "observation_matrix": (p, d),
            "observation_covariance": (p, p),
            "observation_offset": (p,),
        }
        if n_inputs:
            shapes["input_matrix"] = (self._input_rows(), n_inputs)
        return shapes

    def _given(self, name: str, shape: tuple) -> np.ndarray | None:
        value = getattr(self, f"{name}_init")
        return None if value is None else check_timed(value, f"{name}_init", shape)

    def _check(self, X, groups, lengths, inputs, *, y=None) -> Sequences:
        """X with its inputs, which a model fitted with inputs needs."""
        sequences = self._check_X(X, groups, lengths, y=y)
        return _with_inputs(sequences, inputs, self._n_inputs())

    def _n_inputs(self) -> int:
        return 0 if self.input_matrix_ is None else np.shape(self.input_matrix_)[-1]

    # ---- value <-> fitted attributes

    def _model(self) -> LinearGaussianModel:
        p, inputs = self.n_features_in_, self.input_matrix_
        if inputs is not None:
            inputs = as_fitted(self, "input_matrix_", (self._input_rows(), self._n_inputs()))
        to_state, to_observation = self._split_inputs(inputs)
        return LinearGaussianModel(
            replace(self._chain(times=True), input_matrix=to_state),
            make_observation(
                as_fitted(self, "observation_matrix_", (p, self.n_components), times=True),
                self._fitted_noise(),
                as_fitted(self, "observation_offset_", (p,)),
                self.observation_covariance_type,
                to_observation,
            ),
        )

    def _fitted_noise(self) -> np.ndarray:
        p = self.n_features_in_
        Sigma = as_fitted(self, "observation_covariance_", (p, p), "covariance", times=True)
        variances = Sigma.diagonal(axis1=-2, axis2=-1)
        correlated = np.count_nonzero(Sigma) > np.count_nonzero(variances)
        if correlated and self.observation_covariance_type != "full":
            raise ValueError(
                f"observation_covariance_type={self.observation_covariance_type!r}, but "
                "observation_covariance_ is not diagonal: fit again."
            )
        return Sigma

    def _model_for(self, sequences: Sequences) -> LinearGaussianModel:
        model = self._model()
        if self.continues and model.time_varying and sequences.form == "flat":
            trained = getattr(self, "_n_trained", 0)
            model.check_times(trained + 1, f"the {trained} steps of training and one more")
            model = model.from_step(trained)
        inputs = sequences.aligned[0] if model.chain.input_matrix is not None else None
        return replace(model, chain=self._continued(model.chain, sequences, inputs))

    def _set_model(self, model: LinearGaussianModel) -> None:
        self._set_chain(model.chain)
        observation = model.observation
        self.observation_matrix_ = observation.matrix
        self.observation_covariance_ = observation.covariance
        self.observation_offset_ = observation.offset
        inputs = model.chain.input_matrix, observation.input_matrix
        inputs = [matrix for matrix in inputs if matrix is not None]
        self.input_matrix_ = np.concatenate(inputs) if inputs else None

    # ---- learning

    def fit(self, X, y=None, *, inputs=None, states=None, groups=None, lengths=None):
        """Fit by the EM algorithm, and by the slope of the likelihood where EM is slow or blind.

        Coefficients of an equation without noise, which no M-step moves, are learned by the latter:
        regression with ARMA errors seen exactly, a moving average in the observation matrix, a
        deterministic trend.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            NaN is a missing entry.
        y : ignored
            For the scikit-learn interface.  Inputs go in by ``inputs=``.
        inputs : array-like of shape (n_steps, n_inputs), or a collection of such, default=None
            Known inputs, whose coefficients are learned; never missing.
        states : array-like of shape (n_steps, n_components), or a collection, default=None
            States known at training time (NaN: not known).  Where all are known the fit is a
            regression in closed form.  The state's coordinates are then theirs.
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
            For invalid parameters or input, and for data that the starting values exclude.

        Warns
        -----
        ConvergenceWarning
            ``max_iter`` was reached.

        References
        ----------
        Shumway and Stoffer (1982); Ghahramani and Hinton (1996); acceleration: R. Varadhan and
        C. Roland (2008), Scandinavian J. Statistics 35(2), scheme S3; slope: M. Segal and
        E. Weinstein (1989), IEEE Trans. Information Theory 35(3).
        """
        self._check_parameters()
        self._warn_forgotten()
        with unchanged_on_error(self):
            sequences = self._check_X(X, groups, lengths, y=y, reset=True)
            warn_labels(y, sequences, type(self).__name__)
            sequences = _with_inputs(sequences, inputs, None)
            self._fit(sequences, states)
        return self

    def partial_fit(
        self, X, y=None, *, inputs=None, states=None, groups=None, lengths=None
    ):
        """Learn from one more chunk of data, by stepwise EM.

        The first chunk is fitted as ``fit`` does, by ten iterations of each of `n_init` starting
        values.  Every later one is a step: its expected statistics are mixed with those before,
        with weight t^-learning_decay for chunk t, and the parameters follow.  A chunk weighs by its
        number of steps.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            Whole sequences; with ``continues=True`` a flat X goes on from the end of the last one.
        y : ignored
            For the scikit-learn interface.
        inputs, states, groups, lengths : array-like, default=None
            As in ``fit``.

        Returns
        -------
        self
            After a chunk that raises an error: as before it.

        Raises
        ------
        ValueError
            For what ``fit`` refuses, and for constructor parameters that ask for other shapes than
            the first chunk did.

        Notes
        -----
        What is taken from the data (the scale of the floor `reg_covar`, whether :math:`P_0` is
        learned) is that of the first chunk, which should be a fair sample.  ``log_likelihoods_``
        goes on with the mean log-likelihood of each chunk *before* it was learned from: a score of
        new data.

        ``fit`` counts as a first chunk, so that a stream can go on from it.

        References
        ----------
        O. Cappé and E. Moulines (2009), "On-line expectation-maximization algorithm for latent data
        models", JRSS B 71(3).
        """
        self._check_parameters()
        fitted = hasattr(self, "transition_matrix_")
        with unchanged_on_error(self):
            sequences = self._check_X(X, groups, lengths, y=y, reset=not fitted)
            if fitted:
                sequences = _with_inputs(sequences, inputs, self._n_inputs())
                self._learn_chunk(sequences, states)
            else:
                sequences = _with_inputs(sequences, inputs, None)
                self._fit(sequences, states, finish=False)
        return self

    def _fit(self, sequences: Sequences, states, *, finish: bool = True) -> None:
        n_inputs = sequences.aligned[0].shape[1] if sequences.aligned else 0
        if self.input_matrix_init is not None and not n_inputs:
            raise ValueError("input_matrix_init is for a fit with inputs: pass inputs=.")
        known_states = states is not None
        if known_states:
            sequences = _with_states(sequences, states, self.n_components)
        self._hold_fixed(n_inputs)
        starts = self._starts(sequences, n_inputs, known_states)
        if not finish:
            _warn_blind(starts[0])
        result = run_em(
            starts,
            sequences,
            max_iter=self.max_iter,
            tol=self.tol,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            name=type(self).__name__,
            acceleration=self.acceleration,
            finish=finish,
            climb=Climb(always=self.acceleration is not None),
        )
        result = result._replace(converged=finish and result.converged)
        self._set_result(result, sequences, known_states)

    def _hold_fixed(self, n_inputs: int) -> None:
        """What `fixed` holds and ties, kept: parameters may be set to others after the fit."""
        fixed, names = split_ties(self.fixed)
        self._held = check_fixed(self, self._shapes(n_inputs), fixed)
        self._tied = self._ties(names)

    def _learn_chunk(self, sequences: Sequences, states) -> None:
        model = self._warm_model(self._n_inputs())
        known_states = states is not None
        self._coordinates_known = self._coordinates_known or known_states
        rows = sequences
        if known_states:
            sequences = _with_states(sequences, states, self.n_components)
        stream = self._stream
        if stream is None:  # the first chunk of known parameters
            self._hold_fixed(self._n_inputs())
            check_on_ties(model.parameters(), self._tied)
            learner = self._learner(sequences, known_states)
            stream = Stream(replace(learner(model), known_states=False))  # a matter of the chunk
        model, statistics = stream.model.of_any_rows(stream.statistics)
        stream = stream._replace(model=model, statistics=statistics)
        alone = rows.form == "flat" and rows.n_sequences == 1
        goes_on = self.continues and alone and stream.end is not None
        if goes_on and model.time_varying:
            raise ValueError(
                "partial_fit with continues=True needs parameters without a time axis: every chunk "
                "would start at its entry 0."
            )
        if goes_on:
            model = model.continued(stream.end, *rows.aligned)
        _warn_blind(model)
        model = replace(model, known_states=known_states)
        with limit_threads(sequences.n_steps):
            statistics, log_likelihood = expect(model, sequences, self.n_jobs)
            if goes_on:
                statistics = (statistics[0].without_start(), statistics[1])
            stream = stream.learn(statistics, rows.n_steps, self.learning_decay)
            end = self._end_of(stream.model, rows) if self.continues else None
        stream = stream._replace(end=end)
        self._show(stream.model, rows)
        record_chunk(self, stream, log_likelihood, rows.n_steps)

    def _end_of(self, model: LinearGaussianModel, sequences: Sequences) -> Moments | None:
        """The filtered state at the end of the only sequence."""
        if sequences.n_sequences > 1:
            return None
        with limit_threads(sequences.n_steps):
            return model.final(*sequences[:2], *sequences.aligned)[0]

    def _show(self, model: LinearGaussianModel, sequences: Sequences) -> None:
        """Set the fitted attributes, in the coordinates that are shown."""
        if not self._held and not self._coordinates_known:
            model = model.normalised()
        self._set_model(model)
        self._set_final(self._end_of(model, sequences))
        self._n_trained = sequences.n_steps

    def _set_result(self, result, sequences: Sequences, known_states: bool) -> None:
        model = replace(result.model, known_states=False)
        self._coordinates_known = known_states
        if known_states:
            _warn_on_floor(model.chain)
            sequences = sequences._replace(aligned=sequences.aligned[:-1])
        self._show(model, sequences)
        end = self._end_of(model, sequences) if self.continues else None
        self._stream = Stream.after(result._replace(model=model), sequences.n_steps, end)
        self._learned_start = not np.any(
            model.chain.held.get("initial_state_covariance", False)
        )
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.objectives_ = np.array(result.objectives)
        self.log_likelihoods_ = np.array(result.log_likelihoods)
        self.log_likelihood_ = result.log_likelihoods[-1]

    def _starts(self, sequences, n_inputs, known_states) -> list[LinearGaussianModel]:
        learner = self._learner(sequences, known_states)
        if self.warm_start and hasattr(self, "transition_matrix_"):
            starts = [self._warm_model(n_inputs)]
            check_on_ties(starts[0].parameters(), self._tied)
        else:
            random_state = check_random_state(self.random_state)
            randoms = [None] + [random_state] * (self.n_init - 1)
            with limit_threads():
                starts = [
                    self._start(sequences, n_inputs, known_states, random) for random in randoms
                ]
        return [learner(start) for start in starts]

    def _learner(
        self, sequences, known_states
    ) -> Callable[[LinearGaussianModel], LinearGaussianModel]:
        """What gives a model all that only its M-step needs."""
        X, held = sequences.X, self._held
        learning = {
            "floor": Floor(column_scale(X), self.reg_covar),
            "partly_missing": _partly_missing(X),
            "held": {name: held[name] for name in _OBSERVATION_NAMES if name in held},
        }
        n_starts, floor = n_seen(sequences), None
        if known_states:  # starts known in part would let P0 shrink onto the others
            states = sequences.aligned[-1]
            n_starts = int(np.sum(~np.isnan(states[sequences.offsets[:-1]]).any(axis=1)))
            floor = Floor(column_scale(states), self.reg_covar)
        chain_held = self._chain_held(held, n_starts)
        self._hold_inputs(held, chain_held, learning["held"])
        tied = getattr(self, "_tied", {})  # a pickle of 0.1 has none
        learning["tied"] = {name: tied[name] for name in _OBSERVATION_NAMES if name in tied}
        chain_tied = {name: move for name, move in tied.items() if name not in _OBSERVATION_NAMES}

        def learner(start: LinearGaussianModel) -> LinearGaussianModel:
            chain = replace(start.chain, held=chain_held, tied=chain_tied, floor=floor)
            B_held = learning["held"].get("observation_matrix", False)
            settled = known_states or chain.settles_state(start.observation.matrix, B_held)
            observation = replace(start.observation, **learning).raised()
            check_known(LinearGaussianModel(chain, observation))
            return LinearGaussianModel(
                self._tied_start(chain, chain_held, settled), observation, known_states
            )

        return learner

    def _ties(self, names: dict) -> dict[str, np.ndarray]:
        """Directions of the parameters whose entries ``fixed`` ties by names."""
        shapes = self._shapes(0)
        return {
            name: tied_directions(
                name, one, self._given(name, shapes[name]), getattr(self, f"{name}_type", "full")
            )
            for name, one in names.items()
        }

    def _hold_inputs(self, held, *parts: dict) -> None:
        """The mask of the input matrix, to those whose rows it has."""
        for part, mask in zip(parts, self._split_inputs(held.get("input_matrix"))):
            if mask is not None:
                part["input_matrix"] = mask

    def _warm_model(self, n_inputs: int) -> LinearGaussianModel:
        n_states = len(self.initial_state_mean_)
        n_features = self.observation_matrix_.shape[-2]
        if n_states != self.n_components:
            raise ValueError(
                f"warm_start and partial_fit go on from {n_states} states, but n_components is "
                f"{self.n_components}."
            )
        if n_features != self.n_features_in_:
            raise ValueError(
                f"warm_start and partial_fit go on from {n_features} features, but X has "
                f"{self.n_features_in_}."
            )
        model = self._model()
        if self._n_inputs() != n_inputs:
            raise ValueError("warm_start needs the same number of inputs as the last fit.")
        if self.initial_state == "stationary":
            if model.chain.time_varying:
                return replace(model, chain=at_stationary_start(model.chain))  # says why not
            chain = model.chain.at_stationary_start()
            return replace(model, chain=model.chain if chain is None else chain)
        return model

    def _start(self, sequences, n_inputs, known_states, random_state) -> LinearGaussianModel:
        """Given values first, the rest from the data."""
        d, X, offsets = self.n_components, sequences.X, sequences.offsets
        shapes = self._shapes(n_inputs)
        given = {name: self._given(name, shape) for name, shape in shapes.items()}
        start = None
        if known_states:
            start = from_known_states(X, offsets, sequences.aligned[-1])
        if start is None:
            wanted = ("transition_matrix", "transition_covariance", *_OBSERVATION_NAMES)
            everything = all(given[name] is not None for name in wanted)
            start = {} if everything else data_driven(X, offsets, d, random_state)
        start |= {name: value for name, value in given.items() if value is not None}
        scaled = given["transition_matrix"] is not None or given["observation_matrix"] is not None
        noises = ("transition_covariance", "observation_covariance")
        if scaled and not known_states and any(given[name] is None for name in noises):
            # the state's scale is the user's: the noise must follow it
            found = noise_for(X, offsets, start["transition_matrix"], start["observation_matrix"])
            for name, covariance in zip(noises, found):
                if given[name] is None:
                    start[name] = covariance
        start = self._shaped_covariances(start, given)
        inputs = start.get("input_matrix")
        if n_inputs and inputs is None:
            inputs = np.zeros((self._input_rows(), n_inputs))
        to_state, to_observation = self._split_inputs(inputs)
        chain = self._start_chain(
            start["transition_matrix"], start["transition_covariance"],
            start["observation_matrix"], X, to_state,
        )  # fmt: skip
        observation = make_observation(
            start["observation_matrix"], start["observation_covariance"],
            start["observation_offset"], self.observation_covariance_type, to_observation,
        )  # fmt: skip
        return LinearGaussianModel(chain, observation)

    def _shaped_covariances(self, start: dict, given: dict) -> dict:
        """Starting covariances in the form that their types ask for."""
        for name in ("transition_covariance", "observation_covariance"):
            covariance, covariance_type = start[name], getattr(self, f"{name}_type")
            if given[name] is None and covariance_type != "full":
                covariance = np.diag(np.diag(covariance))
                if covariance_type == "spherical":
                    covariance = np.eye(len(covariance)) * np.diag(covariance).mean()
            start[name] = shaped_covariance(covariance, covariance_type, name)
        return start

    def _n_free_parameters(self) -> int:
        model = self._model()
        held = dict(self._held) | dict.fromkeys(
            (name for name in model.time_axes() if name not in self._held), np.array(True)
        )
        d = self.n_components
        observation_held = {name: held[name] for name in _OBSERVATION_NAMES if name in held}
        chain_held = {name: held[name] for name in self._chain_shapes() if name in held}
        if self.initial_state == "diffuse":
            chain_held["initial_state_mean"] = np.array(True)
        if not getattr(self, "_learned_start", True):
            chain_held["initial_state_covariance"] = np.array(True)
        self._hold_inputs(held, chain_held, observation_held)
        stationary = self.initial_state == "stationary"
        tied = getattr(self, "_tied", {})
        chain = replace(model.chain, held=chain_held, tied=tied, stationary=stationary)
        observation = replace(model.observation, held=observation_held, tied=tied)
        count = chain.n_free_parameters() + observation.n_free_parameters()
        if held:
            return count
        # any invertible transformation of the state leaves the likelihood as it is
        gauge = {"full": d * d, "diag": d * d - d * (d - 1) // 2,
                 "spherical": d * d - d * (d + 1) // 2 + 1}  # fmt: skip
        return count - gauge[self.transition_covariance_type]

    def fit_transform(
        self, X, y=None, *, inputs=None, states=None, groups=None, lengths=None
    ):
        """Fit, then transform the same data.

        Parameters
        ----------
        X, y, inputs, states, groups, lengths
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
            As of ``transform``.
        """
        fitted = self.fit(X, y, inputs=inputs, states=states, groups=groups, lengths=lengths)
        return fitted._anew().transform(X, inputs=inputs, groups=groups, lengths=lengths)

    def fit_predict(self, X, y=None, *, inputs=None, states=None, groups=None, lengths=None):
        """Fit, then predict the same data.

        Parameters
        ----------
        X, y, inputs, states, groups, lengths
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
            As of ``predict``.
        """
        fitted = self.fit(X, y, inputs=inputs, states=states, groups=groups, lengths=lengths)
        return fitted._anew().predict(X, inputs=inputs, groups=groups, lengths=lengths)

    # ---- inference

    def predict(self, X, *, inputs=None, groups=None, lengths=None):
        """The most probable states given all of X, which are the smoothed means.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs : array-like of shape (n_steps, n_inputs), or a collection, default=None
            Needed by a model fitted with inputs.
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step that contradicts the model.
        """
        sequences = self._check(X, groups, lengths, inputs)
        return sequences.like_input(self._smoothed_means(sequences))

    def transform(self, X, *, inputs=None, groups=None, lengths=None):
        """Smoothed state means E[S_t | x_1..x_n].

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        References
        ----------
        H. E. Rauch, F. Tung and C. T. Striebel (1965), AIAA Journal 3(8).
        """
        sequences = self._check(X, groups, lengths, inputs)
        if sequences.form != "flat":
            refuse_frame_output(self)
        return sequences.like_input(self._smoothed_means(sequences))

    def _smoothed_means(self, sequences: Sequences) -> np.ndarray:
        model = self._model_for(sequences)
        means, scores = self._run(model.smoothed_means, sequences)
        _refuse_impossible(model, sequences, scores)
        return means

    def inverse_transform(self, X, *, inputs=None, groups=None, lengths=None):
        """Expected observations of given states: B s + d (+ D u).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_components), or a collection of such
            States, as ``transform`` returns them.
        inputs : array-like of shape (n_steps, n_inputs), or a collection, default=None
            Needed by a model whose inputs go to the observation.
        groups, lengths : array-like, default=None
            As in ``predict``; they matter to an observation matrix with a time axis only.

        Returns
        -------
        ndarray of shape (n_steps, n_features), or a collection as X was
            Of ``transform(X)``: X without its noise, its gaps filled.
        """
        check_is_fitted(self)
        model = self._model()
        observation = model.observation
        if self.input_matrix_ is None and inputs is not None:
            raise ValueError("inputs is for models fitted with inputs; this one was not.")
        if observation.input_matrix is None:
            inputs = None
        elif inputs is None:
            raise ValueError("This model was fitted with inputs: pass inputs=.")
        if not observation.time_varying:
            return self._of_states(X, observation.expect, inputs)

        def expect(states, u):
            offsets = flat_offsets(len(states), groups, lengths)
            longest = int(np.diff(offsets).max())
            model.check_times(longest, f"the longest sequence ({longest} steps)")
            return observation.expect(states, u, step_numbers(offsets))

        if is_collection(X) and lengths is not None:
            raise ValueError("lengths goes with a flat 2-D X, not with a collection.")
        return self._of_states(X, expect, inputs)

    def filter(self, X, *, inputs=None, groups=None, lengths=None) -> Moments:
        """Filtered moments of S_t given x_1..x_t, which do not look ahead.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Moments
            Named tuple (means (n_steps, n_components), covariances (n_steps, n_components,
            n_components)), each in the form of X.

        References
        ----------
        R. E. Kalman (1960), J. Basic Engineering 82(1).
        """
        sequences = self._check(X, groups, lengths, inputs)
        model = self._model_for(sequences)
        means, covariances, scores = self._run(model.filter, sequences)
        _refuse_impossible(model, sequences, scores)
        return Moments(sequences.like_input(means), sequences.like_input(covariances))

    def smooth(self, X, *, inputs=None, groups=None, lengths=None) -> Posterior:
        """Smoothed moments of S_t given all of X.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Posterior
            Named tuple (means, covariances, lag_one_covariances), each in the form of X;
            ``lag_one_covariances[t]`` is Cov(S_t, S_{t-1}), zero at the first step of a sequence.
            Where nothing is missing, sequences of one length share their covariances: those of a
            collection are then read-only views of one array.
        """
        sequences = self._check(X, groups, lengths, inputs)
        model = self._model_for(sequences)
        n_lengths = len(np.unique(np.diff(sequences.offsets)))
        shared = sequences.form != "flat" and n_lengths < sequences.n_sequences
        if shared and not np.isnan(sequences.X).any():
            means, scores = self._run(model.smoothed_means, sequences)
            covariances = self._shared_covariances(model, sequences)
        else:
            with self._limit_threads(sequences):
                (means, *covariances), scores = model.smooth(
                    *sequences[:2], *sequences.aligned
                )
            covariances = [sequences.like_input(values) for values in covariances]
        _refuse_impossible(model, sequences, scores)
        return Posterior(sequences.like_input(means), *covariances)

    @staticmethod
    def _shared_covariances(model, sequences: Sequences) -> list:
        """Covariances and lag-one covariances of a complete collection, once for each length."""
        lengths, firsts, which = np.unique(
            np.diff(sequences.offsets), return_index=True, return_inverse=True
        )
        rows = np.concatenate(
            [np.arange(sequences.offsets[i], sequences.offsets[i + 1]) for i in firsts]
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
        aligned = tuple(np.ascontiguousarray(values[rows]) for values in sequences.aligned)
        posterior, _ = model.smooth(np.ascontiguousarray(sequences.X[rows]), offsets, *aligned)
        results = []
        for values in posterior[1:]:
            values.flags.writeable = False
            if sequences.form == "stacked":
                results.append(np.broadcast_to(values, (sequences.n_sequences, *values.shape)))
                continue
            parts = np.split(values, offsets[1:-1])
            result = np.empty(sequences.n_sequences, dtype=object)
            for i, length in enumerate(which.reshape(-1)):
                result[i] = parts[length]
            results.append(result)
        return results

    def forecast(
        self, X, n_steps: int = 1, *, inputs=None, future_inputs=None, groups=None, lengths=None
    ) -> Forecast:
        """Observations after the end of each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_steps : int, default=1
            How many steps ahead.
        inputs : array-like, default=None
            As in ``predict``.
        future_inputs : array-like of shape (n_steps, n_inputs), default=None
            Inputs of the steps ahead, for several sequences (n_sequences, n_steps, n_inputs).
            Needed by a model fitted with inputs.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Forecast
            Named tuple (means (n_steps, n_features), covariances (n_steps, n_features,
            n_features)), with n_sequences before for several sequences.  Observation noise is
            included: the square roots of the diagonals make prediction intervals.
        """
        n_steps = check_positive(n_steps, "n_steps")
        sequences = self._check(X, groups, lengths, inputs)
        model = self._model_for(sequences)
        with limit_threads(sequences.n_steps):
            states, scores = model.final(*sequences[:2], *sequences.aligned)
        _refuse_impossible(model, sequences, scores)
        single = sequences.form == "flat" and sequences.n_sequences == 1
        future = self._future_inputs(future_inputs, sequences.n_sequences, n_steps, single)
        lengths = np.diff(sequences.offsets)
        parts = [
            _ahead(model, mean, covariance, n_steps, int(length), u)
            for mean, covariance, length, u in zip(*states, lengths, future)
        ]
        means, covariances = (np.stack(values) for values in zip(*parts))
        return Forecast(means[0], covariances[0]) if single else Forecast(means, covariances)

    def _future_inputs(self, future, n_sequences, n_steps, single):
        if self.input_matrix_ is None:
            if future is not None:
                raise ValueError("future_inputs is for models fitted with inputs.")
            return [None] * n_sequences
        if future is None:
            raise ValueError("This model was fitted with inputs: forecast needs future_inputs=.")
        shape = (n_sequences, n_steps, self.input_matrix_.shape[1])
        future = as_array(future, "future_inputs", np.float64)
        return check_parameter_array(
            future[None] if single and future.ndim == 2 else future, "future_inputs", shape
        )

    def filter_update(
        self, mean, covariance, x, *, inputs=None, transition_matrix=None,
        transition_covariance=None, observation_matrix=None, observation_covariance=None,
    ) -> Moments:  # fmt: skip
        """One online step: from the filtered state of the last step to that of a new one.

        Parameters
        ----------
        mean : array-like of shape (n_components,), or None
            E[S_{t-1} | x_1..x_{t-1}]; None starts a sequence.
        covariance : array-like of shape (n_components, n_components), or None
            Cov(S_{t-1} | x_1..x_{t-1}).
        x : array-like of shape (n_features,)
            The new observation; NaN is a missing entry.
        inputs : array-like of shape (n_inputs,), default=None
            Needed by a model fitted with inputs.
        transition_matrix, transition_covariance : array-like, default=None
            Of the transition into this step, in place of the model's; of shapes (n_components,
            n_components), a covariance also as variances or one variance.  Needed where the model's
            have a time axis, except where the step starts a sequence.
        observation_matrix, observation_covariance : array-like, default=None
            Likewise of this step, of shapes (n_features, n_components) and (n_features,
            n_features).

        Returns
        -------
        Moments
            Named tuple (mean (n_components,), covariance (n_components, n_components)).
        """
        d = self.n_components
        if (mean is None) != (covariance is None):
            raise ValueError("mean and covariance go together: give both, or None for both.")
        u = None if inputs is None else as_array(inputs, "inputs", np.float64).reshape(1, -1)
        row = x if hasattr(x, "columns") or hasattr(x, "iloc") else as_array(x, "x").reshape(-1)
        sequences = _with_inputs(self._check_row(row), u, self._n_inputs())
        given = {
            "transition_matrix": transition_matrix,
            "transition_covariance": transition_covariance,
            "observation_matrix": observation_matrix,
            "observation_covariance": observation_covariance,
        }
        model = at_step(self._model(), mean is None, given)
        if mean is not None:
            moments = model.chain.predict(
                check_parameter_array(mean, "mean", (d,)),
                check_covariance(covariance, "covariance", d),
                u[0] if model.chain.input_matrix is not None else None,
            )
            chain = replace(model.chain, initial_mean=moments[0], initial_covariance=moments[1])
            model = replace(model, chain=chain)
        means, covariances, scores = model.filter(*sequences[:2], *sequences.aligned)
        _refuse_impossible(model, sequences, scores)
        return Moments(means[0], covariances[0])

    # ---- scores

    def score(
        self, X, y=None, sample_weight=None, *, inputs=None, groups=None, lengths=None
    ) -> float:
        """Mean log-likelihood per step, in nats.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        y : ignored
            For the scikit-learn interface.
        sample_weight : array-like of shape (n_samples,), default=None
            One weight per step (flat X) or per sequence (collection).
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        float
            A step without observations counts as a step, with log-likelihood 0.
        """
        return self._mean_score(self._check(X, groups, lengths, inputs, y=y), sample_weight)

    def score_samples(self, X, *, inputs=None, groups=None, lengths=None):
        """Log-likelihood of each step given those before it, log p(x_t | x_1..x_{t-1}), in nats.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps,), stacked or object array as X was
            Its sum is the log-likelihood; 0 for a step without observations.
        """
        sequences = self._check(X, groups, lengths, inputs)
        with self._limit_threads(sequences):
            return sequences.like_input(self._step_scores(sequences))

    def score_sequences(self, X, *, inputs=None, groups=None, lengths=None) -> np.ndarray:
        """Log-likelihood of each sequence, in nats.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_sequences,)
        """
        sequences = self._check(X, groups, lengths, inputs)
        with self._limit_threads(sequences):
            return self._sequence_scores(sequences)

    def _limit_threads(self, sequences: Sequences):
        if max(self.n_components, self.n_features_in_) <= SMALL:  # plain loops, no BLAS
            return nullcontext()
        return limit_threads(sequences.n_steps)

    def _step_scores(self, sequences: Sequences) -> np.ndarray:
        model = self._model_for(sequences)
        scores = map_rows(lambda *shard: model.step_scores(*shard)[:1], sequences, self.n_jobs)
        _refuse_overflow(model, sequences, scores[0])
        return scores[0]

    def _sequence_scores(self, sequences: Sequences) -> np.ndarray:
        model = self._model_for(sequences)
        scores = map_rows(model.sequence_scores, sequences, self.n_jobs)[0]
        _refuse_overflow(model, sequences, scores)
        return scores

    # ---- the fit, and how it fits

    def standard_errors(self, X, *, inputs=None, groups=None, lengths=None) -> StandardErrors:
        r"""Standard errors of the parameters, from the observed information.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            The training data.
        inputs, groups, lengths : array-like, default=None
            As in ``fit``.

        Returns
        -------
        StandardErrors
            Named tuple with an array for each fitted parameter, in its shape (without a time axis)
            and under its name without the underscore.  0 for what is fixed or was not learned; NaN
            for variances at the edge of what is possible, which count as known for the others.

        Raises
        ------
        ValueError
            If X is impossible (names the sequence and the step), or if the observed information is
            not positive definite: the parameters are not at a maximum of the likelihood, or X does
            not identify them.

        Warns
        -----
        ConvergenceWarning
            The likelihood of X has its maximum elsewhere (a smaller ``tol`` is needed, or X is not
            the training data), or variances are at the edge.

        Notes
        -----
        The information is taken by differences of the exact log-likelihood in the parameters
        themselves; what moves with others (a stationary :math:`P_0`) is by the delta method.  Where
        nothing is fixed the errors are those within the coordinates that ``fit`` chooses: none of
        :math:`\Gamma = I`, and :math:`B'\Sigma^{-1}B` stays diagonal.

        References
        ----------
        A. C. Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter,
        sec. 3.4.
        """
        sequences = self._check(X, groups, lengths, inputs)
        if not hasattr(self, "_learned_start"):
            raise ValueError(
                "standard_errors needs a model that was fitted: from_parameters does not say which "
                "parameters are estimates."
            )
        model = self._learner(sequences, False)(self._warm_model(self._n_inputs()))
        scores = self._run(model.sequence_scores, sequences)[0]
        if not np.all(np.isfinite(scores)):
            raise ValueError(f"No standard errors: {model.why_impossible(sequences)}")
        gauge = not self._held and not self._coordinates_known
        with self._limit_threads(sequences):
            return standard_errors(model, sequences, self.n_jobs, gauge=gauge)

    def innovations(self, X, *, inputs=None, groups=None, lengths=None) -> Innovations:
        """What each step brought that those before did not say, for checking a fit.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Innovations
            Named tuple, each in the form of X: `raw` (n_steps, n_features), x_t - E[x_t |
            x_1..x_{t-1}], NaN where x is missing; `covariances` (n_steps, n_features, n_features)
            of x_t given those before, also where it is missing; `standardised` (n_steps,
            n_features), independent and standard normal if the model is right, each feature given
            those before it in its row; NaN where x is missing, 0 where it was certain.

        Raises
        ------
        ValueError
            Names the sequence and the step that contradicts the model.

        References
        ----------
        J. Durbin and S. J. Koopman (2012), secs. 2.12 and 7.5.
        """
        sequences = self._check(X, groups, lengths, inputs)
        model = self._model_for(sequences)
        means, covariances, scores = self._run(model.filter, sequences)
        _refuse_impossible(model, sequences, scores)
        values = innovations(model, means, covariances, *sequences[:2], *sequences.aligned)
        return Innovations(*(sequences.like_input(value) for value in values))

    def aic(self, X, *, inputs=None, groups=None, lengths=None) -> float:
        """Akaike's information criterion on X (lower is better).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        float
            Fixed parameters and the freedom to transform the state are not counted.
        """
        return self._criterion(self._check(X, groups, lengths, inputs), 2.0)

    def bic(self, X, *, inputs=None, groups=None, lengths=None) -> float:
        """Bayesian information criterion on X (lower is better).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        float
            Fixed parameters and the freedom to transform the state are not counted.
        """
        sequences = self._check(X, groups, lengths, inputs)
        return self._criterion(sequences, np.log(sequences.n_steps))

    # ---- draws

    def sample(
        self, n_samples: int = 1, *, n_sequences: int | None = None, inputs=None, random_state=None
    ):
        """Draw from the model.

        Parameters
        ----------
        n_samples : int, default=1
            The number of steps of a sequence.
        n_sequences : int, default=None
            How many sequences; None draws one, not in a list.
        inputs : array-like of shape (n_samples, n_inputs), default=None
            Needed by a model fitted with inputs; the same for every sequence.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or list of such
        states : ndarray of shape (n_samples, n_components), or list of such
        """
        check_is_fitted(self)
        n_samples = check_positive(n_samples, "n_samples")
        u = _check_inputs(inputs, n_samples, self._n_inputs())
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        model = self._model()
        model.check_times(n_samples, f"the {n_samples} steps asked for")
        if n_sequences is None:
            return model.sample(n_samples, random_state, *u)
        n_sequences = check_positive(n_sequences, "n_sequences")
        draws = [model.sample(n_samples, random_state, *u) for _ in range(n_sequences)]
        return [X for X, _ in draws], [states for _, states in draws]

    def sample_posterior(
        self, X, n_draws: int = 1, random_state=None, *, inputs=None, groups=None, lengths=None
    ):
        """Draw hidden paths given X: a simulation smoother.

        A path and its observations are drawn from the model, and the path is corrected by the
        smoothed mean of what separates them from X.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_draws : int, default=1
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.
        inputs, groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_draws, n_steps, n_components)
            For a collection, stacked (n_sequences, n_draws, n_steps, n_components) or an object
            array of ``(n_draws, n_steps_i, n_components)`` as X was.

        References
        ----------
        J. Durbin and S. J. Koopman (2002), "A simple and efficient simulation smoother for state
        space time series analysis", Biometrika 89(3).
        """
        n_draws = check_positive(n_draws, "n_draws")
        sequences = self._check(X, groups, lengths, inputs)
        model = self._model_for(sequences)
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        means, scores = self._run(model.smoothed_means, sequences)
        _refuse_impossible(model, sequences, scores)
        with limit_threads(sequences.n_steps):
            deviations = model.sample_deviations(*sequences[:2], n_draws, random_state)
        return sequences.like_input(means + deviations, axis=1)


_OBSERVATION_NAMES = ("observation_matrix", "observation_covariance", "observation_offset")


def _refuse_impossible(model, sequences: Sequences, scores) -> None:
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"No state: {model.why_impossible(sequences)}")


def _refuse_overflow(model, sequences: Sequences, scores) -> None:
    """-inf is the score of what is impossible, NaN of a state beyond floating point."""
    if np.isnan(scores).any():
        raise ValueError(f"No score: {model.why_impossible(sequences)}")


def _check_inputs(inputs, n_steps: int, n_inputs: int) -> tuple:
    if not n_inputs:
        if inputs is not None:
            raise ValueError("inputs is for models fitted with inputs; this one was not.")
        return ()
    if inputs is None:
        raise ValueError("This model was fitted with inputs: pass inputs=.")
    return (check_parameter_array(inputs, "inputs", (n_steps, n_inputs)),)


def _with_inputs(sequences: Sequences, inputs, n_inputs: int | None) -> Sequences:
    """Sequences with the inputs beside them; `n_inputs` None takes any number, 0 none."""
    if n_inputs == 0 and inputs is not None:
        raise ValueError("inputs is for models fitted with inputs; this one was not.")
    if inputs is None:
        if n_inputs:
            raise ValueError("This model was fitted with inputs: pass inputs=.")
        return sequences
    if n_inputs is None:
        if n_entries(inputs, "inputs") == 0:
            raise ValueError("inputs is empty: one row for each step of X is required.")
        first = inputs if sequences.form == "flat" else next(iter(inputs))
        shape = first.shape if hasattr(first, "shape") else as_array(first, "inputs").shape
        n_inputs = shape[1] if len(shape) == 2 else 1
    inputs = align_rows(sequences, inputs, "inputs", dtype=np.float64, n_columns=n_inputs)
    if np.isnan(inputs).any():
        raise ValueError(
            f"inputs must be known at every step: NaN at row {np.argwhere(np.isnan(inputs))[0][0]}."
        )
    refuse_overflow(sequences, inputs, "inputs")
    return sequences._replace(aligned=(*sequences.aligned, np.ascontiguousarray(inputs)))


def _with_states(sequences: Sequences, states, d: int) -> Sequences:
    states = align_rows(sequences, states, "states", dtype=np.float64, n_columns=d)
    refuse_overflow(sequences, states, "states")
    return sequences._replace(aligned=(*sequences.aligned, np.ascontiguousarray(states)))


def _warn_blind(model: LinearGaussianModel) -> None:
    """Of steps of stepwise EM, which have nothing else."""
    told = model.chain.tell_blind() or model.observation.tell_blind()
    if told:
        warn(
            f"{told} fit climbs the likelihood there, partial_fit does not.", ConvergenceWarning,
            stacklevel=4,
        )  # fmt: skip


def _warn_on_floor(chain: LinearGaussianChain) -> None:
    floor = chain.floor
    if floor is None or np.any(chain.held.get("transition_covariance", False)):
        return
    scaled = chain.transition_covariance / np.outer(floor.scale, floor.scale)
    if np.linalg.eigvalsh(scaled)[0] > floor.reg_covar * (1 + 1e-6):
        return
    warn(
        "transition_covariance_ stands on its floor, reg_covar in units of the known states: some "
        "combination of them follows without noise from those before, or there are few "
        "transitions for so many states.",
        ConvergenceWarning,
        stacklevel=4,
    )


def _partly_missing(X) -> bool:
    missing = np.isnan(X)
    return bool(np.any(missing.any(axis=1) & ~missing.all(axis=1)))


def _ahead(model: LinearGaussianModel, mean, covariance, n_steps: int, length: int, inputs):
    """Moments of the observations of the steps after `length`."""
    last = length + n_steps
    model.check_times(last, f"the {last} steps ({length} of a sequence, {n_steps} ahead)")
    chain = model.chain
    to_state = chain.input_matrix is not None
    p = model.observation.matrix.shape[-2]
    means, covariances = np.empty((n_steps, p)), np.empty((n_steps, p, p))
    for i in range(n_steps):
        u = None if inputs is None else inputs[i]
        mean, covariance = chain.predict(mean, covariance, u if to_state else None, length + i)
        observation = model.observation.at(length + i)
        B = observation.matrix
        means[i] = observation.expect(mean, None if observation.input_matrix is None else u)
        covariances[i] = B @ covariance @ B.T + observation.covariance
    return means, (covariances + np.swapaxes(covariances, 1, 2)) / 2
