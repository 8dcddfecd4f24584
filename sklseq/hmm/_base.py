"""BaseHMM: the scikit-learn face of every hidden Markov model."""

from __future__ import annotations

from abc import abstractmethod
from collections import namedtuple
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Integral

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklseq._base import BaseSequenceModel, UndefinedError, unchanged_on_error
from sklseq._em import EMResult, expect, run_em
from sklseq._notices import warn
from sklseq._online import Stream, record_chunk
from sklseq._sequences import (
    Sequences,
    align_rows,
    limit_threads,
    map_rows,
    refuse_frame_output,
    warn_labels,
)
from sklseq._validation import (
    as_array,
    as_fitted,
    check_choice,
    check_concentration,
    check_em_parameters,
    check_fixed,
    check_positive,
    check_probabilities,
    check_quantiles,
    check_real,
)
from sklseq.hmm._chain import (
    HMM,
    Emission,
    Messages,
    starved_states,
    stationary_distribution,
)
from sklseq.hmm._residuals import PseudoResiduals, pseudo_residuals
from sklseq.hmm._standard_errors import standard_errors
from sklseq.hmm._start import (
    is_left_right,
    label_rows,
    nearest_labels,
    part_states,
    random_transmat,
    segment_labels,
    tied_states,
    transmat_of_labels,
    with_known_labels,
)

SMALL_MATRIX = 32  # columns up to which BLAS stays on one thread by itself


class BaseHMM(BaseSequenceModel):
    """Everything but the emission: a family adds `_init_emission`, `_emission` and `_set_emission`.

    Parameters are described in the families, since scikit-learn wants them in their ``__init__``.
    """

    __metadata_request__predict_proba = {"groups": True}
    __metadata_request__fit = {"groups": True, "states": True}
    __metadata_request__partial_fit = {"groups": True, "states": True}

    # ---- what a family says

    @abstractmethod
    def _emission_shapes(self) -> dict[str, tuple | None]:
        """Names of the emission's parameters that may be given and fixed, with their shapes.

        None for a shape: the parameter can only be fixed as a whole.
        """

    @abstractmethod
    def _init_emission(self, sequences, labels, random_state) -> Emission:
        """Starting value from rough state labels (n_steps,); given ``*_init`` take precedence."""

    @abstractmethod
    def _learning(self, sequences, held) -> dict:
        """Fields of the emission that only its M-step needs."""

    @abstractmethod
    def _emission(self) -> Emission:
        """The fitted emission, rebuilt from the public attributes."""

    @abstractmethod
    def _set_emission(self, emission: Emission) -> None:
        """Store the fitted emission as public attributes."""

    def _rows_to_cluster(self, sequences: Sequences) -> np.ndarray | None:
        """Rows on a scale where k-means makes sense, or None where there is none."""
        return sequences.X

    _splits_rows = False  # whether one start splits the rows in scales of their own

    def _given_places(self) -> np.ndarray | None:
        """Where ``*_init`` puts the states among the rows to cluster, (K, M, n_columns)."""
        return None

    # ---- value <-> fitted attributes

    def _set_fitted(self, model: HMM) -> None:
        self.startprob_ = model.startprob
        self.transmat_ = model.transmat
        self._set_emission(model.emission)

    def _model(self) -> HMM:
        n_states = self.n_components
        return HMM(
            as_fitted(self, "startprob_", (n_states,), "probabilities"),
            as_fitted(self, "transmat_", (n_states, n_states), "probabilities"),
            self._emission(),
            self.initial_state == "stationary",
        )

    def _model_for(self, sequences: Sequences) -> HMM:
        """The model, started where training ended if ``continues`` says so."""
        model = self._model()
        if not self.continues:
            return model
        if getattr(self, "final_stateprob_", None) is None:
            raise ValueError(
                "continues=True needs a model fitted on one sequence, whose end it goes on from; "
                "this one was not."
            )
        if sequences.form != "flat" or sequences.n_sequences > 1:
            return model
        end = as_fitted(self, "final_stateprob_", model.startprob.shape, "probabilities")
        return replace(model, startprob=end @ model.transmat)

    # ---- learning

    def fit(self, X, y=None, *, groups=None, lengths=None, states=None):
        """Fit by the EM algorithm (Baum-Welch), or by counting where all states are known.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            NaN is a missing observation.
        y : ignored
            For the scikit-learn interface.
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.
        states : array-like of int of shape (n_steps,), or one such for each sequence, default=None
            Known hidden states, -1 where unknown; scikit-learn's cross-validation cuts them with X.
            The likelihood is then that of X and the known states.  Where all are known (and no
            other thing is hidden, as mixture components are) the fit is relative frequencies: one
            M-step, no iteration, no random start.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For invalid parameters or input, and for a sequence that has probability zero under the
            starting values.

        Warns
        -----
        ConvergenceWarning
            ``max_iter`` was reached, a state has no data, states start alike and cannot be parted,
            a covariance stands on its floor, or X has fewer values than there are free parameters.
        UserWarning
            `y` looks like labels of the steps, which `states` is for.

        References
        ----------
        L. R. Rabiner (1989), "A tutorial on hidden Markov models and selected applications in
        speech recognition", Proc. IEEE 77(2), sec. III.
        """
        self._check_parameters()
        self._warn_forgotten()
        warm = self.warm_start and hasattr(self, "startprob_")  # goes on: the same columns, codes
        with unchanged_on_error(self):
            if not warm:
                vars(self).pop("_support", None)
            sequences = self._check_training(X, y, groups, lengths, states, reset=not warm)
            self._set_result(self._run_em(sequences), sequences)
        return self

    def partial_fit(self, X, y=None, *, groups=None, lengths=None, states=None):
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
        groups, lengths, states : array-like, default=None
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
        What is taken from the data (the scale of the floor `reg_covar`, priors that are not given)
        is that of the first chunk, which should be a fair sample; so are the other constructor
        parameters of learning (`fixed`, priors, `initial_state` and the like): set later, they are
        not looked at.  Priors count against all steps
        seen, those of repeated passes too.  ``log_likelihoods_`` goes on with the mean
        log-likelihood of each chunk *before* it was learned from: a score of new data.

        ``fit`` counts as a first chunk, so that a stream can go on from it.

        References
        ----------
        O. Cappé and E. Moulines (2009), "On-line expectation-maximization algorithm for latent data
        models", JRSS B 71(3).  P. Liang and D. Klein (2009), "Online EM for unsupervised models",
        NAACL.
        """
        self._check_parameters()
        fitted = hasattr(self, "startprob_")
        with unchanged_on_error(self):
            sequences = self._check_training(X, y, groups, lengths, states, reset=not fitted)
            if fitted:
                self._learn_chunk(sequences)
            else:
                self._set_result(self._run_em(sequences, finish=False), sequences)
        return self

    def _learn_chunk(self, sequences: Sequences) -> None:
        model = self._warm_model()
        stream = getattr(self, "_stream", None) or Stream(self._learner(sequences)(model))
        model = stream.model
        self._support = self._support_of(model)
        alone = sequences.form == "flat" and sequences.n_sequences == 1
        goes_on = self.continues and alone and stream.end is not None
        if goes_on:
            model = replace(model, startprob=stream.end @ model.transmat)
        with limit_threads(sequences.n_steps):
            statistics, log_likelihood = expect(model, sequences, self.n_jobs)
        if goes_on:  # this was no start
            statistics = statistics._replace(starts=np.zeros_like(statistics.starts))
        self.final_stateprob_ = statistics.ends if sequences.n_sequences == 1 else None
        stream = stream.learn(statistics, sequences.n_steps, self.learning_decay)
        stream = stream._replace(end=self.final_stateprob_)
        self._set_fitted(stream.model)
        record_chunk(self, stream, log_likelihood, sequences.n_steps)

    def _check_training(self, X, y, groups, lengths, states, *, reset: bool) -> Sequences:
        sequences = self._check_X(X, groups, lengths, y=y, reset=reset)
        if states is None:
            advice = " Known states are given as states= (integers from 0 on, -1 where unknown)."
            warn_labels(y, sequences, type(self).__name__, advice)
            return sequences
        return sequences._replace(aligned=(self._check_states(states, sequences),))

    def _run_em(self, sequences: Sequences, *, finish: bool = True) -> EMResult:
        starts, counted = self._starts(sequences), False
        self._support = self._support_of(starts[0])
        if _nothing_hidden(sequences, starts[0]):
            with limit_threads(sequences.n_steps):
                starts = [starts[0].m_step(expect(starts[0], sequences, self.n_jobs)[0])]
            counted = True
        result = run_em(
            starts,
            sequences,
            max_iter=0 if counted else self.max_iter,
            tol=self.tol,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            name=type(self).__name__,
            finish=finish,
        )
        return result._replace(converged=counted or (finish and result.converged))

    def _check_states(self, states, sequences: Sequences) -> np.ndarray:
        values = align_rows(sequences, states, "states", dtype=np.float64)
        valid = (values >= -1) & (values < self.n_components) & (values == np.floor(values))
        if not valid.all():
            row = int(np.argmin(valid))
            raise ValueError(
                f"states must be integers from 0 to {self.n_components - 1}, or -1 where unknown, "
                f"got {values[row]:g} at row {row}."
            )
        return values.astype(np.intp)

    def _set_result(self, result: EMResult, sequences: Sequences) -> None:
        self._set_fitted(result.model)
        self.n_iter_ = result.n_iter
        self.converged_ = result.converged
        self.objectives_ = np.array(result.objectives)
        self.log_likelihoods_ = np.array(result.log_likelihoods)
        self.log_likelihood_ = result.log_likelihoods[-1]
        self.final_stateprob_ = None
        if sequences.n_sequences == 1:
            self.final_stateprob_ = result.statistics.ends  # smoothed is filtered at the end
        self._stream = Stream.after(result, sequences.n_steps, self.final_stateprob_)
        _warn_floor(result.model)
        self._warn_few_data(sequences)
        starved = starved_states(result.statistics)
        if len(starved):
            warn(
                f"No step belongs to state {', '.join(map(str, starved))} of {type(self).__name__}"
                ": it keeps its parameters, or has those of its prior. Fewer states or other "
                "starting values would use the data better.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _warn_few_data(self, sequences: Sequences) -> None:
        n_free, X = self._n_free_parameters(), sequences.X
        n_values = X.size - int(np.isnan(X).sum() if X.dtype.kind == "f" else (X < 0).sum())
        few_rows = self.n_components > sequences.n_steps
        if n_free <= n_values and not few_rows:
            return
        warn(
            f"{type(self).__name__} has {n_free} free parameters in {self.n_components} states, X "
            f"has {n_values} values in {sequences.n_steps} rows: the fit says more about the "
            "start than about the data. Fewer states, parameters that are fixed, or more data.",
            ConvergenceWarning,
            stacklevel=4,
        )

    def _check_parameters(self) -> None:
        check_em_parameters(self)
        check_choice(self, "initial_state", ("learn", "stationary"))
        check_choice(self, "algorithm", ("viterbi", "map"))
        if self.initial_state == "stationary" and self.startprob_init is not None:
            raise ValueError(
                "initial_state='stationary' takes the start distribution from transmat, so "
                f"startprob_init must be None, got {self.startprob_init!r}."
            )
        self._pseudo_counts()

    def _pseudo_counts(self) -> dict[str, np.ndarray]:
        """The counts that the Dirichlet priors of the chain add; none by default."""
        n_states = self.n_components
        stickiness = check_real(self, "stickiness", 0.0)
        counts = {}
        if self.startprob_prior is not None:
            if self.initial_state == "stationary":
                raise ValueError(
                    "startprob_prior needs initial_state='learn': a stationary start is a function "
                    "of transmat, whose prior is transmat_prior."
                )
            concentration = check_concentration(
                self.startprob_prior, "startprob_prior", (n_states,)
            )
            counts["startprob"] = concentration - 1.0
        if self.transmat_prior is not None or stickiness:
            concentration = check_concentration(
                self.transmat_prior, "transmat_prior", (n_states, n_states)
            )
            counts["transmat"] = concentration - 1.0 + stickiness * np.eye(n_states)
        return counts

    def _shapes(self) -> dict[str, tuple | None]:
        n_states = self.n_components
        chain = {"startprob": (n_states,), "transmat": (n_states, n_states)}
        return chain | self._emission_shapes()

    def _starts(self, sequences: Sequences) -> list[HMM]:
        """Starting values: k-means (or the parts of a left-right model) first, then random rows.

        One where nothing is left to chance.
        """
        learner = self._learner(sequences)
        random_state = check_random_state(self.random_state)
        if self.warm_start and hasattr(self, "startprob_"):
            start = learner(self._warm_model())
            return [self._part(start, sequences, random_state, "kmeans", free_chain=False)]
        n_init = 1 if self._all_given() else self.n_init
        seeds = random_state.randint(np.iinfo(np.int32).max, size=n_init)
        ways = ["kmeans", "split" if self._splits_rows else "random"] + ["random"] * n_init
        starts = []
        with nullcontext() if self._all_given() else limit_threads():
            for seed, way in zip(seeds, ways):
                start_state = np.random.RandomState(seed)
                start = learner(self._start(sequences, start_state, way))
                if _nothing_hidden(sequences, start):
                    return [start]  # counting does not depend on where it starts
                free = self.transmat_init is None
                starts.append(self._part(start, sequences, start_state, way, free_chain=free))
        _warn_tied(starts[0])
        return starts

    def _part(
        self, model: HMM, sequences: Sequences, random_state, way: str, *, free_chain: bool
    ) -> HMM:
        """The start with states that are alike in everything parted by the data.

        Between them EM is at a saddle point, which it does not leave.
        """
        known = sequences.aligned[0] if sequences.aligned else ()
        X, n_states = sequences.X, model.n_components
        for tied in tied_states(model, free_chain):
            states = np.setdiff1d(tied, known)  # known rows part the others
            if len(states) < 2:
                continue
            if len(tied) == n_states:
                weights = np.full((len(X), n_states), 1.0 / n_states)
            else:
                weights = model.posteriors(X, sequences.offsets)[0]
            rows = self._rows_to_cluster(sequences)
            parted = part_states(model.emission, X, rows, weights, states, random_state, way)
            if parted is None:
                continue
            emission, weights = parted
            model = replace(model, emission=emission)
            if free_chain and rows is not None:
                labels = weights.argmax(axis=1)
                transmat = transmat_of_labels(labels, sequences.offsets, n_states)
                start = stationary_distribution(transmat) if model.stationary else model.startprob
                model = replace(model, transmat=transmat, startprob=start)
        return replace(model, emission=model.emission.parted_within(X, random_state, way))

    def _learner(self, sequences: Sequences) -> Callable[[HMM], HMM]:
        """What gives a model all that only its M-step needs."""
        held = check_fixed(self, self._shapes())
        learning = self._learning(sequences, held)
        pseudo_counts = self._pseudo_counts()

        def learner(model: HMM) -> HMM:
            emission = replace(model.emission, **learning).admissible()
            return replace(model, held=held, pseudo_counts=pseudo_counts, emission=emission)

        return learner

    def _all_given(self) -> bool:
        """Whether nothing of the starting values is left to chance."""
        names = set(self._shapes())
        if self.initial_state == "stationary":
            names.remove("startprob")
        return all(getattr(self, f"{name}_init") is not None for name in names)

    def _warm_model(self) -> HMM:
        for name, shape in self._shapes().items():
            fitted = np.shape(getattr(self, f"{name}_")) if shape is not None else None
            if fitted != shape:
                raise ValueError(
                    f"warm_start and partial_fit go on from {name}_ of shape {fitted}, but the "
                    f"parameters now ask for {shape}."
                )
        return self._model()

    def _start(self, sequences: Sequences, random_state, way: str) -> HMM:
        n_states = int(self.n_components)  # a small NumPy integer would overflow
        stationary = self.initial_state == "stationary"
        transmat = None
        if self.transmat_init is not None:
            transmat = check_probabilities(
                self.transmat_init, "transmat_init", (n_states, n_states)
            )
        if way == "kmeans" and transmat is not None and is_left_right(transmat):
            way = "segments"
        labels = self._start_labels(sequences, random_state, way)
        placed = labels is not None and self._given_places() is not None and way == "random"
        if transmat is None and (labels is None or placed):
            transmat = random_transmat(n_states, random_state)
        elif transmat is None:
            transmat = transmat_of_labels(labels, sequences.offsets, n_states)
        if stationary:
            startprob = stationary_distribution(transmat)
        elif self.startprob_init is not None:
            startprob = check_probabilities(self.startprob_init, "startprob_init", (n_states,))
        else:
            startprob = np.full(n_states, 1.0 / n_states)
        emission = self._init_emission(sequences, labels, random_state)
        return HMM(startprob, transmat, emission, stationary)

    def _start_labels(
        self, sequences: Sequences, random_state, way: str
    ) -> np.ndarray | None:
        """A rough state for each row, known ones as they are; None where none is needed."""
        if _all_known(sequences):
            return sequences.aligned[0]
        rows = None if self._all_given() else self._rows_to_cluster(sequences)
        if rows is None:
            return None
        n_states = int(self.n_components)
        places = self._given_places()
        if places is not None:
            labels = nearest_labels(rows, places)
            if not sequences.aligned:
                return labels
            return np.where(sequences.aligned[0] >= 0, sequences.aligned[0], labels)
        if way == "segments":
            labels = segment_labels(sequences.offsets, n_states)
        else:
            labels = label_rows(rows, n_states, random_state, way=way)
        if sequences.aligned:
            return with_known_labels(labels, sequences.aligned[0], n_states)
        return labels

    @classmethod
    def _from_chain(cls, startprob, transmat, params: dict):
        """An estimator with a validated chain; the family adds its emission."""
        n_states = as_array(startprob, "startprob").size
        estimator = cls(n_components=n_states, **params)
        estimator._check_parameters()
        estimator.startprob_ = check_probabilities(startprob, "startprob", (n_states,))
        estimator.transmat_ = check_probabilities(transmat, "transmat", (n_states, n_states))
        estimator.final_stateprob_ = None
        return estimator

    # ---- inference

    def predict(self, X, *, groups=None, lengths=None):
        """Most probable state of each step.

        ``algorithm="viterbi"``: the most probable path as a whole; ``"map"``: the most probable
        state of each step by itself.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups : array-like of shape (n_steps,), default=None
            A new sequence starts where it changes.
        lengths : array-like of int, default=None
            The number of steps of each sequence.

        Returns
        -------
        ndarray of int of shape (n_steps,), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where no path is possible.
        """
        return self.decode(X, groups=groups, lengths=lengths)[1]

    def decode(self, X, n_paths: int = 1, *, groups=None, lengths=None):
        """Most probable path, or paths, and the joint log-probability with X.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_paths : int, default=1
            How many paths of each sequence, all different, best first; more than one needs
            ``algorithm="viterbi"``.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        log_probability : float, or ndarray of shape (n_paths,) or (n_sequences, n_paths)
            log p(path, X) in nats.  One path: added over sequences; for ``algorithm="map"`` that of
            the path of the most probable states, which may be -inf.  Several paths: of each one,
            sequence by sequence, since each sequence has a list of its own; a flat X without
            boundaries has one row, given as ``(n_paths,)``.
        states : ndarray of int
            One path: of shape (n_steps,), stacked or object array as X was.  Several: (n_paths,
            n_steps), where row r holds the path of rank r of every sequence; for a collection
            (n_sequences, n_paths, n_steps) or an object array of ``(n_paths, n_steps_i)``.

        Raises
        ------
        ValueError
            Names the sequence and the step where no path is possible, or the sequence that has
            fewer than `n_paths` possible paths.

        References
        ----------
        Rabiner (1989), eqs. 30-35; for several paths N. Seshadri & C.-E. W. Sundberg (1994), "List
        Viterbi decoding algorithms with applications", IEEE Trans. Communications 42.
        """
        if np.ndim(n_paths):
            raise ValueError(
                f"n_paths must be a positive integer, got {n_paths!r}. If these are the lengths of "
                "sequences, pass them as lengths=."
            )
        n_paths = check_positive(n_paths, "n_paths")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        if n_paths > 1:
            return self._decode_list(model, sequences, n_paths)
        if self.algorithm == "map":
            states = self._posteriors(model, sequences).argmax(axis=1)
            total = model.path_log_probability(*sequences[:2], states)
        else:
            states, totals = self._run(model, "viterbi", sequences)
            total = float(totals.sum())
            if np.isneginf(total):
                raise ValueError(f"No path: {model.why_impossible(sequences)}")
        return total, sequences.like_input(states)

    def _decode_list(self, model: HMM, sequences: Sequences, n_paths: int):
        if self.algorithm != "viterbi":
            raise ValueError(
                f"n_paths={n_paths} needs algorithm='viterbi': the most probable states of the "
                "single steps make one path only."
            )
        states, totals = self._run(model, "best_paths", sequences, n_paths=n_paths)
        possible = np.isfinite(totals).sum(axis=1)
        if not possible.all():
            raise ValueError(f"No path: {model.why_impossible(sequences)}")
        if np.any(possible < n_paths):
            i = int(np.argmax(possible < n_paths))
            raise ValueError(
                f"n_paths={n_paths} is more than the model allows: sequence {i} has {possible[i]} "
                "possible paths."
            )
        single = sequences.form == "flat" and sequences.n_sequences == 1
        states = sequences.like_input(np.ascontiguousarray(states.T), axis=1)
        return totals[0] if single else totals, states

    def predict_proba(self, X, *, groups=None, lengths=None):
        """Smoothed state probabilities P(s_t = k | x_1..x_n).

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        Rabiner (1989), eq. 27.
        """
        sequences = self._check_X(X, groups, lengths)
        posteriors = self._posteriors(self._model_for(sequences), sequences)
        return sequences.like_input(posteriors)

    def transform(self, X, *, groups=None, lengths=None):
        """Smoothed state probabilities, so that an HMM is a feature step of a Pipeline.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was
            The same as ``predict_proba``.
        """
        sequences = self._check_X(X, groups, lengths)
        if sequences.form != "flat":
            refuse_frame_output(self)
        posteriors = self._posteriors(self._model_for(sequences), sequences)
        return sequences.like_input(posteriors)

    def filter(self, X, *, groups=None, lengths=None):
        """Filtered state probabilities P(s_t = k | x_1..x_t), which do not look ahead.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of shape (n_steps, n_components), stacked or object array as X was

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        filtered, log_increments = self._run(model, "filter", sequences)
        if np.isneginf(log_increments).any():
            raise ValueError(f"No filter: {model.why_impossible(sequences)}")
        return sequences.like_input(filtered)

    def filter_update(self, state_probabilities, x) -> np.ndarray:
        """One step of ``filter``, for data that come in one row at a time.

        Parameters
        ----------
        state_probabilities : array-like of shape (n_components,) or None
            P(s_{t-1} = k | x_1..x_{t-1}), what the last call returned; None at the start of a
            sequence.
        x : array-like of shape (n_features,) or (1, n_features)
            The new row; NaN is a missing entry.

        Returns
        -------
        ndarray of shape (n_components,)
            P(s_t = k | x_1..x_t).

        Raises
        ------
        ValueError
            If the model gives `x` probability zero.

        Examples
        --------
        >>> from sklseq import PoissonHMM
        >>> hmm = PoissonHMM.from_parameters(
        ...     startprob=[0.5, 0.5], transmat=[[0.9, 0.1], [0.2, 0.8]], rates=[[1.0], [5.0]]
        ... )
        >>> state = None
        >>> for x in ([0], [1], [6]):
        ...     state = hmm.filter_update(state, x)
        >>> state.round(3)
        array([0.028, 0.972])
        """
        sequences = self._check_row(x)
        model = self._model_for(sequences)
        if state_probabilities is not None:
            given = check_probabilities(
                state_probabilities, "state_probabilities", (model.n_components,)
            )
            model = replace(model, startprob=given @ model.transmat)
        filtered, log_increments = model.filter(*sequences[:2])
        if np.isneginf(log_increments[0]):
            raise ValueError(f"No filter: {model.why_impossible(sequences)}")
        return filtered[0]

    def forward_backward(self, X, *, groups=None, lengths=None) -> Messages:
        """The messages of the forward-backward algorithm.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Messages
            Named tuple (filtered, log_backward, posteriors, transition_counts, log_likelihood);
            the first three aligned with the steps in the form of X.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        Rabiner (1989), sec. III; log_backward is the log of his beta (eq. 25).
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        with limit_threads(sequences.n_steps):
            messages = model.messages(*sequences[:2])
        if np.isneginf(messages.log_likelihood).any():
            raise ValueError(f"No messages: {model.why_impossible(sequences)}")
        return Messages(
            *(sequences.like_input(values) for values in messages[:3]), *messages[3:]
        )

    def forecast(self, X, n_steps: int = 1, quantiles=None, *, groups=None, lengths=None):
        """What comes after the end of each sequence.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_steps : int, default=1
            How many steps ahead.
        quantiles : array-like of float in (0, 1), default=None
            Probabilities of the quantiles to give of each column, such as ``(0.05, 0.5, 0.95)``; of
            the mixture over states, not of the most probable one.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        Forecast
            Named tuple of arrays ``(n_steps, ...)``, or ``(n_sequences, n_steps, ...)`` for several
            sequences: what the family says of future observations (`means` and `covariances` of
            the Gaussian families, `means` of ``PoissonHMM``, `probabilities` of ``CategoricalHMM``
            and ``MultinomialHMM``), `quantiles` (n_steps, n_quantiles, n_features) if asked for,
            then `state_probabilities`.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.
        """
        n_steps = check_positive(n_steps, "n_steps")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        totals, final = self._run(model, "log_likelihoods", sequences)
        if np.isneginf(totals).any():
            raise ValueError(f"No forecast: {model.why_impossible(sequences)}")
        ahead = model.ahead(final, n_steps)
        mixtures = ahead.reshape(-1, model.n_components)
        observed = model.emission.expect(mixtures)
        if quantiles is not None:
            probabilities = check_quantiles(quantiles)
            observed["quantiles"] = model.emission.quantiles(mixtures, probabilities)
        fields = {name: values.reshape(ahead.shape[:2] + values.shape[1:])
                  for name, values in observed.items()}  # fmt: skip
        fields["state_probabilities"] = ahead
        single = sequences.form == "flat" and sequences.n_sequences == 1
        if single:
            fields = {name: values[0] for name, values in fields.items()}
        return _record("Forecast", **fields)

    def sample(
        self, n_samples: int = 1, *, n_sequences: int | None = None, random_state=None,
        after=None, start_state: int | None = None,
    ):  # fmt: skip
        """Draw from the model, from its start or conditioned on what came before.

        Parameters
        ----------
        n_samples : int, default=1
            The number of steps of a sequence.
        n_sequences : int, default=None
            How many sequences; None draws one, not in a list.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.
        after : array-like of shape (n_observed, n_features), default=None
            One observed sequence: the draws go on from its end, as ``forecast`` does, and do not
            repeat it.
        start_state : int, default=None
            The hidden state of the first step that is drawn.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), or list of such
        states : ndarray of int of shape (n_samples,), or list of such

        Raises
        ------
        ValueError
            If the model gives `after` probability zero, if it is several sequences, for a
            `start_state` that is none of the states, and for both at once.
        """
        check_is_fitted(self)
        n_samples = check_positive(n_samples, "n_samples")
        model = self._model_to_sample(after, start_state)
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        if n_sequences is None:
            return model.sample(n_samples, random_state)
        n_sequences = check_positive(n_sequences, "n_sequences")
        draws = [model.sample(n_samples, random_state) for _ in range(n_sequences)]
        return [X for X, _ in draws], [states for _, states in draws]

    def _model_to_sample(self, after, start_state) -> HMM:
        """The model, its start where the draws begin."""
        if after is not None and start_state is not None:
            raise ValueError("after and start_state both say where the draws begin: pass one.")
        if start_state is not None:
            if not isinstance(start_state, Integral) or not 0 <= start_state < self.n_components:
                raise ValueError(
                    f"start_state must be an integer from 0 to {self.n_components - 1}, got "
                    f"{start_state!r}."
                )
            return replace(self._model(), startprob=np.eye(self.n_components)[int(start_state)])
        if after is None:
            return self._model()
        sequences = self._check_X(after)
        if sequences.n_sequences != 1:
            raise ValueError(
                f"after must be one sequence, got {sequences.n_sequences}: draw after each of them "
                "by itself."
            )
        model = self._model_for(sequences)
        totals, final = model.log_likelihoods(*sequences[:2])
        if np.isneginf(totals).any():
            raise ValueError(f"Nothing can come after: {model.why_impossible(sequences)}")
        return replace(model, startprob=final[0] @ model.transmat)

    def sample_posterior(
        self, X, n_draws: int = 1, random_state=None, *, groups=None, lengths=None
    ):
        """Draw hidden paths given X, by forward filtering and backward sampling.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        n_draws : int, default=1
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's.
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        ndarray of int of shape (n_draws, n_steps)
            For a collection, stacked (n_sequences, n_draws, n_steps) or an object array of
            ``(n_draws, n_steps_i)`` as X was.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        S. Fruehwirth-Schnatter (2006), Finite Mixture and Markov Switching Models, algorithm 11.5.
        """
        n_draws = check_positive(n_draws, "n_draws")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        random_state = check_random_state(
            self.random_state if random_state is None else random_state
        )
        if np.isneginf(self._sequence_scores(sequences)).any():
            raise ValueError(f"No path: {model.why_impossible(sequences)}")
        uniforms = random_state.uniform(size=(n_draws, sequences.n_steps))
        states = model.sample_posterior(*sequences[:2], uniforms)
        return sequences.like_input(states, axis=1)

    # ---- the fit and its states

    def standard_errors(self, X, *, groups=None, lengths=None):
        """Standard errors of the parameters, from the observed information.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
            The training data.
        groups, lengths : array-like, default=None
            As in ``fit``.

        Returns
        -------
        StandardErrors
            Named tuple with an array for each fitted parameter, in its shape and under its name
            without the underscore.  0 for what is fixed: held entries and structural zeros (here an
            estimate of 0 counts as such).  NaN at the edge of what is possible: probabilities below
            1e-6, a row that has no other left, covariances on the floor of `reg_covar` and what
            they say of the means.

        Raises
        ------
        ValueError
            If X is impossible (names the sequence and the step), or if the observed information is
            not positive definite: the parameters are not at a maximum of the likelihood, or X does
            not identify them.

        Warns
        -----
        ConvergenceWarning
            The likelihood of X has its maximum elsewhere (a smaller ``tol`` is needed, a prior has
            moved it, or X is not the training data), or probabilities are at the edge.

        Notes
        -----
        The score of the likelihood is exact: by Fisher's identity it is the derivative of the
        E-step's expected log-likelihood (Fisher 1925; Louis 1982).  The information is its central
        difference in the parameters themselves, where the largest entry of a row of probabilities
        is one minus the others; errors of such functions, and of a stationary start, are by the
        delta method.  A prior is left out.

        References
        ----------
        T. A. Louis (1982), "Finding the observed information matrix when using the EM algorithm",
        JRSS B 44.  Zucchini, MacDonald & Langrock (2016), sec. 3.6.
        """
        sequences = self._check_X(X, groups, lengths)
        model = self._learning_model(sequences)
        if np.isneginf(self._run(model, "log_likelihoods", sequences)[0]).any():
            raise ValueError(f"No standard errors: {model.why_impossible(sequences)}")
        with limit_threads(sequences.n_steps):
            errors = standard_errors(model, sequences, self.n_jobs)
        return _record("StandardErrors", **errors)

    def pseudo_residuals(self, X, kind: str = "forecast", *, groups=None, lengths=None):
        """Normal pseudo-residuals, for checking a fit: standard normal if the model is right.

        The residual of x is the standard normal quantile of its probability level
        P(X_td <= x | other observations), column by column.

        Parameters
        ----------
        X : array-like of shape (n_steps, n_features), or a collection of such
        kind : {"forecast", "ordinary"}, default="forecast"
            Given the steps before (these are independent if the model is right), or given all
            other steps of the sequence (which find outliers).
        groups, lengths : array-like, default=None
            As in ``predict``.

        Returns
        -------
        PseudoResiduals
            Named tuple (residuals, lower, upper), each (n_steps, n_features) in the form of X and
            NaN where X is missing.  For discrete families the probability level is an interval:
            `lower` and `upper` belong to its ends, `residuals` to its middle; a histogram or a
            quantile plot takes `residuals`.  For continuous families all three are equal.

        Raises
        ------
        ValueError
            Names the sequence and the step where the model gives probability zero.

        References
        ----------
        Zucchini, MacDonald & Langrock (2016), sec. 6.2.
        """
        if not isinstance(kind, str) or kind not in ("forecast", "ordinary"):
            raise ValueError(f"kind must be 'forecast' or 'ordinary', got {kind!r}.")
        sequences = self._check_X(X, groups, lengths)
        model = self._model_for(sequences)
        with limit_threads(sequences.n_steps):
            residuals = pseudo_residuals(model, sequences, ordinary=kind == "ordinary")
        return PseudoResiduals(*(sequences.like_input(values) for values in residuals))

    @property
    def stationary_distribution_(self) -> np.ndarray:
        """The distribution over states that `transmat_` keeps, (n_components,).

        UndefinedError (a ValueError and an AttributeError) where it is not unique.
        """
        check_is_fitted(self)
        try:
            return stationary_distribution(self.transmat_)
        except ValueError as error:
            raise UndefinedError(f"stationary_distribution_ is not defined: {error}") from None

    @property
    def expected_dwell_times_(self) -> np.ndarray:
        """Expected number of steps of a visit to each state, 1 / (1 - transmat_[k, k]);
        inf for a state that is never left."""
        check_is_fitted(self)
        with np.errstate(divide="ignore"):
            return 1.0 / (1.0 - np.diag(self.transmat_))

    def sort_states(self, by="mean"):
        """Renumber the states, in place: their order after a fit is arbitrary.

        Parameters
        ----------
        by : {"mean", "occupancy"} or array-like of int, default="mean"
            Ascending mean observation (of the first column; the next ones decide ties), descending
            stationary probability, or the old numbers of the states in their new order.

        Returns
        -------
        self
            Every fitted parameter is renumbered; constructor parameters are not.

        Raises
        ------
        ValueError
            ``by="mean"`` for a family without means; single entries that are `fixed`.
        """
        check_is_fitted(self)
        model = self._model()
        if not isinstance(by, str):
            order = as_array(by, "by")
            n_states = model.n_components
            integers = order.dtype.kind in "iu" and order.shape == (n_states,)
            if not integers or not np.array_equal(np.sort(order), np.arange(n_states)):
                raise ValueError(
                    f"by must hold each of the states 0 to {model.n_components - 1} once, got "
                    f"{by!r}."
                )
        elif by == "mean":
            means = model.emission.expect(np.eye(model.n_components)).get("means")
            if means is None:
                raise ValueError(
                    f"The states of {type(self).__name__} have no mean: by='occupancy' or an array "
                    "of state numbers can sort them."
                )
            order = np.lexsort(means.T[::-1])
        elif by == "occupancy":
            order = np.argsort(-self.stationary_distribution_, kind="stable")
        else:
            raise ValueError(f"by must be 'mean', 'occupancy' or an array, got {by!r}.")
        return self._reorder(model, order)

    def align_states(self, other):
        """Renumber the states, in place, so that they are those of another model of the same kind.

        The matching of least total Bhattacharyya distance between the states' emissions; parameters
        of two fits can then be compared.

        Parameters
        ----------
        other : estimator
            Fitted, of the same class, with as many states and features.

        Returns
        -------
        self
            Every fitted parameter is renumbered; constructor parameters are not.

        Raises
        ------
        ValueError
            If the two models do not match, or if single entries are `fixed`.

        References
        ----------
        T. Kailath (1967), "The divergence and Bhattacharyya distance measures in signal selection",
        IEEE Trans. Communication Technology 15.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        model, target = self._model(), other._model()
        if type(other) is not type(self):
            raise ValueError(
                f"other must be a {type(self).__name__} as well, got {type(other).__name__}."
            )
        mine, others = (_emission_sizes(one.emission) for one in (model, target))
        if mine != others:
            raise ValueError(
                "other must have as many states, features and categories: its parameters have "
                f"sizes {others}, those of this model {mine}."
            )
        _, order = linear_sum_assignment(target.emission.distances(model.emission))
        return self._reorder(model, order)

    def _reorder(self, model: HMM, order):
        if isinstance(self.fixed, Mapping) and self.fixed:
            raise ValueError(
                "States cannot be renumbered where fixed holds masks: they refer to their numbers."
            )
        support = _with_tables(model, self._support_of(model)).reordered(order)
        self._set_fitted(model.reordered(order))
        self._support = _supports(support)
        if getattr(self, "final_stateprob_", None) is not None:
            self.final_stateprob_ = self.final_stateprob_[order]
        stream = getattr(self, "_stream", None)
        if stream is not None:
            self._stream = stream._replace(
                model=stream.model.reordered(order),
                statistics=stream.model.reordered_statistics(stream.statistics, order),
                end=self.final_stateprob_,
            )
        return self

    # ---- shared by the methods

    def _run(self, model: HMM, method: str, sequences: Sequences, **options) -> list[np.ndarray]:
        function = partial(getattr(model, method), **options)
        # with a source the kernels do it all, but for factors of matrices
        spared = model.shard_steps and sequences.X.shape[1] <= SMALL_MATRIX
        with nullcontext() if spared else limit_threads(sequences.n_steps):
            return map_rows(function, sequences, self.n_jobs, model.shard_steps)

    def _limit_threads(self, sequences: Sequences):
        return nullcontext()  # `_run` does it

    def _posteriors(self, model: HMM, sequences: Sequences) -> np.ndarray:
        posteriors, _, totals = self._run(model, "posteriors", sequences)
        if np.isneginf(totals).any():
            raise ValueError(f"No state probabilities: {model.why_impossible(sequences)}")
        return posteriors

    def _step_scores(self, sequences: Sequences) -> np.ndarray:
        return self._run(self._model_for(sequences), "filter", sequences)[1]

    def _sequence_scores(self, sequences: Sequences) -> np.ndarray:
        return self._run(self._model_for(sequences), "log_likelihoods", sequences)[0]

    def _learning_model(self, sequences: Sequences | None = None) -> HMM:
        """The fitted model that knows which of its entries are held, and what X puts under them."""
        model = self._model()
        held = check_fixed(self, self._shapes())
        learning = {"held": held} if sequences is None else self._learning(sequences, held)
        return replace(model, emission=replace(model.emission, **learning), held=held)

    def _support_of(self, model: HMM) -> list[np.ndarray]:
        """Which probabilities of each table can differ from 0; the others are 0 by structure.

        A fit that goes on keeps what it knows: the zeros that it has come to are estimates.
        """
        support, before = _supports(model), getattr(self, "_support", None)
        if before is None or [one.shape for one in before] != [one.shape for one in support]:
            return support
        return [now | then for now, then in zip(support, before)]

    def _n_free_parameters(self) -> int:
        model = self._learning_model()
        return _with_tables(model, self._support_of(model)).n_free_parameters()


def warn_fractions(X, name: str) -> None:
    """Counts that are none: the formulas take them, but they have no such distribution."""
    parts = X - np.floor(X)
    if not np.fmax.reduce(parts, axis=None, initial=0.0) > 0.0:
        return
    row, column = np.argwhere(parts > 0)[0]
    warn(
        f"{name} is for counts, which are whole numbers: X has {X[row, column]:g} at row {row}, "
        f"column {column}. Means, rates and proportions have other distributions.",
        stacklevel=6,
    )


def _warn_floor(model: HMM) -> None:
    """A covariance that only the floor keeps from collapsing is not the data's."""
    states = np.flatnonzero(model.emission.on_floor())
    if len(states):
        warn(
            f"The covariance of state {', '.join(map(str, states))} of {model.emission.family} "
            f"stands on the floor of reg_covar={model.emission.floor.reg_covar:g}: its rows are "
            "(nearly) equal, or linear functions of each other, in some column. A smaller "
            "reg_covar lets it be smaller; fewer states, or a prior, keep it away from there.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _warn_tied(model: HMM) -> None:
    """States that nothing parted in the best of the starts stay alike in a fit of any length."""
    for states in tied_states(model, free_chain=False):
        warn(
            f"States {', '.join(map(str, states))} of {model.emission.family} start alike and stay "
            "so: what could part them is fixed, or X has too few different rows for them. Fewer "
            "states, or other *_init.",
            ConvergenceWarning,
            stacklevel=5,
        )


def _supports(model: HMM) -> list[np.ndarray]:
    """Where each table of probabilities is not 0: start, moves, then the emission's."""
    tables = [one.values for one in model.emission.parameters() if one.kind == "rows"]
    return [table > 0 for table in (model.startprob, model.transmat, *tables)]


def _with_tables(model: HMM, tables: list[np.ndarray]) -> HMM:
    """The model with 0 and 1 in its tables of probabilities, for counting what is free."""
    startprob, transmat, *others = (table.astype(float) for table in tables)
    values = [others.pop(0) if one.kind == "rows" else one.values
              for one in model.emission.parameters()]  # fmt: skip
    emission = model.emission.with_values(values)
    return replace(model, startprob=startprob, transmat=transmat, emission=emission)


def _all_known(sequences: Sequences) -> bool:
    """Whether the hidden state of every step is given."""
    return bool(sequences.aligned) and bool(np.all(sequences.aligned[0] >= 0))


def _emission_sizes(emission: Emission) -> list[tuple]:
    """Shapes of means, rates or tables; covariance types may differ."""
    return [one.values.shape for one in emission.parameters() if one.name != "covars"]


def _nothing_hidden(sequences: Sequences, model: HMM) -> bool:
    """Whether one M-step is the whole fit."""
    return _all_known(sequences) and not model.emission.has_hidden(sequences.X)


def _record(name: str, **fields):
    """A named tuple; its fields depend on the family."""
    return _record_type(name, tuple(fields))(*fields.values())


@lru_cache
def _record_type(name: str, fields: tuple[str, ...]):
    """Pickles by its fields: a module has no class of this name."""
    pickled = {"__slots__": (), "__reduce__": lambda self: (_unpickle, (name, self._asdict()))}
    return type(name, (namedtuple(name, fields),), pickled)


def _unpickle(name: str, fields: dict):
    return _record(name, **fields)
